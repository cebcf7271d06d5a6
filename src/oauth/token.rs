//! The token endpoint: grants and token responses (RFC 6749 §4, §5.1).

use std::{
    fmt,
    time::{Duration, UNIX_EPOCH},
};

use http::{Uri, header::AUTHORIZATION};
use serde::{Deserialize, Deserializer};

use super::{app::App, error_response, signature};
use crate::{
    error::{Error, RefreshError, RefreshErrorKind},
    http::{
        server_error::unusable_response,
        transport::{HttpClient, HttpRequest, HttpResponse},
    },
    secret::Secret,
    session::{session::Session, url::LoginUrl},
    text::redact::redact,
};

// === Calls ===

/// Exchanges a refresh token for a new access token (RFC 6749 §6), once and by hand.
///
/// Under rotation the answer holds the next refresh token, and the one that was presented must never be used again. The
/// layer does this by itself with [`flow::RefreshToken`](crate::flow::RefreshToken).
///
/// ```no_run
/// # use bytes::Bytes;
/// # use http_body_util::Full;
/// # use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower_salesforce_auth::{LoginUrl, Secret, oauth::{self, App}};
///
/// # async fn example() -> Result<(), tower_salesforce_auth::RefreshError> {
/// # let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
/// let app = App::new(LoginUrl::production(), "3MVG9…").client_secret("1955…");
/// let response = oauth::refresh_token(client, &app, &Secret::from("5Aep861…")).await?;
/// println!("{:?}", response.instance_url());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// If the server refuses, cannot be reached, answers something else, or signed with another secret. If the answer had a
/// rotated refresh token in it, [`RefreshError::rotated_refresh_token`] has it.
pub async fn refresh_token(
    client: impl HttpClient,
    app: &App,
    refresh_token: &Secret,
) -> Result<TokenResponse, RefreshError> {
    Grant::new(app, "refresh_token")
        .secret("refresh_token", refresh_token)
        .send(client)
        .await
}

/// A request to the token endpoint.
pub(crate) struct Grant<'a> {
    app: &'a App,
    /// How the request is called in errors.
    name: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    /// The values that must not be seen in an error.
    secrets: Vec<&'a str>,
    is_authenticated: bool,
}

impl<'a> Grant<'a> {
    pub(crate) fn new(app: &'a App, grant_type: &'a str) -> Self {
        Self::request(app, grant_type, ("grant_type", grant_type))
    }

    /// A request that exchanges no grant.
    pub(crate) fn request(app: &'a App, name: &'a str, parameter: (&'a str, &'a str)) -> Self {
        Self {
            app,
            name,
            parameters: vec![parameter],
            secrets: Vec::new(),
            is_authenticated: true,
        }
    }

    /// The same without the app's id and authentication: what is presented says it all.
    pub(crate) fn unauthenticated(mut self) -> Self {
        self.is_authenticated = false;
        self
    }

    pub(crate) fn parameter(mut self, name: &'a str, value: &'a str) -> Self {
        self.parameters.push((name, value));
        self
    }

    pub(crate) fn secret(self, name: &'a str, value: &'a Secret) -> Self {
        self.hide([value]).parameter(name, value.expose())
    }

    /// Keeps what is a part of other parameters out of errors.
    pub(crate) fn hide(mut self, secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        self.secrets.extend(secrets.into_iter().map(Secret::expose));
        self
    }

    /// Sends the request, once. Whether it can be repeated is for the caller to know.
    pub(crate) async fn send(self, client: impl HttpClient) -> Result<TokenResponse, RefreshError> {
        let app = self.app;
        let answer = self.answer(client).await?;
        let response: TokenResponse =
            answer.json("a token response in JSON, with `access_token` and `instance_url`")?;
        match app.authentication().client_secret() {
            Some(client_secret) if !response.is_signed_with(client_secret) => {
                Err(RefreshError::new(
                    RefreshErrorKind::InvalidSignature,
                    true,
                    format!(
                        "{} answered with an identity that is signed with another client secret: check the secret, \
                         and what is between here and the host",
                        answer.host
                    ),
                )
                .with_rotated_refresh_token(response.refresh_token))
            }
            _ => Ok(response),
        }
    }

    /// The same, for an answer that is no token response.
    pub(crate) async fn answer(
        self,
        client: impl HttpClient,
    ) -> Result<HttpResponse, RefreshError> {
        let Self {
            app, parameters, ..
        } = &self;
        let what = format!("{} grant", self.name);
        let endpoint = app
            .login_url()
            .token_endpoint()
            .map_err(RefreshError::configuration)?;
        if self.is_authenticated {
            authenticated(client, app, endpoint, parameters, &self.secrets, &what).await
        } else {
            let answer = HttpRequest::post_form(endpoint, parameters)
                .send(client)
                .await?;
            unless_refused(answer, &self.secrets, &what)
        }
    }
}

