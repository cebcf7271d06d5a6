//! The settings of a session, collected before its handle is built.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    refresh::{
        hook::{RefreshFn, SharedRefreshFn},
        settings::Settings,
    },
    report::observer::Observer,
    session::{lifetime::ProactiveRefresh, session::Session, url::Origin},
    store::{OnSaveFailure, SessionStore, StoreKey},
};

/// Builds a [`SessionHandle`](crate::SessionHandle); made by [`SessionHandle::builder`](crate::SessionHandle::builder).
///
/// Settings are values: they are fixed when the handle is built, their order does not matter, and a clone of the builder is
/// independent of the original.
///
/// All settings, none of which is required:
///
/// ```
/// use std::time::Duration;
/// use tower_salesforce_auth::{
///     Error, RefreshFn, SalesforceAuthLayer, Session, SessionHandle,
///     handle::ProactiveRefresh,
///     layer::OnRefreshFailure,
///     observer::Observer,
///     store::{OnSaveFailure, SessionStore},
///     verdict::SalesforceClassifier,
/// };
///
/// fn layer(
///     login: impl RefreshFn,
///     session: Session,
///     store: impl SessionStore,
///     observer: impl Observer,
/// ) -> Result<SalesforceAuthLayer, Error> {
///     // Settings of the session, shared by all clients that use the handle.
///     let handle = SessionHandle::builder(login)
///         .initial_session(session)
///         .store(store, "integration-user")
///         .on_save_failure(OnSaveFailure::Continue)
///         .refresh_timeout(Duration::from_secs(30))
///         .refresh_before_expiry(ProactiveRefresh::at(0.8))
///         .allow_origin("https://api.salesforce.com".parse()?)
///         .instance_port(8443)
///         .observer(observer)
///         .build();
///     // Settings of the requests through this layer.
///     Ok(SalesforceAuthLayer::from(handle)
///         .classifier(SalesforceClassifier::new())
///         .max_refreshes(1)
///         .replay_limit(64 * 1024)
///         .on_refresh_failure(OnRefreshFailure::Fail))
/// }
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct SessionHandleBuilder {
    /// `None` for a fixed session.
    pub(crate) refresh_fn: Option<SharedRefreshFn>,
    pub(crate) initial_session: Option<Session>,
    pub(crate) settings: Settings,
}

impl SessionHandleBuilder {
    pub(crate) fn new(refresh_fn: impl RefreshFn) -> Self {
        Self {
            refresh_fn: Some(Arc::new(refresh_fn)),
            initial_session: None,
            settings: Settings::new(true),
        }
    }

    /// Builds a handle with a session that is never refreshed. A rejection of it is returned to the caller.
    ///
    /// ```
    /// use tower_salesforce_auth::{Session, handle::SessionHandleBuilder};
    ///
    /// let session = Session::new("00Dxx!AQEAQ", "https://MyDomainName.my.salesforce.com")?;
    /// let handle = SessionHandleBuilder::fixed(session)
    ///     .allow_origin("https://api.salesforce.com".parse()?)
    ///     .build();
    /// assert!(handle.try_session().is_some());
    /// # Ok::<_, tower_salesforce_auth::Error>(())
    /// ```
    pub fn fixed(session: Session) -> Self {
        Self {
            refresh_fn: None,
            initial_session: Some(session),
            settings: Settings::new(false),
        }
    }

    /// Starts with this session. Default: the first request loads the [stored](Self::store) session or logs in.
    ///
    /// The session counts as [set](crate::SessionHandle::set): it is not stored, which [`SessionHandle::save`](crate::SessionHandle::save) does. No event is
    /// emitted for it.
    pub fn initial_session(mut self, session: Session) -> Self {
        self.initial_session = Some(session);
        self
    }

    /// Keeps the session in `store` under `key`, beyond this process and shared with others. Default: no store.
    ///
    /// The stored session is loaded before the first login and before every refresh. A refreshed session is saved before any
    /// request uses it. The module [`store`](crate::store) has the details. Each key stands for one user of one org and one
    /// way to log in; two handles with the same key share a session.
    pub fn store(mut self, store: impl SessionStore, key: impl Into<String>) -> Self {
        self.settings.store = Some(StoreKey::new(Arc::new(store), key.into().into()));
        self
    }

