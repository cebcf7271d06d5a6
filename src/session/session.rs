//! One session: an access token, its instance, and what the login returned with it.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::HeaderValue;

use crate::{
    error::{Error, ErrorKind},
    secret::Secret,
    session::{
        dpop_key::DpopKey,
        grant_token::GrantToken,
        url::{InstanceUrl, LoginUrl},
    },
    text::{jwt, pasted},
};

/// An immutable session: an access token, its instance, and what the login returned about both.
///
/// Cheap to clone: clones share what they hold.
///
/// ```
/// use tower_salesforce_auth::Session;
///
/// let instance = "https://MyDomainName.my.salesforce.com";
/// let session = Session::new("00Dxx0000001gEF!AQEAQ…", instance);
/// assert!(session.is_err(), "an ellipsis is not allowed in a header");
///
/// let session = Session::new("00Dxx0000001gEF!AQEAQ", instance)?
///     .with_refresh_token("5Aep861TSESvWeug");
/// assert_eq!(session.instance_url().host(), "mydomainname.my.salesforce.com");
/// assert!(!format!("{session:?}").contains("5Aep"));
/// # Ok::<_, tower_salesforce_auth::Error>(())
/// ```
#[derive(Clone)]
pub struct Session(Arc<Parts>);

#[derive(Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says one thing of how the session was obtained"
)]
struct Parts {
    access_token: Secret,
    /// `Bearer <access token>` (RFC 6750 §2.1) or `DPoP <access token>` (RFC 9449 §7.1), rendered once and marked sensitive.
    authorization: HeaderValue,
    instance_url: InstanceUrl,
    login_url: Option<LoginUrl>,
    /// The key that the access token is bound to. `None` for a bearer token.
    dpop_key: Option<DpopKey>,
    refresh_token: Option<GrantToken>,
    identity_url: Option<Box<str>>,
    scope: Option<Box<str>>,
    issued_at: Option<SystemTime>,
    lifetime: Option<Duration>,
    /// The ids of the org and the user, as few sessions have them. `None` unless they were set apart from an identity URL.
    ids: Option<Box<(String, String)>>,
    /// Whether the refresh token replaced one that must no longer be used.
    is_rotated: bool,
    /// Whether the refresh token is the one that the session was obtained with.
    keeps_refresh_token: bool,
    /// Whether the session came from a SOAP `login()`, and so ends with a SOAP `logout()`.
    is_soap: bool,
    /// Whether the server issued a bearer token, although the request for it had a proof.
    is_left_unbound: bool,
}

impl Session {
    /// Makes a session with an access token for an instance, for example `https://MyDomainName.my.salesforce.com`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidToken`] if the token is empty, or was copied in another notation: with quotes, a backslash, percent
    /// encoding or a blank. The error says which. [`ErrorKind::InvalidUrl`] if the
    /// instance URL is neither `https` nor loopback, has a path, or is a Lightning host.
    pub fn new(access_token: impl Into<Secret>, instance_url: &str) -> Result<Self, Error> {
        let access_token = access_token.into();
        let instance_url = instance_url.parse()?;
        check_notation(&access_token)?;
        Self::from_parts(access_token, instance_url)
    }

