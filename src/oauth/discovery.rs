//! The endpoints of an authorization server (OpenID Connect Discovery 1.0).

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, RefreshError, RefreshErrorKind},
    http::{
        server_error::{is_overloaded, unrecognized, unusable_response},
        transport::{HttpClient, HttpRequest},
    },
    session::url::{LoginUrl, Origin},
    text::fields::Fields,
};

/// The metadata of an authorization server (OpenID Connect Discovery 1.0 §3), fetched by [`discover`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Fields")]
#[non_exhaustive]
pub struct Discovery {
    /// The URL of the server that issues the tokens.
    pub issuer: String,
    /// The endpoint that users are sent to (RFC 6749 §3.1).
    pub authorization_endpoint: String,
    /// The endpoint that exchanges grants for tokens (RFC 6749 §3.2).
    pub token_endpoint: String,
    /// The endpoint that revokes tokens (RFC 7009).
    pub revocation_endpoint: Option<String>,
    /// The endpoint that describes tokens (RFC 7662).
    pub introspection_endpoint: Option<String>,
    /// The endpoint that describes the user.
    pub userinfo_endpoint: Option<String>,
    /// The URL of the keys that sign ID tokens (RFC 7517).
    pub jwks_uri: Option<String>,
    /// The endpoint that registers apps (RFC 7591).
    pub registration_endpoint: Option<String>,
    /// The page that logs users out. Only a My Domain has one.
    pub end_session_endpoint: Option<String>,
    /// The supported scopes.
    pub scopes_supported: Vec<String>,
    /// The supported ways for apps to authenticate themselves.
    pub token_endpoint_auth_methods_supported: Vec<String>,
}

impl From<Fields> for Discovery {
    fn from(fields: Fields) -> Self {
        let required = |name| fields.string(name).unwrap_or_default();
        Self {
            issuer: required("issuer"),
            authorization_endpoint: required("authorization_endpoint"),
            token_endpoint: required("token_endpoint"),
            revocation_endpoint: fields.string("revocation_endpoint"),
            introspection_endpoint: fields.string("introspection_endpoint"),
            userinfo_endpoint: fields.string("userinfo_endpoint"),
            jwks_uri: fields.string("jwks_uri"),
            registration_endpoint: fields.string("registration_endpoint"),
            end_session_endpoint: fields.string("end_session_endpoint"),
            scopes_supported: fields.list("scopes_supported"),
            token_endpoint_auth_methods_supported: fields
                .list("token_endpoint_auth_methods_supported"),
        }
    }
}

impl Discovery {
    /// Makes a login URL from the issuer and the endpoints.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidUrl`](crate::ErrorKind::InvalidUrl) if one of them is neither `https` nor on a loopback
    /// host.
    pub fn login_url(&self) -> Result<LoginUrl, Error> {
        let mut login_url = self
            .issuer
            .parse::<LoginUrl>()?
            .with_authorization_endpoint(&self.authorization_endpoint)?
            .with_token_endpoint(&self.token_endpoint)?;
        if let Some(endpoint) = &self.revocation_endpoint {
            login_url = login_url.with_revocation_endpoint(endpoint)?;
        }
        if let Some(endpoint) = &self.introspection_endpoint {
            login_url = login_url.with_introspection_endpoint(endpoint)?;
        }
        Ok(login_url)
    }
}

/// Fetches the metadata of an authorization server (OpenID Connect Discovery 1.0 §4).
///
/// This call is optional: a [`LoginUrl`] already contains Salesforce's endpoints.
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
/// - [`RefreshErrorKind::InvalidResponse`] if the document belongs to another issuer (§4.3).
/// - [`RefreshErrorKind::InvalidResponse`] if an endpoint is on another host than the issuer, which would receive
///   secrets.
/// - Any error of a server that cannot be reached or sends another response.
pub async fn discover(
    client: impl HttpClient,
    login_url: &LoginUrl,
) -> Result<Discovery, RefreshError> {
    let endpoint = login_url
        .join("/.well-known/openid-configuration")
        .map_err(RefreshError::configuration)?;
    let response = HttpRequest::get(endpoint).send(client, &[]).await?;
    if !response.status.is_success() {
        return Err(RefreshError::new(
            RefreshErrorKind::InvalidResponse,
            !is_overloaded(response.status),
            format!(
                "{} answered {} and {}: expected the metadata of its endpoints",
                response.host,
                response.status,
                response.oddity(&[]),
            ),
        ));
    }
    let required = ["issuer", "authorization_endpoint", "token_endpoint"];
    let fields = response.fields(&required).unwrap_or_default();
    if let Some(missing) = required.iter().find(|name| fields.string(name).is_none()) {
        let expected = format!("the metadata of its endpoints in JSON, with `{missing}`");
        return Err(unrecognized("discovery request", response, &expected, &[]));
    }
    let discovery = Discovery::from(fields);
    let host = &response.host;
    let issuer: LoginUrl = discovery.issuer.parse().map_err(|error: Error| {
        unusable_response(format!(
            "{host} answered with metadata whose issuer cannot be used"
        ))
        .with_source(error)
    })?;
    if !issuer.is_same_place(login_url) {
        return Err(unusable_response(format!(
            "{host} answered with the metadata of another issuer, {issuer}: if it belongs to the org, use it as the \
             login URL"
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
                "{host} answered with metadata whose endpoints cannot be used"
            ))
            .with_source(error)
        })?;
        if origin != *issuer.origin() {
            return Err(unusable_response(format!(
                "{host} names an endpoint at another origin, {origin}"
            )));
        }
    }
    Ok(discovery)
}
