//! The token endpoint.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use http_body::Body;
use serde_json::json;

use super::answer::{self, Answer};
use super::fault::Fault;
use super::org::Org;
use super::receive::collect;
use super::sessions::{NewTokens, RefreshRefusal};
use super::signature;
use crate::error::BoxError;

/// Where the identity URL of the org's one user goes on after the login URL.
const IDENTITY_PATH: &str = "/id/00Dxx0000001gEFEAY/005xx000001SwiUAAS";

/// Why a token request is refused, in the words of the protocol.
struct Refusal {
    error: &'static str,
    description: Cow<'static, str>,
}

/// Answers a request to the token endpoint.
pub(super) async fn answer<B>(org: &Org, parts: &Parts, body: B) -> Result<Answer, BoxError>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let fault = org.token_fault().meet();
    org.state().counters.token_requests += 1;
    let body = collect(body).await?;
    let granted = match &fault.fault {
        Fault::Refuse {
            status,
            error,
            description,
        } => Err(answer::token_error(*status, error, description)),
        Fault::Maintenance => Err(answer::maintenance()),
        _ => {
            let decision = decide(org, parts, &body);
            fault.wait(org.token_fault()).await;
            decision.and_then(Grantable::grant).map_err(|refusal| {
                let Refusal { error, description } = refusal;
                answer::token_error(StatusCode::BAD_REQUEST, error, &description)
            })
        }
    };
    let answer = granted.unwrap_or_else(|refused| {
        org.state().counters.token_refusals += 1;
        refused
    });
    fault.deliver(answer)
}

/// What was found to be in order on arrival.
enum Grantable<'a> {
    Refresh(RefreshInProcess<'a>),
    ClientCredentials(&'a Org),
}

fn decide<'a>(org: &'a Org, parts: &Parts, body: &[u8]) -> Result<Grantable<'a>, Refusal> {
    if parts.method != Method::POST {
        return Err(refusal("invalid_request", "must use HTTP POST"));
    }
    let form = Form::read(&parts.headers, body)?;
    match form.get("grant_type") {
        Some("refresh_token") => {
            authenticate_client(org, &parts.headers, &form)?;
            let Some(token) = form.get("refresh_token") else {
                let missing = "missing required parameter: refresh_token";
                return Err(refusal("invalid_request", missing));
            };
            RefreshInProcess::begin(org, token).map(Grantable::Refresh)
        }
        Some("client_credentials") => {
            authenticate_client(org, &parts.headers, &form)?;
            Ok(Grantable::ClientCredentials(org))
        }
        _ => Err(refusal(
            "unsupported_grant_type",
            "grant type not supported",
        )),
    }
}

impl Grantable<'_> {
    fn grant(self) -> Result<Answer, Refusal> {
        match self {
            Self::Refresh(refresh) => refresh.finish(),
            Self::ClientCredentials(org) => {
                let tokens = org.state().sessions.begin_lone_session();
                Ok(success(org, tokens, "api"))
            }
        }
    }
}

/// The parameters of a token request.
struct Form(Vec<(String, String)>);

impl Form {
    fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, Refusal> {
        let content_type = headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        // Anything but a form brings no parameters: the grant type is then what is found missing.
        if !media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Ok(Self(Vec::new()));
        }
        let mut form = Self(Vec::new());
        for (name, value) in form_urlencoded::parse(body).into_owned() {
            // RFC 6749 §3.2: request parameters must not be included more than once.
            if form.get(&name).is_some() {
                let description = format!("duplicate parameter: {name}");
                return Err(refusal("invalid_request", description));
            }
            form.0.push((name, value));
        }
        Ok(form)
    }

    fn get(&self, name: &str) -> Option<&str> {
        let mut parameters = self.0.iter();
        parameters.find_map(|(key, value)| (key == name).then_some(value.as_str()))
    }
}

/// Checks that the connected app is the one that asks.
fn authenticate_client(org: &Org, headers: &HeaderMap, form: &Form) -> Result<(), Refusal> {
    let from_form = (form.get("client_id"), form.get("client_secret"));
    // Salesforce ignores the header when the form repeats the pair.
    let basic = match from_form {
        (Some(_), Some(_)) => None,
        _ => basic_credentials(headers)?,
    };
    let (id, secret) = match &basic {
        Some((id, secret)) => (Some(id.as_str()), Some(secret.as_str())),
        None => from_form,
    };
    if id != Some(org.client_id()) {
        return Err(refusal("invalid_client_id", "client identifier invalid"));
    }
    if secret != Some(org.client_secret()) {
        return Err(refusal("invalid_client", "invalid client credentials"));
    }
    Ok(())
}

/// What HTTP Basic says (RFC 7617 §2); `None` without an `Authorization` header.
fn basic_credentials(headers: &HeaderMap) -> Result<Option<(String, String)>, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let credentials = || {
        let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("Basic") {
            return None;
        }
        let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
        let (id, secret) = decoded.split_once(':')?;
        Some((id.to_owned(), secret.to_owned()))
    };
    match (credentials(), values.next()) {
        (Some(credentials), None) => Ok(Some(credentials)),
        _ => Err(refusal(
            "invalid_basic_auth_header",
            "invalid basic authorization header",
        )),
    }
}

/// A refresh that has begun and is not answered yet. Dropped when its caller goes away, and then
/// the refresh token is as good as before.
struct RefreshInProcess<'a> {
    org: &'a Org,
    token: String,
}

impl<'a> RefreshInProcess<'a> {
    fn begin(org: &'a Org, token: &str) -> Result<Self, Refusal> {
        let mut state = org.state();
        let description = match state.sessions.begin_refresh(token) {
            Ok(()) => {
                let token = token.to_owned();
                return Ok(Self { org, token });
            }
            Err(RefreshRefusal::Dead) => "expired access/refresh token",
            Err(RefreshRefusal::Reused) => {
                state.counters.refresh_token_reuses += 1;
                "expired access/refresh token"
            }
            Err(RefreshRefusal::InProcess) => {
                state.counters.concurrent_refreshes += 1;
                "token request is already being processed"
            }
        };
        Err(refusal("invalid_grant", description))
    }

    fn finish(self) -> Result<Answer, Refusal> {
        let mut state = self.org.state();
        let rotate = state.rotate_refresh_tokens;
        let tokens = state.sessions.finish_refresh(&self.token, rotate);
        drop(state);
        match tokens {
            Some(tokens) => Ok(success(self.org, tokens, "refresh_token api")),
            None => Err(refusal("invalid_grant", "expired access/refresh token")),
        }
    }
}

impl Drop for RefreshInProcess<'_> {
    fn drop(&mut self) {
        // After `finish` there is nothing in process, and this changes nothing.
        self.org.state().sessions.abandon_refresh(&self.token);
    }
}

fn success(org: &Org, tokens: NewTokens, scope: &str) -> Answer {
    let mut state = org.state();
    state.counters.tokens_issued += 1;
    let id = format!("{}{IDENTITY_PATH}", state.login_url);
    let issued_at = tokens.issued_at.to_string();
    let mut body = json!({
        "access_token": tokens.access_token,
        "signature": signature::sign(org.client_secret(), &id, &issued_at),
        "scope": scope,
        "instance_url": state.instance_url,
        "id": id,
        "token_type": "Bearer",
        "issued_at": issued_at,
    });
    if let Some(refresh_token) = tokens.refresh_token {
        body["refresh_token"] = refresh_token.into();
    }
    answer::token(&body)
}

fn refusal(error: &'static str, description: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal {
        error,
        description: description.into(),
    }
}
