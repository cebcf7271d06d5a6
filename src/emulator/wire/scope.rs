//! OAuth scopes.

/// What the connected app gets when it does not ask for scopes.
pub(crate) const DEFAULT: &str = "refresh_token web openid api id";

/// The scopes the connected app may ask for. A session can do the same with any of them.
pub(crate) const KNOWN: [&str; 28] = [
    "address",
    "api",
    "cdp_api",
    "cdp_ingest_api",
    "cdp_profile_api",
    "cdp_query_api",
    "chatbot_api",
    "chatter_api",
    "content",
    "custom_permissions",
    "eclair_api",
    "einstein_gpt_api",
    "email",
    "full",
    "id",
    "interaction_api",
    "lightning",
    "mcp_api",
    "offline_access",
    "openid",
    "pardot_api",
    "phone",
    "profile",
    "refresh_token",
    "sfap_api",
    "visualforce",
    "wave_api",
    "web",
];

/// Whether `scope` names `wanted` among others.
pub(crate) fn has(scope: &str, wanted: &str) -> bool {
    scope.split_whitespace().any(|scope| scope == wanted)
}

/// Whether a refresh token comes with `scope`. The two names mean the same; `full` means neither.
pub(crate) fn refreshes(scope: &str) -> bool {
    has(scope, "refresh_token") || has(scope, "offline_access")
}

/// What is granted to an app that asks for `scope`; `None` if one of the scopes does not exist.
pub(crate) fn granted(scope: Option<&str>) -> Option<&str> {
    let Some(scope) = scope.map(str::trim).filter(|scope| !scope.is_empty()) else {
        return Some(DEFAULT);
    };
    let mut scopes = scope.split_whitespace();
    scopes.all(|scope| KNOWN.contains(&scope)).then_some(scope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_granted_by_default_may_be_asked_for() {
        assert_eq!(granted(None), Some(DEFAULT));
        assert_eq!(granted(Some(DEFAULT)), Some(DEFAULT));
        assert_eq!(granted(Some("api nothing")), None);
    }
}
