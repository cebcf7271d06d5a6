//! How the connected app is set up.

use super::Org;

/// The connected app.
impl Org {
    /// The callback of the connected app: the first, if it has several. The default is
    /// `http://localhost:1717/OauthRedirect`.
    pub fn redirect_uri(&self) -> String {
        let state = self.state();
        state.app.redirect_uris.first().cloned().unwrap_or_default()
    }

    /// Makes `uri` the one callback of the connected app. Authorization requests must name it
    /// character for character.
    pub fn set_redirect_uri(&self, uri: impl Into<String>) {
        self.state().app.redirect_uris = vec![uri.into()];
    }

    /// Adds a callback to the connected app.
    pub fn add_redirect_uri(&self, uri: impl Into<String>) {
        self.state().app.redirect_uris.push(uri.into());
    }

    /// Whether the app must authenticate itself for the web server flow, the device flow, token
    /// exchange and a refresh. The default is `true`.
    ///
    /// With `false` the client id is enough. A secret that is sent all the same must be right.
    pub fn require_secret(&self, required: bool) {
        self.state().app.requires_secret = required;
    }

    /// Whether an authorization request must carry a `code_challenge` (RFC 7636). The default is
    /// `false`: one that comes is checked, and none need come.
    pub fn require_pkce(&self, required: bool) {
        self.state().app.requires_pkce = required;
    }

    /// Whether an administrator has approved the app for the user. The default is `true`.
    ///
    /// With `false`, the flows without a user present (JWT bearer, SAML bearer, token exchange) are
    /// refused with `user hasn't approved this consumer` while there is no refresh token by which
    /// the user has approved the app before.
    pub fn preauthorize(&self, preauthorize: bool) {
        self.state().app.preauthorized = preauthorize;
    }

    /// Whether the org blocks the username-password flow, as new orgs do. The default is `false`.
    pub fn block_password_flow(&self, block: bool) {
        self.state().app.password_flow_blocked = block;
    }

    /// Whether access tokens issued from now on are JWTs. The default is `false`: they are opaque.
    ///
    /// A JWT-based access token ends 30 minutes after it was issued, by the org's
    /// [clock](Self::set_clock). The sessions of the password flow stay opaque.
    pub fn issue_jwt_access_tokens(&self, issue: bool) {
        self.state().app.issues_jwts = issue;
    }

    /// Whether the org refuses what `login.salesforce.com` refuses: the client credentials flow and
    /// token exchange, which need the org's own host. The default is `false`.
    pub fn act_as_shared_login_host(&self, shared: bool) {
        self.state().app.on_shared_host = shared;
    }

    /// Lets `subject_token` stand for the user in a token exchange, as a token exchange handler
    /// (an Apex class of the org) would decide. There is none by default.
    pub fn trust_subject_token(&self, subject_token: impl Into<String>) {
        self.state().app.subject_tokens.push(subject_token.into());
    }
}
