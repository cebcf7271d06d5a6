//! The SOAP API's own way to log in and out, and to carry a session, as functions of bytes (SOAP API Developer Guide,
//! `login()`, `logout()`, `SessionHeader`).

mod envelope;
mod fault;
mod login;
mod logout;
pub(crate) mod session_header;

pub(crate) use self::{login::Login, logout::logout};
