//! How an app authenticates itself to the authorization server (RFC 6749 §2.3).

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::HeaderValue;
use zeroize::Zeroizing;

use crate::{
    error::{BoxError, RefreshError, RefreshErrorKind},
    secret::Secret,
    text::pasted::{self, Rule},
};
#[cfg(feature = "jwt")]
use {
    super::{
        assertion::{AssertionClaims, LIFETIME},
        private_key::PrivateKey,
    },
    crate::session::{clock::WallClock, random},
    http::Uri,
    std::time::SystemTime,
};

/// How an app authenticates itself (RFC 6749 §2.3; Salesforce Help, "OAuth 2.0 Web Server Flow for Web App
/// Integration").
///
/// ```
/// use tower_salesforce_auth::oauth::ClientAuthentication;
///
/// let basic = ClientAuthentication::secret_basic("1955…");
/// assert!(!format!("{basic:?}").contains("1955"));
/// ```
#[derive(Clone)]
pub struct ClientAuthentication(AuthenticationMethod);

#[derive(Clone)]
enum AuthenticationMethod {
    None,
    SecretPost(Secret),
    SecretBasic(Secret),
    #[cfg(feature = "jwt")]
    PrivateKeyJwt {
        key: PrivateKey,
        clock: WallClock,
    },
}

/// The parameters and the header that authenticate an app in one request.
#[derive(Default)]
pub(crate) struct RequestCredentials {
    pub(crate) parameters: Vec<(&'static str, Secret)>,
    pub(crate) authorization: Option<HeaderValue>,
    /// The values that must not appear in an error.
    pub(crate) secrets: Vec<Secret>,
}

impl ClientAuthentication {
    /// The app does not authenticate itself. It is a public client, and "Require Secret" is off for the flow.
    pub fn none() -> Self {
        Self(AuthenticationMethod::None)
    }

    /// The app sends its secret as a form parameter (`client_secret_post`).
    pub fn secret(client_secret: impl Into<Secret>) -> Self {
        Self(AuthenticationMethod::SecretPost(pasted::secret(
            client_secret,
        )))
    }

    /// The app sends its secret in an `Authorization: Basic` header (`client_secret_basic`, RFC 6749 §2.3.1).
    pub fn secret_basic(client_secret: impl Into<Secret>) -> Self {
        Self(AuthenticationMethod::SecretBasic(pasted::secret(
            client_secret,
        )))
    }

    /// The app signs a new assertion for each request (`private_key_jwt`, RFC 7523 §2.2). The app in Salesforce has the
    /// key's certificate.
    ///
    /// The assertion is valid for two minutes. Its audience is the token endpoint.
    #[cfg(feature = "jwt")]
    #[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
    pub fn private_key_jwt(key: PrivateKey) -> Self {
        Self(AuthenticationMethod::PrivateKeyJwt {
            key,
            clock: WallClock::system(),
        })
    }

    /// Replaces the system clock. Only [`private_key_jwt`](Self::private_key_jwt) reads it.
    #[cfg(feature = "jwt")]
    #[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
    #[must_use]
    pub fn clock(mut self, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        if let AuthenticationMethod::PrivateKeyJwt { clock, .. } = &mut self.0 {
            *clock = WallClock::new(now);
        }
        self
    }

    /// The client secret, which is also the key of identity signatures. `None` for an app without one.
    pub(crate) fn client_secret(&self) -> Option<&Secret> {
        match &self.0 {
            AuthenticationMethod::SecretPost(secret)
            | AuthenticationMethod::SecretBasic(secret) => Some(secret),
            AuthenticationMethod::None => None,
            #[cfg(feature = "jwt")]
            AuthenticationMethod::PrivateKeyJwt { .. } => None,
        }
    }

    /// The credentials of one request. `token_endpoint` is the audience of an assertion.
    #[cfg_attr(not(feature = "jwt"), expect(unused_variables))]
    pub(crate) fn credentials(
        &self,
        client_id: &str,
        token_endpoint: &http::Uri,
    ) -> Result<RequestCredentials, RefreshError> {
        let client_id_parameter = || ("client_id", Secret::from(client_id));
        Ok(match &self.0 {
            AuthenticationMethod::None => RequestCredentials {
                parameters: vec![client_id_parameter()],
                ..RequestCredentials::default()
            },
            AuthenticationMethod::SecretPost(secret) => RequestCredentials {
                parameters: vec![client_id_parameter(), ("client_secret", secret.clone())],
                secrets: vec![secret.clone()],
                ..RequestCredentials::default()
            },
            AuthenticationMethod::SecretBasic(secret) => {
                let checks = [("client id", client_id), ("client secret", secret.expose())];
                for (what, text) in checks {
                    pasted::check(what, text, Rule::Token)
                        .map_err(RefreshError::unusable_setting)?;
                }
                let encoded = basic_credentials(client_id, secret);
                RequestCredentials {
                    authorization: Some(basic_header(&encoded)?),
                    secrets: vec![secret.clone(), encoded],
                    ..RequestCredentials::default()
                }
            }
            #[cfg(feature = "jwt")]
            AuthenticationMethod::PrivateKeyJwt { key, clock } => {
                let assertion = sign_assertion(key, clock, client_id, token_endpoint)?;
                RequestCredentials {
                    parameters: vec![
                        client_id_parameter(),
                        ("client_assertion_type", Secret::from(ASSERTION_TYPE)),
                        ("client_assertion", assertion.clone()),
                    ],
                    secrets: vec![assertion],
                    ..RequestCredentials::default()
                }
            }
        })
    }
}

#[cfg(feature = "jwt")]
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

#[cfg(feature = "jwt")]
fn sign_assertion(
    key: &PrivateKey,
    clock: &WallClock,
    client_id: &str,
    token_endpoint: &Uri,
) -> Result<Secret, RefreshError> {
    pasted::check("client id", client_id, Rule::Token).map_err(RefreshError::unusable_setting)?;
    // OpenID Connect Core 1.0 §9 requires an id.
    let id = random::random().map_err(authentication_error)?;
    AssertionClaims {
        issuer: client_id,
        subject: client_id,
        audience: &token_endpoint.to_string(),
        id: Some(&id),
    }
    .sign(key, clock, LIFETIME)
    .map_err(authentication_error)
}

/// Both parts are form-encoded first, because a colon separates them (RFC 6749 §2.3.1).
fn basic_credentials(client_id: &str, secret: &Secret) -> Secret {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let secret = Zeroizing::new(encode(secret.expose()));
    let pair = Zeroizing::new(format!("{}:{}", encode(client_id), *secret));
    Secret::from(STANDARD.encode(&*pair))
}

fn basic_header(credentials: &Secret) -> Result<HeaderValue, RefreshError> {
    let value = Zeroizing::new(format!("Basic {}", credentials.expose()));
    let mut value = HeaderValue::from_str(&value).map_err(authentication_error)?;
    value.set_sensitive(true);
    Ok(value)
}

fn authentication_error(error: impl Into<BoxError>) -> RefreshError {
    RefreshError::new(
        RefreshErrorKind::Configuration,
        true,
        "the app cannot authenticate itself",
    )
    .with_source(error)
}

impl fmt::Debug for ClientAuthentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = match &self.0 {
            AuthenticationMethod::None => "none",
            AuthenticationMethod::SecretPost(_) => "client_secret_post",
            AuthenticationMethod::SecretBasic(_) => "client_secret_basic",
            #[cfg(feature = "jwt")]
            AuthenticationMethod::PrivateKeyJwt { .. } => "private_key_jwt",
        };
        write!(f, "ClientAuthentication({method})")
    }
}
