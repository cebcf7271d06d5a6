//! The hook that logs in and refreshes, and its adapters.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use tower_service::Service;

use crate::{
    app::App,
    error::{BoxError, RefreshError},
    report::reason::{RefreshDescription, RefreshReason},
    secret::Secret,
    session::{grant_token::GrantToken, live::LiveSession, session::Session},
};

#[cfg(feature = "dpop")]
use crate::session::dpop_key::DpopKey;

// === RefreshFn ===

/// Obtains a new session: the layer calls it when there is no session, or when the session was rejected.
///
/// Every [flow](crate::flow) implements it, and so does any function or closure from a [`RefreshContext`] to a future of a
/// session. [`from_service`] adapts a tower service.
///
/// A closure returns a new future at each call, and clones what the future needs. An `async` closure implements the trait
/// only if it captures nothing.
///
/// # How the layer calls it
///
/// - Once for all callers who need a session, on a task of its own. A caller who gives up neither stops nor repeats it.
/// - Until the [refresh timeout](crate::handle::SessionHandleBuilder::refresh_timeout), which drops its future.
/// - It may panic: that is a transient error.
/// - It must not send a request through the layer that waits for it. Such a request fails with
///   [`ErrorKind::Reentrant`](crate::ErrorKind::Reentrant), unless it carries [`SkipAuth`](crate::request::SkipAuth). A request
///   that the function sends from a task that it spawns is not recognised, and waits until the refresh timeout.
/// - It must not block its thread (use [`spawn_blocking`](tokio::task::spawn_blocking)): a blocked thread cannot be stopped,
///   and after the refresh timeout a second call may run beside it.
///
/// # Rotation
///
/// With refresh-token rotation each refresh token is valid for one use. Return the newest one with the session, by
/// [`with_refresh_token`](Session::with_refresh_token). The next call gets it from [`RefreshContext::refresh_token`].
///
/// ```
/// use std::sync::Arc;
/// use tower_salesforce_auth::{RefreshContext, RefreshError, SalesforceAuthLayer, Session};
///
/// # struct Vault;
/// # impl Vault {
/// #     async fn read(&self, _: &str) -> Result<String, std::io::Error> { Ok("00Dxx!AQEAQ".into()) }
/// # }
/// let vault = Arc::new(Vault);
/// let layer = SalesforceAuthLayer::new(move |_context: RefreshContext| {
///     let vault = vault.clone();
///     async move {
///         let token = vault.read("salesforce").await.map_err(RefreshError::transient)?;
///         Session::new(token, "https://MyDomainName.my.salesforce.com")
///             .map_err(RefreshError::terminal)
///     }
/// });
/// ```
pub trait RefreshFn: Send + Sync + 'static {
    /// Obtains a session that replaces the one in `context`.
    ///
    /// # Errors
    ///
    /// [`RefreshError::terminal`] if another attempt cannot help, [`RefreshError::transient`] if it can. After a transient
    /// error the layer calls it again, within the refresh timeout and while callers wait. Before the first session it does so
    /// for two seconds only if the causes of the error say that the server [cannot be
    /// reached](crate::docs::production#how-often-it-retries). After a terminal error it is not called before a session is set
    /// or the handle is [reset](crate::SessionHandle::reset).
    fn refresh(
        &self,
        context: RefreshContext,
    ) -> impl Future<Output = Result<Session, RefreshError>> + Send;

    /// Describes a call with this context, for an [`Observer`](crate::observer::Observer) and for `tracing`. Called before
    /// each refresh.
    ///
    /// Default: `None`, as for functions and closures. Every flow describes itself.
    fn describe(&self, context: &RefreshContext) -> Option<RefreshDescription> {
        let _ = context;
        None
    }

    /// The app whose tokens the sessions have. A [logout](crate::SessionHandle::logout) authenticates it at the server that the
    /// app logs in at (RFC 7009 §2.1).
    ///
    /// Default: `None`, as for functions and closures: a logout then sends the token alone. Every flow with an app returns it.
    fn app(&self) -> Option<&App> {
        None
    }

    /// Logs in once, without a layer.
    ///
    /// ```
    /// use tower_salesforce_auth::{RefreshError, RefreshFn, Session};
    ///
    /// async fn log_in(flow: impl RefreshFn) -> Result<Session, RefreshError> {
    ///     flow.log_in().await
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`refresh`](Self::refresh).
    fn log_in(&self) -> impl Future<Output = Result<Session, RefreshError>> + Send {
        self.refresh(RefreshContext::new(RefreshReason::FirstLogin))
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

    fn app(&self) -> Option<&App> {
        R::app(self)
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

    fn app(&self) -> Option<&App>;
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

    fn app(&self) -> Option<&App> {
        RefreshFn::app(self)
    }
}

// === RefreshContext ===

/// Why a session is needed, and what it replaces.
///
/// The layer makes it. Make one yourself to test a [`RefreshFn`]; [`RefreshFn::log_in`] makes one for a login.
///
/// ```
/// use tower_salesforce_auth::{
///     RefreshContext, RefreshError, RefreshFn, Session, observer::RefreshReason,
/// };
///
/// async fn exchange(flow: impl RefreshFn, refresh_token: &str) -> Result<Session, RefreshError> {
///     let context =
///         RefreshContext::new(RefreshReason::Manual).with_refresh_token(refresh_token);
///     flow.refresh(context).await
/// }
/// ```
#[derive(Clone, Debug)]
pub struct RefreshContext {
    reason: RefreshReason,
    previous: Option<LiveSession>,
    refresh_token: Option<GrantToken>,
    has_spent_refresh_token: bool,
    attempt: u32,
}

impl RefreshContext {
    /// Makes the context of a first attempt, without a previous session.
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
        self.refresh_token = Some(GrantToken::unbound(refresh_token.into()));
        self
    }

    /// Adds the key that the newest refresh token is bound to. Does nothing without a refresh token.
    #[cfg(feature = "dpop")]
    #[cfg_attr(docsrs, doc(cfg(feature = "dpop")))]
    #[must_use]
    pub fn with_dpop_key(mut self, key: DpopKey) -> Self {
        if let Some(grant) = &mut self.refresh_token {
            grant.dpop_key = Some(key);
        }
        self
    }

    /// Adds the newest refresh token. A session with a copy of the token may know the key that it is bound to.
    pub(crate) fn with_newest_refresh_token(mut self, refresh_token: Option<GrantToken>) -> Self {
        self.refresh_token = refresh_token;
        let previous = self.previous().and_then(Session::grant_token).cloned();
        if let (Some(grant), Some(previous)) = (&mut self.refresh_token, previous)
            && *grant == previous
            && previous.dpop_key.is_some()
        {
            *grant = previous;
        }
        self
    }

    pub(crate) fn with_attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// Why the session is needed.
    pub fn reason(&self) -> RefreshReason {
        self.reason
    }

    /// The session to replace. `None` at the first login.
    pub fn previous(&self) -> Option<&Session> {
        self.previous.as_deref()
    }

    /// The newest refresh token of this handle. `None` if no session had one.
    ///
    /// Under rotation an older token must never be presented again: prefer this one to a configured one.
    pub fn refresh_token(&self) -> Option<&Secret> {
        self.refresh_token.as_ref().map(|grant| &grant.token)
    }

    pub(crate) fn grant_token(&self) -> Option<&GrantToken> {
        self.refresh_token.as_ref()
    }

    /// The key that the newest refresh token is bound to: the exchange of the token has to be proven with it (RFC 9449 §5). `None`
    /// if the token is not known to be bound.
    #[cfg(feature = "dpop")]
    #[cfg_attr(docsrs, doc(cfg(feature = "dpop")))]
    pub fn dpop_key(&self) -> Option<&DpopKey> {
        self.refresh_token.as_ref()?.dpop_key.as_ref()
    }

    /// Whether a refresh token of this handle was rotated out or revoked. If [`refresh_token`](Self::refresh_token) is `None`
    /// then, a configured token must not be presented either.
    pub fn has_spent_refresh_token(&self) -> bool {
        self.has_spent_refresh_token
    }

    /// The number of this attempt since the last success, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }
}

// === FromService ===

/// Makes a [`RefreshFn`] of a tower service from a [`RefreshContext`] to a [`Session`].
///
/// A refresh can then be wrapped in any tower layer. The service is cloned for each call: state that lasts from call to call
/// has to be shared by its clones. A [`RefreshError`] of the service is returned unchanged; any other error is
/// [transient](RefreshError::transient).
///
/// A retry layer around a refresh token flow must not repeat a call that may have reached the server. Under rotation
/// the second use of a refresh token revokes the grant.
///
/// ```
/// use std::time::Duration;
/// use tower::{ServiceBuilder, service_fn};
/// use tower_salesforce_auth::{
///     RefreshContext, SalesforceAuthLayer, Session, refresh::from_service,
/// };
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
    /// Cloned for each call. The lock makes the type `Sync` without asking that of the service.
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
