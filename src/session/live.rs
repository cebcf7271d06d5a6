//! A session in use: published under a generation, with what is derived for its requests.

use std::{
    fmt,
    ops::Deref,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, Uri};
use tokio::time::Instant;

use crate::session::{
    dpop_key::DpopKey,
    header::ShardedHeader,
    lifetime::{Due, ProactiveRefresh},
    session::Session,
    url::{InstanceUrl, Origin},
};

/// Identifies one of the sessions that a [`SessionHandle`](crate::SessionHandle) has published: a counter that only
/// grows.
///
/// A rejection names the generation that was rejected. A late rejection of an older session therefore never ends a
/// newer one.
///
/// ```
/// use tower_salesforce_auth::{Session, SessionHandle};
///
/// let session = Session::new("00Dxx!AQEAQ", "https://MyDomainName.my.salesforce.com")?;
/// let handle = SessionHandle::fixed(session.clone());
/// let rejected = handle.set(session.clone());
/// let newer = handle.set(session);
/// assert!(newer > rejected);
///
/// // Too late: that session is no longer in use.
/// handle.invalidate(rejected);
/// assert_eq!(handle.try_session().map(|live| live.generation()), Some(newer));
/// # Ok::<_, tower_salesforce_auth::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u64);

impl Generation {
    /// The first generation of a handle.
    pub(crate) const FIRST: Self = Self(1);

    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Shows the number.
impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A [`Session`] that a [`SessionHandle`](crate::SessionHandle) has published, with its generation.
///
/// Cheap to clone. Dereferences to the session.
///
/// ```
/// use tower_salesforce_auth::{Error, LiveSession, SessionHandle};
///
/// async fn instance(handle: &SessionHandle) -> Result<String, Error> {
///     let live: LiveSession = handle.session().await?;
///     Ok(live.instance_url().to_string())
/// }
/// ```
#[derive(Clone)]
pub struct LiveSession(pub(crate) Arc<Published>);

/// A session that was published under a generation, as the core sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Live<S> {
    pub(crate) session: S,
    pub(crate) generation: Generation,
    /// The first generation with this access token. A refresh that returns the same token publishes a new generation and
    /// keeps this one, so that callers who were rejected with the token know that a replay is useless (R19).
    pub(crate) since: Generation,
    /// The first generation of this org and user, as far as is known. A request meant for an earlier user is not sent with
    /// this session.
    pub(crate) since_user: Generation,
    /// Whether the session was adopted from the store.
    pub(crate) is_adopted: bool,
}

impl<S> Live<S> {
    /// Publishes a session without a predecessor. `last` is the last generation of the handle.
    pub(crate) fn first(session: S, last: Option<Generation>) -> Self {
        let generation = last.map_or(Generation::FIRST, Generation::next);
        Self {
            session,
            generation,
            since: generation,
            since_user: generation,
            is_adopted: false,
        }
    }

    /// Publishes a session after this one.
    pub(crate) fn followed_by(&self, session: S, is_same_user: bool, is_unchanged: bool) -> Self {
        let generation = self.generation.next();
        Self {
            session,
            generation,
            since: if is_unchanged { self.since } else { generation },
            since_user: if is_same_user {
                self.since_user
            } else {
                generation
            },
            is_adopted: false,
        }
    }

    /// Whether the access token is that of the session before (R19).
    pub(crate) fn is_unchanged(&self) -> bool {
        self.since != self.generation
    }

    /// Whether the session before, if there was one, was of another org or user.
    pub(crate) fn is_first_of_its_user(&self) -> bool {
        self.since_user == self.generation
    }
}

/// The data of a [`LiveSession`], shared by its clones.
#[derive(Clone)]
pub(crate) struct Published {
    /// The session, at the port of the instance that its handle is set to.
    pub(crate) session: Session,
    /// The port that the handle is set to. `None`: the one that servers name.
    port: Option<Box<InstancePort>>,
    /// The `Authorization` value of requests, rendered once.
    pub(crate) authorization: ShardedHeader,
    /// What APIs with other headers than `Authorization` get, made for the first request to one.
    metadata: OnceLock<Box<Metadata>>,
    /// Whether the access token is a JWT.
    pub(crate) has_jwt: bool,
    /// What only some sessions have. `None` for the others, whose requests look at nothing of it.
    pub(crate) extras: Option<Arc<Extras>>,
    /// Whether the session was adopted from the store.
    pub(crate) is_adopted: bool,
    pub(crate) generation: Generation,
    /// The first generation with this access token. A refresh that returns the same token publishes a new generation
    /// and keeps this one, so that callers who were rejected with the token know that a replay is useless (R19).
    pub(crate) since: Generation,
    /// The first generation of this org and user, as far as is known. A request meant for an earlier user is not sent
    /// with this session.
    pub(crate) since_user: Generation,
    /// Former instances of this org, the latest first. Requests that still name one of them are sent to the present
    /// one.
    former_instances: Vec<Origin>,
}

