//! The token endpoint: finds the grant and issues its tokens.

use std::sync::Arc;

use http::Method;
use http::request::Parts;
use http_body::Body;
use serde_json::Value;

use super::approved::Approved;
use super::client::{SecretRule, authenticate};
use super::refresh::RefreshInProcess;
use super::refusal::TokenRefusal;
use super::success::{GrantKind, fields};
use crate::emulator::endpoint::dpop;
use crate::emulator::endpoint::token::{assertion, code, device, saml};
use crate::emulator::state::backend::Backend;
use crate::emulator::state::mint::Mint;
use crate::emulator::wire::answer::{self, HttpAnswer};
use crate::emulator::wire::form::Form;
use crate::emulator::wire::receive::collect;
use crate::error::BoxError;

/// Answers a request to the token endpoint.
pub(crate) async fn answer<B>(org: &Backend, parts: &Parts, body: B) -> Result<HttpAnswer, BoxError>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let fault = org.token_fault.meet();
    org.state().counters.token_requests += 1;
    let body = collect(body).await?;
    let granted = match fault.refusal(answer::token_error) {
        Some(refusal) => Err(refusal),
        None => {
            let decision = decide(org, parts, &body);
            fault.wait(&org.token_fault).await;
            decision
                .and_then(|(grantable, state)| {
                    let mut body = grantable.grant(org)?;
                    if let Some(state) = state {
                        body["state"] = state.into();
                    }
                    Ok(answer::token(&body))
                })
                .map_err(|refusal| refusal.answer())
        }
    };
    let answer = granted.unwrap_or_else(|refused| {
        org.state().counters.token_refusals += 1;
        refused
    });
    fault.deliver(dpop::add_nonce(org, answer))
}

/// A request that passed its checks on arrival.
enum Grantable<'a> {
    Refresh(RefreshInProcess<'a>),
    /// With the thumbprint of the key that the tokens will be bound to. `None` for bearer tokens.
    Session(Approved, Option<Arc<str>>),
    /// The codes of a device, instead of a token.
    Device(Value),
}

/// The checked request, and the `state` to echo in the answer.
fn decide<'a>(
    org: &'a Backend,
    parts: &Parts,
    body: &[u8],
) -> Result<(Grantable<'a>, Option<String>), TokenRefusal> {
    if parts.method != Method::POST {
        return Err(TokenRefusal::new("invalid_request", "must use HTTP POST"));
    }
    let form = Form::read(parts, body)?;
    let state = form.get("state").map(str::to_owned);
    Ok((examine(org, parts, &form)?, state))
}

fn examine<'a>(
    org: &'a Backend,
    parts: &Parts,
    form: &Form,
) -> Result<Grantable<'a>, TokenRefusal> {
    let key = dpop::key_of_request(org, parts)?;
    let begins_device = form.get("response_type") == Some("device_code");
    if key.is_none() && org.state().dpop.required && !begins_device {
        return Err(TokenRefusal::new(
            "invalid_dpop_proof",
            "the app requires a DPoP proof",
        ));
    }
    let approved = match form.get("grant_type") {
        None if begins_device => {
            return device::begin(org, form).map(Grantable::Device);
        }
        Some("refresh_token") => {
            return RefreshInProcess::begin(org, parts, form, key.as_deref())
                .map(Grantable::Refresh);
        }
        Some("authorization_code") => code::exchange(org, parts, form, key.as_deref()),
        Some("device") => device::poll(org, parts, form),
        Some("password") => password(org, parts, form),
        Some("client_credentials") => client_credentials(org, parts, form),
        Some("urn:ietf:params:oauth:grant-type:jwt-bearer") => {
            assertion::jwt_bearer(org, parts, form)
        }
        Some("urn:ietf:params:oauth:grant-type:token-exchange") => {
            assertion::token_exchange(org, parts, form)
        }
        Some("urn:ietf:params:oauth:grant-type:saml2-bearer") => saml::bearer(org, form),
        Some("assertion") => saml::web_single_sign_on(org, form),
        _ => Err(TokenRefusal::new(
            "unsupported_grant_type",
            "grant type not supported",
        )),
    };
    approved.map(|approved| Grantable::Session(approved, key))
}

impl Grantable<'_> {
    fn grant(self, org: &Backend) -> Result<Value, TokenRefusal> {
        let now = org.now();
        let (flow, tokens, nonce) = match self {
            Self::Refresh(refresh) => (GrantKind::Consent, refresh.finish(now)?, None),
            Self::Session(Approved { flow, scope, nonce }, key) => {
                let mut state = org.state();
                let mint = Mint {
                    key,
                    ..state.mint(now)
                };
                let sessions = &mut state.sessions;
                let tokens = match (flow, &scope) {
                    (GrantKind::Consent, Some(scope)) => sessions.authorize(scope, &mint),
                    _ => sessions.begin_lone_session(scope.as_deref(), &mint),
                };
                (flow, tokens, nonce)
            }
            Self::Device(codes) => return Ok(codes),
        };
        let mut state = org.state();
        state.counters.tokens_issued += 1;
        Ok(fields(&state, flow, tokens, nonce.as_deref(), now))
    }
}

fn client_credentials(org: &Backend, parts: &Parts, form: &Form) -> Result<Approved, TokenRefusal> {
    authenticate(org, parts, form, SecretRule::Required)?;
    if org.state().app.on_shared_host {
        return Err(TokenRefusal::wrong_host());
    }
    org.state().user.check_active()?;
    Ok(Approved::new(GrantKind::ClientCredentials, "api"))
}

/// The username-password flow (RFC 6749 §4.3).
fn password(org: &Backend, parts: &Parts, form: &Form) -> Result<Approved, TokenRefusal> {
    authenticate(org, parts, form, SecretRule::Required)?;
    let required = |name: &str| form.get(name).ok_or_else(|| TokenRefusal::missing(name));
    let (username, password) = (required("username")?, required("password")?);
    let mut state = org.state();
    let failure = || TokenRefusal::invalid_grant("authentication failure");
    if state.app.password_flow_blocked {
        return Err(failure());
    }
    state.log_in(|user| user.login(username, password))?;
    if state.user.password_expired {
        return Err(failure());
    }
    Ok(Approved {
        flow: GrantKind::Password,
        scope: None,
        nonce: None,
    })
}
