//! The values of the model: sessions, failures and records as small integers.

use std::{
    fmt::Debug,
    hash::{Hash, Hasher},
    time::Duration,
};

use crate::{
    error::RefreshError,
    refresh::core::rules::{Cause, Failure, Rules, Snapshot, Stored},
    session::{grant_token::GrantToken, session::Session as RealSession},
    store::{Record as RealRecord, Version},
};

/// What a core holds, so that the model can compare and print states.
pub(crate) trait Value: Clone + Debug + Hash {}

impl<T: Clone + Debug + Hash> Value for T {}

/// The model never hashes the values of the crate.
macro_rules! without_hash {
    ($($real:ty),*) => {$(
        impl Hash for $real {
            fn hash<H: Hasher>(&self, _: &mut H) {}
        }
    )*};
}

without_hash!(RealSession, RealRecord, RefreshError, GrantToken);

/// How long callers wait for a refresh.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// The settings of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Settings {
    pub(super) has_store: bool,
    pub(super) requires_save: bool,
}

impl Rules for Settings {
    type Session = Session;
    type Failure = Error;
    type Record = Record;

    fn can_refresh(&self) -> bool {
        true
    }

    fn has_store(&self) -> bool {
        self.has_store
    }

    fn requires_save(&self) -> bool {
        self.requires_save
    }

    fn refresh_timeout(&self) -> Duration {
        TIMEOUT
    }

    fn check(&self, session: Session, _known: Option<&Session>) -> Result<Session, Error> {
        if session.is_trusted {
            Ok(session)
        } else {
            Err(Error::Untrusted(session.refresh_token))
        }
    }
}

/// A refresh token: the grant, and how many tokens of the grant were issued before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Token {
    pub(super) grant: u8,
    pub(super) number: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Session {
    /// The access token. Later ones have higher numbers.
    pub(super) access: u8,
    pub(super) refresh_token: Option<Token>,
    pub(super) is_rotated: bool,
    /// Whether its instance may receive the token.
    pub(super) is_trusted: bool,
    /// Whether the session says when it was issued.
    pub(super) has_time: bool,
}

impl Snapshot for Session {
    type Token = Token;

    fn refresh_token(&self) -> Option<&Token> {
        self.refresh_token.as_ref()
    }

    fn with_refresh_token(self, refresh_token: Token) -> Self {
        Self {
            refresh_token: Some(refresh_token),
            ..self
        }
    }

    fn has_token_of(&self, other: &Self) -> bool {
        self.access == other.access
    }

    fn is_of_same_user(&self, _other: &Self) -> Option<bool> {
        Some(true)
    }

    fn may_replace(&self, _other: &Self) -> bool {
        true
    }

    fn gives_way_to(&self, stored: &Self) -> bool {
        !self.has_time || !stored.has_time || self.access <= stored.access
    }

    fn rotated(self) -> Self {
        Self {
            is_rotated: true,
            ..self
        }
    }

    fn is_rotated(&self) -> bool {
        self.is_rotated
    }

    fn keeps_refresh_token(&self) -> bool {
        false
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Error {
    /// The core found it.
    Of(Cause),
    /// The server is busy, and may ask for some time.
    Busy {
        asks_for_time: bool,
    },
    /// The server was not reached.
    Unreachable,
    /// The server refuses the app.
    Terminal,
    InvalidGrant,
    /// The instance is not trusted. Holds the rotated token until it is taken out.
    Untrusted(Option<Token>),
    Store,
    /// Another holder keeps the lock.
    LockBusy,
    /// The lock may belong to another holder.
    LockLost,
    /// The store has another version than a save was to replace.
    Superseded,
    /// The record cannot be read.
    Unreadable,
}

/// How long a busy server asks to wait.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(20);

impl Failure for Error {
    type Token = Token;

    fn of(cause: Cause) -> Self {
        Self::Of(cause)
    }

    fn is_terminal(&self) -> bool {
        match self {
            Self::Of(Cause::LoggedOut | Cause::Gone)
            | Self::Terminal
            | Self::InvalidGrant
            | Self::Untrusted(_)
            | Self::Unreadable => true,
            Self::Of(_)
            | Self::Busy { .. }
            | Self::Unreachable
            | Self::Store
            | Self::LockBusy
            | Self::LockLost
            | Self::Superseded => false,
        }
    }

    fn is_invalid_grant(&self) -> bool {
        *self == Self::InvalidGrant
    }

    fn ends_refresh(&self) -> bool {
        *self == Self::Of(Cause::TimedOut)
    }

    fn is_unreachable(&self) -> bool {
        *self == Self::Unreachable
    }

    fn is_lock_busy(&self) -> bool {
        *self == Self::LockBusy
    }

    fn is_lock_lost(&self) -> bool {
        *self == Self::LockLost
    }

    fn is_superseded(&self) -> bool {
        *self == Self::Superseded
    }

    fn is_gone(&self) -> bool {
        matches!(self, Self::Of(Cause::Gone))
    }

    fn is_of_store(&self) -> bool {
        matches!(
            self,
            Self::Of(Cause::Stale | Cause::SavedElsewhere)
                | Self::Store
                | Self::LockBusy
                | Self::LockLost
                | Self::Superseded
                | Self::Unreadable
        )
    }

    fn retry_after(&self) -> Option<Duration> {
        (*self
            == Self::Busy {
                asks_for_time: true,
            })
        .then_some(RETRY_AFTER)
    }

    fn take_refresh_token(&mut self) -> Option<Token> {
        match self {
            Self::Untrusted(token) => token.take(),
            _ => None,
        }
    }
}

/// A record: its session, its login, and its position since the login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Record {
    pub(super) session: Session,
    login: (u8, Option<Token>),
    number: u8,
    has_rotated: bool,
}

impl Stored for Record {
    type Session = Session;

    fn first(session: Session) -> Self {
        Self {
            session: Session {
                is_rotated: false,
                ..session
            },
            login: (session.access, session.refresh_token),
            number: 1,
            has_rotated: session.is_rotated,
        }
    }

    fn followed_by(&self, session: Session) -> Self {
        Self {
            login: self.login,
            number: self.number + 1,
            has_rotated: self.has_rotated || session.is_rotated,
            ..Self::first(session)
        }
    }

    fn session(&self) -> &Session {
        &self.session
    }

    fn version(&self) -> Version {
        let (access, token) = self.login;
        let token = token.map(|token| [token.grant, token.number].map(|part| part + 1));
        let [grant, number] = token.unwrap_or_default();
        let login = u32::from_be_bytes([0, access, grant, number]);
        let tokens = self
            .session
            .refresh_token
            .map(|token| [token.grant, token.number].map(|part| part + 1));
        let [grant, number] = tokens.unwrap_or_default();
        let tokens = u32::from_be_bytes([0, self.session.access, grant, number]);
        Version::new(login.into(), self.number.into(), tokens.into())
    }

    fn has_rotated(&self) -> bool {
        self.has_rotated
    }
}
