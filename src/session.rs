//! One session: an access token, where it is good, and what came with it.

use std::{
    fmt,
    ops::Deref,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderValue, Uri};
use tokio::time::Instant;

use crate::{
    endpoint::{InstanceUrl, LoginUrl, Origin},
    error::{Error, ErrorKind},
    renewal::{Due, Renewal},
    secret::Secret,
    spread::Spread,
    text::jwt,
};

// === Session ===

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
    fn is_of_same_user(&self, other: &Self) -> Option<bool> {
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
fn render(scheme: AuthorizationScheme, access_token: &Secret) -> Result<Bytes, Error> {
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

fn sensitive(value: impl Into<Bytes>) -> Result<HeaderValue, Error> {
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

// === LiveSession ===

/// Which of the sessions that a [`SessionHandle`](crate::SessionHandle) has published: a counter that only grows.
///
/// A rejection names the generation that was rejected, and so is never mistaken for one of a newer session.
///
/// ```
/// use tower_salesforce_auth::{Session, SessionHandle};
///
/// let session = Session::new("00Dxx!AQEAQ", "https://MyDomainName.my.salesforce.com")?;
/// let handle = SessionHandle::with_session(session.clone());
/// let rejected = handle.set(session.clone());
/// let newer = handle.set(session);
/// assert!(newer > rejected);
///
/// // Too late: that one is not in use any more.
/// handle.invalidate(rejected);
/// assert_eq!(handle.current().map(|live| live.generation()), Some(newer));
/// # Ok::<_, tower_salesforce_auth::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u64);

/// Its number.
impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A [`Session`] that was published by a [`SessionHandle`](crate::SessionHandle), and its generation.
///
/// Cheap to clone. It dereferences to the session.
///
/// ```
/// use tower_salesforce_auth::{Error, LiveSession, SessionHandle};
///
/// async fn instance(handle: &SessionHandle) -> Result<String, Error> {
///     let live: LiveSession = handle.token().await?;
///     Ok(live.instance_url().to_string())
/// }
/// ```
#[derive(Clone)]
pub struct LiveSession(pub(crate) Arc<Published>);

/// What a [`LiveSession`] shares.
#[derive(Clone)]
pub(crate) struct Published {
    pub(crate) session: Session,
    /// What requests carry: rendered once, in the scheme that is set.
    pub(crate) authorization: Spread,
    /// What gRPC requests carry beside the token. Made for the first of them.
    metadata: OnceLock<Box<Metadata>>,
    pub(crate) has_jwt: bool,
    /// When it is to be renewed, if it is before it ends.
    pub(crate) due: Option<Arc<Due>>,
    /// Whether it was accepted by anybody: looked at only after fruitless refreshes.
    pub(crate) trial: Option<Arc<Trial>>,
    /// Whether another process had obtained it.
    pub(crate) is_adopted: bool,
    pub(crate) generation: Generation,
    /// The generation that first had this access token. A refresh that brings the same token again makes a new
    /// generation since this one, so that whoever was rejected in between knows that there is nothing new to try.
    pub(crate) since: Generation,
    /// The first generation of this org and user, for all that is known. What was meant for those before it stays away
    /// from it.
    pub(crate) since_user: Generation,
    /// Where this org's instance was before, the latest first. Requests that still go there are sent on.
    former_instances: Vec<Origin>,
}

/// The shortest life that Salesforce gives to a session is a minute.
const SERVED: Duration = Duration::from_secs(45);

/// What becomes of a session that came after fruitless refreshes.
pub(crate) struct Trial {
    since: Instant,
    is_accepted: AtomicBool,
}

impl Trial {
    /// Takes note that somebody accepted the session.
    pub(crate) fn accept(&self) {
        // It is read far more often than written.
        if !self.is_accepted() {
            self.is_accepted.store(true, Ordering::Relaxed);
        }
    }

    fn is_accepted(&self) -> bool {
        self.is_accepted.load(Ordering::Relaxed)
    }
}

/// `instanceurl` and `tenantid` (Pub/Sub API, "Authentication"), as far as they are known and can stand in a header.
#[derive(Clone)]
pub(crate) struct Metadata {
    pub(crate) instance_url: Option<HeaderValue>,
    pub(crate) tenant_id: Option<HeaderValue>,
}

impl Metadata {
    fn of(session: &Session) -> Self {
        let instance_url = session.instance_url.to_string();
        Self {
            instance_url: sensitive(instance_url).ok(),
            tenant_id: session
                .organization_id()
                .and_then(|id| sensitive(id.to_owned()).ok()),
        }
    }
}

/// Orgs move now and then; nobody is still under way to where one was many moves ago.
const FORMER_INSTANCES: usize = 4;

impl Published {
    /// A session that follows none, or none that it has anything to do with. `last` is the generation before it.
    pub(crate) fn first(session: Session, last: Option<Generation>) -> Self {
        let generation = Generation(last.map_or(1, |last| last.0 + 1));
        Self {
            authorization: session.authorization.clone().into(),
            metadata: OnceLock::new(),
            has_jwt: session.is_jwt(),
            due: None,
            trial: None,
            is_adopted: false,
            session,
            generation,
            since: generation,
            since_user: generation,
            former_instances: Vec::new(),
        }
    }

    /// The session that a refresh brought in place of this one: of the same org and user, unless both say otherwise.
    pub(crate) fn renewed(&self, session: Session) -> Self {
        let is_same_user = self.session.is_of_same_user(&session).unwrap_or(true);
        self.followed_by(session, is_same_user)
    }

    /// A session that was set in place of this one, or that another process saved: of the same org and user if both say so,
    /// or share the instance.
    pub(crate) fn replaced(&self, session: Session) -> Self {
        let is_same_user = session.may_replace(&self.session);
        self.followed_by(session, is_same_user)
    }

    fn followed_by(&self, session: Session, is_same_user: bool) -> Self {
        let generation = Generation(self.generation.0 + 1);
        let is_unchanged = session.access_token == self.session.access_token;
        let mut former_instances = Vec::new();
        if is_same_user {
            let instances = std::iter::once(self.session.instance_url.origin());
            former_instances.extend(
                instances
                    .chain(&self.former_instances)
                    .filter(|former| *former != session.instance_url.origin())
                    .take(FORMER_INSTANCES)
                    .cloned(),
            );
        }
        Self {
            authorization: session.authorization.clone().into(),
            metadata: OnceLock::new(),
            has_jwt: session.is_jwt(),
            due: None,
            trial: None,
            is_adopted: false,
            session,
            generation,
            since: if is_unchanged { self.since } else { generation },
            since_user: if is_same_user {
                self.since_user
            } else {
                generation
            },
            former_instances,
        }
    }

    /// The same session with another refresh token.
    pub(crate) fn with_refresh_token(&self, refresh_token: Secret) -> Self {
        Self {
            session: self.session.clone().with_refresh_token(refresh_token),
            ..self.clone()
        }
    }

    /// The same session, of which it will be known whether anybody accepts it.
    pub(crate) fn on_trial(mut self) -> Self {
        self.trial = Some(Arc::new(Trial {
            since: Instant::now(),
            is_accepted: AtomicBool::new(false),
        }));
        self
    }

    /// The same session, which another process had obtained.
    pub(crate) fn adopted(mut self) -> Self {
        self.is_adopted = true;
        self
    }

    /// Whether it was accepted, and is there for so long that a rejection means that it has ended.
    pub(crate) fn has_served(&self) -> bool {
        self.trial
            .as_ref()
            .is_some_and(|trial| trial.is_accepted() && trial.since.elapsed() >= SERVED)
    }

    /// The same session, renewed as it is set from now on.
    pub(crate) fn with_renewal(mut self, renewal: Option<Renewal>, jitter: f64) -> Self {
        let told = self.session.told_lifetime();
        let due = renewal.and_then(|renewal| renewal.due(told, Instant::now(), jitter));
        self.due = due.map(Arc::new);
        self
    }

    /// Whether it is to be renewed by now, while it goes on serving.
    pub(crate) fn is_due(&self) -> bool {
        self.due
            .as_ref()
            .is_some_and(|due| due.is_over(Instant::now()))
    }

    pub(crate) fn metadata(&self) -> &Metadata {
        self.metadata
            .get_or_init(|| Box::new(Metadata::of(&self.session)))
    }

    /// The same session, sent in this scheme.
    pub(crate) fn with_scheme(mut self, scheme: AuthorizationScheme) -> Self {
        if scheme == AuthorizationScheme::Bearer {
            self.authorization = self.session.authorization.clone().into();
            return self;
        }
        // The token was found fit for a header when the session was made.
        if let Ok(authorization) = render(scheme, &self.session.access_token).and_then(sensitive) {
            self.authorization = authorization.into();
        }
        self
    }

    /// Whether `uri` is in the instance, where that is now.
    #[inline]
    pub(crate) fn is_at_instance(&self, uri: &Uri) -> bool {
        self.session.instance_url.origin().is_of(uri)
    }

    /// Whether `uri` is in the instance, or was before that moved.
    pub(crate) fn has_instance(&self, uri: &Uri) -> bool {
        let instance = self.session.instance_url.origin();
        instance.is_of(uri) || self.former_instances.iter().any(|former| former.is_of(uri))
    }

    pub(crate) fn is_first_of_its_user(&self) -> bool {
        self.since_user == self.generation
    }

    /// Whether a request that was meant for the session of `generation` is as well meant for this one.
    pub(crate) fn succeeds(&self, generation: Generation) -> bool {
        generation >= self.since_user
    }
}

impl LiveSession {
    /// The generation of this session, to [`invalidate`](crate::SessionHandle::invalidate) it by.
    pub fn generation(&self) -> Generation {
        self.0.generation
    }

    /// Whether it has the token of the session before it.
    pub(crate) fn is_unchanged(&self) -> bool {
        self.0.since != self.0.generation
    }

    /// Whether its token is another than the one that `generation` was rejected with.
    pub(crate) fn cures(&self, generation: Generation) -> bool {
        generation < self.0.since
    }
}

impl Deref for LiveSession {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.0.session
    }
}

impl fmt::Debug for LiveSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveSession")
            .field("generation", &self.0.generation)
            .field("session", &self.0.session)
            .finish()
    }
}
