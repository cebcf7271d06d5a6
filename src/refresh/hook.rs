//! The user's hook, and its adapters.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use tower_service::Service;

use crate::{
    error::{BoxError, RefreshError},
    report::reason::{RefreshDescription, RefreshReason},
    secret::Secret,
    session::{live::LiveSession, session::Session},
};

// === RefreshFn ===

/// Brings a new session: what the layer calls, once for everybody, when there is none or the last one was rejected.
///
/// Every flow in [`flow`](crate::flow) is one, and so is any function or closure from a [`RefreshContext`] to a
/// future of a session. [`from_service`] makes one of a tower service.
///
/// A closure hands out a new future at each call, and so clones what the future needs. An `async` closure is one of
/// these only if it captures nothing.
///
/// # What the layer does around it
///
/// It runs on a task of its own, so that a caller that gives up neither stops nor repeats it, and is given up after the
/// refresh timeout. It may panic; that is an error like any other. What it must not do is send a request through the
/// layer that it renews: such a request fails with [`ErrorKind::Reentrant`](crate::ErrorKind::Reentrant), unless it
/// carries [`SkipAuth`](crate::SkipAuth). It must not block its thread either
/// ([`spawn_blocking`](tokio::task::spawn_blocking) is for that): nothing can stop it then, and after the refresh
/// timeout it may be called again beside itself.
///
/// # Rotation
///
/// With refresh-token rotation a refresh token is good for one use. A session that is returned should carry the newest
/// one, as [`with_refresh_token`](Session::with_refresh_token); the next call finds it in
/// [`RefreshContext::refresh_token`].
///
/// ```
/// use tower_salesforce_auth::{RefreshContext, RefreshError, SalesforceAuthLayer, Session};
///
/// # struct Vault;
/// # impl Vault {
/// #     async fn read(&self, _: &str) -> Result<String, std::io::Error> { Ok("00Dxx!AQEAQ".into()) }
/// # }
/// let vault = std::sync::Arc::new(Vault);
/// let layer = SalesforceAuthLayer::new(move |_context: RefreshContext| {
///     let vault = vault.clone();
///     async move {
///         let token = vault.read("salesforce").await.map_err(RefreshError::transient)?;
///         Session::new(token, "https://MyDomainName.my.salesforce.com").map_err(RefreshError::terminal)
///     }
/// });
/// ```
pub trait RefreshFn: Send + Sync + 'static {
    /// Obtains a session that replaces the one in `context`.
    ///
    /// # Errors
    ///
    /// [`RefreshError::terminal`] if trying again cannot help, [`RefreshError::transient`] if it can. After the latter it is
    /// called again, as long as somebody waits and the refresh timeout lasts; after the former not before a session is set
    /// or the handle is [reset](crate::SessionHandle::reset).
    fn refresh(
        &self,
        context: RefreshContext,
    ) -> impl Future<Output = Result<Session, RefreshError>> + Send;

    /// What a call with this context does, and where: for an [`Observer`](crate::Observer) and for `tracing`. It is asked
    /// before each call.
    ///
    /// None by default, and of functions and closures. Every flow says it.
    fn describe(&self, context: &RefreshContext) -> Option<RefreshDescription> {
        let _ = context;
        None
    }
}

impl<F, Fut> RefreshFn for F
where
    F: Fn(RefreshContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Session, RefreshError>> + Send,
{
    fn refresh(&self, context: RefreshContext) -> impl Future<Output = Fut::Output> + Send {
        self(context)
    }
}

impl<R: RefreshFn> RefreshFn for Arc<R> {
    fn refresh(
        &self,
        context: RefreshContext,
    ) -> impl Future<Output = Result<Session, RefreshError>> + Send {
        R::refresh(self, context)
    }

    fn describe(&self, context: &RefreshContext) -> Option<RefreshDescription> {
        R::describe(self, context)
    }
}

pub(crate) type SharedRefreshFn = Arc<dyn ErasedRefreshFn>;

/// [`RefreshFn`] as a trait object, so that the layer needs no type parameter for it.
pub(crate) trait ErasedRefreshFn: Send + Sync {
    fn refresh_boxed(
        &self,
        context: RefreshContext,
    ) -> Pin<Box<dyn Future<Output = Result<Session, RefreshError>> + Send + '_>>;

    fn describe(&self, context: &RefreshContext) -> Option<RefreshDescription>;
}

impl<R: RefreshFn> ErasedRefreshFn for R {
    fn refresh_boxed(
        &self,
        context: RefreshContext,
    ) -> Pin<Box<dyn Future<Output = Result<Session, RefreshError>> + Send + '_>> {
        Box::pin(self.refresh(context))
    }

    fn describe(&self, context: &RefreshContext) -> Option<RefreshDescription> {
        RefreshFn::describe(self, context)
    }
}

// === RefreshContext ===

