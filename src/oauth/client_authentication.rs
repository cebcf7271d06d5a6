//! How an app proves to the authorization server that it is the one (RFC 6749 §2.3).

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::HeaderValue;
use zeroize::Zeroizing;

use crate::{
    error::{RefreshError, RefreshErrorKind},
    secret::Secret,
};
#[cfg(feature = "jwt")]
use {
    super::assertion::{Assertion, LIFETIME},
    crate::oauth::{clock::Clock, private_key::PrivateKey},
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
pub struct ClientAuthentication(Method);

#[derive(Clone)]
enum Method {
    None,
    SecretPost(Secret),
    SecretBasic(Secret),
    #[cfg(feature = "jwt")]
    PrivateKeyJwt {
        key: PrivateKey,
        clock: Clock,
    },
}

/// What a request carries to authenticate its app.
#[derive(Default)]
pub(super) struct Proof {
    pub(super) parameters: Vec<(&'static str, Secret)>,
    pub(super) authorization: Option<HeaderValue>,
    /// What of it must not be seen in an error.
    pub(super) secrets: Vec<Secret>,
}

impl ClientAuthentication {
    /// None: the app is a public client, and "Require Secret" is off for the flow.
    pub fn none() -> Self {
        Self(Method::None)
    }

    /// The secret, as a parameter of the form (`client_secret_post`).
    pub fn secret(client_secret: impl Into<Secret>) -> Self {
        Self(Method::SecretPost(client_secret.into()))
    }

    /// The secret, in an `Authorization: Basic` header (`client_secret_basic`, RFC 6749 §2.3.1).
    pub fn secret_basic(client_secret: impl Into<Secret>) -> Self {
        Self(Method::SecretBasic(client_secret.into()))
    }

    /// An assertion, signed anew for each request with the key whose certificate the app has (`private_key_jwt`,
    /// RFC 7523 §2.2). It is for the token endpoint alone, and good for two minutes.
    #[cfg(feature = "jwt")]
    #[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
    pub fn private_key_jwt(key: PrivateKey) -> Self {
        Self(Method::PrivateKeyJwt {
            key,
            clock: Clock::system(),
        })
    }

    /// Reads the time from another clock than the machine's. Only [`private_key_jwt`](Self::private_key_jwt) asks for it.
    #[cfg(feature = "jwt")]
    #[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
    #[must_use]
    pub fn clock(mut self, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        if let Method::PrivateKeyJwt { clock, .. } = &mut self.0 {
            *clock = Clock::new(now);
        }
        self
    }

    /// The secret, which signatures are made with too, if the app has one.
    pub(super) fn client_secret(&self) -> Option<&Secret> {
        match &self.0 {
            Method::SecretPost(secret) | Method::SecretBasic(secret) => Some(secret),
            Method::None => None,
            #[cfg(feature = "jwt")]
            Method::PrivateKeyJwt { .. } => None,
        }
    }

    /// What a request to `endpoint` carries.
    #[cfg_attr(not(feature = "jwt"), expect(unused_variables))]
    pub(super) fn prove(
        &self,
        client_id: &str,
        endpoint: &http::Uri,
    ) -> Result<Proof, RefreshError> {
        let client_id_parameter = || ("client_id", Secret::from(client_id));
        Ok(match &self.0 {
            Method::None => Proof {
                parameters: vec![client_id_parameter()],
                ..Proof::default()
            },
            Method::SecretPost(secret) => Proof {
                parameters: vec![client_id_parameter(), ("client_secret", secret.clone())],
                secrets: vec![secret.clone()],
                ..Proof::default()
            },
            Method::SecretBasic(secret) => {
                let credentials = basic_credentials(client_id, secret);
                Proof {
                    authorization: Some(basic(&credentials)?),
                    secrets: vec![secret.clone(), credentials],
                    ..Proof::default()
                }
            }
            #[cfg(feature = "jwt")]
            Method::PrivateKeyJwt { key, clock } => {
                let assertion = assertion(key, clock, client_id, endpoint)?;
                Proof {
                    parameters: vec![
                        client_id_parameter(),
                        ("client_assertion_type", Secret::from(ASSERTION_TYPE)),
                        ("client_assertion", assertion.clone()),
                    ],
                    secrets: vec![assertion],
                    ..Proof::default()
                }
            }
        })
    }
}

#[cfg(feature = "jwt")]
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

#[cfg(feature = "jwt")]
fn assertion(
    key: &PrivateKey,
    clock: &Clock,
    client_id: &str,
    endpoint: &Uri,
) -> Result<Secret, RefreshError> {
    Assertion {
        issuer: client_id,
        subject: client_id,
        audience: &endpoint.to_string(),
    }
    .sign(key, clock, LIFETIME)
    .map_err(unprovable)
}

/// The pair is form-encoded first (RFC 6749 §2.3.1), since a colon separates the two.
fn basic_credentials(client_id: &str, secret: &Secret) -> Secret {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let secret = Zeroizing::new(encode(secret.expose()));
    let pair = Zeroizing::new(format!("{}:{}", encode(client_id), *secret));
    Secret::from(STANDARD.encode(&*pair))
}

fn basic(credentials: &Secret) -> Result<HeaderValue, RefreshError> {
    let value = Zeroizing::new(format!("Basic {}", credentials.expose()));
    let mut value = HeaderValue::from_str(&value).map_err(unprovable)?;
    value.set_sensitive(true);
    Ok(value)
}

fn unprovable(error: impl Into<crate::error::BoxError>) -> RefreshError {
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
            Method::None => "none",
            Method::SecretPost(_) => "client_secret_post",
            Method::SecretBasic(_) => "client_secret_basic",
            #[cfg(feature = "jwt")]
            Method::PrivateKeyJwt { .. } => "private_key_jwt",
        };
        write!(f, "ClientAuthentication({method})")
    }
}
