//! OAuth scopes.

/// The scopes for an app that asks for none.
pub(crate) const DEFAULT: &str = "refresh_token web openid api id";

/// The scopes that the connected app may ask for. They do not limit a session.
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

/// What an app may do with a scope, in the words of a consent page.
pub(crate) fn meaning(scope: &str) -> &'static str {
    match scope {
        "api" => "Manage your data via APIs",
        "web" => "Manage your data via web browsers",
        "full" => "Do all that you may do",
        "refresh_token" | "offline_access" => "Perform requests at any time",
        "openid" => "See your unique user identifier",
        "id" | "profile" | "email" | "address" | "phone" => "See your basic information",
        _ => "Use the scope",
    }
}

/// Whether `scope` contains `wanted`.
pub(crate) fn has(scope: &str, wanted: &str) -> bool {
    scope.split_whitespace().any(|scope| scope == wanted)
}

/// Whether `scope` includes a refresh token. Both names mean the same; `full` means neither.
pub(crate) fn refreshes(scope: &str) -> bool {
    has(scope, "refresh_token") || has(scope, "offline_access")
}

/// The scopes granted to an app that asks for `scope`. `None` if one of them does not exist.
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
    fn the_default_scopes_may_be_requested() {
        assert_eq!(granted(None), Some(DEFAULT));
        assert_eq!(granted(Some(DEFAULT)), Some(DEFAULT));
        assert_eq!(granted(Some("api nothing")), None);
    }
}
