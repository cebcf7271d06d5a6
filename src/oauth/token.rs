//! The token endpoint: token requests and token responses (RFC 6749 §4, §5.1).

use std::{
    fmt,
    time::{Duration, UNIX_EPOCH},
};

use http::{Uri, header::AUTHORIZATION};
use serde::{Deserialize, Deserializer};

use super::{error_response, signature};
use crate::{
    app::{App, RequestCredentials},
    error::{Error, RefreshError, RefreshErrorKind},
    http::{
        response::HttpResponse,
        server_error::{unrecognized, unusable_response},
        transport::{HttpClient, HttpRequest},
    },
    secret::Secret,
    session::{dpop_key::DpopKey, grant_token::GrantToken, session::Session, url::LoginUrl},
    text::{fields::Fields, pasted, redact::redact},
};

// === Calls ===

/// Exchanges a refresh token for a new access token (RFC 6749 §6), once.
///
/// With refresh-token rotation, the response contains the next refresh token, and the old one must never be presented
/// again. The layer makes this call for you with [`flow::RefreshToken`](crate::flow::RefreshToken).
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
/// [`RefreshErrorKind::InvalidSignature`] if the response is signed with another client secret. Otherwise any error of
/// a server that refuses, cannot be reached, or sends another response.
///
/// [`RefreshError::rotated_refresh_token`] contains the new refresh token if the response had one.
pub async fn refresh_token(
    client: impl HttpClient,
    app: &App,
    refresh_token: &Secret,
) -> Result<TokenResponse, RefreshError> {
    refresh_grant(client, app, &GrantToken::unbound(refresh_token.clone())).await
}

/// Exchanges a refresh token, which is proven with the key that it is bound to.
pub(crate) async fn refresh_grant(
    client: impl HttpClient,
    app: &App,
    grant: &GrantToken,
) -> Result<TokenResponse, RefreshError> {
    TokenRequest::new(app, "refresh_token")
        .secret("refresh_token", &grant.token)
        .proven_with(app.key_of_exchange(grant.dpop_key.as_ref())?)
        .send(client)
        .await
}

/// A request to the token endpoint.
pub(crate) struct TokenRequest<'a> {
    app: &'a App,
    /// The name of the grant in errors.
    name: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    /// The values that must not appear in an error.
    secrets: Vec<&'a str>,
    is_authenticated: bool,
    /// The key that proves the request, and that its tokens will be bound to. `None`: it has no proof.
    dpop_key: Option<DpopKey>,
}

impl<'a> TokenRequest<'a> {
    pub(crate) fn new(app: &'a App, grant_type: &'a str) -> Self {
        Self::without_grant_type(app, grant_type, ("grant_type", grant_type))
    }

    /// A request that has `parameter` instead of a `grant_type`.
    pub(crate) fn without_grant_type(
        app: &'a App,
        name: &'a str,
        parameter: (&'a str, &'a str),
    ) -> Self {
        Self {
            app,
            name,
            parameters: vec![parameter],
            secrets: Vec::new(),
            is_authenticated: true,
            dpop_key: None,
        }
    }

    /// Leaves out the app's id and authentication: the grant alone is enough.
    pub(crate) fn unauthenticated(mut self) -> Self {
        self.is_authenticated = false;
        self
    }

    /// Proves the request with this key, if there is one (RFC 9449 §5).
    pub(crate) fn proven_with(mut self, key: Option<DpopKey>) -> Self {
        self.dpop_key = key;
        self
    }

    /// Adds a parameter whose value may appear in errors.
    pub(crate) fn parameter(mut self, name: &'a str, value: &'a str) -> Self {
        self.parameters.push((name, value));
        self
    }

    /// Adds a parameter whose value is kept out of errors.
    pub(crate) fn secret(self, name: &'a str, value: &'a Secret) -> Self {
        // Blanks at the ends of a password may belong to it.
        let text = match name {
            "password" => value.expose(),
            _ => pasted::credential(value.expose()),
        };
        self.redact([value]).parameter(name, text)
    }

    /// Keeps more values out of errors, for example the parts of a parameter.
    pub(crate) fn redact(mut self, secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        self.secrets.extend(secrets.into_iter().map(Secret::expose));
        self
    }

