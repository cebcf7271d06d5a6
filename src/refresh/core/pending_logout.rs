//! What a logout still has to end: the record in the store, and tokens at the server.

use crate::refresh::core::{
    record::{RecordState, Relation},
    rules::{Rules, Snapshot, Stored, TokenOf},
    run::RefreshId,
    token::Lineage,
};

/// A logout that is not done: no refresh adopts what it has to delete, and no handle that has one may be dropped.
#[cfg_attr(test, derive(Clone, Debug, Hash))]
pub(crate) struct PendingLogout<R: Rules> {
    /// Refreshes with a lower id began before the logout.
    pub(crate) id: RefreshId,
    /// The lineage that was logged out.
    pub(crate) lineage: Lineage,
    /// The sessions to end, the newest last.
    pub(crate) sessions: Vec<R::Session>,
    /// The refresh tokens to revoke, the newest last.
    pub(crate) refresh_tokens: Vec<TokenOf<R>>,
    /// How the logged-out session relates to its record. `None` once the record is deleted.
    pub(crate) record: Option<RecordState>,
    pub(crate) server: ServerEnd,
}

/// How far a logout has come at the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ServerEnd {
    /// Its sessions and tokens live on.
    Pending,
    /// A task is ending them.
    Running,
    /// All that the user asked for is ended.
    Done,
}

impl<R: Rules> PendingLogout<R> {
    /// Adds a token that a token call returned for the newest one, after the logout.
    pub(super) fn advance(&mut self, presented: Option<&TokenOf<R>>, returned: &TokenOf<R>) {
        self.refresh_tokens
            .retain(|token| Some(token) != presented && token != returned);
        self.refresh_tokens.push(returned.clone());
    }

    /// Adds what was stored of the session.
    pub(super) fn add(&mut self, record: &R::Record) {
        let Some(state) = &self.record else {
            return;
        };
        let session = record.session();
        if let Some(token) = session.refresh_token()
            && !self.refresh_tokens.contains(token)
        {
            let is_news = record.version().is_newer_than(state.last_seen);
            match state.relation {
                // The stored token is spent.
                Relation::InStore | Relation::NotSaved if !is_news => {}
                // The token in memory is spent.
                Relation::InStore => self.refresh_tokens = vec![token.clone()],
                // The tokens are of two logins.
                Relation::NotSaved | Relation::SetByUser { .. } => {
                    self.refresh_tokens.push(token.clone());
                }
            }
        }
        let is_known = |known: &R::Session| known.has_token_of(session);
        if !self.sessions.iter().any(is_known) {
            self.sessions.push(session.clone());
        }
    }

    /// Records that a refresh token was revoked. Its access tokens end with it; others may be of another login.
    pub(crate) fn revoked(&mut self, refresh_token: &TokenOf<R>) {
        self.refresh_tokens.retain(|token| token != refresh_token);
        self.sessions
            .retain(|session| session.refresh_token() != Some(refresh_token));
    }

    /// Records that a session was ended.
    pub(crate) fn session_ended(&mut self, session: &R::Session) {
        self.sessions.retain(|ended| !ended.has_token_of(session));
    }

    pub(super) fn is_done(&self) -> bool {
        self.record.is_none() && self.server == ServerEnd::Done
    }
}