/// Posts a form in the name of an app, and returns the answer unless it is a refusal.
pub(crate) async fn authenticated(
    client: impl HttpClient,
    app: &App,
    endpoint: Uri,
    parameters: &[(&str, &str)],
    secrets: &[&str],
    what: &str,
) -> Result<HttpResponse, RefreshError> {
    let proof = app.authentication().prove(app.client_id(), &endpoint)?;
    let own = proof.parameters.iter();
    let own = own.map(|(name, value)| (*name, value.expose()));
    let form: Vec<_> = parameters.iter().copied().chain(own).collect();
    let mut call = HttpRequest::post_form(endpoint, &form);
    if let Some(authorization) = proof.authorization {
        call = call.with_header(AUTHORIZATION, authorization);
    }
    let answer = call.send(client).await?;
    let mut secrets = secrets.to_vec();
    secrets.extend(proof.secrets.iter().map(Secret::expose));
    unless_refused(answer, &secrets, what)
}

fn unless_refused(
    answer: HttpResponse,
    secrets: &[&str],
    what: &str,
) -> Result<HttpResponse, RefreshError> {
    if answer.status.is_success() && !error_response::is_refusal(&answer) {
        Ok(answer)
    } else {
        Err(error_response::refusal(what, &answer, secrets))
    }
}

// === TokenResponse ===

/// A successful answer of the token endpoint (RFC 6749 §5.1).
///
/// Only the access token and the instance URL are in all of them, and even they are looked for last, by
/// [`into_session`](Self::into_session): an answer without them may still bring the one refresh token that works.
///
/// A field of an unexpected type counts as missing, for the same reason.
///
/// ```
/// use tower_salesforce_auth::{LoginUrl, oauth::TokenResponse};
///
/// let response: TokenResponse = serde_json::from_str(
///     r#"{"access_token":"00Dxx!AQEAQ","instance_url":"https://MyDomainName.my.salesforce.com","scope":"api"}"#,
/// )?;
/// assert_eq!(response.scope(), Some("api"));
/// let session = response.into_session(&LoginUrl::production())?;
/// assert_eq!(session.instance_url().host(), "mydomainname.my.salesforce.com");
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct TokenResponse {
    access_token: Option<Secret>,
    instance_url: Option<String>,
    token_type: Option<String>,
    refresh_token: Option<Secret>,
    id_token: Option<Secret>,
    id: Option<String>,
    scope: Option<String>,
    issued_at: Option<String>,
    expires_in: Option<String>,
    signature: Option<String>,
    token_format: Option<String>,
    api_instance_url: Option<String>,
    sfdc_site_url: Option<String>,
    sfdc_site_id: Option<String>,
}

/// The fields of a response, whatever they are.
type Fields = serde_json::Map<String, serde_json::Value>;

impl<'de> Deserialize<'de> for TokenResponse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Fields::deserialize(deserializer).map(Self::from_fields)
    }
}

impl TokenResponse {
    fn from_fields(mut fields: Fields) -> Self {
        // A number counts as its text: `issued_at` comes in a string, and has been met without.
        let mut take = |name: &str| match fields.remove(name)? {
            serde_json::Value::String(text) => Some(text),
            serde_json::Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        Self {
            access_token: take("access_token").map(Secret::from),
            instance_url: take("instance_url"),
            token_type: take("token_type"),
            refresh_token: take("refresh_token").map(Secret::from),
            id_token: take("id_token").map(Secret::from),
            id: take("id"),
            scope: take("scope"),
            issued_at: take("issued_at"),
            expires_in: take("expires_in"),
            signature: take("signature"),
            token_format: take("token_format"),
            api_instance_url: take("api_instance_url"),
            // Renamed by Salesforce; both names are met.
            sfdc_site_url: take("sfdc_site_url").or_else(|| take("sfdc_community_url")),
            sfdc_site_id: take("sfdc_site_id").or_else(|| take("sfdc_community_id")),
        }
    }
}

impl TokenResponse {
    /// The access token.
    pub fn access_token(&self) -> Option<&Secret> {
        self.access_token.as_ref()
    }

    /// Where API calls go.
    pub fn instance_url(&self) -> Option<&str> {
        self.instance_url.as_deref()
    }

    /// `Bearer`, as a rule.
    pub fn token_type(&self) -> Option<&str> {
        self.token_type.as_deref()
    }

    /// The refresh token: after an authorization for offline access, and on a refresh only with rotation.
    pub fn refresh_token(&self) -> Option<&Secret> {
        self.refresh_token.as_ref()
    }

    /// The ID token (OpenID Connect Core 1.0 §2), with scope `openid`. It is handed on as it came, unverified.
    pub fn id_token(&self) -> Option<&Secret> {
        self.id_token.as_ref()
    }

    /// The identity URL.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The granted scope, space-separated.
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// When the token was issued: milliseconds since the Unix epoch, as text, as it was signed.
    pub fn issued_at(&self) -> Option<&str> {
        self.issued_at.as_deref()
    }

