//! The org's one user, and the gate that user names and passwords go through.

use super::org::Org;

pub(super) const ORG_ID: &str = "00Dxx0000001gEFEAY";
pub(super) const USER_ID: &str = "005xx000001SwiUAAS";
pub(super) const USERNAME: &str = "user@example.com";
/// Holds what a form and an XML document must escape: a client that forgets to is found out.
const PASSWORD: &str = "correct & horse+<staple>";
const SECURITY_TOKEN: &str = "wqU8TzZx1dPbK7mYcVh3RfNa";

/// How many wrong passwords lock a user out, unless the org says otherwise.
const LOCK_OUT_AFTER: u32 = 10;

/// The 15 characters of the org id that the other three only make safe against loss of case.
pub(super) fn short_org_id() -> &'static str {
    ORG_ID.get(..15).unwrap_or(ORG_ID)
}

/// Who may log in, and how often. Knows no wire format.
pub(super) struct User {
    active: bool,
    pub(super) password_expired: bool,
    security_token_required: bool,
    lock_out_after: Option<u32>,
    wrong_passwords: u32,
    logins_left: Option<u64>,
}

/// Why a login was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoginRefusal {
    /// Wrong user name, password or security token; or the user is locked out, which must look the
    /// same from outside.
    Invalid,
    /// The user was deactivated.
    Inactive,
    /// More logins than the org allows.
    RateExceeded,
}

impl User {
    pub(super) fn new() -> Self {
        Self {
            active: true,
            password_expired: false,
            security_token_required: true,
            lock_out_after: Some(LOCK_OUT_AFTER),
            wrong_passwords: 0,
            logins_left: None,
        }
    }

    /// A login through an API, where the security token is appended to the password.
    ///
    /// An expired password opens this gate: what may be done with the session is another question.
    pub(super) fn login(&mut self, username: &str, password: &str) -> Result<(), LoginRefusal> {
        let without_token = match password.strip_suffix(SECURITY_TOKEN) {
            Some(password) => Some(password),
            None if self.security_token_required => None,
            None => Some(password),
        };
        self.check(username, without_token)
    }

    /// A login on the login page, which asks for the password alone.
    pub(super) fn login_on_page(
        &mut self,
        username: &str,
        password: &str,
    ) -> Result<(), LoginRefusal> {
        self.check(username, Some(password))
    }

    /// A login without a password: a signed assertion has said who it is.
    pub(super) fn login_by_assertion(&mut self) -> Result<(), LoginRefusal> {
        self.check_rate()?;
        self.check_active()?;
        self.let_in();
        Ok(())
    }

    pub(super) fn check_active(&self) -> Result<(), LoginRefusal> {
        if self.active {
            Ok(())
        } else {
            Err(LoginRefusal::Inactive)
        }
    }

    /// User names are compared without regard to case, as Salesforce does.
    pub(super) fn is_named(username: &str) -> bool {
        username.eq_ignore_ascii_case(USERNAME)
    }

    fn check(&mut self, username: &str, password: Option<&str>) -> Result<(), LoginRefusal> {
        self.check_rate()?;
        if !Self::is_named(username) || self.is_locked_out() {
            return Err(LoginRefusal::Invalid);
        }
        if password != Some(PASSWORD) {
            self.wrong_passwords = self.wrong_passwords.saturating_add(1);
            return Err(LoginRefusal::Invalid);
        }
        self.check_active()?;
        self.wrong_passwords = 0;
        self.let_in();
        Ok(())
    }

    fn check_rate(&self) -> Result<(), LoginRefusal> {
        match self.logins_left {
            Some(0) => Err(LoginRefusal::RateExceeded),
            _ => Ok(()),
        }
    }

    fn let_in(&mut self) {
        self.logins_left = self.logins_left.map(|left| left.saturating_sub(1));
    }

    fn is_locked_out(&self) -> bool {
        self.lock_out_after
            .is_some_and(|limit| self.wrong_passwords >= limit)
    }
}

/// The one user, and what an administrator can do to it.
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

#[cfg(test)]
mod tests {
    use super::*;

    const WITH_TOKEN: &str = "correct & horse+<staple>wqU8TzZx1dPbK7mYcVh3RfNa";

    #[test]
    fn an_api_login_needs_the_security_token_and_the_page_does_not() {
        let mut user = User::new();
        assert_eq!(user.login(USERNAME, WITH_TOKEN), Ok(()));
        assert_eq!(user.login("USER@Example.com", WITH_TOKEN), Ok(()));
        let invalid = Err(LoginRefusal::Invalid);
        assert_eq!(user.login(USERNAME, PASSWORD), invalid);
        assert_eq!(user.login(USERNAME, SECURITY_TOKEN), invalid);
        assert_eq!(user.login("nobody@example.com", WITH_TOKEN), invalid);
        assert_eq!(user.login_on_page(USERNAME, PASSWORD), Ok(()));
        assert_eq!(user.login_on_page(USERNAME, WITH_TOKEN), invalid);

        user.security_token_required = false;
        assert_eq!(user.login(USERNAME, PASSWORD), Ok(()));
        assert_eq!(user.login(USERNAME, WITH_TOKEN), Ok(()));
    }

    #[test]
    fn wrong_passwords_in_a_row_lock_the_user_out() {
        let mut user = User::new();
        user.lock_out_after = Some(3);
        let invalid = Err(LoginRefusal::Invalid);
        for _ in 0..2 {
            assert_eq!(user.login(USERNAME, "wrong"), invalid);
            assert_eq!(user.login(USERNAME, "wrong"), invalid);
            assert_eq!(user.login(USERNAME, WITH_TOKEN), Ok(()));
        }
        for _ in 0..3 {
            // A name that nobody has locks nobody out.
            assert_eq!(user.login("nobody@example.com", "wrong"), invalid);
        }
        assert_eq!(user.login(USERNAME, WITH_TOKEN), Ok(()));
        for _ in 0..3 {
            assert_eq!(user.login(USERNAME, "wrong"), invalid);
        }
        assert_eq!(user.login(USERNAME, WITH_TOKEN), invalid);
        assert_eq!(user.login_on_page(USERNAME, PASSWORD), invalid);
        user.wrong_passwords = 0;
        assert_eq!(user.login(USERNAME, WITH_TOKEN), Ok(()));
    }

    #[test]
    fn logins_beyond_the_limit_are_refused_even_with_the_right_password() {
        let mut user = User::new();
        user.logins_left = Some(2);
        assert_eq!(user.login(USERNAME, "wrong"), Err(LoginRefusal::Invalid));
        assert_eq!(user.login(USERNAME, WITH_TOKEN), Ok(()));
        assert_eq!(user.login_by_assertion(), Ok(()));
        let exceeded = Err(LoginRefusal::RateExceeded);
        assert_eq!(user.login(USERNAME, WITH_TOKEN), exceeded);
        assert_eq!(user.login_by_assertion(), exceeded);
        user.logins_left = None;
        assert_eq!(user.login(USERNAME, WITH_TOKEN), Ok(()));
    }

    #[test]
    fn only_the_right_password_learns_that_the_user_is_inactive() {
        let mut user = User::new();
        user.active = false;
        assert_eq!(user.login(USERNAME, "wrong"), Err(LoginRefusal::Invalid));
        let inactive = Err(LoginRefusal::Inactive);
        assert_eq!(user.login(USERNAME, WITH_TOKEN), inactive);
        assert_eq!(user.login_by_assertion(), inactive);
    }
}
