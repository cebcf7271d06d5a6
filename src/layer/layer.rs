//! The layer: configuration, and nothing else.

use std::{sync::Arc, time::Duration};

use tower_layer::Layer;

use crate::{
    error::Error,
    handle::handle::SessionHandle,
    layer::service::SalesforceAuth,
    refresh::hook::RefreshFn,
    report::{
        observer::{Observer, SharedObserver},
        outcome::OnRefreshFailure,
    },
    request::pending::ReplayPolicy,
    session::{
        lifetime::Renewal,
        session::{AuthorizationScheme, Session},
        url::Origin,
    },
    store::{OnSaveFailure, SessionStore, StoreKey},
    verdict::{Classifier, Classify},
};

/// Adds a live Salesforce session to every request of an HTTP client service, and renews it when it is rejected.
///
/// See the [crate documentation](crate) for what it does. Clones of a layer share the session and its settings, and so do the
/// services that they make.
///
/// All that can be set, none of which has to be:
///
/// ```
/// use std::time::Duration;
/// use tower_salesforce_auth::{
///     AuthorizationScheme, Error, Observer, OnRefreshFailure, RefreshFn, Renewal, SalesforceAuthLayer, Session,
///     store::{OnSaveFailure, SessionStore}, verdict::SalesforceClassifier,
/// };
///
/// fn layer(
///     login: impl RefreshFn,
///     session: Session,
///     store: impl SessionStore,
///     observer: impl Observer,
/// ) -> Result<SalesforceAuthLayer, Error> {
///     SalesforceAuthLayer::new(login)
///         // What to begin with, and where to keep it.
///         .session(session)
///         .store(store, "integration-user")
///         .on_save_failure(OnSaveFailure::Continue)
///         // When a session is over, and how long another may take.
///         .classifier(SalesforceClassifier::new())
///         .refresh_timeout(Duration::from_secs(30))
///         .renewal(Renewal::at(0.8))
///         // What a rejected request gets.
///         .max_refreshes(1)
///         .replay_limit(64 * 1024)
///         .on_refresh_failure(OnRefreshFailure::Fail)
///         // What is sent, and where to; and who is told.
///         .authorization_scheme(AuthorizationScheme::Bearer)
///         .observer(observer)
///         .allow_origin("https://api.salesforce.com")
/// }
/// ```
///
/// # Panics
///
/// A request that is rejected, or has to wait for a session, panics on a tokio runtime without a time driver. Outside
/// of a runtime it fails with [`ErrorKind::NoRuntime`](crate::ErrorKind::NoRuntime).
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct SalesforceAuthLayer {
    handle: SessionHandle,
    policy: ReplayPolicy,
}

impl SalesforceAuthLayer {
    /// A layer that logs in and renews the session with `refresh_fn`: a [flow](crate::flow), or a function.
    ///
    /// There is no session yet; the first request logs in, for all.
    pub fn new(refresh_fn: impl RefreshFn) -> Self {
        Self::with_handle(SessionHandle::new(refresh_fn))
    }

    /// A layer with a session that nothing renews. When it is rejected, the rejection is returned.
    pub fn with_session(session: Session) -> Self {
        Self::with_handle(SessionHandle::with_session(session))
    }

    /// A layer on a session that is shared with whoever else has the handle.
    pub fn with_handle(handle: SessionHandle) -> Self {
        Self {
            handle,
            policy: ReplayPolicy {
                max_refreshes: 1,
                replay_limit: 64 * 1024,
                on_refresh_failure: OnRefreshFailure::Fail,
                classifier: Classifier::default(),
            },
        }
    }

    /// Begins with this session, instead of logging in, or loading what is [stored](Self::store), before the first request.
    /// It is not stored: [`SessionHandle::save`] does that.
    pub fn session(self, session: Session) -> Self {
        self.handle.set(session);
        self
    }

    /// How often one request may be rejected, wait for a new session and be sent again. 1 by default.
    ///
    /// With 0 the session is added and nothing else is done; no request is kept for a replay, and none costs a refresh.
    pub fn max_refreshes(mut self, max_refreshes: u32) -> Self {
        self.policy.max_refreshes = max_refreshes;
        self
    }