/// The port of the instance that a handle is set to.
#[derive(Clone)]
struct InstancePort {
    port: u16,
    /// The instance as the server named it. Requests that name it so are sent to the port that is set.
    named: InstanceUrl,
}

/// How old an accepted session has to be for a rejection to mean expiry. Salesforce's shortest session timeout is a
/// minute.
const SERVED: Duration = Duration::from_secs(45);

/// Records whether a session that follows useless refreshes is accepted (R12).
struct Probation {
    since: Instant,
    is_accepted: AtomicBool,
}

/// What only some sessions have. It is apart, so that the requests of all others make one check for all of it.
pub(crate) struct Extras {
    /// When a proactive refresh is due. `None` if none is.
    due: Option<Due>,
    /// Whether a server has accepted the session. `None` unless useless refreshes came before it (R12).
    probation: Option<Probation>,
    /// The key that the access token is bound to. `None` for a bearer token.
    dpop_key: Option<DpopKey>,
}

impl Extras {
    fn is_any(&self) -> bool {
        self.due.is_some() || self.is_watched()
    }

    /// Whether answers matter.
    fn is_watched(&self) -> bool {
        self.probation.is_some() || self.dpop_key.is_some()
    }

    pub(crate) fn due(&self) -> Option<&Due> {
        self.due.as_ref()
    }

    /// Whether a proactive refresh is due.
    pub(crate) fn is_due(&self) -> bool {
        self.due
            .as_ref()
            .is_some_and(|due| due.is_over(Instant::now()))
    }

    /// The key that the access token is bound to. `None` for a bearer token.
    pub(crate) fn dpop_key(&self) -> Option<&DpopKey> {
        self.dpop_key.as_ref()
    }

    /// Records that a server accepted the session.
    pub(crate) fn accept(&self) {
        if let Some(probation) = &self.probation {
            probation.accept();
        }
    }
}

impl Probation {
    fn accept(&self) {
        // Read first: all requests share this cache line.
        if !self.is_accepted() {
            self.is_accepted.store(true, Ordering::Relaxed);
        }
    }

    fn is_accepted(&self) -> bool {
        self.is_accepted.load(Ordering::Relaxed)
    }
}

/// What the Bulk API 1.0 and the Pub/Sub API ("Authentication") get. Each is `None` if it is unknown or no header value.
#[derive(Clone)]
pub(crate) struct Metadata {
    /// The access token alone, of which each session has one.
    pub(crate) token: Option<HeaderValue>,
    pub(crate) instance_url: Option<HeaderValue>,
    pub(crate) tenant_id: Option<HeaderValue>,
}

impl Metadata {
    /// The metadata of a session whose server named this instance. The Pub/Sub API identifies the org by it.
    fn of(session: &Session, named_instance: &InstanceUrl) -> Self {
        Self {
            token: sensitive(session.access_token().expose()),
            instance_url: sensitive(&named_instance.to_string()),
            tenant_id: session.tenant_id().as_deref().and_then(sensitive),
        }
    }
}

