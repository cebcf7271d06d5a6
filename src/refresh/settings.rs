//! The settings of a session, and the rules that the core gets from them.

use std::{sync::Arc, time::Duration};

use crate::{
    error::{RefreshError, RefreshErrorKind},
    refresh::core::rules::{Cause, Failure, Rules, Snapshot, Stored},
    report::observer::SharedObserver,
    secret::Secret,
    session::{
        dpop_key::DpopKey,
        grant_token::GrantToken,
        lifetime::ProactiveRefresh,
        session::Session,
        url::{LoginUrl, Origin},
    },
    store::{OnSaveFailure, Record, StoreError, StoreErrorKind, StoreKey, Version},
    text::redact::redact,
};

const DEFAULT_REFRESH_TIMEOUT: Duration = Duration::from_secs(30);

/// The settings of a session, fixed when its handle is built.
#[derive(Clone)]
pub(crate) struct Settings {
    /// Whether there is a `RefreshFn`.
    pub(crate) can_refresh: bool,
    pub(crate) refresh_timeout: Duration,
    /// Origins that may receive the token beside the instance.
    pub(crate) allowed_origins: Vec<Origin>,
    /// The port of the instance that requests go to. `None`: the one that the server names.
    pub(crate) instance_port: Option<u16>,
    /// `None` if sessions are refreshed only when they are rejected.
    pub(crate) proactive_refresh: Option<ProactiveRefresh>,
    pub(crate) observer: Option<SharedObserver>,
    /// Where the session is stored. `None` without a store.
    pub(crate) store: Option<StoreKey>,
    pub(crate) on_save_failure: OnSaveFailure,
    /// How long a record is of use after its save. `None`: without end.
    pub(crate) record_lifetime: Option<Duration>,
    /// Whether what other processes save is adopted before a request is rejected.
    pub(crate) follows_store: bool,
}

impl Settings {
    pub(crate) fn new(can_refresh: bool) -> Self {
        Self {
            can_refresh,
            refresh_timeout: DEFAULT_REFRESH_TIMEOUT,
            allowed_origins: Vec::new(),
            instance_port: None,
            proactive_refresh: None,
            observer: None,
            store: None,
            on_save_failure: OnSaveFailure::Continue,
            record_lifetime: None,
            follows_store: false,
        }
    }
}

impl Rules for Arc<Settings> {
    type Session = Session;
    type Failure = RefreshError;
    type Record = Record;

    fn can_refresh(&self) -> bool {
        self.can_refresh
    }

    fn has_store(&self) -> bool {
        self.store.is_some()
    }

    fn requires_save(&self) -> bool {
        self.on_save_failure == OnSaveFailure::Fail
    }

    fn refresh_timeout(&self) -> Duration {
        self.refresh_timeout
    }

    /// A server that was taken over, or a typing error, must not choose where the token is sent.
    fn check(&self, session: Session, known: Option<&Session>) -> Result<Session, RefreshError> {
        let origin = session.instance_url().origin();
        // A `RefreshFn` may have its instance from the session before, which names the port.
        let is_at = |session: &Session| {
            let session = session.clone().at_port(self.instance_port);
            session.instance_url().clone()
        };
        // A server elsewhere has nothing to say about what runs on this machine. A `RefreshFn` that names no login URL chose
        // the instance itself.
        let is_local =
            origin.is_loopback() && session.login_url().is_none_or(LoginUrl::is_loopback);
        if origin.is_salesforce()
            || is_local
            || known.is_some_and(|known| is_at(known) == is_at(&session))
            || self.allowed_origins.contains(origin)
        {
            return Ok(session);
        }
        let rotated = session.grant_token().cloned();
        let key = rotated.as_ref().and_then(|grant| grant.dpop_key.as_ref());
        let key = key.map(DpopKey::encode);
        // The host is foreign input, and may repeat a secret.
        let secrets: Vec<_> = std::iter::once(session.access_token())
            .chain(session.refresh_token())
            .map(Secret::expose)
            .collect();
        let origin = redact(&origin.to_string(), &secrets);
        Err(RefreshError::new(
            RefreshErrorKind::UntrustedInstance,
            true,
            format!(
                "the refresh returned a session for {origin}, which is neither a Salesforce host nor allowed: if it \
                 is the org's, allow it with SessionHandleBuilder::allow_origin"
            ),
        )
        .with_rotated_refresh_token(rotated.map(|grant| grant.token))
        .with_rotated_dpop_key(key))
    }
}

impl Snapshot for Session {
    type Token = GrantToken;

