//! What requests get: the session in use, and how it replaced the one before.

use crate::{
    refresh::core::rules::{Rules, Snapshot},
    session::live::{Generation, Live},
};

/// What a request gets.
#[cfg_attr(test, derive(Clone, Debug, Hash))]
pub(crate) enum Slot<R: Rules> {
    /// No session is usable: callers wait for a refresh.
    Vacant {
        /// The session that was rejected. `None` before the first login.
        rejected: Option<Live<R::Session>>,
        /// How the last refresh failed. `None` if none has failed since the rejection.
        failure: Option<R::Failure>,
    },
    /// Requests are sent with this session.
    Serving(Live<R::Session>),
    /// The session was logged out: requests fail.
    LoggedOut,
}

impl<R: Rules> Slot<R> {
    /// The session that was published last, rejected or not. `None` before the first login and after a logout.
    pub(crate) fn latest(&self) -> Option<&Live<R::Session>> {
        match self {
            Self::Vacant { rejected, .. } => rejected.as_ref(),
            Self::Serving(live) => Some(live),
            Self::LoggedOut => None,
        }
    }

    pub(crate) fn serving(&self) -> Option<&Live<R::Session>> {
        match self {
            Self::Serving(live) => Some(live),
            Self::Vacant { .. } | Self::LoggedOut => None,
        }
    }

    pub(crate) fn generation(&self) -> Option<Generation> {
        self.latest().map(|live| live.generation)
    }
}

/// Publishes the result of a refresh of `latest`. Both are of the same user unless both say otherwise.
pub(super) fn refreshed<S: Snapshot>(latest: &Live<S>, session: S) -> Live<S> {
    let is_same_user = latest.session.is_of_same_user(&session).unwrap_or(true);
    followed_by(latest, session, is_same_user)
}

/// Publishes a session that was set, or adopted, in place of `latest`. Both are of the same user if both say so or if they
/// share the instance.
pub(super) fn replaced<S: Snapshot>(latest: &Live<S>, session: S) -> Live<S> {
    let is_same_user = session.may_replace(&latest.session);
    followed_by(latest, session, is_same_user)
}

fn followed_by<S: Snapshot>(latest: &Live<S>, session: S, is_same_user: bool) -> Live<S> {
    let is_unchanged = session.has_token_of(&latest.session);
    latest.followed_by(session, is_same_user, is_unchanged)
}
