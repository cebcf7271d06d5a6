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

pub(super) use client::{Secret, authenticate};
pub(super) use endpoint::answer;
pub(super) use refusal::Refusal;
pub(super) use success::{Flow, fields};
