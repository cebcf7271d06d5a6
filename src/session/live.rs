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

use crate::{
    secret::Secret,
    session::{
        header::ShardedHeader,
        lifetime::{Due, Renewal},
        session::{AuthorizationScheme, Session, render, sensitive},
        url::Origin,
    },
};

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
    pub(crate) authorization: ShardedHeader,
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
        let instance_url = session.instance_url().to_string();
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
            authorization: session.authorization().clone().into(),
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
        let is_unchanged = session.access_token() == self.session.access_token();
        let mut former_instances = Vec::new();
        if is_same_user {
            let instances = std::iter::once(self.session.instance_url().origin());
            former_instances.extend(
                instances
                    .chain(&self.former_instances)
                    .filter(|former| *former != session.instance_url().origin())
                    .take(FORMER_INSTANCES)
                    .cloned(),
            );
        }
        Self {
            authorization: session.authorization().clone().into(),
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
            self.authorization = self.session.authorization().clone().into();
            return self;
        }
        // The token was found fit for a header when the session was made.
        if let Ok(authorization) = render(scheme, self.session.access_token()).and_then(sensitive) {
            self.authorization = authorization.into();
        }
        self
    }

    /// Whether `uri` is in the instance, where that is now.
    #[inline]
    pub(crate) fn is_at_instance(&self, uri: &Uri) -> bool {
        self.session.instance_url().origin().is_of(uri)
    }

    /// Whether `uri` is in the instance, or was before that moved.
    pub(crate) fn has_instance(&self, uri: &Uri) -> bool {
        let instance = self.session.instance_url().origin();
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
