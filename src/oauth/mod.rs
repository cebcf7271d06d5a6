//! The OAuth 2.0 wire formats, as functions of bytes.

mod error_response;
mod token;

pub(crate) use token::GrantRequest;
