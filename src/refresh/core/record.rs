//! How the session in memory relates to the record in the store.

use crate::{refresh::core::run::RefreshId, store::Version};

/// How the session in memory relates to the record in the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RecordState {
    pub(crate) relation: Relation,
    /// The version that was seen last. `None` if the store was never read, or after [`Core::reset`].
    pub(crate) last_seen: Option<Version>,
    /// The record of the last save that was not reported as done. The store may have it all the same. `None` if the last
    /// save was reported as done. It is boxed, since few sessions have one.
    pub(super) attempted: Option<Box<Version>>,
    /// The last logout. A save that began before it must leave nothing behind.
    pub(crate) logged_out: RefreshId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Relation {
    /// The session is in the store, or was, or there is no store.
    InStore,
    /// A refresh returned the session, and it could not be saved.
    NotSaved,
    /// The user set the session, and it was not saved since.
    SetByUser {
        /// Whether the session was set with a refresh token. What it gets later does not count.
        has_own_token: bool,
    },
}

impl RecordState {
    pub(crate) fn new() -> Self {
        Self {
            relation: Relation::InStore,
            last_seen: None,
            attempted: None,
            logged_out: RefreshId::default(),
        }
    }

    pub(super) fn after_logout(logged_out: RefreshId) -> Self {
        Self {
            logged_out,
            ..Self::new()
        }
    }

    /// A token call returned a refresh token that the record does not have. The token that a session was set with is spent.
    pub(super) fn token_not_saved(&mut self) {
        self.relation = match self.relation {
            Relation::SetByUser { .. } => Relation::SetByUser {
                has_own_token: false,
            },
            Relation::InStore | Relation::NotSaved => Relation::NotSaved,
        };
    }

    /// A save failed. The session in memory is newer than the record, unless the user has set another one.
    pub(super) fn not_saved(&mut self) {
        if !self.is_set_by_user() {
            self.relation = Relation::NotSaved;
        }
    }

    /// The record of the last save that was not reported as done.
    pub(crate) fn attempted(&self) -> Option<Version> {
        self.attempted.as_deref().copied()
    }

    /// A save of this record begins.
    pub(super) fn attempt(&mut self, version: Version) {
        self.attempted = Some(Box::new(version));
    }

    /// The last save is done, or its record no longer counts.
    pub(super) fn end_attempt(&mut self) {
        self.attempted = None;
    }

    pub(super) fn is_set_by_user(&self) -> bool {
        matches!(self.relation, Relation::SetByUser { .. })
    }
}
