//! URLs that may receive a secret: origins, instance URLs, login URLs.

use std::{fmt, str::FromStr, sync::Arc};

use http::{
    Uri,
    uri::{Authority, Parts, PathAndQuery, Scheme},
};
use serde::Deserialize;

#[cfg(feature = "jwt")]
use super::host::OrgKind;
use super::host::{HostFamily, is_loopback_host, is_salesforce_host, org_name};
use crate::{
    error::{Error, ErrorKind},
    text::pasted,
};

// === Origin ===

/// Scheme, host and port (RFC 6454 §4) of a server that receives the token in addition to the instance.
///
/// Parsed from `https://host[:port]`, or from `http://` with a loopback host. Set with
/// [`SessionHandleBuilder::allow_origin`](crate::handle::SessionHandleBuilder::allow_origin).
///
/// ```
/// use tower_salesforce_auth::handle::Origin;
///
/// let api: Origin = "https://api.salesforce.com".parse()?;
/// assert_eq!(api.to_string(), "https://api.salesforce.com");
/// assert!("http://api.salesforce.com".parse::<Origin>().is_err());
/// # Ok::<_, tower_salesforce_auth::Error>(())
/// ```
///
/// # Errors
///
/// Parsing fails with [`ErrorKind::InvalidUrl`] if the text has another scheme, a path, a query or a user name.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    scheme: Scheme,
    /// In lower case, without user information, and without the default port of the scheme.
    authority: Authority,
}

impl Origin {
    /// Parses `https://host[:port]`, or `http://` to a loopback host.
    pub(crate) fn parse(what: &'static str, text: &str) -> Result<Self, Error> {
        let (origin, path) = parse(what, text)?;
        origin.alone(what, &path)
    }

    /// Fails if there is more than the origin.
    fn alone(self, what: &'static str, path: &PathAndQuery) -> Result<Self, Error> {
        if path.path() != "/" || path.query().is_some() {
            return Err(invalid(format!(
                "{what} for host {} has a path or a query: give the scheme and host alone, {self}",
                self.host(),
            )));
        }
        Ok(self)
    }

    /// The origin of a URL with any path and query.
    pub(crate) fn of_url(what: &'static str, url: &str) -> Result<Self, Error> {
        parse(what, url).map(|(origin, _)| origin)
    }

    /// Whether a request to `uri` goes here.
    #[inline]
    pub(crate) fn is_of(&self, uri: &Uri) -> bool {
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return false;
        };
        // Nearly always the text is equal.
        *scheme == self.scheme
            && (authority.as_str() == self.authority.as_str() || self.is_also(scheme, authority))
    }

    #[cold]
    fn is_also(&self, scheme: &Scheme, authority: &Authority) -> bool {
        *authority == self.authority
            || (authority.host().eq_ignore_ascii_case(self.host())
                && has_port_or_none(authority)
                && port(scheme, authority) == port(&self.scheme, &self.authority))
    }

    /// The URI of `path` at this origin.
    pub(crate) fn join(&self, path: PathAndQuery) -> Result<Uri, http::Error> {
        let mut parts = Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path);
        Ok(Uri::from_parts(parts)?)
    }

    /// The same scheme and host at this port.
    fn at_port(&self, port: u16) -> Self {
        let host = self.host();
        let authority = if Some(port) == default_port(&self.scheme) {
            host.to_owned()
        } else {
            format!("{host}:{port}")
        };
        // A host that was valid is valid with any port.
        let authority = Authority::from_maybe_shared(authority);
        Self {
            scheme: self.scheme.clone(),
            authority: authority.unwrap_or_else(|_| self.authority.clone()),
        }
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    pub(crate) fn host(&self) -> &str {
        self.authority.host()
    }

    /// Whether Salesforce answers at this origin.
    pub(crate) fn is_salesforce(&self) -> bool {
        is_salesforce_host(self.host())
    }

    /// Whether the machine itself answers at this origin.
    pub(crate) fn is_loopback(&self) -> bool {
        is_loopback_host(self.host())
    }
}

impl FromStr for Origin {
    type Err = Error;