fn sensitive(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// How many previous instances are still recognised as this org.
const FORMER_INSTANCES: usize = 4;

impl Published {
    /// Renders a session for its requests, to this port of its instance. `before` is the session that was published before, if
    /// there was one.
    pub(crate) fn new(
        live: &Live<Session>,
        before: Option<&Self>,
        instance_port: Option<u16>,
    ) -> Self {
        let Live {
            session,
            generation,
            since,
            since_user,
            is_adopted,
        } = live.clone();
        let port = instance_port.map(|port| {
            let named = session.instance_url().clone();
            Box::new(InstancePort { port, named })
        });
        let session = session.at_port(instance_port);
        let mut former_instances = Vec::new();
        if let Some(before) = before
            && since_user != generation
        {
            let at_port = before.session.instance_url().origin();
            let named = before.named_instance().origin();
            let instances = std::iter::once(at_port).chain((named != at_port).then_some(named));
            // Each has two names if a port is set.
            let most = FORMER_INSTANCES * if port.is_some() { 2 } else { 1 };
            former_instances.extend(
                instances
                    .chain(&before.former_instances)
                    .filter(|former| *former != session.instance_url().origin())
                    .take(most)
                    .cloned(),
            );
        }
        Self {
            authorization: session.authorization().clone().into(),
            metadata: OnceLock::new(),
            has_jwt: session.is_jwt(),
            extras: None,
            is_adopted,
            session,
            port,
            generation,
            since,
            since_user,
            former_instances,
        }
    }

    /// Replaces the session, which differs in its refresh token only.
    pub(crate) fn with_session(&self, session: Session) -> Self {
        Self {
            session: session.at_port(self.port.as_ref().map(|port| port.port)),
            ..self.clone()
        }
    }

    /// Adds what only some sessions have: a proactive refresh, a probation, a key that its tokens are bound to.
    pub(crate) fn with_extras(
        mut self,
        proactive_refresh: Option<ProactiveRefresh>,
        jitter: f64,
        is_watched: bool,
    ) -> Self {
        let (now, lifetime) = (Instant::now(), self.session.known_lifetime());
        let extras = Extras {
            due: proactive_refresh.and_then(|setting| setting.due(lifetime, now, jitter)),
            probation: is_watched.then(|| Probation {
                since: now,
                is_accepted: AtomicBool::new(false),
            }),
            dpop_key: self.session.bound_key().cloned(),
        };
        self.extras = extras.is_any().then(|| Arc::new(extras));
        self
    }

    fn probation(&self) -> Option<&Probation> {
        self.extras.as_ref()?.probation.as_ref()
    }

    /// Whether a server has accepted the session, as far as that is recorded.
    pub(crate) fn was_accepted(&self) -> bool {
        self.probation().is_some_and(Probation::is_accepted)
    }

    /// Whether the session was accepted and is old enough for a rejection to mean that it expired.
    pub(crate) fn has_served(&self) -> bool {
        self.probation()
            .is_some_and(|probation| probation.is_accepted() && probation.since.elapsed() >= SERVED)
    }

    /// Whether a proactive refresh is due.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.is_due())
    }

    /// What requests have to look at when their answer arrives. `None` if nothing.
    pub(crate) fn watched(&self) -> Option<&Arc<Extras>> {
        self.extras.as_ref().filter(|extras| extras.is_watched())
    }

    pub(crate) fn metadata(&self) -> &Metadata {
        self.metadata
            .get_or_init(|| Box::new(Metadata::of(&self.session, self.named_instance())))
    }

    /// The instance as the server named it.
    fn named_instance(&self) -> &InstanceUrl {
        match &self.port {
            Some(port) => &port.named,
            None => self.session.instance_url(),
        }
    }

    /// Whether a `Host` header names the present instance, with or without the port that is set.
    pub(crate) fn has_host(&self, host: &HeaderValue) -> bool {
        let instances = [self.session.instance_url(), self.named_instance()];
        instances.into_iter().any(|instance| {
            let authority = instance.origin().authority().as_str();
            host.as_bytes().eq_ignore_ascii_case(authority.as_bytes())
        })
    }

    /// Whether `uri` names the present instance.
    #[inline]
    pub(crate) fn is_at_instance(&self, uri: &Uri) -> bool {
        self.session.instance_url().origin().is_of(uri)
    }

    /// Whether `uri` names the present instance, at the port that is set or as the server named it, or a former one.
    pub(crate) fn has_instance(&self, uri: &Uri) -> bool {
        self.is_at_instance(uri)
            || self.named_instance().origin().is_of(uri)
            || self.former_instances.iter().any(|former| former.is_of(uri))
    }

    /// Whether a request that was meant for the session of `generation` may be sent with this one.
    pub(crate) fn succeeds(&self, generation: Generation) -> bool {
        generation >= self.since_user
    }
}

impl LiveSession {
    /// The generation of this session, to [`invalidate`](crate::SessionHandle::invalidate) it by.
    pub fn generation(&self) -> Generation {
        self.0.generation
    }

    /// Whether the access token differs from the one that was rejected as `generation` (R19).
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
