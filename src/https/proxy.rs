//! Which proxy to go by, and for whom.

use std::{env, ffi::OsString, fmt};

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;

use crate::{
    error::{Error, ErrorKind},
    secret::Secret,
};

const SCHEMES: [&str; 4] = ["http", "https", "socks5", "socks5h"];

/// A proxy between an [`HttpsClient`](super::HttpsClient) and the servers, or none.
///
/// | URL | what it is |
/// |---|---|
/// | `http://host:port`, or `host:port` | a proxy that is asked by `CONNECT`, in the clear; port 80 if none is given |
/// | `https://host:port` | one that is asked by TLS, so that nobody else learns its password; port 443 if none is given |
/// | `socks5://host:port`, `socks5h://host:port` | a SOCKS5 proxy. Either way it looks up the names; the port has to be given |
///
/// A user and a password go before the host, percent-encoded: `http://user:p%40ss@host:port`. They are sent to the proxy as
/// `Proxy-Authorization: Basic`, or in the way of SOCKS5 (RFC 1929). `Debug` does not show them, and no error does.
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
    /// With the user and the password.
    url: Option<Secret>,
    /// As `NO_PROXY` has it.
    except: String,
}

impl Proxy {
    /// What the environment says: see [the module](super#proxies). There is no proxy if it says nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidUrl`] if a variable names a proxy that cannot be used, rather than to go without. The error has
    /// the variable's name, and not its value.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_variables(|name| env::var_os(name))
    }

    fn from_variables(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        // The first that is set counts, even if it is empty: that is how one turns a proxy off.
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
                Self::named(name, url.into())?
            }
            None => Self::none(),
        };
        Ok(match first(["NO_PROXY", "no_proxy"]) {
            Some((_, hosts)) => proxy.except(&hosts.to_string_lossy()),
            None => proxy,
        })
    }

    /// No proxy, whatever the environment says.
    pub fn none() -> Self {
        Self {
            url: None,
            except: String::new(),
        }
    }

    /// This proxy, for all hosts.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidUrl`] if it is not a URL, its scheme is another than those above, its port is none, or there is
    /// more to it, as there seems to be if a password is not percent-encoded. The error names the scheme alone.
    pub fn url(url: impl Into<Secret>) -> Result<Self, Error> {
        Self::named("the proxy", url.into())
    }

    fn named(what: &str, url: Secret) -> Result<Self, Error> {
        let parsed: Uri = url
            .expose()
            .parse()
            .map_err(|_| invalid(format!("{what} is not a URL: expected http://host:port")))?;
        // Without a scheme it is one of `http`.
        let scheme = parsed.scheme_str().unwrap_or("http");
        if !SCHEMES.contains(&scheme) {
            return Err(invalid(format!(
                "{what} is one for {scheme}://, which is not supported: expected one of http, https, socks5 and socks5h"
            )));
        }
        // It is not a part of what was parsed.
        let has_fragment = url.expose().contains('#');
        let proxy = Self {
            url: Some(url),
            except: String::new(),
        };
        // What the matcher makes nothing of would be no proxy at all.
        let anywhere = Uri::from_static("https://example.com");
        let is_used = proxy.matcher().intercept(&anywhere).is_some();
        let authority = parsed
            .authority()
            .filter(|authority| is_used && !authority.host().is_empty());
        let Some(authority) = authority else {
            return Err(invalid(format!(
                "{what} has no host: expected http://host:port"
            )));
        };
        // Where such a character stands in a password, what is before it would be looked up, and shown in errors.
        let is_read_as_meant = matches!(parsed.path(), "" | "/")
            && parsed.query().is_none()
            && !has_fragment
            && authority.as_str().matches('@').count() <= 1;
        if !is_read_as_meant {
            return Err(invalid(format!(
                "{what} is more than http://user:password@host:port: a `/`, `?`, `#` or `@` in the password has to be \
                 percent-encoded"
            )));
        }
        // The http crate takes what is no number for no port, and then another would be asked.
        let has_port = authority.port_u16().is_some();
        let names_port = !authority.as_str().ends_with(authority.host());
        if !has_port && (names_port || scheme.starts_with("socks")) {
            return Err(invalid(format!(
                "{what} has no port, or none that is a number up to 65535: expected {scheme}://host:port"
            )));
        }
        Ok(proxy)
    }

    /// Leaves out these hosts, in addition to others: they are reached directly.
    ///
    /// They are separated by commas, as in `NO_PROXY`. A name stands for itself and for all below it, with or without a dot
    /// before it; an address for itself, or for a network: `10.0.0.0/8`; `*` for every host. Ports, and the brackets of an
    /// IPv6 address, do not belong there: what has them stands for nothing.
    #[must_use]
    pub fn except(mut self, hosts: &str) -> Self {
        if !self.except.is_empty() {
            self.except.push(',');
        }
        self.except.push_str(hosts);
        self
    }

    /// Plain HTTP is not asked about: it stays on the machine.
    pub(super) fn matcher(&self) -> Matcher {
        let url = self.url.as_ref().map_or("", Secret::expose);
        Matcher::builder()
            .https(url)
            .no(self.except.as_str())
            .build()
    }
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
