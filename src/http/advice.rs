//! What each refusal means and what to do about it: one table for the codes of OAuth, SOAP and the REST API.

/// What a refusal says about another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// No other attempt can succeed before a person intervenes.
    Terminal,
    /// Another attempt may succeed.
    Transient,
    /// The user has logged in too often: another attempt may succeed in an hour.
    TooManyLogins,
}

use Outlook::{Terminal, TooManyLogins, Transient};

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The codes, as servers write them. Empty for any code.
    codes: &'static [&'static str],
    /// A part of the description, in lower case. Empty for any description.
    text: &'static str,
    pub(crate) outlook: Outlook,
    pub(crate) advice: &'static str,
}

/// Finds what is known about a refusal. A code with hyphens, blanks, in another case, or that begins with `OAUTH_`, is
/// understood too.
pub(crate) fn find(code: &str, description: &str) -> Option<&'static Refusal> {
    let description = description.to_lowercase();
    first_written(code, |code| {
        REFUSALS.iter().find(|row| {
            (row.codes.is_empty() || row.codes.contains(&code)) && description.contains(row.text)
        })
    })
}

/// Whether this is the code of a refusal in the table.
pub(crate) fn is_known(code: &str) -> bool {
    let is_in_table = |code: &str| REFUSALS.iter().any(|row| row.codes.contains(&code));
    first_written(code, |code| is_in_table(code).then_some(())).is_some()
}

/// What `find` finds for a code as it is written or, if that is nothing, for the plain form of the table.
fn first_written<T>(code: &str, find: impl Fn(&str) -> Option<T>) -> Option<T> {
    let plain = code.trim().to_ascii_lowercase().replace(['-', ' '], "_");
    find(code)
        .or_else(|| find(&plain))
        .or_else(|| find(plain.strip_prefix("oauth_")?))
}

/// The code that comes with a description alone, if it is a refusal of the grant.
pub(crate) fn code_of(description: &str) -> Option<&'static str> {
    let description = description.to_lowercase();
    let mut rows = REFUSALS.iter();
    let row = rows.find(|row| !row.text.is_empty() && description.contains(row.text))?;
    let code = row.codes.first().copied();
    code.filter(|code| INVALID_GRANT.contains(code))
}

const INVALID_GRANT: &[&str] = &["invalid_grant"];

const fn row(
    codes: &'static [&'static str],
    text: &'static str,
    outlook: Outlook,
    advice: &'static str,
) -> Refusal {
    Refusal {
        codes,
        text,
        outlook,
        advice,
    }
}

const TOO_MANY_LOGINS: &str =
    "a user may log in 3,600 times an hour: keep sessions longer, and wait an hour";

const NO_SOAP_LOGIN: &str = "SOAP login() exists up to API version 64.0 only, and is retired in Summer '27: use another \
                             flow";

