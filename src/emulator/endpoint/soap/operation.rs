//! The SOAP operations.

use http::request::Parts;
use http::{Method, StatusCode};
use http_body::Body;
use quick_xml::escape::escape;

use super::answer as soap;
use super::call::SoapCall;
use super::endpoint::SoapEndpoint;
use crate::emulator::fault::MetFault;
use crate::emulator::state::OrgState;
use crate::emulator::state::backend::Backend;
use crate::emulator::state::dpop::Presented;
use crate::emulator::state::ids::{ORG_ID, PROFILE_ID, USER_ID};
use crate::emulator::state::user::{LoginRefusal, USERNAME};
use crate::emulator::wire::answer::HttpAnswer;
use crate::emulator::wire::receive::collect;
use crate::error::BoxError;

/// The last version that has `login()`.
const LAST_VERSION_WITH_LOGIN: u16 = 64;

/// The default of an org for a session's lifetime. The emulator never ends a session by it.
const SESSION_SECONDS_VALID: u32 = 7_200;

/// Answers a request to `endpoint`.
pub(crate) async fn answer<B>(
    org: &Backend,
    parts: &Parts,
    endpoint: &SoapEndpoint<'_>,
    body: B,
) -> Result<HttpAnswer, BoxError>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let login_fault = org.soap_login_fault.meet();
    org.state().counters.soap_requests += 1;
    let body = collect(body).await?;
    if parts.method != Method::POST {
        return Ok(soap::only_post_allowed());
    }
    // SOAP 1.1 §6.1.1 demands the header. The org ignores its value.
    if !parts.headers.contains_key("soapaction") {
        return Ok(soap::client_fault("SOAPAction HTTP header missing"));
    }
    let Some(version) = endpoint.version_number() else {
        let message = "Invalid Api version specified on URL";
        let code = "UNSUPPORTED_API_VERSION";
        return Ok(soap::unexpected_error(endpoint, code, message));
    };
    let call = match SoapCall::read(&body) {
        Ok(call) => call,
        Err(problem) => {
            let code = "UNKNOWN_EXCEPTION";
            return Ok(soap::unexpected_error(endpoint, code, &problem));
        }
    };
    let SoapCall {
        namespace,
        operation,
        ..
    } = &call;
    match operation.as_str() {
        _ if *namespace != endpoint.namespace() => Ok(no_such_operation(namespace, operation)),
        "login" if version > LAST_VERSION_WITH_LOGIN => Ok(no_login_in_this_version(endpoint)),
        "login" => log_in(org, endpoint, &call, login_fault).await,
        "logout" => Ok(log_out(org, parts, endpoint, &call)),
        "getUserInfo" => Ok(get_user_info(org, parts, endpoint, &call)),
        _ => Ok(no_such_operation(namespace, operation)),
    }
}

fn no_such_operation(namespace: &str, operation: &str) -> HttpAnswer {
    soap::client_fault(&format!(
        "No operation available for request {{{namespace}}}{operation}, \
         please check the WSDL for the service."
    ))
}

fn no_login_in_this_version(endpoint: &SoapEndpoint<'_>) -> HttpAnswer {
    let version = endpoint.version();
    let message = format!(
        "The SOAP Login operation is not available in the API version specified ({version}). \
         Refer to the documentation for supported versions."
    );
    soap::unexpected_error(endpoint, "INVALID_OPERATION", &message)
}

async fn log_in(
    org: &Backend,
    endpoint: &SoapEndpoint<'_>,
    call: &SoapCall,
    fault: MetFault,
) -> Result<HttpAnswer, BoxError> {
    let write =
        |status, code: &str, message: &str| soap::login_fault(endpoint, status, code, message);
    let answer = match fault.refusal(write) {
        Some(refusal) => refusal,
        None => {
            // A `LoginScopeHeader` changes nothing: it is for portal users, and the org has none.
            let (username, password) = (call.argument("username"), call.argument("password"));
            let entered = org.state().log_in(|user| user.login(username, password));
            fault.wait(&org.soap_login_fault).await;
            match entered {
                Ok(()) => begin_session(org, endpoint),
                Err(refusal) => refuse_login(endpoint, refusal),
            }
        }
    };
    fault.deliver(answer)
}

fn begin_session(org: &Backend, endpoint: &SoapEndpoint<'_>) -> HttpAnswer {
    let now = org.now();
    let mut state = org.state();
    let mint = state.mint(now);
    let session_id = state.sessions.begin_lone_session(None, &mint).access_token;
    let password_expired = state.user.password_expired;
    if password_expired {
        // A real session of this kind only permits a password change, which the emulator does not
        // offer.
        state.sessions.end_session(&session_id, now);
    }
    let server_url = endpoint.server_url(&state.instance_url);
    let metadata_server_url = endpoint.metadata_server_url(&state.instance_url);
    let result = format!(
        "<metadataServerUrl>{}</metadataServerUrl>\
         <passwordExpired>{password_expired}</passwordExpired>\
         <sandbox>false</sandbox>\
         <serverUrl>{}</serverUrl>\
         <sessionId>{}</sessionId>\
         <userId>{USER_ID}</userId>\
         <userInfo>{}</userInfo>",
        escape(metadata_server_url),
        escape(server_url),
        escape(session_id),
        user_info(),
    );
    soap::success(endpoint, "login", &result)
}

