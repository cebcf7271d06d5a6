//! A cookie that keeps a pending authorization in the user's browser.

use std::{
    fmt::{self, Write},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, Uri, header::COOKIE};
use zeroize::Zeroizing;

use super::{authorize::PendingAuthorization, callback::invalid};
use crate::{
    error::{Error, ErrorKind, RefreshError},
    secret::Secret,
    session::{dpop_key::DpopKey, host::is_loopback_host},
    store::EncryptionKey,
    text::pasted,
};

/// Browsers drop a cookie that is longer, its name and attributes included (RFC 6265 §6.1).
const LONGEST: usize = 4096;

/// Keeps a [`PendingAuthorization`] in an encrypted cookie of the browser that began the login. So the server keeps nothing,
/// and any of its processes can answer the callback.
///
/// The browser can neither read nor change the cookie (XChaCha20-Poly1305). It is bound to the redirect URI, and ends ten
/// minutes after the login began. It is `HttpOnly`, `SameSite=Lax` and `Secure`, and its name begins with `__Host-`, so that
/// no other host of the domain can set it (RFC 6265bis §4.1.3.2). A redirect URI at `http://` and a loopback host, for tests,
/// has no `Secure` and no prefix.
///
/// A browser has one such cookie: of two logins at once, the later one counts. Remove the cookie after its callback, since a
/// code works once.
///
/// ```
/// use std::time::SystemTime;
/// use http::{HeaderMap, header::COOKIE};
/// use tower_salesforce_auth::{
///     LoginUrl, oauth::{App, AuthorizationUrl, LoginCookie}, store::EncryptionKey,
/// };
///
/// # fn bytes_from_the_vault() -> [u8; 32] { [7; 32] }
/// let redirect_uri = "https://app.example.com/callback";
/// let cookie = LoginCookie::new(EncryptionKey::new(bytes_from_the_vault()), redirect_uri);
///
/// let app = App::new(LoginUrl::production(), "3MVG9");
/// let (url, pending) = AuthorizationUrl::new(&app, redirect_uri).build()?.into_parts();
/// // Redirect the browser to `url`, with this header:
/// let set_cookie = cookie.set(&pending, SystemTime::now())?;
/// assert!(set_cookie.to_str()?.starts_with("__Host-salesforce-login="));
///
/// // The headers of the callback have the cookie.
/// # let mut headers = HeaderMap::new();
/// # headers.insert(COOKIE, set_cookie.to_str()?.split(';').next().unwrap().parse()?);
/// assert_eq!(cookie.read(&headers, SystemTime::now())?, pending);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct LoginCookie {
    key: EncryptionKey,
    redirect_uri: String,
    is_secure: bool,
}

impl LoginCookie {
    /// How long a login may take: ten minutes. Salesforce's codes are valid for 15.
    pub const LIFETIME: Duration = Duration::from_secs(10 * 60);

    /// Makes the cookie of this redirect URI, encrypted with a key that all processes of the server have. Cookies of
    /// [older keys](EncryptionKey::or) are read too.
    pub fn new(key: EncryptionKey, redirect_uri: impl Into<String>) -> Self {
        let redirect_uri = pasted::text(redirect_uri);
        let uri = redirect_uri.parse::<Uri>().ok();
        let is_local = uri.is_some_and(|uri| {
            uri.scheme_str() == Some("http") && uri.host().is_some_and(is_loopback_host)
        });
        Self {
            key,
            redirect_uri,
            is_secure: !is_local,
        }
    }

