//! The settings of the connected app.

use super::Org;

/// Settings of the connected app.
impl Org {
    /// The callback of the connected app: the first, if it has several. Default:
    /// `http://localhost:1717/OauthRedirect`.
    pub fn redirect_uri(&self) -> String {
        let state = self.state();
        state.app.redirect_uris.first().cloned().unwrap_or_default()
    }

    /// Makes `uri` the only callback of the connected app. Authorization requests must repeat it
    /// exactly.
    pub fn set_redirect_uri(&self, uri: impl Into<String>) {
        self.state().app.redirect_uris = vec![uri.into()];
    }

    /// Adds a callback to the connected app.
    pub fn add_redirect_uri(&self, uri: impl Into<String>) {
        self.state().app.redirect_uris.push(uri.into());
    }

    /// Whether the app must authenticate for the web server flow, the device flow, token exchange
    /// and a refresh. Default: `true`.
    ///
    /// With `false`, the client id is enough. A secret in the request must still be correct.
    pub fn require_secret(&self, required: bool) {
        self.state().app.requires_secret = required;
    }

    /// Whether an authorization request must carry a `code_challenge` (RFC 7636). Default: `false`.
    /// A challenge in the request is checked either way.
    pub fn require_pkce(&self, required: bool) {
        self.state().app.requires_pkce = required;
    }

    /// Whether the app must authenticate to revoke a token too, as RFC 7009 §2.1 says. Default:
    /// `false`, as in Salesforce, which takes the token alone.
    ///
    /// With `true`, a client id is enough for an app [without a secret](Self::require_secret). Token
    /// introspection always takes a secret or an assertion.
    pub fn require_authentication_to_revoke(&self, required: bool) {
        self.state().app.authenticates_revocations = required;
    }

    /// Whether callbacks name the org's login URL as their issuer (`iss`, RFC 9207). Default:
    /// `false`, as in Salesforce.
    pub fn name_issuer_in_callbacks(&self, named: bool) {
        self.state().app.names_issuer = named;
    }

    /// Whether an administrator has approved the app for the user. Default: `true`.
    ///
    /// With `false`, the flows without a user (JWT bearer, SAML bearer, token exchange) need a
    /// valid refresh token by which the user approved the app. Otherwise, the org refuses them with
    /// `user hasn't approved this consumer`.
    pub fn preauthorize(&self, preauthorize: bool) {
        self.state().app.preauthorized = preauthorize;
    }

    /// Whether the org blocks the username-password flow, as new orgs do. Default: `false`.
    pub fn block_password_flow(&self, block: bool) {
        self.state().app.password_flow_blocked = block;
    }

    /// Whether new access tokens are JWTs. Default: `false`, which makes them opaque.
    ///
    /// A JWT-based access token ends 30 minutes after its issue, by the org's
    /// [clock](Self::set_clock). The sessions of the password flow stay opaque.
    pub fn issue_jwt_access_tokens(&self, issue: bool) {
        self.state().app.issues_jwts = issue;
    }

    /// Whether the org refuses what `login.salesforce.com` refuses: the client credentials flow and
    /// token exchange, which need the org's own host. Default: `false`.
    pub fn act_as_shared_login_host(&self, shared: bool) {
        self.state().app.on_shared_host = shared;
    }

    /// Accepts `subject_token` for the user in a token exchange. It takes the place of the org's
    /// token exchange handler, an Apex class. By default the org accepts no token.
    pub fn trust_subject_token(&self, subject_token: impl Into<String>) {
        self.state().app.subject_tokens.push(subject_token.into());
    }
}
