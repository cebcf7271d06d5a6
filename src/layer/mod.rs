//! The tower layer, its service, and the future of one response.
//!
//! [`SalesforceAuthLayer`](crate::SalesforceAuthLayer) and [`SalesforceAuth`](crate::SalesforceAuth) are at the root of the
//! crate.

pub(crate) mod future;
pub(crate) mod layer;
pub(crate) mod service;
mod slow_path;

pub use self::future::ResponseFuture;
pub use crate::{body::ResponseBody, report::outcome::OnRefreshFailure};
