//! Refusals, and the advice in them, row by row.

use std::time::Duration;

use tower_salesforce_auth::{
    RefreshError, RefreshFn,
    flow::{RefreshToken, SoapLogin, UsernamePassword},
    oauth::App,
};

use crate::support::answering;

const MY_DOMAIN: &str = "https://acme.my.salesforce.com";

async fn refused(status: u16, code: &str, description: &str) -> RefreshError {
    let body = serde_json::json!({ "error": code, "error_description": description });
    let app = App::new(MY_DOMAIN.parse().unwrap(), "3MVG9key");
    let flow = RefreshToken::new(answering(status, &[], body.to_string()), app, "5Aep861");
    flow.log_in().await.unwrap_err()
}

async fn soap_refused(code: &str, message: &str) -> RefreshError {
    let body = format!(
        "<e:Envelope><e:Body><e:Fault><faultcode>sf:{code}</faultcode><faultstring>{message}</faultstring></e:Fault></e:Body></e:Envelope>"
    );
    let login_url = MY_DOMAIN.parse().unwrap();
    let flow = SoapLogin::new(answering(500, &[], body), login_url, "user", "password");
    flow.log_in().await.unwrap_err()
}

/// Every code of the protocol, with what an administrator or developer has to do.
const GRANTS: &[(&str, &str, &str)] = &[
    (
        "invalid_grant",
        "request not supported on this domain",
        "My Domain only",
    ),
    (
        "invalid_grant",
        "no client credentials user enabled",
        "Run As user",
    ),
    (
        "invalid_grant",
        "expired access/refresh token",
        "a new authorization is needed",
    ),
    (
        "invalid_grant",
        "expired authorization code",
        "within a few minutes",
    ),
    (
        "invalid_grant",
        "invalid authorization code",
        "within a few minutes",
    ),
    (
        "invalid_grant",
        "invalid code verifier",
        "store each verifier",
    ),
    ("invalid_grant", "ip restricted", "IP policy"),
    (
        "invalid_grant",
        "authentication failure",
        "counts towards a lockout",
    ),
    (
        "invalid_grant",
        "authentication failure - Invalid Password",
        "counts towards a lockout",
    ),
    (
        "invalid_grant",
        "user hasn't approved this consumer",
        "pre-authorize the user",
    ),
    ("invalid_grant", "invalid assertion", "this machine's clock"),
    (
        "invalid_grant",
        "audience is invalid",
        "the audience must be",
    ),
    (
        "invalid_grant",
        "Audience validation failed",
        "the audience must be",
    ),
    (
        "invalid_grant",
        "Data Not Available",
        "the org no longer exists",
    ),
    (
        "invalid_grant",
        "inactive user",
        "have an administrator activate the user",
    ),
    (
        "invalid_grant",
        "invalid login hours",
        "login hours exclude",
    ),
    (
        "invalid_grant",
        "activation secret invalid",
        "begin the device authorization again",
    ),
    ("invalid_grant", "", "a new authorization is needed"),
    (
        "invalid_grant",
        "something new",
        "a new authorization is needed",
    ),
    ("invalid_app_access", "", "assign the app"),
    (
        "invalid_client_id",
        "client identifier invalid",
        "check the consumer key",
    ),
    (
        "invalid_client",
        "invalid client credentials",
        "check the consumer secret",
    ),
    ("invalid_client_credentials", "", "the consumer secret"),
    ("invalid_basic_auth_header", "", "no proxy changes"),
    ("unauthorized_client", "", "have an administrator enable it"),
    (
        "invalid_request",
        "add refresh_token",
        "add the scope refresh_token",
    ),
    ("invalid_request", "HTTPS required", "https login URL"),
    ("invalid_request", "must use POST", "a parameter is missing"),
    ("invalid_scope", "", "scopes that the app has"),
    (
        "unsupported_grant_type",
        "grant type not supported",
        "enable the flow",
    ),
    ("oauth_flow_disabled", "", "enable the flow"),
    ("unsupported_response_type", "", "web server flow"),
    ("redirect_uri_mismatch", "", "callback URLs exactly"),
    ("redirect_uri_missing", "", "callback URLs"),
    (
        "app_not_found",
        "",
        "have an administrator install or unblock",
    ),
    (
        "app_blocked",
        "",
        "have an administrator install or unblock",
    ),
    (
        "fail_close_app_blocked",
        "",
        "have an administrator install or unblock",
    ),
    ("ecapp_policy_not_found", "", "External Client App Manager"),
    ("oauth_policy_not_found", "", "External Client App Manager"),
    ("invalid_session_level", "", "high assurance"),
    (
        "access_denied",
        "end-user denied authorization",
        "did not allow it",
    ),
    ("immediate_unsuccessful", "", "without `immediate`"),
    (
        "inactive_user",
        "",
        "have an administrator activate the user",
    ),
    ("inactive_org", "", "locked, closed or suspended"),
    ("invalid_assertion_type", "", "JWT bearer or SAML bearer"),
    ("invalid_assertion", "", "this machine's clock"),
    ("bad_jti_claim", "", "a new one for each login"),
    ("invalid_token", "", "check the login URL"),
    (
        "unsupported_token_type",
        "",
        "an access token or a refresh token",
    ),
    ("invalid_dpop_proof", "", "App::dpop"),
    ("use_dpop_nonce", "", "App::dpop"),
    ("expired_token", "", "begin the device authorization again"),
    // Another writing of the same code.
    ("APP_BLOCKED", "", "install or unblock"),
    ("fail-close-app-blocked", "", "install or unblock"),
    ("Inactive_Org", "", "locked, closed or suspended"),
];