/// Why a session is wanted, and what it replaces.
///
/// It is made by the layer, and by hand to call a [`RefreshFn`] without one:
///
/// ```
/// use tower_salesforce_auth::{RefreshContext, RefreshError, RefreshFn, RefreshReason, Session};
///
/// async fn log_in(flow: impl RefreshFn) -> Result<Session, RefreshError> {
///     flow.refresh(RefreshContext::new(RefreshReason::FirstLogin)).await
/// }
///
/// async fn go_on(flow: impl RefreshFn, refresh_token: &str) -> Result<Session, RefreshError> {
///     let context = RefreshContext::new(RefreshReason::Manual).with_refresh_token(refresh_token);
///     flow.refresh(context).await
/// }
/// ```
#[derive(Clone, Debug)]
pub struct RefreshContext {
    reason: RefreshReason,
    previous: Option<LiveSession>,
    refresh_token: Option<Secret>,
    has_spent_refresh_token: bool,
    attempt: u32,
}

impl RefreshContext {
    /// The context of a first attempt without a previous session, to call a [`RefreshFn`] by hand.
    pub fn new(reason: RefreshReason) -> Self {
        Self {
            reason,
            previous: None,
            refresh_token: None,
            has_spent_refresh_token: false,
            attempt: 1,
        }
    }

    pub(crate) fn with_previous(mut self, previous: Option<LiveSession>) -> Self {
        self.previous = previous;
        self
    }

    pub(crate) fn with_spent_refresh_token(mut self, has_spent_refresh_token: bool) -> Self {
        self.has_spent_refresh_token = has_spent_refresh_token;
        self
    }

    /// Adds the newest refresh token.
    #[must_use]
    pub fn with_refresh_token(mut self, refresh_token: impl Into<Secret>) -> Self {
        self.refresh_token = Some(refresh_token.into());
        self
    }

    pub(crate) fn with_newest_refresh_token(mut self, refresh_token: Option<Secret>) -> Self {
        self.refresh_token = refresh_token;
        self
    }

    pub(crate) fn with_attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// Why the session is wanted.
    pub fn reason(&self) -> RefreshReason {
        self.reason
    }

    /// The session that is to be replaced, if there was one.
    pub fn previous(&self) -> Option<&Session> {
        self.previous.as_deref()
    }

    /// The newest refresh token that any session of this handle came with.
    ///
    /// Under rotation an older one must never be used again, so prefer this to one that was configured.
    pub fn refresh_token(&self) -> Option<&Secret> {
        self.refresh_token.as_ref()
    }

    /// Whether a refresh token of this handle was rotated out or revoked. If there is [none](Self::refresh_token) to
    /// present then, one that was configured must not be presented either.
    pub fn has_spent_refresh_token(&self) -> bool {
        self.has_spent_refresh_token
    }

    /// Which attempt since the last success this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }
}

// === FromService ===

/// Makes a [`RefreshFn`] of a tower service from a [`RefreshContext`] to a [`Session`].
///
/// A refresh can then be wrapped in any tower layer. The service is cloned for each call, as it was given here: what it
/// has to remember from call to call, its clones have to share. An error of the service that is a [`RefreshError`] is taken as it
/// is, any other as [transient](RefreshError::transient).
///
/// A retry layer around a refresh token flow must not repeat a call that may have reached the server: under rotation
/// the second use of a refresh token revokes the grant.
///
/// ```
/// use std::time::Duration;
/// use tower::{ServiceBuilder, service_fn};
/// use tower_salesforce_auth::{RefreshContext, SalesforceAuthLayer, Session, from_service};
///
/// let login = ServiceBuilder::new()
///     .timeout(Duration::from_secs(5))
///     .service(service_fn(|_: RefreshContext| async {
///         Session::new("00Dxx!AQEAQ", "https://MyDomainName.my.salesforce.com")
///     }));
/// let layer = SalesforceAuthLayer::new(from_service(login));
/// ```
pub fn from_service<S>(service: S) -> FromService<S>
where
    S: Service<RefreshContext, Response = Session> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    FromService {
        service: Mutex::new(service),
    }
}

/// A [`RefreshFn`] that calls a tower service; made by [`from_service`].
#[must_use = "nothing is called until a layer is made with it"]
pub struct FromService<S> {
    /// Only ever cloned from. The lock spares the service from having to be `Sync`, and there is one refresh at a time.
    service: Mutex<S>,
}

impl<S> RefreshFn for FromService<S>
where
    S: Service<RefreshContext, Response = Session> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    async fn refresh(&self, context: RefreshContext) -> Result<Session, RefreshError> {
        let mut service = self
            .service
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let refresh_error = |error: S::Error| RefreshError::from_boxed(error.into());
        poll_fn(|cx| service.poll_ready(cx))
            .await
            .map_err(refresh_error)?;
        service.call(context).await.map_err(refresh_error)
    }
}

impl<S: Clone> Clone for FromService<S> {
    fn clone(&self) -> Self {
        let service = self.service.lock();
        Self {
            service: Mutex::new(service.unwrap_or_else(PoisonError::into_inner).clone()),
        }
    }
}

impl<S> fmt::Debug for FromService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromService").finish_non_exhaustive()
    }
}