    /// Sends the request once. The caller decides whether a failed request may be repeated.
    pub(crate) async fn send(self, client: impl HttpClient) -> Result<TokenResponse, RefreshError> {
        let app = self.app;
        let name = format!("{} grant", self.name);
        let secrets = self.secrets.clone();
        let dpop_key = self.dpop_key.clone();
        let encoded_key = || dpop_key.as_ref().map(DpopKey::encode);
        let response = self.send_raw(client).await;
        let response = response.map_err(|error| error.with_rotated_dpop_key(encoded_key()))?;
        let Some(fields) = response.fields(&FIELDS) else {
            let expected = "a token response in JSON, with `access_token` and `instance_url`";
            return Err(unrecognized(&name, response, expected, &secrets));
        };
        let tokens = TokenResponse {
            is_partial: !response.is_whole(),
            dpop_key: dpop_key.clone(),
            ..fields.into()
        };
        match app.authentication().client_secret() {
            Some(client_secret) if !tokens.is_signed_with(client_secret) => Err(RefreshError::new(
                RefreshErrorKind::InvalidSignature,
                true,
                format!(
                    "{} answered with an identity that is signed with another client secret: check the secret, and \
                     the proxies between here and the host",
                    response.host
                ),
            )
            .with_rotated_refresh_token(tokens.refresh_token)
            .with_rotated_dpop_key(encoded_key())),
            _ => Ok(tokens),
        }
    }

    /// Sends the request once, and makes a session of the response.
    pub(crate) async fn obtain_session(
        self,
        client: impl HttpClient,
    ) -> Result<Session, RefreshError> {
        let login_url = self.app.login_url();
        self.send(client).await?.into_session(login_url)
    }

    /// Sends the request and returns any successful response unparsed.
    pub(crate) async fn send_raw(
        self,
        client: impl HttpClient,
    ) -> Result<HttpResponse, RefreshError> {
        let Self {
            app, parameters, ..
        } = &self;
        let request = format!("{} grant", self.name);
        let endpoint = app
            .login_url()
            .token_endpoint()
            .map_err(RefreshError::configuration)?;
        let call = Call {
            app: self.is_authenticated.then_some(*app),
            endpoint,
            parameters,
            secrets: &self.secrets,
            dpop_key: self.dpop_key.as_ref(),
        };
        call.post_checked(client, &request).await
    }
}

// === Call ===

/// A form that is posted to an endpoint of the authorization server.
pub(super) struct Call<'a> {
    /// The app that authenticates itself. `None` if the parameters are enough.
    pub(super) app: Option<&'a App>,
    pub(super) endpoint: Uri,
    pub(super) parameters: &'a [(&'a str, &'a str)],
    /// The values that must not appear in an error.
    pub(super) secrets: &'a [&'a str],
    /// The key that proves the call. `None`: it has no proof.
    pub(super) dpop_key: Option<&'a DpopKey>,
}

impl Call<'_> {
    /// Posts the form. A refusal is an error.
    pub(super) async fn post_checked(
        &self,
        client: impl HttpClient,
        request: &str,
    ) -> Result<HttpResponse, RefreshError> {
        let (response, credentials) = self.post(client).await?;
        let mut secrets = self.secrets.to_vec();
        secrets.extend(credentials.iter().map(Secret::expose));
        error_response::check(request, response, &secrets)
    }

    /// Posts the form. Returns any response, and the secrets that the request had of the app: beside those of the call, they
    /// must not appear in an error.
    ///
    /// If the server demands a nonce in the proof, it has looked at nothing else yet, and the form is posted once more (RFC 9449
    /// §8). The credentials are made again then: an assertion works once.
    pub(super) async fn post(
        &self,
        client: impl HttpClient,
    ) -> Result<(HttpResponse, Vec<Secret>), RefreshError> {
        let (response, secrets) = self.post_once(client.clone()).await?;
        if response.demands_nonce() {
            return self.post_once(client).await;
        }
        Ok((response, secrets))
    }

    async fn post_once(
        &self,
        client: impl HttpClient,
    ) -> Result<(HttpResponse, Vec<Secret>), RefreshError> {
        let credentials = match self.app {
            Some(app) => credentials(app)?,
            None => RequestCredentials::default(),
        };
        let added = credentials.parameters.iter();
        let added = added.map(|(name, value)| (*name, value.expose()));
        let form: Vec<_> = self.parameters.iter().copied().chain(added).collect();
        let mut post = HttpRequest::post_form(self.endpoint.clone(), &form)?;
        if let Some(authorization) = credentials.authorization {
            post = post.with_header(AUTHORIZATION, authorization);
        }
        let mut secrets = self.secrets.to_vec();
        secrets.extend(credentials.secrets.iter().map(Secret::expose));
        let response = post
            .with_proof(self.dpop_key)
            .send(client, &secrets)
            .await?;
        Ok((response, credentials.secrets))
    }
}

