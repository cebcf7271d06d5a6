//! Salesforce's OAuth 2.0: each message as a type, and each call as a function.
//!
//! The [flows](crate::flow) are built on these items. Use them directly to make a single call: a function sends one
//! request with an [`HttpClient`](crate::flow::HttpClient) and returns the parsed response.
//!
//! | call | function |
//! |---|---|
//! | send a user to log in and consent | [`AuthorizationUrl`], [`Callback`] |
//! | exchange a refresh token (RFC 6749 §6) | [`refresh_token`] |
//! | exchange any other grant (RFC 6749 §4.5) | [`flow::ExtensionGrant`](crate::flow::ExtensionGrant) |
//! | revoke a token (RFC 7009) | [`revoke`] |
//! | describe a token (RFC 7662) | [`introspect`] |
//! | describe the user | [`identity`], [`userinfo`] |
//! | find the endpoints (OpenID Connect Discovery 1.0) | [`discover`] |
//! | check a signature | [`verify_signature`] |
//!
//! Every error is a [`RefreshError`](crate::RefreshError). It says whether another attempt can help, and contains no
//! secret.

mod authorize;
mod callback;
mod discovery;
mod error_response;
mod identity;
mod introspection;
#[cfg(feature = "encryption")]
mod login_cookie;
mod pkce;
mod revocation;
mod sfdx_auth_url;
mod signature;
mod token;

#[cfg(feature = "encryption")]
#[cfg_attr(docsrs, doc(cfg(feature = "encryption")))]
pub use self::login_cookie::LoginCookie;
pub use self::{
    authorize::{
        AuthorizationRequest, AuthorizationUrl, PageDisplay, PendingAuthorization, Prompt,
    },
    callback::Callback,
    discovery::{Discovery, discover},
    identity::{Identity, UserInfo, identity, userinfo},
    introspection::{Introspection, introspect},
    pkce::Pkce,
    revocation::revoke,
    sfdx_auth_url::SfdxAuthUrl,
    signature::verify_signature,
    token::{TokenResponse, refresh_token},
};
#[cfg(feature = "jwt")]
#[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
pub use crate::app::PrivateKey;
#[cfg(feature = "dpop")]
#[cfg_attr(docsrs, doc(cfg(feature = "dpop")))]
pub use crate::{app::Dpop, session::dpop_key::DpopKey};

pub(crate) use self::token::{TokenRequest, refresh_grant};
pub use crate::app::{App, ClientAuthentication};