#[tokio::test]
async fn each_refusal_of_a_grant_has_its_advice() {
    for (code, description, advice) in GRANTS {
        for status in [400, 401, 403, 500, 503, 429] {
            let error = refused(status, code, description).await;
            assert!(
                error.to_string().contains(advice),
                "{code} {description}: {error}"
            );
            assert!(
                error.is_terminal(),
                "{status} {code} {description}: {error}"
            );
            assert_eq!(error.error_code(), Some(*code));
        }
    }
}

#[tokio::test]
async fn a_refusal_that_passes_is_tried_again() {
    for (code, description, advice) in [
        (
            "invalid_grant",
            "token request is already being processed",
            "share the session with a store",
        ),
        ("unknown_error", "retry your request", "usually passes"),
        ("server_error", "", "usually passes"),
        ("service_unavailable", "", "usually passes"),
        ("system_down", "", "usually passes"),
        ("login_error", "", "usually passes"),
        ("temporarily_unavailable", "", "usually passes"),
    ] {
        let error = refused(400, code, description).await;
        assert!(!error.is_terminal(), "{code}: {error}");
        assert!(error.to_string().contains(advice), "{error}");
        assert_eq!(error.retry_after(), None);
    }
    // An unknown code: the status decides.
    assert!(refused(400, "something_new", "").await.is_terminal());
    for status in [429, 500, 503] {
        assert!(!refused(status, "something_new", "").await.is_terminal());
    }
}

#[tokio::test]
async fn too_many_logins_pass_in_an_hour() {
    let hour = Some(Duration::from_secs(3_600));
    for (code, description) in [
        ("invalid_grant", "login rate exceeded"),
        ("invalid_grant", "login rate limit exceeded"),
        ("invalid_grant", "Login Rate Exceeded"),
        ("invalid_grant", "LOGIN_RATE_EXCEEDED: login rate exceeded"),
        ("invalid_grant", "Login limit reached"),
        ("invalid_grant", "Too many logins"),
        ("unknown_error", "rate limit exceeded"),
        ("rate_limit_exceeded", "number of logins exceeded"),
        ("login_rate_exceeded", ""),
        ("LOGIN_RATE_EXCEEDED", ""),
    ] {
        let error = refused(400, code, description).await;
        assert!(!error.is_terminal(), "{code} {description}: {error}");
        assert_eq!(error.retry_after(), hour, "{code} {description}");
        assert!(error.to_string().contains("3,600 times an hour"), "{error}");
        let error = soap_refused(code, description).await;
        assert_eq!(
            (error.is_terminal(), error.retry_after()),
            (false, hour),
            "{description}"
        );
    }
}

