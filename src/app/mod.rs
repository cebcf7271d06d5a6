//! The app that acts for its users, and how it authenticates itself.

#[expect(
    clippy::module_inception,
    reason = "the room is named after its main type"
)]
mod app;
#[cfg(feature = "jwt")]
pub(crate) mod assertion;
mod client_authentication;
#[cfg(feature = "jwt")]
pub(crate) mod clock;
#[cfg(feature = "jwt")]
mod private_key;
pub(crate) mod random;

#[cfg(feature = "jwt")]
pub use self::private_key::PrivateKey;
pub use self::{app::App, client_authentication::ClientAuthentication};