    /// How many bytes of a streaming request body are kept for a replay. 64 KiB by default.
    ///
    /// A stream that is longer is sent all the same, and not sent again. The limit does not concern bodies that are in
    /// memory anyway: those are kept without a copy, whatever their size. Nor does it those that a
    /// [`BodyFactory`](crate::BodyFactory) makes, of which nothing is kept.
    pub fn replay_limit(mut self, bytes: usize) -> Self {
        self.policy.replay_limit = bytes;
        self
    }

    /// What tells the end of a session from any other answer. A
    /// [`SalesforceClassifier`](crate::verdict::SalesforceClassifier) by default.
    pub fn classifier(mut self, classifier: impl Classify) -> Self {
        self.policy.classifier = Classifier::custom(classifier);
        self
    }

    /// What a request gets that was rejected, if its session cannot be renewed. [`OnRefreshFailure::Fail`] by default.
    pub fn on_refresh_failure(mut self, on_refresh_failure: OnRefreshFailure) -> Self {
        self.policy.on_refresh_failure = on_refresh_failure;
        self
    }

    /// How long a refresh may take, whoever waits for it. 30 s by default.
    ///
    /// A setting of the session, shared by all layers on its handle.
    pub fn refresh_timeout(self, refresh_timeout: Duration) -> Self {
        self.handle.set_refresh_timeout(refresh_timeout);
        self
    }

    /// The word before the token in the `Authorization` header. [`AuthorizationScheme::Bearer`] by default.
    ///
    /// A setting of the session, shared by all layers on its handle.
    pub fn authorization_scheme(self, scheme: AuthorizationScheme) -> Self {
        self.handle.set_authorization_scheme(scheme);
        self
    }

    /// Renews sessions before they end, while they go on serving. Off by default: with refresh-token rotation each renewal
    /// is a token that can be lost, and a session that was idle may outlive what was thought of it.
    ///
    /// A setting of the session, shared by all layers on its handle.
    pub fn renewal(self, renewal: Renewal) -> Self {
        self.handle.set_renewal(renewal);
        self
    }

    /// Where the session outlives the process, and is shared by several: under this key of this store. Nowhere by default.
    ///
    /// What is stored is loaded before the first login, and before every refresh, and what a refresh brings is saved before
    /// anybody uses it. [`store`](crate::store) has the whole story. Each key is for one user of one org, and one way to log
    /// in; two handles with the same one share a session.
    ///
    /// A setting of the session, shared by all layers on its handle.
    pub fn store(self, store: impl SessionStore, key: impl Into<String>) -> Self {
        self.handle.set_place(&StoreKey {
            store: Arc::new(store),
            key: key.into().into(),
        });
        self
    }

    /// What becomes of a session that cannot be saved. [`OnSaveFailure::Continue`] by default.
    ///
    /// A setting of the session, shared by all layers on its handle.
    pub fn on_save_failure(self, on_save_failure: OnSaveFailure) -> Self {
        self.handle.set_on_save_failure(on_save_failure);
        self
    }

    /// Who is told of new sessions, refreshes and replays. Nobody by default; one that was set before is replaced.
    ///
    /// A setting of the session, shared by all layers on its handle.
    pub fn observer(self, observer: impl Observer) -> Self {
        let observer: SharedObserver = Arc::new(observer);
        self.handle.set_observer(&observer);
        self
    }

    /// Trusts another origin than the instance, `https://api.salesforce.com` for one: requests there get the token, and
    /// a refresh may bring a session for it.
    ///
    /// A setting of the session, shared by all layers on its handle.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidUrl`](crate::ErrorKind::InvalidUrl) if `origin` is not `https://host[:port]`, or `http://`
    /// to a loopback host.
    pub fn allow_origin(self, origin: &str) -> Result<Self, Error> {
        let origin = Origin::parse("the allowed origin", origin)?;
        self.handle.allow_origin(&origin);
        Ok(self)
    }

    /// The session of all requests that do not choose [another](SessionHandle#many-orgs-one-client), to look at it, to set it, or to use it elsewhere.
    pub fn handle(&self) -> SessionHandle {
        self.handle.clone()
    }
}

impl<S> Layer<S> for SalesforceAuthLayer {
    type Service = SalesforceAuth<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SalesforceAuth::new(inner, self.handle.clone(), self.policy.clone())
    }
}
