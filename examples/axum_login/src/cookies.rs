//! The cookie of a browser's session. Its value is a random id; the data behind it stays on the server. The cookie of a login
//! that has begun is a `LoginCookie` of the crate.

use axum_extra::extract::{
    SignedCookieJar,
    cookie::{Cookie, SameSite},
};

const SESSION: &str = "session";

/// The cookies of an application at http or at https.
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

    /// Gives the browser a session until it is closed. The refresh token policy of the app limits the session itself.
    pub(crate) fn begin_session(self, jar: SignedCookieJar, id: &str) -> SignedCookieJar {
        jar.add(self.cookie(SESSION, id))
    }

    /// The id of this browser's session, if it has one.
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

    /// The name of a cookie. At https, `__Host-` (RFC 6265bis §4.1.3.2) stops other hosts of the domain from setting the
    /// cookie: an attacker could set the signed cookie of another session. The prefix requires the path `/`; a narrower path
    /// would protect from nothing.
    fn name(self, purpose: &str) -> String {
        let prefix = if self.is_https { "__Host-" } else { "" };
        format!("{prefix}{purpose}")
    }

    fn cookie(self, purpose: &str, id: &str) -> Cookie<'static> {
        // The signature covers the value alone. Without the purpose in it, another signed cookie of this application would
        // pass as that of a session.
        Cookie::build((self.name(purpose), format!("{purpose}.{id}")))
            .path("/")
            .secure(self.is_https)
            // Scripts cannot read it.
            .http_only(true)
            // Other sites cannot embed or post with it. `Strict` would be missing when the browser returns from Salesforce.
            .same_site(SameSite::Lax)
            .build()
    }
}
