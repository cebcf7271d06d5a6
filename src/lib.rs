//! A tower layer that keeps every Salesforce request authenticated.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(clippy::unwrap_used, clippy::expect_used)]

mod body;
#[cfg(feature = "emulator")]
pub mod emulator;
mod endpoint;
mod error;
mod exchange;
pub mod flow;
mod future;
mod handle;
mod layer;
mod oauth;
mod opt_out;
mod outcome;
mod redirect;
mod refresh;
mod request;
mod secret;
mod service;
mod session;
mod transport;

pub use self::{
    body::{ReplayBody, ResponseBody},
    endpoint::{InstanceUrl, LoginUrl},
    error::{BoxError, Error, ErrorKind, RefreshError, RefreshErrorKind},
    future::ResponseFuture,
    handle::{SessionHandle, SessionState},
    layer::SalesforceAuthLayer,
    opt_out::{NoRefresh, NoReplay, SkipAuth},
    outcome::{AuthOutcome, ReplaySkipped},
    refresh::{FromService, RefreshContext, RefreshFn, RefreshReason, from_service},
    secret::Secret,
    service::SalesforceAuth,
    session::{Generation, LiveSession, Session},
};
