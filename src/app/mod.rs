//! The app that acts for its users, and how it authenticates itself.

#[expect(
    clippy::module_inception,
    reason = "the room is named after its main type"
)]
mod app;
#[cfg(feature = "jwt")]
pub(crate) mod assertion;
mod client_authentication;
#[cfg(feature = "dpop")]
mod dpop;
#[cfg(not(feature = "dpop"))]
#[path = "no_dpop.rs"]
mod dpop;
#[cfg(feature = "jwt")]
mod private_key;

pub(crate) use self::client_authentication::RequestCredentials;
#[cfg(feature = "dpop")]
pub use self::dpop::Dpop;
#[cfg(not(feature = "dpop"))]
pub(crate) use self::dpop::Dpop;
#[cfg(feature = "jwt")]
pub use self::private_key::PrivateKey;
pub use self::{app::App, client_authentication::ClientAuthentication};