fn credentials(app: &App) -> Result<RequestCredentials, RefreshError> {
    // RFC 7523 §3: the token endpoint identifies the server, at its other endpoints too.
    let audience = app
        .login_url()
        .token_endpoint()
        .map_err(RefreshError::configuration)?;
    app.authentication().credentials(app.client_id(), &audience)
}

// === TokenResponse ===

/// A successful response of the token endpoint (RFC 6749 §5.1).
///
/// Every field is optional here: a response without an access token may still contain the only valid refresh token.
/// [`into_session`](Self::into_session) then requires the access token and the instance URL. A field that is empty, `null`
/// or of an unexpected JSON type counts as missing. Of two fields of the same name, the last one that can be used counts.
///
/// ```
/// use tower_salesforce_auth::{LoginUrl, oauth::TokenResponse};
///
/// let response: TokenResponse = serde_json::from_str(
///     r#"{
///         "access_token": "00Dxx!AQEAQ",
///         "instance_url": "https://MyDomainName.my.salesforce.com",
///         "scope": "api"
///     }"#,
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
    expires_in: Option<Duration>,
    signature: Option<String>,
    token_format: Option<String>,
    api_instance_url: Option<String>,
    sfdc_site_url: Option<String>,
    sfdc_site_id: Option<String>,
    /// Whether the rest of the response was not read.
    is_partial: bool,
    /// The key that the request was proven with. `None` if it had no proof.
    dpop_key: Option<DpopKey>,
}

/// The fields that a session is made of.
const FIELDS: [&str; 3] = ["access_token", "refresh_token", "instance_url"];

impl<'de> Deserialize<'de> for TokenResponse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Fields::deserialize(deserializer).map(Self::from)
    }
}

impl From<Fields> for TokenResponse {
    fn from(fields: Fields) -> Self {
        Self {
            access_token: fields.token("access_token").map(Secret::from),
            instance_url: fields.string("instance_url"),
            token_type: fields.string("token_type"),
            refresh_token: fields.token("refresh_token").map(Secret::from),
            id_token: fields.token("id_token").map(Secret::from),
            id: fields.string("id"),
            scope: fields.string("scope"),
            issued_at: fields.text("issued_at"),
            expires_in: fields.seconds("expires_in"),
            signature: fields.string("signature"),
            token_format: fields.string("token_format"),
            api_instance_url: fields.string("api_instance_url"),
            // Salesforce renamed these fields, and servers send either name.
            sfdc_site_url: fields
                .string("sfdc_site_url")
                .or_else(|| fields.string("sfdc_community_url")),
            sfdc_site_id: fields
                .string("sfdc_site_id")
                .or_else(|| fields.string("sfdc_community_id")),
            is_partial: false,
            dpop_key: None,
        }
    }
}

impl TokenResponse {
    /// The access token.
    pub fn access_token(&self) -> Option<&Secret> {
        self.access_token.as_ref()
    }

    /// The URL of the instance, which API calls go to.
    pub fn instance_url(&self) -> Option<&str> {
        self.instance_url.as_deref()
    }

    /// The token type: `Bearer`, or `DPoP` for a token that is bound to a key (RFC 9449 §5).
    pub fn token_type(&self) -> Option<&str> {
        self.token_type.as_deref()
    }

    /// The refresh token. Present after an authorization with offline access, and after a refresh with rotation.
    pub fn refresh_token(&self) -> Option<&Secret> {
        self.refresh_token.as_ref()
    }

    /// The ID token (OpenID Connect Core 1.0 §2), present with the scope `openid`. This crate does not verify it.
    pub fn id_token(&self) -> Option<&Secret> {
        self.id_token.as_ref()
    }

    /// The user's identity URL.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The granted scopes, separated by spaces.
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// When the token was issued: the milliseconds since the Unix epoch, in the form that the signature covers.
    pub fn issued_at(&self) -> Option<&str> {
        self.issued_at.as_deref()
    }

    /// The lifetime of the access token. Salesforce rarely reports it.
    pub fn expires_in(&self) -> Option<Duration> {
        self.expires_in
    }

    /// The signature of the identity: see [`verify_signature`](super::verify_signature).
    pub fn signature(&self) -> Option<&str> {
        self.signature.as_deref()
    }

    /// The format of the access token: `jwt` for a JWT.
    pub fn token_format(&self) -> Option<&str> {
        self.token_format.as_deref()
    }

    /// The URL for calls to the `api.salesforce.com` APIs.
    pub fn api_instance_url(&self) -> Option<&str> {
        self.api_instance_url.as_deref()
    }