    /// Makes a session from a session id and the server URL that a SOAP `login()` returned with it.
    ///
    /// The instance is the origin of the server URL. A logout of this session calls SOAP `logout()`.
    ///
    /// ```
    /// use tower_salesforce_auth::Session;
    ///
    /// let url = "https://MyDomainName.my.salesforce.com/services/Soap/u/64.0/00Dxx";
    /// let session = Session::from_session_id("00Dxx!AQEAQ", url)?;
    /// let instance = session.instance_url().to_string();
    /// assert_eq!(instance, "https://mydomainname.my.salesforce.com");
    /// # Ok::<_, tower_salesforce_auth::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub fn from_session_id(session_id: impl Into<Secret>, server_url: &str) -> Result<Self, Error> {
        let session_id = session_id.into();
        let instance_url = InstanceUrl::from_server_url(server_url)?;
        check_notation(&session_id)?;
        Self::from_soap_parts(session_id, instance_url)
    }

    /// The same for an answer of a server.
    pub(crate) fn from_soap_server(session_id: Secret, server_url: &str) -> Result<Self, Error> {
        Self::from_soap_parts(session_id, InstanceUrl::from_server_url(server_url)?)
    }

    fn from_soap_parts(session_id: Secret, instance_url: InstanceUrl) -> Result<Self, Error> {
        let session = Self::from_parts(session_id, instance_url)?;
        Ok(session.with(|parts| parts.is_soap = true))
    }

    /// Makes a session from the texts of a token response, whose token may have any visible characters.
    pub(crate) fn from_answer(
        access_token: impl Into<Secret>,
        instance_url: &str,
    ) -> Result<Self, Error> {
        let instance_url = InstanceUrl::from_answer(instance_url)?;
        Self::from_parts(access_token.into(), instance_url)
    }

    fn from_parts(access_token: Secret, instance_url: InstanceUrl) -> Result<Self, Error> {
        let authorization = render("Bearer", &access_token)?;
        Ok(Self(Arc::new(Parts {
            authorization,
            access_token,
            instance_url,
            login_url: None,
            dpop_key: None,
            refresh_token: None,
            identity_url: None,
            scope: None,
            issued_at: None,
            lifetime: None,
            ids: None,
            is_rotated: false,
            keeps_refresh_token: false,
            is_soap: false,
            is_left_unbound: false,
        })))
    }

    /// The same session with this change.
    fn with(mut self, change: impl FnOnce(&mut Parts)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Adds the refresh token (RFC 6749 §1.5) of this session.
    #[must_use]
    pub fn with_refresh_token(self, refresh_token: impl Into<Secret>) -> Self {
        let grant_token = GrantToken {
            token: pasted::secret(refresh_token),
            dpop_key: self.grant_key().cloned(),
        };
        self.with_grant_token(grant_token)
    }

    /// Adds the refresh token, with the key that it is bound to.
    pub(crate) fn with_grant_token(self, grant_token: GrantToken) -> Self {
        self.with(|parts| {
            parts.refresh_token = Some(grant_token);
            parts.keeps_refresh_token = false;
        })
    }

    /// Binds the tokens of this session to a key (RFC 9449), as the server did that issued them. Requests are sent with
    /// `Authorization: DPoP` and a new proof then.
    ///
    /// A flow does so by itself: use it for a session that was obtained elsewhere.
    ///
    /// ```
    /// use tower_salesforce_auth::{Session, oauth::DpopKey};
    ///
    /// # let key = DpopKey::generate()?;
    /// let session = Session::new("00Dxx!AQEAQ", "https://MyDomainName.my.salesforce.com")?
    ///     .with_dpop_key(key.clone());
    /// assert_eq!(session.dpop_key(), Some(&key));
    /// # Ok::<_, tower_salesforce_auth::Error>(())
    /// ```
    #[cfg(feature = "dpop")]
    #[cfg_attr(docsrs, doc(cfg(feature = "dpop")))]
    #[must_use]
    pub fn with_dpop_key(self, key: DpopKey) -> Self {
        let bound = self.bound_to(key.clone());
        bound.with(|parts| {
            if let Some(grant_token) = &mut parts.refresh_token {
                grant_token.dpop_key = Some(key);
            }
        })
    }

    /// Binds the access token alone.
    pub(crate) fn bound_to(self, key: DpopKey) -> Self {
        self.with(|parts| {
            // The token was rendered before, so it can be rendered again.
            if let Ok(authorization) = render("DPoP", &parts.access_token) {
                parts.authorization = authorization;
                parts.dpop_key = Some(key);
            }
        })
    }

    /// Records that the server issued a bearer token, although the request for it had a proof.
    pub(crate) fn left_unbound(self) -> Self {
        self.with(|parts| parts.is_left_unbound = true)
    }

    pub(crate) fn is_left_unbound(&self) -> bool {
        self.0.is_left_unbound
    }

    /// Changes the keys that the tokens are bound to into other forms of the same keys.
    pub(crate) fn map_keys(self, map: impl Fn(DpopKey) -> DpopKey) -> Self {
        if self.grant_key().is_none() {
            return self;
        }
        self.with(|parts| {
            parts.dpop_key = parts.dpop_key.take().map(&map);
            if let Some(grant_token) = &mut parts.refresh_token {
                grant_token.dpop_key = grant_token.dpop_key.take().map(&map);
            }
        })
    }

    /// Adds the login URL that the session was obtained at.
    #[must_use]
    pub fn with_login_url(self, login_url: LoginUrl) -> Self {
        self.with(|parts| parts.login_url = Some(login_url))
    }

    /// Adds the identity URL: the `id` of a token response.
    #[must_use]
    pub fn with_identity_url(self, identity_url: impl Into<String>) -> Self {
        self.with(|parts| parts.identity_url = Some(pasted::text(identity_url).into_boxed_str()))
    }

    /// Adds the granted scope, space-separated (RFC 6749 §3.3).
    #[must_use]
    pub fn with_scope(self, scope: impl Into<String>) -> Self {
        self.with(|parts| parts.scope = Some(scope.into().into_boxed_str()))
    }

    /// Adds the time at which the server issued the token.
    #[must_use]
    pub fn with_issued_at(self, issued_at: SystemTime) -> Self {
        self.with(|parts| parts.issued_at = Some(issued_at))
    }

    /// Adds the lifetime that the server returned.
    #[must_use]
    pub fn with_lifetime(self, lifetime: Duration) -> Self {
        self.with(|parts| parts.lifetime = Some(lifetime))
    }

    /// Adds the ids of the org and of the user. The ids of an [identity URL](Self::with_identity_url) take precedence.
    #[must_use]
    pub fn with_ids(self, organization_id: impl Into<String>, user_id: impl Into<String>) -> Self {
        let ids = (pasted::text(organization_id), pasted::text(user_id));
        self.with(|parts| parts.ids = Some(Box::new(ids)))
    }

    /// The access token, or the session id of a SOAP login. The APIs treat both alike.
    pub fn access_token(&self) -> &Secret {
        &self.0.access_token
    }

    /// The instance that the API calls of this session go to.
    pub fn instance_url(&self) -> &InstanceUrl {
        &self.0.instance_url
    }

    /// The login URL that the session was obtained at. `None` if unknown.
    pub fn login_url(&self) -> Option<&LoginUrl> {
        self.0.login_url.as_ref()
    }

    /// The refresh token. `None` if the session has none.
    pub fn refresh_token(&self) -> Option<&Secret> {
        self.0.refresh_token.as_ref().map(|grant| &grant.token)
    }

    pub(crate) fn grant_token(&self) -> Option<&GrantToken> {
        self.0.refresh_token.as_ref()
    }

    /// The key that the access token is bound to (RFC 9449). `None` for a bearer token.
    #[cfg(feature = "dpop")]
    #[cfg_attr(docsrs, doc(cfg(feature = "dpop")))]
    pub fn dpop_key(&self) -> Option<&DpopKey> {
        self.0.dpop_key.as_ref()
    }

    /// The key that the access token is bound to. `None` for a bearer token.
    pub(crate) fn bound_key(&self) -> Option<&DpopKey> {
        self.0.dpop_key.as_ref()
    }

    /// The key of the grant: that of the refresh token, or else that of the access token. `None` if neither has one.
    pub(crate) fn grant_key(&self) -> Option<&DpopKey> {
        let grant_token = self.0.refresh_token.as_ref();
        let of_grant = grant_token.and_then(|grant| grant.dpop_key.as_ref());
        of_grant.or(self.0.dpop_key.as_ref())
    }

    /// The identity URL, `https://login.salesforce.com/id/<org id>/<user id>`. `None` if unknown.
    pub fn identity_url(&self) -> Option<&str> {
        self.0.identity_url.as_deref()
    }

    /// The 18-character id of the org. `None` if unknown.
    pub fn organization_id(&self) -> Option<&str> {
        self.identity().map(|(organization, _)| organization)
    }

    /// The 18-character id of the user. `None` if unknown.
    pub fn user_id(&self) -> Option<&str> {
        self.identity().map(|(_, user)| user)
    }

    fn identity(&self) -> Option<(&str, &str)> {
        fn of_url(url: &str) -> Option<(&str, &str)> {
            // A site's path comes first, and may contain `/id/` too.
            let (_, ids) = url.rsplit_once("/id/")?;
            let (organization, user) = ids.split_once('/')?;
            let end = user.find(['/', '?', '#']).unwrap_or(user.len());
            Some((organization, user.get(..end)?))
        }
        let ids = || {
            let (organization, user) = self.0.ids.as_deref()?;
            Some((organization.as_str(), user.as_str()))
        };
        self.0.identity_url.as_deref().and_then(of_url).or_else(ids)
    }

    /// The 18-character id of the org, from the access token if the session has no ids: `<15-character id>!…`.
    pub(crate) fn tenant_id(&self) -> Option<String> {
        let known = self.organization_id().map(str::to_owned);
        known.or_else(|| {
            let (id, _) = self.0.access_token.expose().split_once('!')?;
            long_id(id).filter(|id| id.starts_with("00D"))
        })
    }

    /// Whether both sessions are of the same user of the same org. `None` if one of the users is unknown.
    ///
    /// Compares 15 characters: an id has 15, or 18 of which the last three are a checksum.
    pub(crate) fn is_of_same_user(&self, other: &Self) -> Option<bool> {
        fn ids(session: &Session) -> Option<(&str, &str)> {
            let (organization, user) = session.identity()?;
            let short = |id| str::get(id, ..15).unwrap_or(id);
            Some((short(organization), short(user)))
        }
        Some(ids(self)? == ids(other)?)
    }

    /// Whether both sessions are of the same user of the same org. If a user is unknown, compares the instances.
    pub(crate) fn may_replace(&self, other: &Self) -> bool {
        self.is_of_same_user(other)
            .unwrap_or_else(|| self.0.instance_url == other.0.instance_url)
    }

    /// Whether the `stored` session replaces this one, which the user has set. It is unknown which came later.
    ///
    /// False if `stored` is of another user, or if the server issued it earlier.
    pub(crate) fn gives_way_to(&self, stored: &Self) -> bool {
        self.may_replace(stored)
            && match (self.0.issued_at, stored.0.issued_at) {
                (Some(ours), Some(theirs)) => ours <= theirs,
                _ => true,
            }
    }

    /// The granted scope, space-separated. `None` if unknown.
    pub fn scope(&self) -> Option<&str> {
        self.0.scope.as_deref()
    }

    /// When the server issued the token, by the server's clock. `None` if unknown.
    pub fn issued_at(&self) -> Option<SystemTime> {
        self.0.issued_at
    }

    /// The lifetime that the server returned. `None` if it returned none.
    ///
    /// For a SOAP login this is the session timeout, which every call restarts. For a token response it is
    /// `expires_in`, counted from the time of issue.
    pub fn lifetime(&self) -> Option<Duration> {
        self.0.lifetime
    }

    /// Whether the access token is a JWT (Salesforce Help, "JWT-Based Access Tokens"). SOAP APIs reject JWTs.
    pub fn is_jwt(&self) -> bool {
        jwt::is_jwt(self.0.access_token.expose())
    }

    /// When the access token expires, by the server's clock. `None` if unknown.
    ///
    /// This is the `exp` of a JWT, or the [lifetime](Self::lifetime) after the time of [issue](Self::issued_at). Use it
    /// for planning only: the signature of a JWT is not checked, and a session may end earlier.
    ///
    /// ```
    /// use std::time::{Duration, UNIX_EPOCH};
    /// use tower_salesforce_auth::Session;
    ///
    /// // {"alg":"RS256"} and {"exp":1750000000}
    /// let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjE3NTAwMDAwMDB9.c2lnbmF0dXJl";
    /// let session = Session::new(jwt, "https://MyDomainName.my.salesforce.com")?;
    /// assert!(session.is_jwt());
    /// let expiry = UNIX_EPOCH + Duration::from_secs(1_750_000_000);
    /// assert_eq!(session.expires_at(), Some(expiry));
    /// # Ok::<_, tower_salesforce_auth::Error>(())
    /// ```
    pub fn expires_at(&self) -> Option<SystemTime> {
        jwt::expiry(self.0.access_token.expose())
            .or_else(|| self.0.issued_at?.checked_add(self.0.lifetime?))
    }

    /// The lifetime, from the JWT or from the response of the login. `None` if unknown.
    pub(crate) fn known_lifetime(&self) -> Option<Duration> {
        jwt::lifetime(self.0.access_token.expose()).or(self.0.lifetime)
    }

    /// Records that the refresh token replaced one that must no longer be used.
    pub(crate) fn rotated(self) -> Self {
        self.with(|parts| parts.is_rotated = true)
    }

    pub(crate) fn is_rotated(&self) -> bool {
        self.0.is_rotated
    }

    /// Records that the refresh token is the one that the session was obtained with.
    pub(crate) fn keeping_refresh_token(self) -> Self {
        self.with(|parts| parts.keeps_refresh_token = true)
    }

    pub(crate) fn keeps_refresh_token(&self) -> bool {
        self.0.keeps_refresh_token
    }

    /// The same session without the record of how its refresh token was obtained. Stores keep this form.
    pub(crate) fn without_provenance(self) -> Self {
        self.with(|parts| {
            parts.is_rotated = false;
            parts.keeps_refresh_token = false;
            parts.is_left_unbound = false;
        })
    }

    /// The same session at this port of its instance. `None`: at the port that the server named.
    pub(crate) fn at_port(self, port: Option<u16>) -> Self {
        match port {
            Some(port) => self.with(|parts| parts.instance_url = parts.instance_url.at_port(port)),
            None => self,
        }
    }

    pub(crate) fn is_soap(&self) -> bool {
        self.0.is_soap
    }

    /// The `Authorization` value of requests.
    pub(crate) fn authorization(&self) -> &HeaderValue {
        &self.0.authorization
    }
}

