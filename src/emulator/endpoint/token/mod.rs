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

pub(crate) use client::{SecretRule, authenticate};
pub(crate) use endpoint::answer;
pub(crate) use refusal::TokenRefusal;
pub(crate) use success::{GrantKind, fields};