    fn from_str(origin: &str) -> Result<Self, Error> {
        Self::parse("the origin", origin)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin({self})")
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

/// Whether the port is a number, or left out. A client may take any other text for the default port.
pub(crate) fn has_port_or_none(authority: &Authority) -> bool {
    let text = authority.as_str();
    let is_left_out = || {
        text.strip_suffix(':')
            .unwrap_or(text)
            .ends_with(authority.host())
    };
    authority.port_u16().is_some() || is_left_out()
}

/// The host of a URI, with its port unless that is the default one: for errors.
pub(crate) fn host_and_port(uri: &Uri) -> String {
    let host = uri.host().unwrap_or_default();
    match uri.port_u16() {
        Some(port) if uri.scheme().and_then(default_port) != Some(port) => {
            format!("{host}:{port}")
        }
        _ => host.to_owned(),
    }
}

fn port(scheme: &Scheme, authority: &Authority) -> Option<u16> {
    authority.port_u16().or_else(|| default_port(scheme))
}

fn default_port(scheme: &Scheme) -> Option<u16> {
    if *scheme == Scheme::HTTPS {
        Some(443)
    } else if *scheme == Scheme::HTTP {
        Some(80)
    } else {
        None
    }
}

/// Whether an org may answer at this host: a host of Salesforce, or a loopback host, where an emulator listens.
pub(crate) fn may_be_an_instance(uri: &Uri) -> bool {
    uri.authority().is_some_and(|authority| {
        let host = authority.host();
        has_port_or_none(authority) && (is_salesforce_host(host) || is_loopback_host(host))
    })
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidUrl, message.into())
}

/// Parses a URL. The messages contain only its scheme and host: the rest may contain a secret.
fn parse(what: &'static str, text: &str) -> Result<(Origin, PathAndQuery), Error> {
    let uri: Uri = pasted::unwrapped(text).parse().map_err(|error: http::uri::InvalidUri| {
        invalid(format!(
            "{what} is not a URL: expected https://<host>, like https://MyDomainName.my.salesforce.com"
        ))
        .with_source(error)
    })?;
    let parts = uri.into_parts();
    let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
        return Err(invalid(format!(
            "{what} has no scheme or no host: expected https://<host>, like https://MyDomainName.my.salesforce.com"
        )));
    };
    let host = authority.host().to_ascii_lowercase();
    if scheme != Scheme::HTTPS && !(scheme == Scheme::HTTP && is_loopback_host(&host)) {
        return Err(invalid(format!(
            "{what} for host {host} is {scheme}: a token is sent over https only (http is accepted for loopback)"
        )));
    }
    if let Some(unfit) = HostFamily::of(&host).and_then(|family| family.unfit_for_tokens(&host)) {
        return Err(invalid(format!("{what} names {host}, which {unfit}")));
    }
    if authority.as_str().contains('@') {
        return Err(invalid(format!(
            "{what} for host {host} holds a user name: remove the part before the @"
        )));
    }
    if authority.port_u16().is_none() && !authority.as_str().ends_with(authority.host()) {
        return Err(invalid(format!(
            "{what} for host {host} has a port that is none: expected a number up to 65535, or no colon"
        )));
    }
    let authority = match authority.port_u16() {
        Some(port) if Some(port) != default_port(&scheme) => format!("{host}:{port}"),
        _ => host,
    };
    let authority = Authority::from_maybe_shared(authority)
        .map_err(|error| invalid(format!("{what} has an invalid host")).with_source(error))?;
    let path = parts
        .path_and_query
        .unwrap_or_else(|| PathAndQuery::from_static("/"));
    Ok((Origin { scheme, authority }, path))
}

// === InstanceUrl ===

/// Where the API calls of an org go: the `instance_url` of a token response.
///
/// It has a scheme and a host only. The scheme is `https`, or `http` for a loopback host. A trailing slash is ignored.
///
/// ```
/// use tower_salesforce_auth::InstanceUrl;
///
/// let url: InstanceUrl = "https://MyDomainName.my.salesforce.com/".parse()?;
/// assert_eq!(url.to_string(), "https://mydomainname.my.salesforce.com");
/// assert!("http://MyDomainName.my.salesforce.com".parse::<InstanceUrl>().is_err());
/// # Ok::<_, tower_salesforce_auth::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct InstanceUrl(Origin);

const INSTANCE_URL: &str = "the instance URL";

