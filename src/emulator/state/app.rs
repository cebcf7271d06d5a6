//! The settings of the connected app.

pub(crate) const CLIENT_ID: &str = "3MVG9emulator.connected.app";
pub(crate) const CLIENT_SECRET: &str =
    "7E1C5A0D93B24F6886E0D5C4B3A291F07E1C5A0D93B24F6886E0D5C4B3A291F0";

/// The default callback of the app.
const REDIRECT_URI: &str = "http://localhost:1717/OauthRedirect";

/// The settings of the connected app, and those of the org that concern apps.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a checkbox on a setup page, and all are independent"
)]
pub(crate) struct ConnectedApp {
    pub(crate) redirect_uris: Vec<String>,
    pub(crate) requires_secret: bool,
    pub(crate) requires_pkce: bool,
    pub(crate) authenticates_revocations: bool,
    /// Whether callbacks carry `iss`.
    pub(crate) names_issuer: bool,
    pub(crate) preauthorized: bool,
    pub(crate) password_flow_blocked: bool,
    pub(crate) issues_jwts: bool,
    /// Whether the login URL acts as a shared login host.
    pub(crate) on_shared_host: bool,
    /// The subject tokens that the org's token exchange handler accepts for the user.
    pub(crate) subject_tokens: Vec<String>,
}

impl ConnectedApp {
    pub(crate) fn new() -> Self {
        Self {
            redirect_uris: vec![REDIRECT_URI.to_owned()],
            requires_secret: true,
            requires_pkce: false,
            authenticates_revocations: false,
            names_issuer: false,
            preauthorized: true,
            password_flow_blocked: false,
            issues_jwts: false,
            on_shared_host: false,
            subject_tokens: Vec::new(),
        }
    }
}
