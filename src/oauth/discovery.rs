//! Where the endpoints are (OpenID Connect Discovery 1.0).

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, RefreshError, RefreshErrorKind},
    http::{
        server_error::unusable_response,
        transport::{HttpClient, HttpRequest},
    },
    session::url::{LoginUrl, Origin},
};

/// The metadata of an authorization server (OpenID Connect Discovery 1.0 §3).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Discovery {
    /// Who issues the tokens.
    pub issuer: String,
    /// Where users are sent (RFC 6749 §3.1).
    pub authorization_endpoint: String,
    /// Where grants are exchanged (RFC 6749 §3.2).
    pub token_endpoint: String,
    /// Where tokens are ended (RFC 7009).
    pub revocation_endpoint: Option<String>,
    /// Where one asks about tokens (RFC 7662).
    pub introspection_endpoint: Option<String>,
    /// Where one asks about the user.
    pub userinfo_endpoint: Option<String>,
    /// The keys that ID tokens are signed with (RFC 7517).
    pub jwks_uri: Option<String>,
    /// Where apps register themselves (RFC 7591).
    pub registration_endpoint: Option<String>,
    /// Where users are sent to log out; on a My Domain only.
    pub end_session_endpoint: Option<String>,
    /// The scopes that there are.
    #[serde(default)]
    pub scopes_supported: Vec<String>,
    /// How apps can authenticate themselves.
    #[serde(default)]
    pub token_endpoint_auth_methods_supported: Vec<String>,
}

impl Discovery {
    /// The issuer as a login URL, with the endpoints that the document names.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidUrl`](crate::ErrorKind::InvalidUrl) if one of them is not `https` (nor loopback).
    pub fn login_url(&self) -> Result<LoginUrl, Error> {
        let login_url = self
            .issuer
            .parse::<LoginUrl>()?
            .with_authorization_endpoint(&self.authorization_endpoint)?
            .with_token_endpoint(&self.token_endpoint)?;
        match &self.revocation_endpoint {
            Some(endpoint) => login_url.with_revocation_endpoint(endpoint),
            None => Ok(login_url),
        }
    }
}

/// Asks an authorization server where its endpoints are (OpenID Connect Discovery 1.0 §4).
///
/// Nobody has to: the endpoints are below the login URL.
///
/// ```no_run
/// # use bytes::Bytes;
/// # use http_body_util::Full;
/// # use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower_salesforce_auth::{LoginUrl, oauth};
///
/// # async fn example() -> Result<(), tower_salesforce_auth::BoxError> {
/// # let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
/// let discovery = oauth::discover(client, &LoginUrl::production()).await?;
/// let login_url = discovery.login_url()?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`RefreshErrorKind::InvalidResponse`] if the document is of another issuer (§4.3), or names an endpoint on another host
/// than the issuer's: secrets would go there. Otherwise if the server cannot be reached or
/// answers something else.
pub async fn discover(
    client: impl HttpClient,
    login_url: &LoginUrl,
) -> Result<Discovery, RefreshError> {
    let endpoint = login_url
        .join("/.well-known/openid-configuration")
        .map_err(RefreshError::configuration)?;
    let answer = HttpRequest::get(endpoint).send(client).await?;
    if !answer.status.is_success() {
        return Err(RefreshError::new(
            RefreshErrorKind::InvalidResponse,
            !answer.status.is_server_error(),
            format!(
                "{} answered {}: expected the metadata of its endpoints",
                answer.host, answer.status
            ),
        ));
    }
    let discovery: Discovery = answer.json("the metadata of its endpoints in JSON")?;
    let host = &answer.host;
    let issuer: LoginUrl = discovery.issuer.parse().map_err(|error: Error| {
        unusable_response(format!(
            "{host} answered with metadata whose issuer is none"
        ))
        .with_source(error)
    })?;
    if !issuer.is_same_place(login_url) {
        return Err(unusable_response(format!(
            "{host} answered with the metadata of another issuer, {issuer}: if that is the org's, make it the login URL"
        )));
    }
    let endpoints = [
        Some(&discovery.authorization_endpoint),
        Some(&discovery.token_endpoint),
        discovery.revocation_endpoint.as_ref(),
        discovery.introspection_endpoint.as_ref(),
        discovery.userinfo_endpoint.as_ref(),
    ];
    for endpoint in endpoints.into_iter().flatten() {
        let origin = Origin::of_url("an endpoint", endpoint).map_err(|error| {
            unusable_response(format!(
                "{host} answered with metadata of endpoints that cannot be used"
            ))
            .with_source(error)
        })?;
        if origin != *issuer.origin() {
            return Err(unusable_response(format!(
                "{host} names an endpoint at {origin}, which is not its own"
            )));
        }
    }
    Ok(discovery)
}
