//! One session: an access token, the instance it is good for, and what the login returned with it.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::HeaderValue;

use crate::{
    error::{Error, ErrorKind},
    secret::Secret,
    session::url::{InstanceUrl, LoginUrl},
    text::jwt,
};

/// An immutable snapshot of an authenticated context: a token, its instance, and what the login told about them.
///
/// ```
/// use tower_salesforce_auth::Session;
///
/// let session = Session::new("00Dxx0000001gEF!AQEAQ…", "https://MyDomainName.my.salesforce.com");
/// assert!(session.is_err(), "an ellipsis cannot stand in a header");
///
/// let session = Session::new("00Dxx0000001gEF!AQEAQ", "https://MyDomainName.my.salesforce.com")?
///     .with_refresh_token("5Aep861TSESvWeug");
/// assert_eq!(session.instance_url().host(), "mydomainname.my.salesforce.com");
/// assert!(!format!("{session:?}").contains("5Aep"));
/// # Ok::<_, tower_salesforce_auth::Error>(())
/// ```
#[derive(Clone)]
pub struct Session {
    access_token: Secret,
    /// `Bearer <access token>` (RFC 6750 §2.1), rendered once and marked sensitive.
    authorization: HeaderValue,
    /// The access token alone, likewise.
    bare_token: HeaderValue,
    instance_url: InstanceUrl,
    login_url: Option<LoginUrl>,
    refresh_token: Option<Secret>,
    identity_url: Option<String>,
    scope: Option<String>,
    issued_at: Option<SystemTime>,
    lifetime: Option<Duration>,
    /// The org and the user, where no identity URL tells them.
    ids: Option<(String, String)>,
    /// Whether the refresh token replaced one that must not be used any more.
    is_rotated: bool,
    /// Whether the refresh token is the very one that the session was obtained with.
    keeps_refresh_token: bool,
    /// Whether it came of a SOAP `login()`, and ends with a SOAP `logout()`.
    is_soap: bool,
}

impl Session {
    /// A session with an access token for an instance, `https://MyDomainName.my.salesforce.com` for one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidToken`] if the token is empty or cannot stand in a header, and [`ErrorKind::InvalidUrl`] if
    /// the instance URL is not `https` (nor loopback), has a path, or is a Lightning host.
    pub fn new(access_token: impl Into<Secret>, instance_url: &str) -> Result<Self, Error> {
        Self::from_parts(access_token.into(), instance_url.parse()?)
    }

