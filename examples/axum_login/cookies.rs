//! What a browser is given to keep: which login it began, and which session is its own. Both are random ids; what they
//! stand for stays here.

use std::time::Duration;

use axum_extra::extract::{
    SignedCookieJar,
    cookie::{Cookie, SameSite},
};

/// The cookies of an application at this kind of address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cookies {
    is_https: bool,
}

impl Cookies {
    pub(crate) fn of(redirect_uri: &str) -> Self {
        Self {
            is_https: redirect_uri.starts_with("https://"),
        }
    }

    /// Binds a login to this browser, and no longer than it may take.
    pub(crate) fn begin_login(
        self,
        jar: SignedCookieJar,
        state: &str,
        lifetime: Duration,
    ) -> SignedCookieJar {
        let cookie = Cookie::build(self.cookie(self.login(), state));
        jar.add(cookie.max_age(lifetime.try_into().unwrap_or_default()))
    }

    /// The `state` of the login that this browser began last.
    pub(crate) fn state(self, jar: &SignedCookieJar) -> Option<String> {
        jar.get(self.login())
            .map(|cookie| cookie.value().to_owned())
    }

    pub(crate) fn end_login(self, jar: SignedCookieJar) -> SignedCookieJar {
        jar.remove(self.cookie(self.login(), ""))
    }

    /// Gives the browser a session, which ends here when it is closed.
    pub(crate) fn begin_session(self, jar: SignedCookieJar, id: &str) -> SignedCookieJar {
        jar.add(self.cookie(self.session(), id))
    }

    /// The id of this browser's session.
    pub(crate) fn session_id(self, jar: &SignedCookieJar) -> Option<String> {
        jar.get(self.session())
            .map(|cookie| cookie.value().to_owned())
    }

    pub(crate) fn end_session(self, jar: SignedCookieJar) -> SignedCookieJar {
        jar.remove(self.cookie(self.session(), ""))
    }

    /// At https, `__Host-` (RFC 6265bis §4.1.3.2) makes sure that no other host of the domain has put the cookie there:
    /// a signed one of somebody else's, to have the user work in that one's name. It takes the path `/`, which is worth
    /// it, since a narrower path protects from nothing.
    fn login(self) -> &'static str {
        if self.is_https {
            "__Host-login"
        } else {
            "login"
        }
    }

    fn session(self) -> &'static str {
        if self.is_https {
            "__Host-session"
        } else {
            "session"
        }
    }

    fn cookie(self, name: &'static str, value: &str) -> Cookie<'static> {
        Cookie::build((name, value.to_owned()))
            .path("/")
            .secure(self.is_https)
            // Out of the reach of scripts.
            .http_only(true)
            // Not with what other sites embed or post. `Strict` would not come back from Salesforce with the browser.
            .same_site(SameSite::Lax)
            .build()
    }
}