/// The fault codes of a login, likewise.
const FAULTS: &[(&str, &str, &str)] = &[
    (
        "INVALID_LOGIN",
        "Invalid username",
        "counts towards a lockout",
    ),
    ("LOGIN_MUST_USE_SECURITY_TOKEN", "", "security token"),
    ("LOGIN_DURING_RESTRICTED_DOMAIN", "", "login IP ranges"),
    ("LOGIN_DURING_RESTRICTED_TIME", "", "login hours"),
    ("LOGIN_CHALLENGE_ISSUED", "", "in a browser once"),
    ("LOGIN_CHALLENGE_PENDING", "", "in a browser once"),
    ("PASSWORD_LOCKOUT", "", "unlock the user"),
    (
        "INVALID_OPERATION_WITH_EXPIRED_PASSWORD",
        "",
        "set a new one",
    ),
    ("API_DISABLED_FOR_ORG", "", "do not include the API"),
    ("API_CURRENTLY_DISABLED", "", "do not include the API"),
    ("INSUFFICIENT_ACCESS", "", "Use Any API Auth"),
    ("UNSUPPORTED_API_VERSION", "", "from 31.0 to 64.0"),
    ("UNSUPPORTED_CLIENT", "", "API version 64.0"),
    ("CLIENT_REQUIRE_UPDATE_FOR_USER", "", "API version 64.0"),
    ("CLIENT_NOT_ACCESSIBLE_FOR_USER", "", "allow this client"),
    ("INVALID_CLIENT", "", "allow this client"),
    ("INVALID_SSO_GATEWAY_URL", "", "gateway URL"),
    ("MUTUAL_AUTHENTICATION_FAILED", "", "port 8443"),
    ("ORG_LOCKED", "", "unlock it"),
    ("TRIAL_EXPIRED", "", "trial has ended"),
    (
        "ORG_NOT_OWNED_BY_INSTANCE",
        "",
        "My Domain as the login URL",
    ),
    (
        "TXN_SECURITY_END_A_SESSION",
        "",
        "transaction security policy",
    ),
    ("INVALID_SESSION_ID", "", "has expired, or was revoked"),
    ("REQUEST_LIMIT_EXCEEDED", "", "used up its API calls"),
    (
        "Client",
        "login operation is not available",
        "up to API version 64.0",
    ),
    (
        "Client",
        "No operation available for request",
        "up to API version 64.0",
    ),
];

#[tokio::test]
async fn each_soap_fault_has_its_advice() {
    for (code, message, advice) in FAULTS {
        let error = soap_refused(code, message).await;
        assert!(error.to_string().contains(advice), "{code}: {error}");
        assert!(error.is_terminal(), "{code}: {error}");
        assert_eq!(error.error_code(), Some(*code));
    }
    for code in [
        "Server",
        "SERVER_UNAVAILABLE",
        "ORG_IN_MAINTENANCE",
        "UNKNOWN_EXCEPTION",
    ] {
        let error = soap_refused(code, "later").await;
        assert!(!error.is_terminal(), "{code}: {error}");
        assert!(error.to_string().contains("which passes"), "{error}");
    }
}

/// A short secret that is a part of a word is not cut out of it.
#[tokio::test]
async fn r17_nothing_is_cut_out_of_words() {
    let refused = async |password: &str, description: &str| {
        let body =
            serde_json::json!({ "error": "invalid_grant", "error_description": description });
        let app = App::new(MY_DOMAIN.parse().unwrap(), "3MVG9key");
        let client = answering(400, &[], body.to_string());
        let flow = UsernamePassword::new(client, app, "user", password);
        flow.log_in().await.unwrap_err().to_string()
    };
    for (password, description) in [
        ("enti", "authentication failure"),
        ("pass", "wrong password"),
        ("a", "authentication failure"),
        ("fail", "authentication failure"),
        ("secret", "client secrets are no passwords"),
        ("token", "expired access/refresh tokens"),
    ] {
        let shown = refused(password, description).await;
        assert!(
            shown.contains(&format!("({description})")),
            "{password}: {shown}"
        );
    }
    for (password, description) in [
        ("pass", "wrong: pass"),
        ("pass", "pass is wrong"),
        ("pass", "'pass'"),
        ("p4ss", "xp4ssx"),
        ("hunter2", "hunter2x"),
        ("password-hush", "xpassword-hushx"),
    ] {
        let shown = refused(password, description).await;
        assert!(shown.contains("[redacted]"), "{password}: {shown}");
    }
}
