//! The authorization endpoint (RFC 6749 §4.1.1 and §4.2.1).

mod endpoint;
mod error_page;
mod request;

pub(super) use endpoint::answer;
pub use error_page::ErrorPage;
pub(super) use request::AuthorizationRequest;
