//! The token endpoint.

mod approved;
mod assertion;
mod client;
mod code;
mod device;
mod endpoint;
mod refresh;
mod refusal;
mod saml;
mod success;

pub(crate) use client::{Secret, authenticate};
pub(crate) use endpoint::answer;
pub(crate) use refusal::Refusal;
pub(crate) use success::{Flow, fields};