    /// What happens if a session cannot be saved. Default: [`OnSaveFailure::Continue`].
    pub fn on_save_failure(mut self, on_save_failure: OnSaveFailure) -> Self {
        self.settings.on_save_failure = on_save_failure;
        self
    }

    /// Adopts what other processes save as soon as the store [tells of it](SessionStore::changed), before a request of this
    /// process is rejected. Default: other processes' sessions are adopted after a rejection.
    ///
    /// With refresh-token rotation a refresh ends the session before it, so without this one request of each process is rejected
    /// for each refresh. If it has a stream that is too long to be replayed, its caller sees the rejection.
    ///
    /// One task for this session and all its clones waits for the notices. It starts with `build` inside of a tokio runtime, and
    /// otherwise with the first refresh. It ends with the last clone. Where notices are lost, or the store sends none, what
    /// happens is what happens by default. `MemoryStore` and a `LeaseStore` whose backend has notices send them.
    pub fn follow_store(mut self) -> Self {
        self.settings.follows_store = true;
        self
    }

    /// How long a stored record is of use after it was saved: a hint to the store, which may delete it then. Default: without
    /// end.
    ///
    /// Set it to the time after which the server ends a refresh token that is not used. Partner apps have 30 days.
    pub fn record_lifetime(mut self, record_lifetime: Duration) -> Self {
        self.settings.record_lifetime = Some(record_lifetime);
        self
    }

    /// How long one refresh may take, all its attempts included. Default: 30 s.
    ///
    /// Callers who wait for the refresh get an error when the time is over. A shorter
    /// timeout around a request ends its wait, and does not stop the refresh.
    pub fn refresh_timeout(mut self, refresh_timeout: Duration) -> Self {
        self.settings.refresh_timeout = refresh_timeout;
        self
    }

    /// Refreshes sessions before they expire, while requests still use them. Default: off.
    ///
    /// With refresh-token rotation each refresh is a chance to lose a token. A proactive refresh also keeps an idle session
    /// alive for longer than its org's policy may intend.
    pub fn refresh_before_expiry(mut self, proactive_refresh: ProactiveRefresh) -> Self {
        self.settings.proactive_refresh = Some(proactive_refresh);
        self
    }

    /// Sends the token to this origin too, beside the instance. Default: to the instance only. May be called repeatedly.
    ///
    /// A refresh may return a session whose instance is this origin.
    pub fn allow_origin(mut self, origin: Origin) -> Self {
        if !self.settings.allowed_origins.contains(&origin) {
            self.settings.allowed_origins.push(origin);
        }
        self
    }

    /// Sends requests to this port of the instance, for example to 8443, where Salesforce asks for a client certificate. Default:
    /// the port of the session's instance URL.
    ///
    /// The port stays when the instance moves. Relative requests go there, replays too, and requests that name the instance or a
    /// former one without a port. No other port of the instance gets the token. [`LiveSession`](crate::LiveSession) has the port
    /// in its instance URL. A stored session has not, nor has the `instanceurl` of the Pub/Sub API.
    ///
    /// Logins are apart: a [`LoginUrl`](crate::LoginUrl) may have a port of its own. The guide has the
    /// [set-up of mutual TLS](crate::docs::security#mutual-tls).
    ///
    /// ```
    /// use tower_salesforce_auth::{Session, handle::SessionHandleBuilder};
    ///
    /// let session = Session::new("00Dxx!AQEAQ", "https://MyDomainName.my.salesforce.com")?;
    /// let handle = SessionHandleBuilder::fixed(session).instance_port(8443).build();
    /// let live = handle.try_session().map(|live| live.instance_url().to_string());
    /// assert_eq!(live.as_deref(), Some("https://mydomainname.my.salesforce.com:8443"));
    /// # Ok::<_, tower_salesforce_auth::Error>(())
    /// ```
    pub fn instance_port(mut self, port: u16) -> Self {
        self.settings.instance_port = Some(port);
        self
    }

    /// Emits events to this observer, in place of one that was set before. Default: no observer.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.settings.observer = Some(Arc::new(observer));
        self
    }
}

impl fmt::Debug for SessionHandleBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionHandleBuilder")
            .field("is_refreshable", &self.refresh_fn.is_some())
            .field("initial_session", &self.initial_session)
            .field("refresh_timeout", &self.settings.refresh_timeout)
            .field("allowed_origins", &self.settings.allowed_origins)
            .field("instance_port", &self.settings.instance_port)
            .finish_non_exhaustive()
    }
}