    /// The URL of the user's Experience Cloud site.
    #[doc(alias = "sfdc_community_url")]
    pub fn sfdc_site_url(&self) -> Option<&str> {
        self.sfdc_site_url.as_deref()
    }

    /// The id of the user's Experience Cloud site.
    #[doc(alias = "sfdc_community_id")]
    pub fn sfdc_site_id(&self) -> Option<&str> {
        self.sfdc_site_id.as_deref()
    }

    /// Whether the signature was made with this secret. `true` if the signature or a signed field is missing.
    fn is_signed_with(&self, client_secret: &Secret) -> bool {
        match (&self.id, &self.issued_at, &self.signature) {
            (Some(id), Some(issued_at), Some(signature)) => {
                signature::verify_signature(client_secret, id, issued_at, signature)
            }
            // The responses to some grants are not signed.
            _ => true,
        }
    }

    /// Makes a session from the response.
    ///
    /// # Errors
    ///
    /// [`RefreshErrorKind::InvalidResponse`] if the access token or the instance URL is missing or invalid, or if the
    /// token is bound to a key (`token_type` is `DPoP`) without a proof of this crate in its request.
    /// [`RefreshError::rotated_refresh_token`] then contains the refresh token of the
    /// response.
    pub fn into_session(self, login_url: &LoginUrl) -> Result<Session, RefreshError> {
        self.into_session_after(login_url, None)
    }

    /// Makes a session that keeps the `presented` refresh token if the response has no other.
    pub(crate) fn into_session_after(
        mut self,
        login_url: &LoginUrl,
        presented: Option<&Secret>,
    ) -> Result<Session, RefreshError> {
        let rotated = self.refresh_token.take();
        let refresh_token = rotated.as_ref().or(presented).cloned();
        let dpop_key = self.dpop_key.clone();
        let session = self
            .session_without_refresh_token(login_url)
            .map_err(|error| {
                error
                    .with_rotated_refresh_token(rotated.clone())
                    .with_rotated_dpop_key(dpop_key.as_ref().map(DpopKey::encode))
            })?;
        let session = match refresh_token {
            Some(token) => session.with_grant_token(GrantToken { token, dpop_key }),
            None => session,
        };
        Ok(match (rotated, presented) {
            (_, None) => session,
            (Some(rotated), Some(presented)) if rotated != *presented => session.rotated(),
            _ => session.keeping_refresh_token(),
        })
    }

    fn session_without_refresh_token(self, login_url: &LoginUrl) -> Result<Session, RefreshError> {
        let host = login_url.host();
        // The rest of a partial response may have had the field.
        let is_terminal = !self.is_partial;
        let missing = |field| {
            RefreshError::new(
                RefreshErrorKind::InvalidResponse,
                is_terminal,
                if is_terminal {
                    format!("{host} answered with a token response without `{field}`")
                } else {
                    format!(
                        "{host} answered with a token response that broke off or is too long, without `{field}` in what \
                         was read"
                    )
                },
            )
        };
        let expires_in = self.expires_in();
        let access_token = self.access_token.ok_or_else(|| missing("access_token"))?;
        let instance_url = self.instance_url.ok_or_else(|| missing("instance_url"))?;
        let is_type = |known: &str| {
            let token_type = self.token_type.as_ref();
            token_type.is_some_and(|token_type| token_type.eq_ignore_ascii_case(known))
        };
        let is_bound = is_type("DPoP");
        if is_bound && self.dpop_key.is_none() {
            return Err(unusable_response(format!(
                "{host} issued a token that is bound to a DPoP key, and the request had no proof: give the app its key with \
                 App::dpop (feature `dpop`)"
            )));
        }
        if !is_bound && self.token_type.is_some() && !is_type("bearer") {
            return Err(unusable_response(format!(
                "{host} issued a token that is neither a bearer token nor one of DPoP"
            )));
        }
        let mut session = Session::from_answer(access_token.clone(), &instance_url)
            .map_err(|error| {
                // The error names a host that the server chose.
                let cause = redact(&error.to_string(), &[access_token.expose()]);
                unusable_response(format!("{host} issued a session that cannot be used"))
                    .with_source(Error::new(error.kind(), cause))
            })?
            .with_login_url(login_url.clone());
        session = match self.dpop_key {
            Some(key) if is_bound => session.bound_to(key),
            Some(_) => session.left_unbound(),
            None => session,
        };
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
            .and_then(|milliseconds| milliseconds.parse().ok())
            .and_then(|milliseconds| UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds)));
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