/// An id of 15 or 18 characters with 18. The last three tell which of the others are in upper case. `None` for any other text.
fn long_id(id: &str) -> Option<String> {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ012345";

    let is_id = matches!(id.len(), 15 | 18) && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let short = id.get(..15).filter(|_| is_id)?;
    let checksum = short.as_bytes().chunks(5).filter_map(|part| {
        let upper = part.iter().rev().fold(0, |upper, byte| {
            upper << 1 | usize::from(byte.is_ascii_uppercase())
        });
        LETTERS.get(upper).map(|letter| char::from(*letter))
    });
    Some(short.chars().chain(checksum).collect())
}

/// Refuses an access token that was copied in another notation: the server would reject it, and say nothing of the cause.
fn check_notation(access_token: &Secret) -> Result<(), Error> {
    match pasted::not_an_access_token(access_token.expose()) {
        Some(fault) => Err(Error::new(
            ErrorKind::InvalidToken,
            format!("the access token {fault}"),
        )),
        None => Ok(()),
    }
}

/// Renders the value of an `Authorization` header, marked sensitive.
fn render(scheme: &str, access_token: &Secret) -> Result<HeaderValue, Error> {
    let token = access_token.expose();
    if token.is_empty() {
        return Err(Error::new(
            ErrorKind::InvalidToken,
            "the access token is empty",
        ));
    }
    // No OAuth token or session id contains a blank. A copied blank would change the token, and a line break would add
    // a header.
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::new(
            ErrorKind::InvalidToken,
            "the access token has a blank, a control or a non-ASCII character in it, which no Salesforce token has: \
             check how it was copied",
        ));
    }
    let value = Bytes::from(format!("{scheme} {token}"));
    let mut value = HeaderValue::from_maybe_shared(value).map_err(|error| {
        Error::new(
            ErrorKind::InvalidToken,
            "the access token cannot stand in a header",
        )
        .with_source(error)
    })?;
    value.set_sensitive(true);
    Ok(value)
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("access_token", &self.0.access_token)
            .field("instance_url", &self.0.instance_url)
            .field("login_url", &self.0.login_url)
            .field("refresh_token", &self.refresh_token())
            .field("dpop_key", &self.0.dpop_key)
            .field("identity_url", &self.0.identity_url)
            .field("scope", &self.0.scope)
            .field("issued_at", &self.0.issued_at)
            .field("lifetime", &self.0.lifetime)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_id_gets_the_checksum_of_its_upper_case_letters() {
        for (id, long) in [
            ("00Dxx0000001gEF", Some("00Dxx0000001gEFEAY")),
            ("005xx000001SwiU", Some("005xx000001SwiUAAS")),
            ("00Dxx0000001gEFEAY", Some("00Dxx0000001gEFEAY")),
            ("00Dxx", None),
            ("00Dxx0000001g-F", None),
            ("", None),
        ] {
            assert_eq!(long_id(id).as_deref(), long, "{id}");
        }
    }
}
