//! The layer: its settings, and nothing else.

use tower_layer::Layer;

use crate::{
    handle::handle::SessionHandle,
    layer::service::SalesforceAuth,
    refresh::hook::RefreshFn,
    report::outcome::OnRefreshFailure,
    request::common::ReplayPolicy,
    session::session::Session,
    verdict::{Classifier, Classify},
};

/// Sends every request of an HTTP client with a live Salesforce session, and refreshes the session when it is rejected.
///
/// The [crate documentation](crate) explains what happens to a request. The settings of the session belong to its
/// [`SessionHandle`]; the layer has those of requests. Clones of a layer, and the services that it makes, share the session.
/// Their settings are their own: a setting of a clone changes nothing of the original.
///
/// ```
/// use tower::ServiceBuilder;
/// use tower_salesforce_auth::{RefreshFn, SalesforceAuthLayer, SessionHandle, store::SessionStore};
///
/// fn client<S>(http: S, login: impl RefreshFn, store: impl SessionStore) -> impl Clone
/// where
///     S: Clone,
/// {
///     let handle = SessionHandle::builder(login).store(store, "integration-user").build();
///     ServiceBuilder::new()
///         .layer(SalesforceAuthLayer::from(handle).max_refreshes(2))
///         .service(http)
/// }
/// ```
///
/// [`SessionHandleBuilder`](crate::handle::SessionHandleBuilder) shows all settings.
///
/// # Panics
///
/// A request that is rejected, or that waits for a session, panics on a tokio runtime without a time driver. Outside of a
/// runtime it fails with [`ErrorKind::NoRuntime`](crate::ErrorKind::NoRuntime).
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct SalesforceAuthLayer {
    handle: SessionHandle,
    policy: ReplayPolicy,
}

impl SalesforceAuthLayer {
    /// Makes a layer that logs in and refreshes with `refresh_fn`: a [flow](crate::flow), or a function.
    ///
    /// The first request logs in, for all that wait. For other settings of the session than the defaults, use
    /// [`SessionHandle::builder`] and `SalesforceAuthLayer::from`.
    pub fn new(refresh_fn: impl RefreshFn) -> Self {
        SessionHandle::new(refresh_fn).into()
    }

    /// Makes a layer with a session that is never refreshed. A rejection of it is returned to the caller.
    pub fn fixed(session: Session) -> Self {
        SessionHandle::fixed(session).into()
    }

    /// How often one request may be rejected, wait for a new session and be replayed. Default: 1.
    ///
    /// With 0 the layer only adds the session: no request is kept for a replay, and no rejection causes a refresh.
    pub fn max_refreshes(mut self, max_refreshes: u32) -> Self {
        self.policy.max_refreshes = max_refreshes;
        self
    }

    /// How many bytes of a streaming request body are kept for a replay. Default: 64 KiB.
    ///
    /// A longer stream is sent, and not replayed. The limit does not apply to bodies in memory, of any size, which are kept
    /// without a copy above 1 KiB. Nor does it apply to bodies of a [`BodyFactory`](crate::request::BodyFactory), of which
    /// nothing is kept.
    pub fn replay_limit(mut self, bytes: usize) -> Self {
        self.policy.replay_limit = bytes;
        self
    }

    /// Decides whether an answer means that the session expired. Default:
    /// [`SalesforceClassifier`](crate::verdict::SalesforceClassifier).
    pub fn classifier(mut self, classifier: impl Classify) -> Self {
        self.policy.classifier = Classifier::custom(classifier);
        self
    }

    /// What a rejected request gets if its session cannot be refreshed. Default: [`OnRefreshFailure::Fail`].
    pub fn on_refresh_failure(mut self, on_refresh_failure: OnRefreshFailure) -> Self {
        self.policy.on_refresh_failure = on_refresh_failure;
        self
    }

    /// The session of all requests that do not choose [another](SessionHandle#many-orgs-one-client).
    pub fn handle(&self) -> SessionHandle {
        self.handle.clone()
    }
}

impl From<SessionHandle> for SalesforceAuthLayer {
    /// Makes a layer on a session that other clients may share.
    fn from(handle: SessionHandle) -> Self {
        Self {
            handle,
            policy: ReplayPolicy::default(),
        }
    }
}

impl<S> Layer<S> for SalesforceAuthLayer {
    type Service = SalesforceAuth<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SalesforceAuth::new(inner, self.handle.clone(), self.policy.clone())
    }
}
