//! DPoP (RFC 9449): what the app and the org demand of proofs.

use super::Org;

/// DPoP (RFC 9449).
///
/// A request with a proof gets tokens that are bound to its key, and one without a proof gets bearer tokens. A refresh token from
/// before stays what it is. The org checks every claim of a proof, and accepts each proof once.
impl Org {
    /// Whether the app refuses token requests without a proof, and refresh tokens that are not bound. Default: `false`.
    ///
    /// ```
    /// use tower_salesforce_auth::emulator::Org;
    ///
    /// let org = Org::new();
    /// org.require_dpop(true);
    /// ```
    pub fn require_dpop(&self, required: bool) {
        self.state().dpop.required = required;
    }

    /// Whether the org knows nothing of DPoP: it issues bearer tokens, although a request has a proof. Default: `false`.
    pub fn ignore_dpop(&self, ignore: bool) {
        self.state().dpop.ignored = ignore;
    }

    /// Whether proofs need the newest nonce at the OAuth endpoints and for the identity. Default: `false`.
    ///
    /// All their answers have it in `DPoP-Nonce` then. A token request without it is refused with `use_dpop_nonce`.
    pub fn require_dpop_nonce(&self, required: bool) {
        self.state().dpop.needs_nonce = required;
    }

    /// Whether proofs of data calls need the newest nonce (RFC 9449 §9), which Salesforce does not demand. Default: `false`.
    ///
    /// A call without it gets 401, with `WWW-Authenticate: DPoP error="use_dpop_nonce"` and the nonce.
    pub fn require_dpop_nonce_for_data(&self, required: bool) {
        self.state().dpop.needs_nonce_for_data = required;
    }

    /// Makes a new nonce. Proofs with an older one are refused.
    pub fn rotate_dpop_nonce(&self) {
        self.state().dpop.rotate_nonce();
    }

    /// Whether the org demands another nonce at every call, so that no proof is accepted. Default: `false`.
    pub fn change_dpop_nonce_always(&self, change: bool) {
        self.state().dpop.changes_always = change;
    }
}
