//! The proxy of an HTTPS client, and the hosts that bypass it.

use std::{env, ffi::OsString, fmt};

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;

use super::bypass::Bypass;
use crate::{
    error::{Error, ErrorKind},
    secret::Secret,
    text::pasted,
};

const SCHEMES: [&str; 4] = ["http", "https", "socks5", "socks5h"];

/// A proxy between an [`HttpsClient`](super::HttpsClient) and the servers, or no proxy.
///
/// | URL | meaning |
/// |---|---|
/// | `http://host:port`, or `host:port` | an HTTP proxy, reached without TLS. Default port: 80 |
/// | `https://host:port` | an HTTP proxy, reached over TLS, which protects its password. Default port: 443 |
/// | `socks5://host:port`, `socks5h://host:port` | a SOCKS5 proxy, which looks up the host names in both cases. The port is required |
///
/// Put a user and a password before the host, percent-encoded: `http://user:p%40ss@host:port`. The client sends them as
/// `Proxy-Authorization: Basic`, or as SOCKS5 specifies (RFC 1929). Neither `Debug` nor an error shows them.
///
/// ```
/// use tower_salesforce_auth::https::Proxy;
///
/// let proxy = Proxy::url("http://user:password@proxy.example.com:3128")?
///     .except("localhost, 127.0.0.1, .internal.example.com");
/// assert!(!format!("{proxy:?}").contains("password"));
/// # Ok::<_, tower_salesforce_auth::Error>(())
/// ```
#[derive(Clone)]
pub struct Proxy {
    /// The URL, which may contain a user and a password. `None` for no proxy.
    url: Option<Secret>,
    /// The hosts that bypass the proxy.
    except: Bypass,
}

