//! What the core needs to know of sessions, failures, records and settings.

use std::time::Duration;

#[cfg(test)]
use crate::refresh::core::model::values::Value;
use crate::store::Version;

/// What a core holds. The model also prints and hashes it.
#[cfg(not(test))]
pub(crate) trait Value: Clone {}

#[cfg(not(test))]
impl<T: Clone> Value for T {}

/// The refresh token type of a set of rules.
pub(crate) type TokenOf<R> = <<R as Rules>::Session as Snapshot>::Token;

/// The types that a core works with, and its settings. In the crate these are sessions and errors; in the model, integers.
pub(crate) trait Rules {
    type Session: Snapshot;
    type Failure: Failure<Token = TokenOf<Self>>;
    type Record: Stored<Session = Self::Session>;

    /// Whether sessions can be refreshed at all.
    fn can_refresh(&self) -> bool;

    /// Whether there is a session store.
    fn has_store(&self) -> bool;

    /// Whether a session that cannot be saved must not be used.
    fn requires_save(&self) -> bool;

    /// How long callers wait for a refresh, and how long one token call or one save may take.
    fn refresh_timeout(&self) -> Duration;

    /// Refuses a session whose instance is not trusted (R18). `known` is the last session of the handle.
    fn check(
        &self,
        session: Self::Session,
        known: Option<&Self::Session>,
    ) -> Result<Self::Session, Self::Failure>;
}

/// A session, as far as the core looks at it.
pub(crate) trait Snapshot: Value {
    type Token: Value + PartialEq;

    fn refresh_token(&self) -> Option<&Self::Token>;

    fn with_refresh_token(self, refresh_token: Self::Token) -> Self;

    /// Whether both have the same access token.
    fn has_token_of(&self, other: &Self) -> bool;

    /// Whether both are of the same user of the same org. `None` if that is unknown.
    fn is_of_same_user(&self, other: &Self) -> Option<bool>;

    /// Whether both are of the same user of the same org or, if that is unknown, of the same instance.
    fn may_replace(&self, other: &Self) -> bool;

    /// Whether this session, which the user set, gives way to a `stored` one.
    fn gives_way_to(&self, stored: &Self) -> bool;

    /// Marks the refresh token as one that replaced another.
    fn rotated(self) -> Self;

    /// Whether the refresh token replaced one that must not be presented again.
    fn is_rotated(&self) -> bool;

    /// Whether the refresh token is the one that was presented.
    fn keeps_refresh_token(&self) -> bool;
}

/// A failure, as far as the core looks at it.
pub(crate) trait Failure: Value {
    type Token;

    fn of(cause: Cause) -> Self;

    fn is_terminal(&self) -> bool;

    /// Whether the refresh token was refused (`invalid_grant`, RFC 6749 §5.2).
    fn is_invalid_grant(&self) -> bool;

    /// Whether another attempt in the same refresh would end the same way: a panic, a timeout, a call that came back through
    /// its own layer.
    fn ends_refresh(&self) -> bool;

    /// Whether the server could not be reached, so that nothing was sent.
    fn is_unreachable(&self) -> bool;

    /// Whether the session store failed.
    fn is_of_store(&self) -> bool;

    /// Whether another holder kept the store lock.
    fn is_lock_busy(&self) -> bool;

    /// Whether the store lock may belong to another holder.
    fn is_lock_lost(&self) -> bool;

    /// Whether the store has another version than a save was to replace.
    fn is_superseded(&self) -> bool;

    /// Whether the record of the session was found to be gone.
    fn is_gone(&self) -> bool;

    fn retry_after(&self) -> Option<Duration>;

    /// Takes out a refresh token that replaced the one that was presented. The failure keeps none.
    fn take_refresh_token(&mut self) -> Option<Self::Token>;
}

/// Failures that the core finds by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Cause {
    /// The callers' time is over.
    TimedOut,
    /// The runtime of the refresh was shut down.
    Cancelled,
    /// A session was set, or the session was logged out, during the refresh.
    Superseded,
    /// The session was logged out.
    LoggedOut,
    /// The record was deleted by another process.
    Gone,
    /// The store has an older record than before.
    Stale,
    /// Another process has saved a session during the token call.
    SavedElsewhere,
}

/// A record of the session store.
pub(crate) trait Stored: Value {
    type Session;

    /// Makes the first record of a login.
    fn first(session: Self::Session) -> Self;

    /// Makes the record that replaces this one.
    fn followed_by(&self, session: Self::Session) -> Self;

    fn session(&self) -> &Self::Session;

    fn version(&self) -> Version;

    /// Whether a refresh token of its login was rotated out.
    fn has_rotated(&self) -> bool;
}
