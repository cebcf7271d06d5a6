//! The token endpoint: grants and token responses (RFC 6749 §4, §5.1).

use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Deserializer};

use super::error_response;
use crate::{
    endpoint::LoginUrl,
    error::{RefreshError, RefreshErrorKind},
    secret::Secret,
    session::Session,
    transport::{self, Answer, HttpClient},
};

/// A request to the token endpoint.
pub(crate) struct GrantRequest<'a> {
    pub(crate) login_url: &'a LoginUrl,
    pub(crate) grant_type: &'static str,
    /// Whatever the grant asks for beside its type.
    pub(crate) parameters: &'a [(&'static str, &'a str)],
    /// The values that must not be seen in an error.
    pub(crate) secrets: &'a [&'a str],
}

impl GrantRequest<'_> {
    /// Sends the request, once. Whether it can be repeated is for the caller to know.
    pub(crate) async fn send(self, client: impl HttpClient) -> Result<TokenResponse, RefreshError> {
        let Self {
            login_url,
            grant_type,
            parameters,
            secrets,
        } = self;
        let endpoint = login_url.token_endpoint().map_err(|error| {
            RefreshError::new(
                RefreshErrorKind::Configuration,
                true,
                format!("the login URL {login_url} makes no token endpoint"),
            )
            .with_source(error)
        })?;
        let mut form = vec![("grant_type", grant_type)];
        form.extend_from_slice(parameters);
        let answer = transport::post_form(client, endpoint, &form).await?;
        if !answer.status.is_success() {
            return Err(error_response::refusal(
                login_url.host(),
                grant_type,
                &answer,
                secrets,
            ));
        }
        TokenResponse::parse(login_url.host(), &answer)
    }
}

/// A successful answer of the token endpoint. Only the access token and the instance URL are in all of them, and they
/// are looked for last: an answer without them may still bring the one refresh token that works.
#[derive(Deserialize)]
pub(crate) struct TokenResponse {
    access_token: Option<Secret>,
    instance_url: Option<String>,
    token_type: Option<String>,
    refresh_token: Option<Secret>,
    id: Option<String>,
    scope: Option<String>,
    #[serde(default, deserialize_with = "milliseconds")]
    issued_at: Option<u64>,
}

impl TokenResponse {
    fn parse(host: &str, answer: &Answer) -> Result<Self, RefreshError> {
        serde_json::from_slice(&answer.body).map_err(|error| {
            // Its message may quote what it stumbled over, which may be a token.
            RefreshError::new(
                RefreshErrorKind::InvalidResponse,
                false,
                format!(
                    "{host} answered with something that is not a token response ({:?} error at line {}, column {}): \
                     expected JSON with `access_token` and `instance_url`",
                    error.classify(),
                    error.line(),
                    error.column(),
                ),
            )
        })
    }

    /// The session that the response describes, with the refresh token that was `presented` if there is no other.
    pub(crate) fn into_session(
        mut self,
        login_url: &LoginUrl,
        presented: Option<&Secret>,
    ) -> Result<Session, RefreshError> {
        let rotated = self.refresh_token.take();
        let refresh_token = rotated.as_ref().or(presented).cloned();
        let session = self
            .describe(login_url)
            .map_err(|error| error.with_rotated_refresh_token(rotated))?;
        Ok(match refresh_token {
            Some(refresh_token) => session.with_refresh_token(refresh_token),
            None => session,
        })
    }

    fn describe(self, login_url: &LoginUrl) -> Result<Session, RefreshError> {
        let host = login_url.host();
        let unusable =
            |message: String| RefreshError::new(RefreshErrorKind::InvalidResponse, true, message);
        let missing = |field| {
            unusable(format!(
                "{host} answered with a token response without `{field}`"
            ))
        };
        let access_token = self.access_token.ok_or_else(|| missing("access_token"))?;
        let instance_url = self.instance_url.ok_or_else(|| missing("instance_url"))?;
        let is_bearer = |token_type: &String| token_type.eq_ignore_ascii_case("bearer");
        if !self.token_type.as_ref().is_none_or(is_bearer) {
            return Err(unusable(format!(
                "{host} issued a token that is no bearer token: turn off DPoP for the app"
            )));
        }
        let mut session = Session::new(access_token, &instance_url)
            .map_err(|error| {
                unusable(format!("{host} issued a session that cannot be used")).with_source(error)
            })?
            .with_login_url(login_url.clone());
        if let Some(id) = self.id {
            session = session.with_identity_url(id);
        }
        if let Some(scope) = self.scope {
            session = session.with_scope(scope);
        }
        let issued_at = self
            .issued_at
            .and_then(|issued_at| UNIX_EPOCH.checked_add(Duration::from_millis(issued_at)));
        if let Some(issued_at) = issued_at {
            session = session.with_issued_at(issued_at);
        }
        Ok(session)
    }
}

/// `issued_at` is a number in a string. One that is not is not worth failing a login for.
fn milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(value
        .as_u64()
        .or_else(|| value.as_str().and_then(|text| text.parse().ok())))
}
