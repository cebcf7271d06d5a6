//! OAuth 2.0 as Salesforce speaks it: its messages as types, and each of its calls as a function.
//!
//! The [flows](crate::flow) are built on these. They are here for whoever wants a call by hand: a function sends one
//! request with an [`HttpClient`](crate::flow::HttpClient), and returns what came of it.
//!
//! | call | function |
//! |---|---|
//! | send a user to log in and consent | [`AuthorizationUrl`], [`Callback`] |
//! | exchange a refresh token (RFC 6749 §6) | [`refresh_token`] |
//! | any other grant (RFC 6749 §4.5) | [`flow::ExtensionGrant`](crate::flow::ExtensionGrant) |
//! | end a token (RFC 7009) | [`revoke`] |
//! | ask what a token is good for (RFC 7662) | [`introspect`] |
//! | ask who the user is | [`identity`], [`userinfo`] |
//! | ask where the endpoints are (OpenID Connect Discovery 1.0) | [`discover`] |
//! | check a signature | [`verify_signature`] |
//!
//! Every error is a [`RefreshError`](crate::RefreshError): it says whether trying again can help, and holds no secret.

mod app;
#[cfg(feature = "jwt")]
pub(crate) mod assertion;
mod authorize;
mod callback;
mod client_authentication;
#[cfg(feature = "jwt")]
pub(crate) mod clock;
mod discovery;
mod error_response;
mod identity;
mod introspection;
mod pkce;
#[cfg(feature = "jwt")]
pub(crate) mod private_key;
mod revocation;
mod signature;
mod token;

#[cfg(feature = "jwt")]
#[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
pub use self::private_key::PrivateKey;
pub use self::{
    app::App,
    authorize::{
        AuthorizationRequest, AuthorizationUrl, PageDisplay, PendingAuthorization, Prompt,
    },
    callback::Callback,
    client_authentication::ClientAuthentication,
    discovery::{Discovery, discover},
    identity::{Identity, UserInfo, identity, userinfo},
    introspection::{Introspection, introspect},
    pkce::Pkce,
    revocation::revoke,
    signature::verify_signature,
    token::{TokenResponse, refresh_token},
};

pub(crate) use self::token::Grant;
