//! The ways to obtain a session: each is a [`RefreshFn`](crate::RefreshFn) that the layer can be made with.
//!
//! | flow | needs | good for |
//! |---|---|---|
//! | [`JwtBearer`] | an app with a certificate, a pre-authorized user | server to server, as a user |
//! | [`ClientCredentials`] | an app with a Run As user, on My Domain | server to server, without a user |
//! | [`AuthorizationCode`] | a browser, and a user in front of it | acting for many users of a web application |
//! | [`RefreshToken`] | a refresh token from a user's authorization | going on where one of the others began |
//! | [`DeviceFlow`] | a user with a browser on another device | programs without one |
//! | [`TokenExchange`] | a token of another identity provider | users who are logged in elsewhere |
//! | [`SamlBearer`] | a signed SAML assertion | the same, with SAML |
//! | [`UsernamePassword`] | an app, a user's password | nothing new: blocked by default |
//! | [`SoapLogin`] | a user's password | nothing new: retired in Summer '27 |
//! | [`ExtensionGrant`] | whatever the grant asks for | what is not in this list |
//!
//! # One call for each refresh
//!
//! A flow holds what it needs to log in, and nothing that changes: the newest refresh token is the layer's to keep. It
//! sends its own requests with an [`HttpClient`], one for each time that it is called, and never repeats one by itself,
//! since a request that got lost may have used up what it carried.
//!
//! # Errors
//!
//! All of them are [`RefreshError`](crate::RefreshError)s. They name the host and the grant, and hold the server's code and
//! description, without the secrets that it may repeat, and what to do about the well-known ones. They are terminal if
//! trying again cannot help. The layer calls no flow again after a terminal failure, so that a wrong password does not
//! lock a user out, until [`SessionHandle::reset`](crate::SessionHandle::reset) or a new session.

mod authorization_code;
mod client_credentials;
mod device;
mod extension_grant;
mod jwt_bearer;
mod refresh_token;
mod saml_bearer;
mod soap_login;
mod token_exchange;
mod username_password;

pub use self::{
    authorization_code::AuthorizationCode,
    client_credentials::ClientCredentials,
    device::{DeviceCode, DeviceFlow},
    extension_grant::ExtensionGrant,
    jwt_bearer::JwtBearer,
    refresh_token::RefreshToken,
    saml_bearer::SamlBearer,
    soap_login::SoapLogin,
    token_exchange::{SubjectTokenType, TokenExchange},
    username_password::UsernamePassword,
};

pub use crate::http::transport::HttpClient;