    /// A session with a session id and the server URL that a SOAP `login()` returned with it.
    ///
    /// The instance is the origin of the server URL. Such a session is ended by a SOAP `logout()`.
    ///
    /// ```
    /// use tower_salesforce_auth::Session;
    ///
    /// let server_url = "https://MyDomainName.my.salesforce.com/services/Soap/u/64.0/00Dxx0000001gEF";
    /// let session = Session::from_session_id("00Dxx0000001gEF!AQEAQ", server_url)?;
    /// assert_eq!(session.instance_url().to_string(), "https://mydomainname.my.salesforce.com");
    /// # Ok::<_, tower_salesforce_auth::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub fn from_session_id(session_id: impl Into<Secret>, server_url: &str) -> Result<Self, Error> {
        let instance_url = InstanceUrl::from_server_url(server_url)?;
        let session = Self::from_parts(session_id.into(), instance_url)?;
        Ok(Self {
            is_soap: true,
            ..session
        })
    }

    fn from_parts(access_token: Secret, instance_url: InstanceUrl) -> Result<Self, Error> {
        let authorization = render(AuthorizationScheme::Bearer, &access_token)?;
        let (_, bare_token) =
            authorization.split_at(authorization.len() - access_token.expose().len());
        Ok(Self {
            bare_token: sensitive(authorization.slice_ref(bare_token))?,
            authorization: sensitive(authorization)?,
            access_token,
            instance_url,
            login_url: None,
            refresh_token: None,
            identity_url: None,
            scope: None,
            issued_at: None,
            lifetime: None,
            ids: None,
            is_rotated: false,
            keeps_refresh_token: false,
            is_soap: false,
        })
    }

    /// Adds the refresh token (RFC 6749 §1.5) that renews this session.
    #[must_use]
    pub fn with_refresh_token(mut self, refresh_token: impl Into<Secret>) -> Self {
        self.refresh_token = Some(refresh_token.into());
        self.keeps_refresh_token = false;
        self
    }

    /// Adds the login URL that the session was obtained at.
    #[must_use]
    pub fn with_login_url(mut self, login_url: LoginUrl) -> Self {
        self.login_url = Some(login_url);
        self
    }

    /// Adds the identity URL, the `id` of a token response.
    #[must_use]
    pub fn with_identity_url(mut self, identity_url: impl Into<String>) -> Self {
        self.identity_url = Some(identity_url.into());
        self
    }

    /// Adds the granted scope, space-separated (RFC 6749 §3.3).
    #[must_use]
    pub fn with_scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// Adds the time at which the server issued the token.
    #[must_use]
    pub fn with_issued_at(mut self, issued_at: SystemTime) -> Self {
        self.issued_at = Some(issued_at);
        self
    }

    /// Adds how long the server said that the session is good for.
    #[must_use]
    pub fn with_lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = Some(lifetime);
        self
    }

    /// Adds the ids of the org and of the user. Those of an [identity URL](Self::with_identity_url) go before them.
    #[must_use]
    pub fn with_ids(
        mut self,
        organization_id: impl Into<String>,
        user_id: impl Into<String>,
    ) -> Self {
        self.ids = Some((organization_id.into(), user_id.into()));
        self
    }

    /// The access token, or the session id, which is the same to the APIs.
    pub fn access_token(&self) -> &Secret {
        &self.access_token
    }

    /// Where the API calls of this session go.
    pub fn instance_url(&self) -> &InstanceUrl {
        &self.instance_url
    }

    /// Where the session was obtained, if known.
    pub fn login_url(&self) -> Option<&LoginUrl> {
        self.login_url.as_ref()
    }

    /// The refresh token, if there is one.
    pub fn refresh_token(&self) -> Option<&Secret> {
        self.refresh_token.as_ref()
    }

    /// The identity URL, `https://login.salesforce.com/id/<org id>/<user id>`, if known.
    pub fn identity_url(&self) -> Option<&str> {
        self.identity_url.as_deref()
    }

    /// The 18-character id of the org, if known.
    pub fn organization_id(&self) -> Option<&str> {
        self.identity().map(|(organization, _)| organization)
    }

    /// The 18-character id of the user, if known.
    pub fn user_id(&self) -> Option<&str> {
        self.identity().map(|(_, user)| user)
    }

    fn identity(&self) -> Option<(&str, &str)> {
        fn of_url(url: &str) -> Option<(&str, &str)> {
            let (_, ids) = url.split_once("/id/")?;
            ids.split_once('/')
        }
        let ids = || {
            let (organization, user) = self.ids.as_ref()?;
            Some((organization.as_str(), user.as_str()))
        };
        self.identity_url.as_deref().and_then(of_url).or_else(ids)
    }

    /// Whether both are of the same user of the same org, if both are known. An id may have 15 characters, or three more
    /// that check them.
    pub(crate) fn is_of_same_user(&self, other: &Self) -> Option<bool> {
        fn ids(session: &Session) -> Option<(&str, &str)> {
            let (organization, user) = session.identity()?;
            let short = |id| str::get(id, ..15).unwrap_or(id);
            Some((short(organization), short(user)))
        }
        Some(ids(self)? == ids(other)?)
    }

    /// Whether both are of the same user of the same org, or else, if that is not known, of the same instance.
    pub(crate) fn may_replace(&self, other: &Self) -> bool {
        self.is_of_same_user(other)
            .unwrap_or_else(|| self.instance_url == other.instance_url)
    }

    /// Whether a session that was set by hand is given up for `stored`, which was stored at an unknown time before or after:
    /// unless that is of another user, or was issued earlier, by the clock of the server that issued both.
    pub(crate) fn gives_way_to(&self, stored: &Self) -> bool {
        self.may_replace(stored)
            && match (self.issued_at, stored.issued_at) {
                (Some(ours), Some(theirs)) => ours <= theirs,
                _ => true,
            }
    }

    /// The granted scope, space-separated, if known.
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// When the server issued the token, by the server's clock, if known.
    pub fn issued_at(&self) -> Option<SystemTime> {
        self.issued_at
    }

    /// How long the server said that the session is good for, if it did.
    ///
    /// Of a SOAP login it is the session's timeout, which begins anew with every call; of a token response (`expires_in`),
    /// a period from the time of issue, which does not.
    pub fn lifetime(&self) -> Option<Duration> {
        self.lifetime
    }

    /// Whether the access token is a JWT (Salesforce Help, "JWT-Based Access Tokens"). SOAP APIs do not take those.
    pub fn is_jwt(&self) -> bool {
        jwt::is_jwt(self.access_token.expose())
    }

    /// When the access token ends, by the server's clock, where it can be told: the `exp` of a JWT, or else the
    /// [lifetime](Self::lifetime) from the time of [issue](Self::issued_at).
    ///
    /// For planning only. A JWT's signature is not checked, and a session can end before.
    ///
    /// ```
    /// use std::time::{Duration, UNIX_EPOCH};
    /// use tower_salesforce_auth::Session;
    ///
    /// // {"alg":"RS256"} and {"exp":1750000000}
    /// let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjE3NTAwMDAwMDB9.c2lnbmF0dXJl";
    /// let session = Session::new(jwt, "https://MyDomainName.my.salesforce.com")?;
    /// assert!(session.is_jwt());
    /// assert_eq!(session.expires_at(), Some(UNIX_EPOCH + Duration::from_secs(1_750_000_000)));
    /// # Ok::<_, tower_salesforce_auth::Error>(())
    /// ```
    pub fn expires_at(&self) -> Option<SystemTime> {
        jwt::expiry(self.access_token.expose())
            .or_else(|| self.issued_at?.checked_add(self.lifetime?))
    }

    /// How long it is good for, as far as anything it came with tells.
    pub(crate) fn told_lifetime(&self) -> Option<Duration> {
        jwt::lifetime(self.access_token.expose()).or(self.lifetime)
    }

    /// Says that the refresh token replaced one that must not be used any more.
    pub(crate) fn rotated(mut self) -> Self {
        self.is_rotated = true;
        self
    }

    pub(crate) fn is_rotated(&self) -> bool {
        self.is_rotated
    }

    /// Says that the refresh token is the very one that the session was obtained with.
    pub(crate) fn keeping_refresh_token(mut self) -> Self {
        self.keeps_refresh_token = true;
        self
    }

    pub(crate) fn keeps_refresh_token(&self) -> bool {
        self.keeps_refresh_token
    }

    /// The same session, whatever it came of: as it is stored.
    pub(crate) fn without_provenance(mut self) -> Self {
        self.is_rotated = false;
        self.keeps_refresh_token = false;
        self
    }

    pub(crate) fn is_soap(&self) -> bool {
        self.is_soap
    }

    pub(crate) fn authorization(&self) -> &HeaderValue {
        &self.authorization
    }

    pub(crate) fn bare_token(&self) -> &HeaderValue {
        &self.bare_token
    }
}