fn refuse_login(endpoint: &SoapEndpoint<'_>, refusal: LoginRefusal) -> HttpAnswer {
    let (code, message) = match refusal {
        LoginRefusal::Invalid | LoginRefusal::Inactive => (
            "INVALID_LOGIN",
            "Invalid username, password, security token; or user locked out.",
        ),
        LoginRefusal::RateExceeded => ("LOGIN_RATE_EXCEEDED", "Login Rate Exceeded"),
    };
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    soap::login_fault(endpoint, status, code, message)
}

fn log_out(
    org: &Backend,
    parts: &Parts,
    endpoint: &SoapEndpoint<'_>,
    call: &SoapCall,
) -> HttpAnswer {
    let now = org.now();
    let mut state = org.state();
    let session_id = proven_session(&mut state, parts, call, now);
    if session_id.is_some_and(|id| state.sessions.end_session(id, now)) {
        state.counters.soap_logouts += 1;
        return soap::success(endpoint, "logout", "");
    }
    state.counters.soap_rejected += 1;
    drop(state);
    reject(endpoint, call)
}

fn get_user_info(
    org: &Backend,
    parts: &Parts,
    endpoint: &SoapEndpoint<'_>,
    call: &SoapCall,
) -> HttpAnswer {
    let now = org.now();
    let mut state = org.state();
    let session_id = proven_session(&mut state, parts, call, now);
    if state.refusal_of_sessions.is_none()
        && session_id.is_some_and(|id| state.sessions.spend_call(id, now))
    {
        return soap::success(endpoint, "getUserInfo", &user_info());
    }
    state.counters.soap_rejected += 1;
    if let Some(message) = &state.refusal_of_sessions {
        return soap::unexpected_error(endpoint, "INVALID_SESSION_ID", message);
    }
    drop(state);
    reject(endpoint, call)
}

/// The session id of the call. `None` for a JWT, which SOAP does not accept, and for one that is bound to a key and not proven in
/// the `DpopProofHeader`.
fn proven_session<'a>(
    state: &mut OrgState,
    parts: &Parts,
    call: &'a SoapCall,
    now: u64,
) -> Option<&'a str> {
    let id = call.session_id.as_deref();
    let token = id.filter(|id| !id.starts_with("eyJ"))?;
    let presented = Presented {
        token,
        is_bound: None,
        proof: call.proof.as_deref(),
    };
    let proofs = (&mut state.dpop, &state.sessions);
    let proven = presented.check(proofs, (parts, now), false);
    proven.is_ok().then_some(token)
}

fn reject(endpoint: &SoapEndpoint<'_>, call: &SoapCall) -> HttpAnswer {
    let session_id = call.session_id.as_deref().unwrap_or_default();
    soap::invalid_session_id(endpoint, session_id)
}

/// All elements of a `GetUserInfoResult` that Salesforce sends, in its order.
fn user_info() -> String {
    let username = escape(USERNAME);
    format!(
        "<accessibilityMode>false</accessibilityMode>\
         <chatterExternal>false</chatterExternal>\
         <currencySymbol>$</currencySymbol>\
         <orgAttachmentFileSizeLimit>26214400</orgAttachmentFileSizeLimit>\
         <orgDefaultCurrencyIsoCode>USD</orgDefaultCurrencyIsoCode>\
         <orgDefaultCurrencyLocale>en_US</orgDefaultCurrencyLocale>\
         <orgDisallowHtmlAttachments>false</orgDisallowHtmlAttachments>\
         <orgHasPersonAccounts>false</orgHasPersonAccounts>\
         <organizationId>{ORG_ID}</organizationId>\
         <organizationMultiCurrency>false</organizationMultiCurrency>\
         <organizationName>Example</organizationName>\
         <profileId>{PROFILE_ID}</profileId>\
         <roleId xsi:nil=\"true\"/>\
         <sessionSecondsValid>{SESSION_SECONDS_VALID}</sessionSecondsValid>\
         <userDefaultCurrencyIsoCode xsi:nil=\"true\"/>\
         <userEmail>{username}</userEmail>\
         <userFullName>Ann Example</userFullName>\
         <userId>{USER_ID}</userId>\
         <userLanguage>en_US</userLanguage>\
         <userLocale>en_US</userLocale>\
         <userName>{username}</userName>\
         <userTimeZone>America/Los_Angeles</userTimeZone>\
         <userType>Standard</userType>\
         <userUiSkin>Theme3</userUiSkin>"
    )
}
