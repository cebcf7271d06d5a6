//! The user of the org, and what an administrator can change.

use super::Org;
use crate::emulator::state::user::{SECURITY_TOKEN, USERNAME};

/// The user of the org.
impl Org {
    /// The user name. Its case does not matter.
    pub fn username(&self) -> &str {
        USERNAME
    }

    /// The user's password: that of [`with_password`](Self::with_password), or one with characters
    /// that forms and XML must escape. The login page asks for the password alone. The password grant and SOAP
    /// `login()` need the [security token](Self::security_token) appended to it.
    ///
    /// ```
    /// # let org = tower_salesforce_auth::emulator::Org::new();
    /// let appended = format!("{}{}", org.password(), org.security_token());
    /// ```
    pub fn password(&self) -> &str {
        &self.backend.password
    }

    /// The user's security token.
    pub fn security_token(&self) -> &str {
        SECURITY_TOKEN
    }

    /// Whether a login through an API needs the security token after the password. Default: `true`.
    /// With `false`, as from a trusted IP range, the token is optional.
    pub fn require_security_token(&self, required: bool) {
        self.state().user.security_token_required = required;
    }

    /// How many wrong passwords in a row lock the user out. Default: 10. With `None`, the user is
    /// never locked out.
    ///
    /// The org refuses every login of a locked-out user like a wrong password, until
    /// [`unlock_user`](Self::unlock_user). A successful login resets the count.
    pub fn lock_out_after(&self, wrong_passwords: impl Into<Option<u32>>) {
        self.state().user.lock_out_after = wrong_passwords.into();
    }

    /// Unlocks a locked-out user, as an administrator does.
    pub fn unlock_user(&self) {
        self.state().user.wrong_passwords = 0;
    }

    /// How many more logins the org allows: by password, SOAP `login()`, the login page and signed
    /// assertions together. Default: `None`, any number.
    ///
    /// Salesforce allows 3,600 an hour. The org refuses further logins with `rate_limit_exceeded`
    /// (OAuth) or `LOGIN_RATE_EXCEEDED` (SOAP), until the limit is set again.
    pub fn limit_logins(&self, logins: impl Into<Option<u64>>) {
        self.state().user.logins_left = logins.into();
    }

    /// Deactivates or reactivates the user. Default: `false`. A deactivated user can neither log in
    /// nor refresh. Sessions stay valid.
    pub fn deactivate_user(&self, deactivate: bool) {
        self.state().set_active(!deactivate);
    }

    /// Whether the user's password is expired. Default: `false`.
    ///
    /// SOAP `login()` then reports `passwordExpired`. The password grant and the login page refuse
    /// the user.
    pub fn expire_password(&self, expire: bool) {
        self.state().user.password_expired = expire;
    }
}
