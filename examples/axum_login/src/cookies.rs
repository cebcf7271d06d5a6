//! What a browser is given to keep: which login it began, and which session is its own. Both are random ids; what they
//! stand for stays here.

use std::time::Duration;

use axum_extra::extract::{
    SignedCookieJar,
    cookie::{Cookie, SameSite},
};

const LOGIN: &str = "login";
const SESSION: &str = "session";

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
        let cookie = Cookie::build(self.cookie(LOGIN, state));
        jar.add(cookie.max_age(lifetime.try_into().unwrap_or_default()))
    }

    /// The `state` of the login that this browser began last.
    pub(crate) fn state(self, jar: &SignedCookieJar) -> Option<String> {
        self.read(jar, LOGIN)
    }

    pub(crate) fn end_login(self, jar: SignedCookieJar) -> SignedCookieJar {
        jar.remove(self.cookie(LOGIN, ""))
    }

    /// Gives the browser a session, until it is closed. How long the session itself is good, at the longest, the refresh
    /// token policy of the app says.
    pub(crate) fn begin_session(self, jar: SignedCookieJar, id: &str) -> SignedCookieJar {
        jar.add(self.cookie(SESSION, id))
    }

    /// The id of this browser's session.
    pub(crate) fn session_id(self, jar: &SignedCookieJar) -> Option<String> {
        self.read(jar, SESSION)
    }

    pub(crate) fn end_session(self, jar: SignedCookieJar) -> SignedCookieJar {
        jar.remove(self.cookie(SESSION, ""))
    }

    fn read(self, jar: &SignedCookieJar, purpose: &str) -> Option<String> {
        let cookie = jar.get(&self.name(purpose))?;
        let (signed_for, id) = cookie.value().split_once('.')?;
        (signed_for == purpose).then(|| id.to_owned())
    }

    /// At https, `__Host-` (RFC 6265bis §4.1.3.2) makes sure that no other host of the domain has put the cookie there:
    /// a signed one of somebody else's, to have the user work in that one's name. It takes the path `/`, which is worth
    /// it, since a narrower path protects from nothing.
    fn name(self, purpose: &str) -> String {
        let prefix = if self.is_https { "__Host-" } else { "" };
        format!("{prefix}{purpose}")
    }

    fn cookie(self, purpose: &str, id: &str) -> Cookie<'static> {
        // The signature is of the value alone: without the purpose in it, the cookie of a login, which anybody is given,
        // could be sent as that of a session.
        Cookie::build((self.name(purpose), format!("{purpose}.{id}")))
            .path("/")
            .secure(self.is_https)
            // Out of the reach of scripts.
            .http_only(true)
            // Not with what other sites embed or post. `Strict` would not come back from Salesforce with the browser.
            .same_site(SameSite::Lax)
            .build()
    }
}