impl InstanceUrl {
    /// Makes an instance URL from the origin of a URL with any path, for example a SOAP server URL.
    pub(crate) fn from_server_url(url: &str) -> Result<Self, Error> {
        Origin::of_url("the server URL", url).map(Self)
    }

    /// Makes an instance URL from the text of a token response.
    ///
    /// It may have a path, as those of sites do, and a host of Salesforce may lack the scheme, as those of Data Cloud do
    /// (Salesforce Help, "Sample Exchange Access Token for Data 360").
    pub(crate) fn from_answer(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let bare = text.strip_prefix("//").unwrap_or(text);
        let host = bare.split(['/', ':', '?', '#']).next().unwrap_or_default();
        if !bare.contains("://") && is_salesforce_host(host) {
            Origin::of_url(INSTANCE_URL, &format!("https://{bare}")).map(Self)
        } else {
            Origin::of_url(INSTANCE_URL, text).map(Self)
        }
    }

    /// The host, without a port.
    pub fn host(&self) -> &str {
        self.0.host()
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.0
    }

    /// The same instance at this port.
    pub(super) fn at_port(&self, port: u16) -> Self {
        Self(self.0.at_port(port))
    }
}

impl FromStr for InstanceUrl {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self, Error> {
        let (origin, path) = parse(INSTANCE_URL, url)?;
        let host = origin.host();
        match HostFamily::of(host).and_then(|family| family.unfit_for_an_instance(host)) {
            Some(unfit) => Err(invalid(format!(
                "{INSTANCE_URL} names {host}, which {unfit}"
            ))),
            None => origin.alone(INSTANCE_URL, &path).map(Self),
        }
    }
}

impl TryFrom<String> for InstanceUrl {
    type Error = Error;

    fn try_from(url: String) -> Result<Self, Error> {
        url.parse()
    }
}

impl fmt::Display for InstanceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for InstanceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InstanceUrl({self})")
    }
}

// === LoginUrl ===

/// Where a login happens: Salesforce's shared login host, an org's My Domain, or an Experience Cloud site.
///
/// It may have a path, because the endpoints of a site are below one. A trailing slash is ignored. By default the
/// endpoints are below the login URL, at `/services/oauth2/…` (Salesforce Help, "OAuth Endpoints").
///
/// ```
/// use tower_salesforce_auth::LoginUrl;
///
/// assert_eq!(LoginUrl::production().to_string(), "https://login.salesforce.com");
/// let site: LoginUrl = "https://MyDomainName.my.site.com/partners/".parse()?;
/// assert_eq!(site.to_string(), "https://mydomainname.my.site.com/partners");
///
/// let through_a_gateway = LoginUrl::production()
///     .with_token_endpoint("https://gateway.example.com/salesforce/token")?
///     .with_revocation_endpoint("https://gateway.example.com/salesforce/revoke")?;
/// # Ok::<_, tower_salesforce_auth::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct LoginUrl {
    origin: Origin,
    /// Without a trailing slash; empty for the root.
    path: String,
    /// The endpoints that were set. `None` if all have their default.
    endpoints: Option<Arc<Endpoints>>,
}

/// Endpoints that were set. `None` for the default, below the login URL.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
struct Endpoints {
    authorization: Option<Uri>,
    token: Option<Uri>,
    revocation: Option<Uri>,
    introspection: Option<Uri>,
}

impl LoginUrl {
    /// `https://login.salesforce.com`: production orgs and Developer Editions.
    pub fn production() -> Self {
        Self::shared("login.salesforce.com")
    }

    /// `https://test.salesforce.com`: sandboxes and scratch orgs.
    pub fn sandbox() -> Self {
        Self::shared("test.salesforce.com")
    }

    fn shared(host: &'static str) -> Self {
        Self {
            origin: Origin {
                scheme: Scheme::HTTPS,
                authority: Authority::from_static(host),
            },
            path: String::new(),
            endpoints: None,
        }
    }

    /// The host, without a port.
    pub fn host(&self) -> &str {
        self.origin.host()
    }

    /// Sets the authorization endpoint (RFC 6749 §3.1), which may have a query. Default: below the login URL.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidUrl`] if the URL is neither `https` nor loopback.
    pub fn with_authorization_endpoint(self, url: &str) -> Result<Self, Error> {
        let endpoint = parse_endpoint("the authorization endpoint", url)?;
        Ok(self.with(|endpoints| endpoints.authorization = Some(endpoint)))
    }

