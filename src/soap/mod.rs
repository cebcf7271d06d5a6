//! The SOAP API calls `login()` and `logout()`, and the `SessionHeader` of any call (SOAP API Developer Guide).

mod envelope;
mod fault;
mod login;
mod logout;
pub(crate) mod session_header;

pub(crate) use self::{login::Login, logout::logout};
