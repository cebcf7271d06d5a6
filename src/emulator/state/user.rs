//! The user of the org, and the checks of a login.

pub(crate) const USERNAME: &str = "user@example.com";
/// The password unless the org is made with another. It contains characters that forms and XML
/// documents must escape, to expose clients that do not.
pub(crate) const PASSWORD: &str = "correct & horse+<staple>";
pub(crate) const SECURITY_TOKEN: &str = "wqU8TzZx1dPbK7mYcVh3RfNa";

/// The default number of wrong passwords that lock the user out.
const LOCK_OUT_AFTER: u32 = 10;

/// The user's account, without wire formats.
pub(crate) struct User {
    pub(crate) password: String,
    pub(crate) active: bool,
    pub(crate) password_expired: bool,
    pub(crate) security_token_required: bool,
    pub(crate) lock_out_after: Option<u32>,
    pub(crate) wrong_passwords: u32,
    pub(crate) logins_left: Option<u64>,
}

/// The reason why a login was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoginRefusal {
    /// Wrong user name, password or security token, or a locked-out user. Callers must not see the
    /// difference.
    Invalid,
    /// The user is deactivated.
    Inactive,
    /// The logins exceed the limit of the org.
    RateExceeded,
}

impl User {
    pub(crate) fn new(password: &str) -> Self {
        Self {
            password: password.to_owned(),
            active: true,
            password_expired: false,
            security_token_required: true,
            lock_out_after: Some(LOCK_OUT_AFTER),
            wrong_passwords: 0,
            logins_left: None,
        }
    }

    /// A login through an API. The security token follows the password.
    ///
    /// An expired password is accepted here. The caller decides what its session may do.
    pub(crate) fn login(&mut self, username: &str, password: &str) -> Result<(), LoginRefusal> {
        let without_token = match password.strip_suffix(SECURITY_TOKEN) {
            Some(password) => Some(password),
            None if self.security_token_required => None,
            None => Some(password),
        };
        self.check(username, without_token)
    }

    /// A login on the login page, with the password alone.
    pub(crate) fn login_on_page(
        &mut self,
        username: &str,
        password: &str,
    ) -> Result<(), LoginRefusal> {
        self.check(username, Some(password))
    }

    /// A login by a signed assertion, without a password.
    pub(crate) fn login_by_assertion(&mut self) -> Result<(), LoginRefusal> {
        self.check_rate()?;
        self.check_active()?;
        self.let_in();
        Ok(())
    }

    pub(crate) fn check_active(&self) -> Result<(), LoginRefusal> {
        if self.active {
            Ok(())
        } else {
            Err(LoginRefusal::Inactive)
        }
    }

    /// Compares user names without regard to case, as Salesforce does.
    pub(crate) fn is_named(username: &str) -> bool {
        username.eq_ignore_ascii_case(USERNAME)
    }

    fn check(&mut self, username: &str, password: Option<&str>) -> Result<(), LoginRefusal> {
        self.check_rate()?;
        if !Self::is_named(username) || self.is_locked_out() {
            return Err(LoginRefusal::Invalid);
        }
        if password != Some(self.password.as_str()) {
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

#[cfg(test)]
mod tests {
    use super::*;

    const WITH_TOKEN: &str = "correct & horse+<staple>wqU8TzZx1dPbK7mYcVh3RfNa";

    #[test]
    fn an_api_login_needs_the_security_token_and_the_page_does_not() {
        let mut user = User::new(PASSWORD);
        assert_eq!(user.login(USERNAME, WITH_TOKEN), Ok(()));
        assert_eq!(user.login("USER@Example.com", WITH_TOKEN), Ok(()));
        let invalid = Err(LoginRefusal::Invalid);
        assert_eq!(user.login(USERNAME, PASSWORD), invalid);
        assert_eq!(user.login(USERNAME, SECURITY_TOKEN), invalid);
        assert_eq!(user.login("other@example.com", WITH_TOKEN), invalid);
        assert_eq!(user.login_on_page(USERNAME, PASSWORD), Ok(()));
        assert_eq!(user.login_on_page(USERNAME, WITH_TOKEN), invalid);

        user.security_token_required = false;
        assert_eq!(user.login(USERNAME, PASSWORD), Ok(()));
        assert_eq!(user.login(USERNAME, WITH_TOKEN), Ok(()));
    }

    #[test]
    fn wrong_passwords_in_a_row_lock_the_user_out() {
        let mut user = User::new(PASSWORD);
        user.lock_out_after = Some(3);
        let invalid = Err(LoginRefusal::Invalid);
        for _ in 0..2 {
            assert_eq!(user.login(USERNAME, "wrong"), invalid);
            assert_eq!(user.login(USERNAME, "wrong"), invalid);
            assert_eq!(user.login(USERNAME, WITH_TOKEN), Ok(()));
        }
        for _ in 0..3 {
            // An unknown user name does not count.
            assert_eq!(user.login("other@example.com", "wrong"), invalid);
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
    fn logins_beyond_the_limit_are_refused() {
        let mut user = User::new(PASSWORD);
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
    fn the_right_password_reveals_that_the_user_is_inactive() {
        let mut user = User::new(PASSWORD);
        user.active = false;
        assert_eq!(user.login(USERNAME, "wrong"), Err(LoginRefusal::Invalid));
        let inactive = Err(LoginRefusal::Inactive);
        assert_eq!(user.login(USERNAME, WITH_TOKEN), inactive);
        assert_eq!(user.login_by_assertion(), inactive);
    }
}
