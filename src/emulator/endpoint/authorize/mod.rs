//! The authorization endpoint (RFC 6749 §4.1.1 and §4.2.1).

mod endpoint;
mod error_page;
mod request;

pub(crate) use endpoint::answer;
pub use error_page::ErrorPage;
pub(crate) use request::ConsentRequest;