    /// Sets the token endpoint (RFC 6749 §3.2). Default: below the login URL.
    ///
    /// # Errors
    ///
    /// As for [`with_authorization_endpoint`](Self::with_authorization_endpoint).
    pub fn with_token_endpoint(self, url: &str) -> Result<Self, Error> {
        let endpoint = parse_endpoint("the token endpoint", url)?;
        Ok(self.with(|endpoints| endpoints.token = Some(endpoint)))
    }

    /// Sets the revocation endpoint (RFC 7009 §2). Default: below the login URL.
    ///
    /// # Errors
    ///
    /// As for [`with_authorization_endpoint`](Self::with_authorization_endpoint).
    pub fn with_revocation_endpoint(self, url: &str) -> Result<Self, Error> {
        let endpoint = parse_endpoint("the revocation endpoint", url)?;
        Ok(self.with(|endpoints| endpoints.revocation = Some(endpoint)))
    }

    /// Sets the introspection endpoint (RFC 7662 §2). Default: below the login URL. A stored session does not keep it: set it
    /// on the login URL of the [`App`](crate::oauth::App).
    ///
    /// # Errors
    ///
    /// As for [`with_authorization_endpoint`](Self::with_authorization_endpoint).
    pub fn with_introspection_endpoint(self, url: &str) -> Result<Self, Error> {
        let endpoint = parse_endpoint("the introspection endpoint", url)?;
        Ok(self.with(|endpoints| endpoints.introspection = Some(endpoint)))
    }

    fn with(mut self, change: impl FnOnce(&mut Endpoints)) -> Self {
        change(Arc::make_mut(self.endpoints.get_or_insert_default()));
        self
    }

    /// The authorization, token and revocation endpoints that were set, which a stored session keeps. `None` for each default.
    pub(crate) fn given_endpoints(&self) -> [Option<&Uri>; 3] {
        match &self.endpoints {
            Some(given) => {
                [&given.authorization, &given.token, &given.revocation].map(Option::as_ref)
            }
            None => [None; 3],
        }
    }

    /// The authorization endpoint (RFC 6749 §3.1).
    pub(crate) fn authorization_endpoint(&self) -> Result<Uri, Error> {
        self.endpoint(
            |given| given.authorization.as_ref(),
            "/services/oauth2/authorize",
        )
    }

    /// The token endpoint (RFC 6749 §3.2).
    pub(crate) fn token_endpoint(&self) -> Result<Uri, Error> {
        self.endpoint(|given| given.token.as_ref(), "/services/oauth2/token")
    }

    /// The revocation endpoint (RFC 7009 §2).
    pub(crate) fn revocation_endpoint(&self) -> Result<Uri, Error> {
        self.endpoint(|given| given.revocation.as_ref(), "/services/oauth2/revoke")
    }

    /// The introspection endpoint (RFC 7662 §2).
    pub(crate) fn introspection_endpoint(&self) -> Result<Uri, Error> {
        self.endpoint(
            |given| given.introspection.as_ref(),
            "/services/oauth2/introspect",
        )
    }

    fn endpoint(
        &self,
        given: impl FnOnce(&Endpoints) -> Option<&Uri>,
        path: &str,
    ) -> Result<Uri, Error> {
        match self.endpoints.as_deref().and_then(given) {
            Some(endpoint) => Ok(endpoint.clone()),
            None => self.join(path),
        }
    }

