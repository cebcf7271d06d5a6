//! How a session is renewed: the user's hook, and the one flight that calls it for everybody.

pub(crate) mod attempt;
pub(crate) mod policy;
mod refresh_fn;
pub(crate) mod single_flight;

pub(crate) use refresh_fn::SharedRefreshFn;
pub use refresh_fn::{FromService, RefreshContext, RefreshFn, from_service};