    fn refresh_token(&self) -> Option<&GrantToken> {
        self.grant_token()
    }

    fn with_refresh_token(self, refresh_token: GrantToken) -> Self {
        self.with_grant_token(refresh_token)
    }

    fn has_token_of(&self, other: &Self) -> bool {
        self.access_token() == other.access_token()
    }

    fn is_of_same_user(&self, other: &Self) -> Option<bool> {
        self.is_of_same_user(other)
    }

    fn may_replace(&self, other: &Self) -> bool {
        self.may_replace(other)
    }

    fn gives_way_to(&self, stored: &Self) -> bool {
        self.gives_way_to(stored)
    }

    fn rotated(self) -> Self {
        self.rotated()
    }

    fn is_rotated(&self) -> bool {
        self.is_rotated()
    }

    fn keeps_refresh_token(&self) -> bool {
        self.keeps_refresh_token()
    }
}

/// What was wrong with the store. `None` if another failure.
fn store_error_kind(error: &RefreshError) -> Option<StoreErrorKind> {
    error.store_error().map(StoreError::kind)
}

impl Failure for RefreshError {
    type Token = GrantToken;

    fn of(cause: Cause) -> Self {
        let (kind, is_terminal, message) = match cause {
            Cause::TimedOut => (
                RefreshErrorKind::TimedOut,
                false,
                "the refresh did not complete within the refresh timeout: check the network, or raise \
                 SessionHandleBuilder::refresh_timeout",
            ),
            Cause::Cancelled => (
                RefreshErrorKind::Cancelled,
                false,
                "the runtime that the refresh ran on was shut down: the next request refreshes again",
            ),
            Cause::Superseded => (
                RefreshErrorKind::Cancelled,
                false,
                "the refresh was superseded: a session was set, or the session was logged out",
            ),
            Cause::LoggedOut => (
                RefreshErrorKind::LoggedOut,
                true,
                "the session was logged out",
            ),
            Cause::Gone => (
                RefreshErrorKind::LoggedOut,
                true,
                "the stored record of the session was deleted, as by a logout: set a new session, or reset the handle to go \
                 on with the session in memory; SessionHandle::save stores that one again",
            ),
            Cause::SavedElsewhere => {
                return StoreError::new(
                    StoreErrorKind::Superseded,
                    "another process saved a session during the token call, and this process goes on with that one",
                )
                .into();
            }
            Cause::Stale => {
                return StoreError::new(
                    StoreErrorKind::Stale,
                    "the store has an older session than before: if it was restored from a backup, reset the handle; if \
                     it is a replica, load from where sessions are saved",
                )
                .into();
            }
        };
        Self::new(kind, is_terminal, message)
    }

    fn is_terminal(&self) -> bool {
        self.is_terminal()
    }

    fn is_invalid_grant(&self) -> bool {
        self.is_terminal() && self.error_code() == Some("invalid_grant")
    }

    fn ends_refresh(&self) -> bool {
        matches!(
            self.kind(),
            RefreshErrorKind::TimedOut | RefreshErrorKind::Panicked
        ) || self.is_reentrant()
    }

    fn is_unreachable(&self) -> bool {
        self.is_unreachable()
    }

    fn is_of_store(&self) -> bool {
        self.kind() == RefreshErrorKind::Store
    }

    fn is_lock_busy(&self) -> bool {
        store_error_kind(self) == Some(StoreErrorKind::LockBusy)
    }

    fn is_lock_lost(&self) -> bool {
        store_error_kind(self) == Some(StoreErrorKind::LockLost)
    }

    fn is_superseded(&self) -> bool {
        store_error_kind(self) == Some(StoreErrorKind::Superseded)
    }

    fn is_gone(&self) -> bool {
        self.kind() == RefreshErrorKind::LoggedOut
    }

    fn retry_after(&self) -> Option<Duration> {
        self.retry_after()
    }

    fn take_refresh_token(&mut self) -> Option<GrantToken> {
        let (token, key) = self.take_rotated_refresh_token()?;
        // The key was encoded by this process.
        let dpop_key = key.and_then(|key| DpopKey::decode(key.expose()).ok());
        Some(GrantToken { token, dpop_key })
    }
}

impl Stored for Record {
    type Session = Session;

    fn first(session: Session) -> Self {
        Self::new(session)
    }

    fn followed_by(&self, session: Session) -> Self {
        self.followed_by(session)
    }

    fn session(&self) -> &Session {
        self.session()
    }

    fn version(&self) -> Version {
        self.version()
    }

    fn has_rotated(&self) -> bool {
        self.has_rotated()
    }
}