    /// Returns the header `Set-Cookie` for the answer that sends the user to log in.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::NoRandomness`] if the operating system has no random numbers.
    /// - [`ErrorKind::InvalidKey`] if a [`state`](super::AuthorizationUrl::state) of your own is too long for a cookie.
    pub fn set(
        &self,
        pending: &PendingAuthorization,
        now: SystemTime,
    ) -> Result<HeaderValue, Error> {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let (verifier, state) = (pending.code_verifier().expose(), pending.state().expose());
        let key = pending.bound_key().map(DpopKey::encode);
        let key = key.as_ref().map_or("", Secret::expose);
        let room = 64 + verifier.len() + key.len() + state.len();
        let mut plaintext = Zeroizing::new(String::with_capacity(room));
        // The state comes last: it may be any text. Writing to a `String` never fails.
        let _ = write!(plaintext, "{since}\n{verifier} {key}\n{state}");
        let (nonce, ciphertext) = self
            .key
            .encrypt(&self.purpose(), plaintext.as_bytes())
            .map_err(|error| {
                Error::new(
                    ErrorKind::NoRandomness,
                    "the login cookie cannot be encrypted: the operating system has no random numbers",
                )
                .with_source(error)
            })?;
        let value = URL_SAFE_NO_PAD.encode([&nonce[..], &ciphertext].concat());
        self.header(&value, Self::LIFETIME).ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidKey,
                "the state of the authorization is too long for a cookie: use one of up to 1,000 characters",
            )
        })
    }

    /// Reads the pending authorization from the headers of the callback. This method changes nothing: the cookie is still
    /// there for the right callback after a forged one.
    ///
    /// # Errors
    ///
    /// [`RefreshErrorKind::InvalidCallback`](crate::RefreshErrorKind::InvalidCallback) if the cookie is missing, was changed,
    /// is of another key or redirect URI, or is older than [`LIFETIME`](Self::LIFETIME). The message says which.
    pub fn read(
        &self,
        headers: &HeaderMap,
        now: SystemTime,
    ) -> Result<PendingAuthorization, RefreshError> {
        let name = self.name();
        let value = value_of(headers, name).ok_or_else(|| {
            invalid(format!(
                "the request has no cookie `{name}`: the login began in another browser or at another host, has ended, or \
                 the browser keeps no cookies; begin again"
            ))
        })?;
        let (since, pending) = self.opened(value).ok_or_else(|| {
            invalid(format!(
                "the cookie `{name}` cannot be decrypted: it was changed, or was made with another key or redirect URI; \
                 begin again"
            ))
        })?;
        // Another process of the server may be ahead by a little.
        let age = now.duration_since(since).unwrap_or_default();
        if age >= Self::LIFETIME {
            return Err(invalid(format!(
                "the login began {} minutes ago, and its cookie `{name}` is good for {}: begin again",
                age.as_secs() / 60,
                Self::LIFETIME.as_secs() / 60,
            )));
        }
        Ok(pending)
    }

    /// Returns the header `Set-Cookie` that removes the cookie, for the answer to its callback.
    pub fn removal(&self) -> HeaderValue {
        self.header("", Duration::ZERO)
            .unwrap_or_else(|| HeaderValue::from_static(""))
    }

    fn opened(&self, value: &str) -> Option<(SystemTime, PendingAuthorization)> {
        let bytes = URL_SAFE_NO_PAD.decode(value).ok()?;
        let (nonce, ciphertext) = bytes.split_first_chunk()?;
        let plaintext = self.key.decrypt(&self.purpose(), nonce, ciphertext)?;
        let mut parts = str::from_utf8(&plaintext).ok()?.splitn(3, '\n');
        let since = Duration::from_secs(parts.next()?.parse().ok()?);
        let (verifier, state) = (parts.next()?, parts.next()?);
        let (verifier, key) = verifier.split_once(' ').unwrap_or((verifier, ""));
        let key = (!key.is_empty()).then(|| DpopKey::decode(key).ok());
        let pending = PendingAuthorization::new(state, verifier).ok()?;
        let pending = match key {
            Some(key) => pending.bound_to(Some(key?)),
            None => pending,
        };
        Some((UNIX_EPOCH.checked_add(since)?, pending))
    }

    /// What the cookie is encrypted for: no other text of the same key passes as one.
    fn purpose(&self) -> Vec<u8> {
        format!("pending authorization for {}", self.redirect_uri).into_bytes()
    }

    fn name(&self) -> &'static str {
        if self.is_secure {
            "__Host-salesforce-login"
        } else {
            "salesforce-login"
        }
    }

    /// `None` if no browser would keep it.
    fn header(&self, value: &str, max_age: Duration) -> Option<HeaderValue> {
        let (name, seconds) = (self.name(), max_age.as_secs());
        let secure = if self.is_secure { "; Secure" } else { "" };
        // Not `Strict`: the cookie would be missing when the browser returns from Salesforce.
        let text =
            format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
        if text.len() > LONGEST {
            return None;
        }
        let mut header = HeaderValue::try_from(text).ok()?;
        header.set_sensitive(true);
        Some(header)
    }
}

/// The value of a cookie among all headers `Cookie`: HTTP/2 may send several (RFC 9113 §8.2.3).
fn value_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let headers = headers.get_all(COOKIE).into_iter();
    let mut cookies = headers
        .filter_map(|header| header.to_str().ok())
        .flat_map(|header| header.split(';'));
    cookies.find_map(|cookie| {
        let (found, value) = cookie.trim().split_once('=')?;
        (found == name).then(|| value.trim_matches('"'))
    })
}

impl fmt::Debug for LoginCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginCookie")
            .field("name", &self.name())
            .field("redirect_uri", &self.redirect_uri)
            .finish_non_exhaustive()
    }
}