/// The table. The first row that fits counts.
#[rustfmt::skip]
static REFUSALS: &[Refusal] = &[
    // --- Any code: the description says more ---
    row(&[], "login rate", TooManyLogins, TOO_MANY_LOGINS),
    row(&[], "rate limit exceeded", TooManyLogins, TOO_MANY_LOGINS),
    row(&[], "number of logins exceeded", TooManyLogins, TOO_MANY_LOGINS),
    row(&[], "login limit", TooManyLogins, TOO_MANY_LOGINS),
    row(&[], "too many logins", TooManyLogins, TOO_MANY_LOGINS),
    row(&["rate_limit_exceeded", "login_rate_exceeded", "LOGIN_RATE_EXCEEDED"], "", TooManyLogins, TOO_MANY_LOGINS),
    row(&[], "data not available", Terminal,
        "the org no longer exists, for example because it was a scratch org and has expired"),

    // --- OAuth: `invalid_grant` (Help, "OAuth 2.0 Authorization Errors") ---
    row(INVALID_GRANT, "token request is already being", Transient,
        "another process exchanges the same token at this moment: share the session with a store"),
    row(INVALID_GRANT, "request not supported on this domain", Terminal,
        "client credentials and token exchange work on the org's My Domain only, \
         https://<MyDomainName>.my.salesforce.com, not on login or test.salesforce.com"),
    row(INVALID_GRANT, "no client credentials user enabled", Terminal,
        "choose a Run As user in the app's client credentials flow policy"),
    row(INVALID_GRANT, "expired access/refresh token", Terminal,
        "the refresh token was revoked, has expired, was used twice, or belongs to another login host; a new authorization \
         is needed"),
    row(INVALID_GRANT, "authorization code", Terminal,
        "a code can be exchanged once, within a few minutes; begin a new authorization"),
    row(INVALID_GRANT, "code verifier", Terminal,
        "the code belongs to an authorization that began with another verifier: store each verifier together with the \
         `state` of its authorization"),
    row(INVALID_GRANT, "ip restricted", Terminal, "the app's or the profile's IP policy excludes this address"),
    row(INVALID_GRANT, "authentication failure", Terminal,
        "wrong user name, password or security token, a locked user, or a blocked flow (Setup > OAuth and OpenID Connect \
         Settings); do not repeat the login, since each attempt counts towards a lockout"),
    row(INVALID_GRANT, "hasn't approved this consumer", Terminal,
        "pre-authorize the user (the app's policies: Admin approved users, and a profile or permission set), or have the \
         user authorize the app once, with the scope refresh_token; check that the login URL belongs to the user's org"),
    row(INVALID_GRANT, "invalid assertion", Terminal,
        "check that the app has the key's certificate, and that this machine's clock is right"),
    row(INVALID_GRANT, "audience", Terminal,
        "the audience must be https://login.salesforce.com, https://test.salesforce.com for a sandbox, or the site's login \
         URL"),
    row(INVALID_GRANT, "inactive user", Terminal,
        "the user was deactivated: have an administrator activate the user, or choose another one"),
    row(INVALID_GRANT, "login hours", Terminal, "the profile's login hours exclude this time"),
    row(INVALID_GRANT, "activation secret invalid", Terminal,
        "the device was not activated with this code: begin the device authorization again"),
    row(INVALID_GRANT, "", Terminal,
        "check that the login URL belongs to the org and that the credentials are those of this app; otherwise a new \
         authorization is needed"),

    // --- OAuth: the app and its settings ---
    row(&["invalid_app_access"], "", Terminal,
        "assign the app to the user's profile or permission set (the app's policies: Admin approved users)"),
    row(&["invalid_client_id"], "", Terminal,
        "this host does not know the app: check the consumer key and the login URL; a new app may need ten minutes"),
    row(&["invalid_client"], "", Terminal, "check the consumer secret"),
    row(&["invalid_client_credentials"], "", Terminal, "check the consumer key and the consumer secret"),
    row(&["invalid_basic_auth_header"], "", Terminal,
        "check the consumer key and the consumer secret, and that no proxy changes the `Authorization` header"),
    row(&["unauthorized_client"], "", Terminal,
        "the app may not use this flow: have an administrator enable it in the app's OAuth settings"),
    row(&["invalid_request"], "refresh_token", Terminal, "add the scope refresh_token to the app"),
    row(&["invalid_request"], "https", Terminal, "use an https login URL"),
    row(&["invalid_request"], "", Terminal,
        "a parameter is missing, repeated or not allowed: check the login URL and the settings of the flow"),
    row(&["invalid_scope"], "", Terminal, "ask for scopes that the app has"),
    row(&["unsupported_grant_type", "oauth_flow_disabled"], "", Terminal, "enable the flow in the app's OAuth settings"),
    row(&["unsupported_response_type"], "", Terminal, "enable the web server flow in the app's OAuth settings"),
    row(&["redirect_uri_mismatch"], "", Terminal, "the redirect URI must equal one of the app's callback URLs exactly"),
    row(&["redirect_uri_missing"], "", Terminal, "send the redirect URI, which must be one of the app's callback URLs"),
    row(&["app_not_found", "app_blocked", "fail_close_app_blocked"], "", Terminal,
        "have an administrator install or unblock the app (Setup > Connected Apps OAuth Usage)"),
    row(&["ec_app_not_found"], "", Terminal,
        "have an administrator install the external client app (Setup > External Client App Manager)"),
    row(&["app_access_denied"], "", Terminal,
        "have an administrator assign the app to the user's profile or permission set (the app's policies: Admin approved \
         users)"),
    row(&["approval_error_generic"], "", Terminal,
        "have an administrator install the app (Setup > Connected Apps OAuth Usage), and let the user authorize it again"),
    row(&["ecapp_policy_not_found", "oauth_policy_not_found"], "", Terminal,
        "have an administrator set the policies of the external client app (Setup > External Client App Manager)"),
    row(&["invalid_session_level"], "", Terminal,
        "the app wants a high assurance session: have an administrator lower the level in the app's or the profile's session \
         policy, or have the user log in with multi-factor authentication"),

    // --- OAuth: the user and the org ---
    row(&["access_denied"], "", Terminal, "the user did not allow it"),
    row(&["immediate_unsuccessful"], "", Terminal,
        "the user has to log in or consent: ask again without `immediate`"),
    row(&["inactive_user"], "", Terminal,
        "the user was deactivated: have an administrator activate the user, or choose another one"),
    row(&["inactive_org"], "", Terminal, "the org is locked, closed or suspended"),

    // --- OAuth: tokens and assertions ---
    row(&["invalid_assertion_type"], "", Terminal, "use the flow that fits the assertion: JWT bearer or SAML bearer"),
    row(&["invalid_assertion"], "", Terminal,
        "check that the app has the key's certificate, and that this machine's clock is right"),
    row(&["bad_jti_claim"], "", Terminal, "an assertion was sent twice, or has no id: make a new one for each login"),
    row(&["invalid_token"], "", Terminal, "the token is unknown here, was revoked or has expired: check the login URL"),
    row(&["unsupported_token_type"], "", Terminal, "send an access token or a refresh token of this org"),
    row(&["invalid_dpop_proof", "use_dpop_nonce"], "", Terminal,
        "the app requires DPoP: turn it on with App::dpop or SamlBearer::dpop (feature `dpop`), or off for the app in Salesforce"),
    row(&["authorization_pending"], "", Terminal, "the user has not decided yet: ask again after the interval"),
    row(&["slow_down"], "", Terminal, "ask again after a longer interval"),
    row(&["expired_token"], "", Terminal, "the device code has expired: begin the device authorization again"),

    // --- OAuth: the server ---
    row(&["unknown_error", "server_error", "service_unavailable", "system_down", "login_error", "temporarily_unavailable"],
        "", Transient, "the server has a problem of its own, which usually passes: see https://status.salesforce.com"),

    // --- Identity URL and userinfo, which answer in one word ---
    row(&["Bad_OAuth_Token"], "", Terminal, "the session has expired, or was revoked"),
    row(&["Missing_OAuth_Token"], "", Terminal, "a proxy removed the `Authorization` header"),
    row(&["Wrong_Org"], "", Terminal, "the token is of another org: use the session's own instance"),
    row(&["Bad_Id"], "", Terminal, "the identity URL names no org or user: use the `id` of the token response"),
    row(&["Inactive"], "", Terminal, "the user or the org is not active: have an administrator activate it"),
    row(&["No_Access"], "", Terminal, "the app lacks the scope id or openid, or the user lacks access to the org"),
    row(&["No_Site_Endpoint"], "", Terminal, "the site does not exist or is not active: have an administrator activate it"),

    // --- SOAP: the login (SOAP API Developer Guide, "ExceptionCode") ---
    row(&[], "login operation is not available", Terminal, NO_SOAP_LOGIN),
    row(&[], "no operation available", Terminal, NO_SOAP_LOGIN),
    row(&["INVALID_LOGIN"], "", Terminal,
        "check the login URL, which is different for a sandbox, and the security token, which changes with the password; do \
         not repeat the login, since each attempt counts towards a lockout"),
    row(&["LOGIN_MUST_USE_SECURITY_TOKEN"], "", Terminal,
        "add the user's security token, or this address to the org's trusted IP ranges"),
    row(&["LOGIN_DURING_RESTRICTED_DOMAIN"], "", Terminal, "the profile's login IP ranges exclude this address"),
    row(&["LOGIN_DURING_RESTRICTED_TIME"], "", Terminal, "the profile's login hours exclude this time"),
    row(&["LOGIN_CHALLENGE_ISSUED", "LOGIN_CHALLENGE_PENDING"], "", Terminal,
        "Salesforce wants to verify the user's identity: log in to the org in a browser once, or add this address to the \
         org's trusted IP ranges"),
    row(&["PASSWORD_LOCKOUT"], "", Terminal, "wait until the lockout is over, or have an administrator unlock the user"),
    row(&["INVALID_OPERATION_WITH_EXPIRED_PASSWORD"], "", Terminal,
        "the password has expired: set a new one, or let the password of this user never expire"),
    row(&["API_DISABLED_FOR_ORG", "API_CURRENTLY_DISABLED"], "", Terminal,
        "the org's edition, or the user's permissions, do not include the API"),
    row(&["INSUFFICIENT_ACCESS"], "", Terminal,
        "SOAP login() is turned off in this org, or the user lacks the permission \"Use Any API Auth\""),
    row(&["UNSUPPORTED_API_VERSION"], "", Terminal, "login() needs an API version from 31.0 to 64.0"),
    row(&["UNSUPPORTED_CLIENT", "CLIENT_REQUIRE_UPDATE_FOR_USER"], "", Terminal,
        "the org refuses this client or its API version: use the API version 64.0, or another flow"),
    row(&["CLIENT_NOT_ACCESSIBLE_FOR_USER", "INVALID_CLIENT"], "", Terminal,
        "have an administrator allow this client for the user, or leave out the client's name"),
    row(&["INVALID_SSO_GATEWAY_URL"], "", Terminal,
        "delegated authentication is set up wrongly: have an administrator check its gateway URL"),
    row(&["MUTUAL_AUTHENTICATION_FAILED"], "", Terminal,
        "the user must present a client certificate, at port 8443 of the My Domain"),
    row(&["ORG_LOCKED"], "", Terminal, "the org is locked: an administrator has to ask Salesforce to unlock it"),
    row(&["TRIAL_EXPIRED"], "", Terminal, "the org's trial has ended: an administrator has to subscribe"),
    row(&["ORG_NOT_OWNED_BY_INSTANCE"], "", Terminal, "the org is on another instance: use its My Domain as the login URL"),
    row(&["TXN_SECURITY_END_A_SESSION"], "", Terminal,
        "a transaction security policy limits the user's sessions: have an administrator change it, or log out first"),
    row(&["INVALID_SESSION_ID"], "", Terminal, "the session has expired, or was revoked"),

    // --- SOAP and REST: the server (SOAP 1.1 §4.4.1) ---
    row(&["Server", "SERVER_UNAVAILABLE", "ORG_IN_MAINTENANCE", "UNKNOWN_EXCEPTION"], "", Transient,
        "the server has a problem or is in maintenance, which passes: see https://status.salesforce.com"),
    row(&["REQUEST_LIMIT_EXCEEDED"], "", Terminal,
        "the org has used up its API calls: wait for the next day, or have an administrator raise the limit"),
    row(&["NOT_FOUND", "URL_NOT_RESET"], "", Terminal,
        "the host has no such resource: check the login URL and the instance URL"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// No row hides behind an earlier one.
    #[test]
    fn each_row_of_the_table_is_found_by_its_code_and_text() {
        for row in REFUSALS {
            for code in row
                .codes
                .iter()
                .chain(row.codes.is_empty().then_some(&"anything"))
            {
                for description in [
                    row.text.to_owned(),
                    format!("x {} y", row.text.to_uppercase()),
                ] {
                    let found = find(code, &description).expect(code);
                    assert!(std::ptr::eq(found, row), "{code} {description}: {found:?}");
                }
            }
            assert!(!row.advice.is_empty());
        }
    }

    #[test]
    fn a_code_is_found_in_another_writing_unless_there_is_its_own() {
        for code in [
            "app_blocked",
            "app-blocked",
            "APP_BLOCKED",
            " app blocked ",
            "OAUTH_APP_BLOCKED",
        ] {
            assert!(
                find(code, "").unwrap().advice.contains("unblock the app"),
                "{code}"
            );
            assert!(is_known(code));
        }
        assert!(
            find("INVALID_CLIENT", "")
                .unwrap()
                .advice
                .contains("allow this client")
        );
        assert!(
            find("invalid_client", "")
                .unwrap()
                .advice
                .contains("consumer secret")
        );
        assert!(find("something_new", "for unknown reasons").is_none());
        assert!(!is_known("something_new"));
        assert_eq!(code_of("Authentication Failure"), Some("invalid_grant"));
        assert_eq!(code_of("login rate exceeded"), None);
    }
}
