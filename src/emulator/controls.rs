//! The controls of the org over HTTP, for programs that do not link the crate.

use std::time::Duration;

use http::request::Parts;
use http::{Method, StatusCode};
use http_body::Body;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::endpoint::authorize::ErrorPage;
use super::fault::Fault;
use super::org::Org;
use super::wire::answer::{self, HttpAnswer};
use super::wire::receive::collect;
use crate::error::BoxError;

/// The name of the control that `path` leads to. `None` if the org exposes no controls.
pub(super) fn named<'a>(org: &Org, path: &'a str) -> Option<&'a str> {
    let name = path.strip_prefix("/emulator/")?;
    org.backend().state().controls_exposed.then_some(name)
}

/// Answers a request to the control `name`.
pub(super) async fn answer<B>(
    org: &Org,
    parts: &Parts,
    name: &str,
    body: B,
) -> Result<HttpAnswer, BoxError>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let body = collect(body).await?;
    let used = match (&parts.method, name) {
        (&Method::GET, "stats") => {
            serde_json::to_value(org.counters()).map_err(|error| error.to_string())
        }
        (&Method::POST, _) => Control::read(name, &body).and_then(|control| control.apply(org)),
        (method, _) => return Ok(answer::method_not_allowed(method, "GET,POST")),
    };
    Ok(match used {
        Ok(result) => answer::json(StatusCode::OK, &result),
        Err(problem) => {
            let message = json!({ "message": problem });
            answer::json(StatusCode::BAD_REQUEST, &message)
        }
    })
}

/// One method of the org per variant, with its parameters.
#[derive(Deserialize)]
#[serde(tag = "control", rename_all = "kebab-case", deny_unknown_fields)]
enum Control {
    ActAsSharedLoginHost { shared: bool },
    AddRedirectUri { uri: String },
    AnswerEarly { bytes: Option<usize> },
    Approve { authorize_url: String },
    ApproveDevice { user_code: String },
    BlockPasswordFlow { block: bool },
    ChangeDpopNonceAlways { change: bool },
    DeactivateUser { deactivate: bool },
    Deny { authorize_url: String },
    DenyDevice { user_code: String },
    EnforceDeviceInterval { enforce: bool },
    ErrorBodySize { bytes: Option<usize> },
    ExpireAfter { calls: Option<u64> },
    ExpirePassword { expire: bool },
    ExpireSessions {},
    Fault { on: FaultTarget, fault: FaultOrder },
    IgnoreDpop { ignore: bool },
    IssueJwtAccessTokens { issue: bool },
    LimitApprovals { approvals: Option<usize> },
    LimitLogins { logins: Option<u64> },
    LockOutAfter { wrong_passwords: Option<u32> },
    MoveInstance { url: String },
    NameIssuerInCallbacks { named: bool },
    Preauthorize { preauthorize: bool },
    RefuseSessions { message: Option<String> },
    RequireAuthenticationToRevoke { required: bool },
    RequireDpop { required: bool },
    RequireDpopNonce { required: bool },
    RequireDpopNonceForData { required: bool },
    RequirePkce { required: bool },
    RequireSecret { required: bool },
    RequireSecurityToken { required: bool },
    RevokeGrants {},
    RotateDpopNonce {},
    RotateRefreshTokens { rotate: bool },
    SetRedirectUri { uri: String },
    TrustSubjectToken { subject_token: String },
    UnlockUser {},
}

impl Control {
    fn read(name: &str, body: &[u8]) -> Result<Self, String> {
        // An empty body counts as an empty object.
        let body = if body.is_empty() { b"{}" } else { body };
        let read = || {
            let mut order: Map<String, Value> = serde_json::from_slice(body)?;
            order.insert("control".to_owned(), name.into());
            serde_json::from_value(order.into())
        };
        read().map_err(|error: serde_json::Error| error.to_string())
    }

