//! The one user of the org, and what an administrator can do to it.

use super::Org;
use crate::emulator::state::user::{PASSWORD, SECURITY_TOKEN, USERNAME};

/// The user.
impl Org {
    /// The name the org's user logs in with. Its case does not matter.
    pub fn username(&self) -> &str {
        USERNAME
    }

    /// The user's password. The login page asks for it alone; the password grant and SOAP `login()`
    /// want the [security token](Self::security_token) appended to it.
    ///
    /// ```
    /// # let org = tower_salesforce_auth::emulator::Org::new();
    /// let appended = format!("{}{}", org.password(), org.security_token());
    /// ```
    pub fn password(&self) -> &str {
        PASSWORD
    }

    /// The user's security token.
    pub fn security_token(&self) -> &str {
        SECURITY_TOKEN
    }

    /// Whether a login through an API needs the security token after the password. The default is
    /// `true`; `false` is what a trusted IP range does, and the token may then still be appended.
    pub fn require_security_token(&self, required: bool) {
        self.state().user.security_token_required = required;
    }

    /// How many wrong passwords in a row lock the user out. The default is 10; with `None` nothing
    /// does.
    ///
    /// A locked-out user is refused like a wrong password, whatever the password, until
    /// [`unlock_user`](Self::unlock_user). A login before the limit begins the count anew.
    pub fn lock_out_after(&self, wrong_passwords: impl Into<Option<u32>>) {
        self.state().user.lock_out_after = wrong_passwords.into();
    }

    /// Lets a locked-out user try again, as an administrator does.
    pub fn unlock_user(&self) {
        self.state().user.wrong_passwords = 0;
    }

    /// How many more logins there may be: by password, SOAP `login()`, the login page and signed
    /// assertions together. The default is `None`: any number.
    ///
    /// Salesforce allows 3,600 an hour. Logins beyond the limit are refused with
    /// `rate_limit_exceeded` (OAuth) or `LOGIN_RATE_EXCEEDED` (SOAP) until the limit is set anew.
    pub fn limit_logins(&self, logins: impl Into<Option<u64>>) {
        self.state().user.logins_left = logins.into();
    }

    /// Deactivates the user, or takes that back. The default is `false`. A deactivated user can
    /// neither log in nor refresh; sessions go on.
    pub fn deactivate_user(&self, deactivate: bool) {
        self.state().user.active = !deactivate;
    }

    /// Makes the user's password expire, or takes that back. The default is `false`.
    ///
    /// SOAP `login()` then says `passwordExpired`, and the password grant and the login page refuse
    /// the user.
    pub fn expire_password(&self, expire: bool) {
        self.state().user.password_expired = expire;
    }
}