    /// How long the access token is good for. Hardly any answer says so.
    pub fn expires_in(&self) -> Option<Duration> {
        let seconds = self.expires_in.as_deref()?.parse().ok()?;
        Some(Duration::from_secs(seconds))
    }

    /// The signature over the identity: see [`verify_signature`](super::verify_signature).
    pub fn signature(&self) -> Option<&str> {
        self.signature.as_deref()
    }

    /// `jwt` if the access token is one.
    pub fn token_format(&self) -> Option<&str> {
        self.token_format.as_deref()
    }

    /// Where calls to the `api.salesforce.com` APIs go.
    pub fn api_instance_url(&self) -> Option<&str> {
        self.api_instance_url.as_deref()
    }

    /// The Experience Cloud site of a user who is a member of one.
    #[doc(alias = "sfdc_community_url")]
    pub fn sfdc_site_url(&self) -> Option<&str> {
        self.sfdc_site_url.as_deref()
    }

    /// The id of the Experience Cloud site.
    #[doc(alias = "sfdc_community_id")]
    pub fn sfdc_site_id(&self) -> Option<&str> {
        self.sfdc_site_id.as_deref()
    }

    /// Whether the signature, if there is one and what it is over, was made with this secret.
    fn is_signed_with(&self, client_secret: &Secret) -> bool {
        match (&self.id, &self.issued_at, &self.signature) {
            (Some(id), Some(issued_at), Some(signature)) => {
                signature::verify_signature(client_secret, id, issued_at, signature)
            }
            // Some grants bring none.
            _ => true,
        }
    }

    /// The session that the response describes.
    ///
    /// # Errors
    ///
    /// If the access token or the instance URL is missing or cannot be used, or the token is no bearer token. A refresh
    /// token that came with it is then in [`RefreshError::rotated_refresh_token`].
    pub fn into_session(self, login_url: &LoginUrl) -> Result<Session, RefreshError> {
        self.into_session_after(login_url, None)
    }

    /// The same, with the refresh token that was `presented` if there is no other.
    pub(crate) fn into_session_after(
        mut self,
        login_url: &LoginUrl,
        presented: Option<&Secret>,
    ) -> Result<Session, RefreshError> {
        let rotated = self.refresh_token.take();
        let refresh_token = rotated.as_ref().or(presented).cloned();
        let session = self
            .describe(login_url)
            .map_err(|error| error.with_rotated_refresh_token(rotated.clone()))?;
        let session = match refresh_token {
            Some(refresh_token) => session.with_refresh_token(refresh_token),
            None => session,
        };
        Ok(match (rotated, presented) {
            (_, None) => session,
            (Some(rotated), Some(presented)) if rotated != *presented => session.rotated(),
            _ => session.keeping_refresh_token(),
        })
    }

    fn describe(self, login_url: &LoginUrl) -> Result<Session, RefreshError> {
        let host = login_url.host();
        let missing = |field| {
            unusable_response(format!(
                "{host} answered with a token response without `{field}`"
            ))
        };
        let expires_in = self.expires_in();
        let access_token = self.access_token.ok_or_else(|| missing("access_token"))?;
        let instance_url = self.instance_url.ok_or_else(|| missing("instance_url"))?;
        let is_bearer = |token_type: &String| token_type.eq_ignore_ascii_case("bearer");
        if !self.token_type.as_ref().is_none_or(is_bearer) {
            return Err(unusable_response(format!(
                "{host} issued a token that is no bearer token: turn off DPoP for the app"
            )));
        }
        let mut session = Session::new(access_token.clone(), &instance_url)
            .map_err(|error| {
                // The error names a host that the server chose.
                let cause = redact(&error.to_string(), &[access_token.expose()]);
                unusable_response(format!("{host} issued a session that cannot be used"))
                    .with_source(Error::new(error.kind(), cause))
            })?
            .with_login_url(login_url.clone());
        if let Some(id) = self.id {
            session = session.with_identity_url(id);
        }
        if let Some(scope) = self.scope {
            session = session.with_scope(scope);
        }
        if let Some(expires_in) = expires_in {
            session = session.with_lifetime(expires_in);
        }
        let issued_at = self
            .issued_at
            .and_then(|issued_at| issued_at.parse().ok())
            .and_then(|issued_at| UNIX_EPOCH.checked_add(Duration::from_millis(issued_at)));
        if let Some(issued_at) = issued_at {
            session = session.with_issued_at(issued_at);
        }
        Ok(session)
    }
}

impl fmt::Debug for TokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenResponse")
            .field("access_token", &self.access_token)
            .field("refresh_token", &self.refresh_token)
            .field("id", &self.id)
            .field("scope", &self.scope)
            .field("issued_at", &self.issued_at)
            .finish_non_exhaustive()
    }
}