    /// Calls the method and returns the answer.
    fn apply(self, org: &Org) -> Result<Value, String> {
        match self {
            Self::Approve { authorize_url } => return redirect(org.approve(&authorize_url)),
            Self::Deny { authorize_url } => return redirect(org.deny(&authorize_url)),
            Self::ApproveDevice { user_code } => return known(org.approve_device(&user_code)),
            Self::DenyDevice { user_code } => return known(org.deny_device(&user_code)),

            Self::ActAsSharedLoginHost { shared } => org.act_as_shared_login_host(shared),
            Self::AddRedirectUri { uri } => org.add_redirect_uri(uri),
            Self::AnswerEarly { bytes } => org.answer_early(bytes),
            Self::BlockPasswordFlow { block } => org.block_password_flow(block),
            Self::ChangeDpopNonceAlways { change } => org.change_dpop_nonce_always(change),
            Self::DeactivateUser { deactivate } => org.deactivate_user(deactivate),
            Self::EnforceDeviceInterval { enforce } => org.enforce_device_interval(enforce),
            Self::ErrorBodySize { bytes } => org.error_body_size(bytes),
            Self::ExpireAfter { calls } => org.expire_after(calls),
            Self::ExpirePassword { expire } => org.expire_password(expire),
            Self::ExpireSessions {} => org.expire_sessions(),
            Self::Fault { on, fault } => on.set(org, fault.into()),
            Self::IgnoreDpop { ignore } => org.ignore_dpop(ignore),
            Self::IssueJwtAccessTokens { issue } => org.issue_jwt_access_tokens(issue),
            Self::LimitApprovals { approvals } => org.limit_approvals(approvals),
            Self::LimitLogins { logins } => org.limit_logins(logins),
            Self::LockOutAfter { wrong_passwords } => org.lock_out_after(wrong_passwords),
            Self::MoveInstance { url } => org.move_instance(url),
            Self::Preauthorize { preauthorize } => org.preauthorize(preauthorize),
            Self::RefuseSessions { message } => org.refuse_sessions(message.as_deref()),
            Self::NameIssuerInCallbacks { named } => org.name_issuer_in_callbacks(named),
            Self::RequireAuthenticationToRevoke { required } => {
                org.require_authentication_to_revoke(required);
            }
            Self::RequireDpop { required } => org.require_dpop(required),
            Self::RequireDpopNonce { required } => org.require_dpop_nonce(required),
            Self::RequireDpopNonceForData { required } => {
                org.require_dpop_nonce_for_data(required);
            }
            Self::RequirePkce { required } => org.require_pkce(required),
            Self::RequireSecret { required } => org.require_secret(required),
            Self::RequireSecurityToken { required } => org.require_security_token(required),
            Self::RevokeGrants {} => org.revoke_grants(),
            Self::RotateDpopNonce {} => org.rotate_dpop_nonce(),
            Self::RotateRefreshTokens { rotate } => org.rotate_refresh_tokens(rotate),
            Self::SetRedirectUri { uri } => org.set_redirect_uri(uri),
            Self::TrustSubjectToken { subject_token } => org.trust_subject_token(subject_token),
            Self::UnlockUser {} => org.unlock_user(),
        }
        Ok(json!({}))
    }
}

fn redirect(redirect: Result<String, ErrorPage>) -> Result<Value, String> {
    match redirect {
        Ok(url) => Ok(json!({ "redirect": url })),
        Err(page) => Err(page.to_string()),
    }
}

fn known(known: bool) -> Result<Value, String> {
    if known {
        Ok(json!({}))
    } else {
        Err("no device waits with this user code".to_owned())
    }
}

/// The part of the org that gets a fault.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FaultTarget {
    Data,
    Revoke,
    SoapLogin,
    Token,
}

impl FaultTarget {
    fn set(self, org: &Org, fault: Fault) {
        match self {
            Self::Data => org.on_data(fault),
            Self::Revoke => org.on_revoke(fault),
            Self::SoapLogin => org.on_soap_login(fault),
            Self::Token => org.on_token(fault),
        }
    }
}

/// The JSON form of a [`Fault`].
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum FaultOrder {
    None,
    Delay {
        milliseconds: u64,
    },
    Hang,
    Refuse {
        #[serde(deserialize_with = "status")]
        status: StatusCode,
        error: String,
        description: String,
    },
    Maintenance,
    LoseAnswer,
}

fn status<'de, D: serde::Deserializer<'de>>(number: D) -> Result<StatusCode, D::Error> {
    StatusCode::from_u16(u16::deserialize(number)?).map_err(serde::de::Error::custom)
}

impl From<FaultOrder> for Fault {
    fn from(order: FaultOrder) -> Self {
        match order {
            FaultOrder::None => Self::None,
            FaultOrder::Delay { milliseconds } => Self::Delay(Duration::from_millis(milliseconds)),
            FaultOrder::Hang => Self::Hang,
            FaultOrder::Refuse {
                status,
                error,
                description,
            } => Self::refuse(status, error, description),
            FaultOrder::Maintenance => Self::Maintenance,
            FaultOrder::LoseAnswer => Self::LoseAnswer,
        }
    }
}
