//! One session: its tokens and the key that they are bound to, its instance, its lifetime, and the header values made from it.

#[cfg(any(feature = "dpop", feature = "jwt"))]
pub(crate) mod clock;
#[cfg(feature = "dpop")]
pub(crate) mod dpop_key;
#[cfg(not(feature = "dpop"))]
#[path = "no_dpop_key.rs"]
pub(crate) mod dpop_key;
#[cfg(feature = "dpop")]
mod dpop_nonces;
#[cfg(feature = "dpop")]
mod dpop_proof;
pub(crate) mod grant_token;
pub(crate) mod header;
pub(crate) mod host;
pub(crate) mod jitter;
pub(crate) mod lifetime;
pub(crate) mod live;
pub(crate) mod random;
pub(crate) mod session;
pub(crate) mod url;