/// The word before the token in an `Authorization` header.
///
/// ```
/// use tower_salesforce_auth::{AuthorizationScheme, SalesforceAuthLayer};
///
/// fn as_before(layer: SalesforceAuthLayer) -> SalesforceAuthLayer {
///     layer.authorization_scheme(AuthorizationScheme::OAuth)
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AuthorizationScheme {
    /// `Authorization: Bearer …` (RFC 6750 §2.1), which all APIs take.
    #[default]
    Bearer,
    /// `Authorization: OAuth …`, the older form, which the REST and streaming APIs take too.
    OAuth,
}

/// The value of an `Authorization` header. It ends with the token.
pub(crate) fn render(scheme: AuthorizationScheme, access_token: &Secret) -> Result<Bytes, Error> {
    let token = access_token.expose();
    if token.is_empty() {
        return Err(Error::new(
            ErrorKind::InvalidToken,
            "the access token is empty",
        ));
    }
    // Neither OAuth tokens nor session ids have a blank in them; one that got in by copying would be sent as another
    // token, and a line break would be another header.
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::new(
            ErrorKind::InvalidToken,
            "the access token has a blank, a control or a non-ASCII character in it, which no Salesforce token has: \
             check how it was copied",
        ));
    }
    let scheme = match scheme {
        AuthorizationScheme::Bearer => "Bearer",
        AuthorizationScheme::OAuth => "OAuth",
    };
    Ok(format!("{scheme} {token}").into())
}

pub(crate) fn sensitive(value: impl Into<Bytes>) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_maybe_shared(value.into()).map_err(|error| {
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
            .field("access_token", &self.access_token)
            .field("instance_url", &self.instance_url)
            .field("login_url", &self.login_url)
            .field("refresh_token", &self.refresh_token)
            .field("identity_url", &self.identity_url)
            .field("scope", &self.scope)
            .field("issued_at", &self.issued_at)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}
