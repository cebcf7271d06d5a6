//! The SOAP API's own way to log in and out, as functions of bytes (SOAP API Developer Guide, `login()`, `logout()`).

mod envelope;
mod fault;
mod login;
mod logout;

pub(crate) use self::{login::Login, logout::logout};
