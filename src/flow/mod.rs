//! The ways to obtain a session. Each flow is a [`RefreshFn`](crate::RefreshFn) that a layer can use.
//!
//! | flow | needs | use it for |
//! |---|---|---|
//! | [`JwtBearer`] | an app with a certificate, a pre-authorized user | server to server, as a user |
//! | [`ClientCredentials`] | an app with a Run As user, on My Domain | server to server, without a user |
//! | [`AuthorizationCode`] | a user with a browser | acting for many users of a web application |
//! | [`RefreshToken`] | a refresh token from a user's authorization | continuing after another flow |
//! | [`DeviceAuthorization`] | a user with a browser on another device | programs without a browser |
//! | [`TokenExchange`] | a token of another identity provider | users who are logged in elsewhere |
//! | [`SamlBearer`] | a signed SAML assertion | users who are logged in elsewhere, with SAML |
//! | [`UsernamePassword`] | an app, a user's password | no new program: blocked by default |
//! | [`SoapLogin`] | a user's password | no new program: retired in Summer '27 |
//! | [`ExtensionGrant`] | the parameters of the grant | grants that are not in this list |
//! | `SalesforceCli` (feature `cli`) | the Salesforce CLI, logged in | a developer's machine |
//! | [`Login`] | environment variables, or the CLI | examples and tests |
//!
//! # One call for each refresh
//!
//! A flow holds the credentials for a login, and no state: the layer keeps the newest refresh token. A flow sends its
//! requests with an [`HttpClient`], one request for each call. It never repeats a request by itself, because a lost
//! request may have used up its refresh token or code.
//!
//! # Errors
//!
//! Every error is a [`RefreshError`](crate::RefreshError). It names the host and the grant, and contains the server's
//! code and description without secrets. For common errors it also says what to do.
//!
//! An error is terminal if another attempt cannot help. After a terminal error, the layer does not call the flow again
//! until [`SessionHandle::reset`](crate::SessionHandle::reset) or a new session. A wrong password therefore does not
//! lock the user out.

mod authorization_code;
mod client_credentials;
mod device_authorization;
mod extension_grant;
mod jwt_bearer;
mod login;
mod refresh_token;
#[cfg(feature = "cli")]
mod salesforce_cli;
mod saml_bearer;
mod soap_login;
mod token_exchange;
mod username_password;

#[cfg(feature = "cli")]
#[cfg_attr(docsrs, doc(cfg(feature = "cli")))]
pub use self::salesforce_cli::SalesforceCli;
pub use self::{
    authorization_code::AuthorizationCode,
    client_credentials::ClientCredentials,
    device_authorization::{DeviceAuthorization, DeviceCode},
    extension_grant::ExtensionGrant,
    jwt_bearer::JwtBearer,
    login::Login,
    refresh_token::RefreshToken,
    saml_bearer::SamlBearer,
    soap_login::SoapLogin,
    token_exchange::{SubjectTokenType, TokenExchange},
    username_password::UsernamePassword,
};

pub use crate::http::transport::HttpClient;