    /// The URI of `path` below this login URL.
    pub(crate) fn join(&self, path: &str) -> Result<Uri, Error> {
        PathAndQuery::try_from(format!("{}{path}", self.path))
            .map_err(http::Error::from)
            .and_then(|path| self.origin.join(path))
            .map_err(|error| {
                invalid(format!("the login URL {self} makes no endpoint")).with_source(error)
            })
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether the machine itself answers at the token endpoint.
    pub(crate) fn is_loopback(&self) -> bool {
        let endpoint = self
            .endpoints
            .as_deref()
            .and_then(|given| given.token.as_ref());
        is_loopback_host(endpoint.and_then(Uri::host).unwrap_or(self.host()))
    }

    /// Whether both URLs have the same origin and path. Their endpoints may differ.
    pub(crate) fn is_same_place(&self, other: &Self) -> bool {
        self.origin == other.origin && self.path == other.path
    }

    /// Whether the server here may name itself so (`iss`, RFC 9207 §2).
    ///
    /// Salesforce is one server at many hosts: a login at a shared host may be answered by the org's My Domain, and the other
    /// way round. The hosts of an org have one name, that of its My Domain.
    pub(crate) fn may_be_issuer(&self, issuer: &Self) -> bool {
        let [here, there] = [self, issuer].map(|url| HostFamily::of(url.host()));
        match (here, there) {
            (Some(here), Some(there)) if here.has_logins() && there.has_logins() => {
                let is_shared = here == HostFamily::Login || there == HostFamily::Login;
                is_shared || org_name(self.host()) == org_name(issuer.host())
            }
            _ => self.is_same_place(issuer),
        }
    }

    /// The audience of assertions (`aud`, RFC 7523 §3).
    ///
    /// For a host of Salesforce this is the shared login host for production or for sandboxes: Salesforce compares it
    /// with the kind of the org. For a site or a custom host this is the login URL.
    #[cfg(feature = "jwt")]
    pub(crate) fn audience(&self) -> String {
        match OrgKind::at(self.host()) {
            Some(OrgKind::Sandbox) => "https://test.salesforce.com".to_owned(),
            Some(OrgKind::Production) => "https://login.salesforce.com".to_owned(),
            None => self.to_string(),
        }
    }
}

/// Parses the URL of an endpoint, which may be at any host, but not in plain HTTP beyond loopback.
fn parse_endpoint(what: &'static str, url: &str) -> Result<Uri, Error> {
    let (origin, path) = parse(what, url)?;
    let host = origin.host().to_owned();
    origin
        .join(path)
        .map_err(|error| invalid(format!("{what} on host {host} makes no URL")).with_source(error))
}

/// Logs in at the instance of an org.
impl From<&InstanceUrl> for LoginUrl {
    fn from(instance_url: &InstanceUrl) -> Self {
        Self {
            origin: instance_url.0.clone(),
            path: String::new(),
            endpoints: None,
        }
    }
}

impl FromStr for LoginUrl {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self, Error> {
        let (origin, path) = parse("the login URL", url)?;
        let host = origin.host();
        let family = HostFamily::of(host);
        if let Some(unfit) = family.and_then(|family| family.unfit_for_login(host)) {
            return Err(invalid(format!(
                "the login URL names {host}, which {unfit}"
            )));
        }
        if path.query().is_some() {
            return Err(invalid(format!(
                "the login URL for host {host} has a query: leave out everything from the question mark on"
            )));
        }
        if let Some(part) = endpoint_or_page(family, path.path()) {
            return Err(invalid(format!(
                "the login URL for host {host} names an endpoint or a page: leave out everything from {part} on"
            )));
        }
        if family.is_some_and(HostFamily::has_no_paths) && path.path() != "/" {
            return Err(invalid(format!(
                "the login URL for host {host} has the path of a page: give the scheme and host alone, {origin}"
            )));
        }
        let path = path.path().trim_end_matches('/').to_owned();
        Ok(Self {
            origin,
            path,
            endpoints: None,
        })
    }
}

/// The first part of a path that no login URL has: the endpoints are below the login URL, and pages are beside them.
fn endpoint_or_page(family: Option<HostFamily>, path: &str) -> Option<&'static str> {
    const ENDPOINTS: [&str; 3] = ["/services", "/.well-known", "/secur"];
    // The pages of a site are below `/s`.
    const PAGES: [&str; 3] = ["/s", "/login", "/apex"];
    let path = format!("{path}/");
    let is_in_it = |part: &&str| path.contains(&format!("{part}/"));
    let page = || PAGES.into_iter().find(is_in_it);
    ENDPOINTS
        .into_iter()
        .find(is_in_it)
        .or_else(|| page().filter(|_| family == Some(HostFamily::Site)))
}

impl TryFrom<String> for LoginUrl {
    type Error = Error;

    fn try_from(url: String) -> Result<Self, Error> {
        url.parse()
    }
}

impl fmt::Display for LoginUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, self.path)
    }
}

impl fmt::Debug for LoginUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LoginUrl({self})")
    }
}