impl Proxy {
    /// Reads the proxy from the environment: see [the module](super#proxies). Without such variables there is no proxy.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidUrl`] if a variable names an unusable proxy, because connecting directly may not be
    /// intended, or if `NO_PROXY` has an entry that cannot be read. The error contains no value of a proxy.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_variables(|name| env::var_os(name))
    }

    fn from_variables(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        // The first variable that is set counts, even if it is empty: an empty one turns the proxy off.
        let first = |names: [&'static str; 2]| {
            let found = names.map(|name| lookup(name).map(|value| (name, value)));
            let (name, value) = found.into_iter().flatten().next()?;
            (!value.is_empty()).then_some((name, value))
        };
        let given =
            first(["HTTPS_PROXY", "https_proxy"]).or_else(|| first(["ALL_PROXY", "all_proxy"]));
        let proxy = match given {
            Some((name, value)) => {
                let url = value
                    .into_string()
                    .map_err(|_| invalid(format!("{name} is not a URL: it is not UTF-8")))?;
                Self::parse(name, url.into())?
            }
            None => Self::none(),
        };
        Ok(match first(["NO_PROXY", "no_proxy"]) {
            Some((_, hosts)) => {
                let proxy = proxy.except(&hosts.to_string_lossy());
                proxy.check()?;
                proxy
            }
            None => proxy,
        })
    }

    /// Uses no proxy, and ignores the environment.
    pub fn none() -> Self {
        Self {
            url: None,
            except: Bypass::default(),
        }
    }

    /// Uses this proxy for all hosts.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidUrl`] in these cases. The error contains no part of the URL but its scheme.
    ///
    /// - The text is not a URL, or its scheme is not in the table above.
    /// - The port is invalid, or missing for a SOCKS5 proxy.
    /// - A path, query or fragment follows. A password that is not percent-encoded can look like one.
    pub fn url(url: impl Into<Secret>) -> Result<Self, Error> {
        Self::parse("the proxy", url.into())
    }

    /// Parses a URL. `name` is the URL's name in errors.
    fn parse(name: &str, url: Secret) -> Result<Self, Error> {
        let url = pasted::unwrapped_secret(url);
        let parsed = url.expose().parse::<Uri>();
        let parsed = parsed.ok().filter(|_| unencoded(url.expose()) != Some('%'));
        let Some(parsed) = parsed else {
            let what = match unencoded(url.expose()) {
                _ if url.expose().is_empty() => {
                    "it is empty, and expected is http://host:port".to_owned()
                }
                Some(character) => format!(
                    "the character {character:?} in its user or password must be percent-encoded ({})",
                    percent_encoded(character)
                ),
                None => "expected http://host:port".to_owned(),
            };
            return Err(invalid(format!("{name} is not a URL: {what}")));
        };
        // The URL parser reads `host:port` without a scheme, which means `http`.
        let scheme = parsed.scheme_str().unwrap_or("http");
        if !SCHEMES.contains(&scheme) {
            return Err(invalid(format!(
                "{name} has the scheme {scheme}, which is not supported: expected http, https, socks5 or socks5h"
            )));
        }
        // The parsed URI drops the fragment.
        let has_fragment = url.expose().contains('#');
        let proxy = Self {
            url: Some(url),
            except: Bypass::default(),
        };
        // The matcher ignores a URL that it cannot use, and would then connect directly.
        let any_url = Uri::from_static("https://example.com");
        let is_used = proxy.matcher().intercept(&any_url).is_some();
        let authority = parsed
            .authority()
            .filter(|authority| is_used && !authority.host().is_empty());
        let Some(authority) = authority else {
            return Err(invalid(format!(
                "{name} has no host: expected http://host:port"
            )));
        };
        // With one of these characters in a password, the parser takes a part of the password for the host. The client
        // would look it up and show it in errors.
        let is_only_authority = matches!(parsed.path(), "" | "/")
            && parsed.query().is_none()
            && !has_fragment
            && authority.as_str().matches('@').count() <= 1;
        if !is_only_authority {
            return Err(invalid(format!(
                "{name} has more parts than http://user:password@host:port: a `/`, `?`, `#` or `@` in the password \
                 must be percent-encoded"
            )));
        }
        // The http crate ignores an invalid port, and the client would then use the default port.
        let has_port = authority.port_u16().is_some();
        let names_port = !authority.as_str().ends_with(authority.host());
        if !has_port && (names_port || scheme.starts_with("socks")) {
            return Err(invalid(format!(
                "{name} has no valid port: expected {scheme}://host:port, with a number up to 65535"
            )));
        }
        Ok(proxy)
    }

    /// Adds hosts that are reached directly, in the format of `NO_PROXY`. Commas, semicolons, bars or blanks separate them.
    ///
    /// | entry | matches |
    /// |---|---|
    /// | `example.com`, `.example.com`, `*.example.com` | this name and all names below it, in any case |
    /// | `10.0.0.1`, `::1`, `[::1]` | this address |
    /// | `10.0.0.0/8`, `10.0.0.0/255.0.0.0`, `10.`, `10.*`, `fd00::/8` | the addresses of this network |
    /// | `*`, `api*.example.com` | names and addresses with any characters in place of `*` |
    /// | `<local>` | names without a dot |
    /// | any of them with a port, like `example.com:8443` | requests to this port |
    ///
    /// With any other entry, building a client fails: the host would silently go through the proxy.
    #[must_use]
    pub fn except(mut self, hosts: &str) -> Self {
        self.except.add(hosts);
        self
    }

    /// Fails if an entry of the hosts that bypass the proxy cannot be read.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.except.check()
    }

    /// The matcher for `https` URLs only, because plain HTTP goes to loopback hosts directly.
    fn matcher(&self) -> Matcher {
        let url = self.url.as_ref().map_or("", Secret::expose);
        Matcher::builder().https(url).build()
    }

    /// Splits the settings into the proxy for all hosts, and the hosts that bypass it.
    pub(super) fn into_parts(self) -> (Matcher, Bypass) {
        (self.matcher(), self.except)
    }
}

/// A character before the host that no URL can have there. It alone says nothing of a password. `None` if there is none.
fn unencoded(url: &str) -> Option<char> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (user_info, _) = rest.rsplit_once('@')?;
    let is_allowed =
        |char: char| char.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:%".contains(char);
    let is_code = |code: &str| {
        code.get(..2)
            .is_some_and(|code| code.bytes().all(|digit| digit.is_ascii_hexdigit()))
    };
    user_info
        .chars()
        .find(|char| !is_allowed(*char))
        .or_else(|| {
            user_info
                .split('%')
                .skip(1)
                .any(|code| !is_code(code))
                .then_some('%')
        })
}

fn percent_encoded(character: char) -> String {
    let mut bytes = [0; 4];
    let bytes = character.encode_utf8(&mut bytes).as_bytes();
    // In a form, a blank is a plus.
    form_urlencoded::byte_serialize(bytes)
        .collect::<String>()
        .replace('+', "%20")
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("url", &self.url)
            .field("except", &self.except)
            .finish()
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidUrl, message)
}
