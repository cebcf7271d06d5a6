//! Sessions and refresh tokens: the bookkeeping, without I/O.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::mint::{Mint, Minted, TokenSerial};
use crate::emulator::wire::scope;

/// `issued_at` of the first token, in milliseconds since the Unix epoch.
const FIRST_ISSUED_AT: u64 = 1_750_000_000_000;

/// The number of the next org. Tokens contain the number of their org: they are numbered, and
/// without it two orgs of one process would issue the same ones.
static ORGS: AtomicU64 = AtomicU64::new(1);

/// The tokens of one org.
pub(crate) struct SessionTable {
    pub(crate) org: u64,
    access_tokens: u64,
    refresh_tokens: u64,
    lineages: u64,
    /// The ids of used assertions.
    jtis: HashSet<String>,
    /// How many approvals of the app the user may have. `None` for any number.
    pub(crate) approval_limit: Option<usize>,
    /// How many calls a new access token allows. `None` for any number.
    pub(crate) calls_per_session: Option<u64>,
    live: HashMap<String, SessionEntry>,
    grants: HashMap<String, RefreshTokenEntry>,
}

struct SessionEntry {
    /// The lineage of refresh tokens. `None` for a session without one, as after client
    /// credentials.
    lineage: Option<u64>,
    calls_left: Option<u64>,
    /// `None` for a plain session id, which was granted to no app.
    scope: Option<Arc<str>>,
    /// Seconds since the Unix epoch.
    began: u64,
    /// The end of a JWT-based access token. `None` for an opaque one.
    ends: Option<u64>,
    /// The thumbprint of the key that the token is bound to. `None` for a bearer token.
    key: Option<Arc<str>>,
}

impl SessionEntry {
    fn is_valid(&self, now: u64) -> bool {
        self.calls_left != Some(0) && self.ends.is_none_or(|end| now < end)
    }
}

struct RefreshTokenEntry {
    lineage: u64,
    scope: Arc<str>,
    /// Seconds since the Unix epoch.
    issued: u64,
    status: RefreshTokenStatus,
    /// The thumbprint of the key that the token is bound to. `None` if it is not bound.
    key: Option<Arc<str>>,
}

/// The status of a refresh token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RefreshTokenStatus {
    Valid,
    InProcess,
    RotatedOut,
    Revoked,
}

/// The tokens of one answer.
pub(crate) struct NewTokens {
    pub(crate) access_token: String,
    pub(crate) is_jwt: bool,
    pub(crate) is_bound: bool,
    pub(crate) refresh_token: Option<String>,
    pub(crate) scope: Option<Arc<str>>,
    /// Milliseconds since the Unix epoch.
    pub(crate) issued_at: u64,
}

/// Public facts about a valid token.
pub(crate) struct TokenFacts<'a> {
    pub(crate) kind: TokenKind,
    pub(crate) scope: &'a str,
    /// Seconds since the Unix epoch.
    pub(crate) issued: u64,
    pub(crate) ends: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    Access,
    Refresh,
}

/// The reason why a refresh token was refused.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefreshRefusal {
    /// Unknown or revoked.
    Dead,
    /// Rotated out earlier. Its lineage is revoked now.
    Reused,
    /// Another request with this token has no answer yet.
    InProcess,
    /// The request has no proof of the key that the token is bound to.
    NotProven,
    /// The token is not bound, and the app requires it.
    NotBound,
}

impl SessionTable {
    pub(crate) fn new() -> Self {
        Self {
            org: ORGS.fetch_add(1, Ordering::Relaxed),
            access_tokens: 0,
            refresh_tokens: 0,
            lineages: 0,
            jtis: HashSet::new(),
            approval_limit: None,
            calls_per_session: None,
            live: HashMap::new(),
            grants: HashMap::new(),
        }
    }

    /// Starts a lineage: a session and, if the scope includes it, a refresh token.
    pub(crate) fn authorize(&mut self, scope: &str, mint: &Mint) -> NewTokens {
        self.lineages += 1;
        let lineage = self.lineages;
        let scope = Arc::from(scope);
        let mut tokens = self.begin_session(Some(lineage), Some(Arc::clone(&scope)), mint);
        if scope::refreshes(&scope) {
            let key = mint.key.clone();
            tokens.refresh_token = Some(self.new_refresh_token(lineage, scope, mint.now, key));
            self.revoke_oldest_approvals();
        }
        tokens
    }

    /// Starts a session without a refresh token. Without a scope, its token is a plain session id.
    pub(crate) fn begin_lone_session(&mut self, scope: Option<&str>, mint: &Mint) -> NewTokens {
        self.begin_session(None, scope.map(Arc::from), mint)
    }

    /// Records the id of an assertion. `false` if it was used before.
    pub(crate) fn take_jti(&mut self, jti: &str) -> bool {
        self.jtis.insert(jti.to_owned())
    }

    /// Whether the user has approved the app, that is, whether a refresh token is valid.
    pub(crate) fn has_approval(&self) -> bool {
        self.grants.values().any(RefreshTokenEntry::is_valid)
    }

    /// Starts to process a refresh token.
    /// `key` is the thumbprint of the key that the request was proven with. A token that is refused for it stays valid.
    pub(crate) fn begin_refresh(
        &mut self,
        token: &str,
        key: Option<&str>,
        must_be_bound: bool,
    ) -> Result<(), RefreshRefusal> {
        let Some(grant) = self.grants.get_mut(token) else {
            return Err(RefreshRefusal::Dead);
        };
        if grant.is_valid() && grant.key.is_some() && grant.key.as_deref() != key {
            return Err(RefreshRefusal::NotProven);
        }
        if grant.is_valid() && grant.key.is_none() && must_be_bound {
            return Err(RefreshRefusal::NotBound);
        }
        match grant.status {
            RefreshTokenStatus::Valid => {
                grant.status = RefreshTokenStatus::InProcess;
                Ok(())
            }
            RefreshTokenStatus::InProcess => Err(RefreshRefusal::InProcess),
            RefreshTokenStatus::Revoked => Err(RefreshRefusal::Dead),
            RefreshTokenStatus::RotatedOut => {
                let lineage = grant.lineage;
                self.revoke_lineage(lineage);
                Err(RefreshRefusal::Reused)
            }
        }
    }

    /// Ends the processing of [`begin_refresh`](Self::begin_refresh) with a new session.
    ///
    /// `None` if the token was revoked in between.
    pub(crate) fn finish_refresh(
        &mut self,
        token: &str,
        rotate: bool,
        mint: &Mint,
    ) -> Option<NewTokens> {
        let grant = self.grants.get_mut(token)?;
        if grant.status != RefreshTokenStatus::InProcess {
            return None;
        }
        grant.status = if rotate {
            RefreshTokenStatus::RotatedOut
        } else {
            RefreshTokenStatus::Valid
        };
        let lineage = grant.lineage;
        let scope = Arc::clone(&grant.scope);
        // A grant stays what it is.
        let key = grant.key.clone();
        let mint = &Mint {
            key: key.clone(),
            jwt_issuer: mint.jwt_issuer.clone(),
            ..*mint
        };
        let mut tokens = self.begin_session(Some(lineage), Some(Arc::clone(&scope)), mint);
        tokens.refresh_token =
            rotate.then(|| self.new_refresh_token(lineage, scope, mint.now, key));
        Some(tokens)
    }

    /// Cancels [`begin_refresh`](Self::begin_refresh) after the caller gave up.
    pub(crate) fn abandon_refresh(&mut self, token: &str) {
        if let Some(grant) = self.grants.get_mut(token)
            && grant.status == RefreshTokenStatus::InProcess
        {
            grant.status = RefreshTokenStatus::Valid;
        }
    }

    /// Counts one call of a session. `false` if the token is invalid.
    pub(crate) fn spend_call(&mut self, access_token: &str, now: u64) -> bool {
        let Some(session) = self.live.get_mut(access_token) else {
            return false;
        };
        let valid = session.is_valid(now);
        if valid {
            session.calls_left = session.calls_left.map(|left| left.saturating_sub(1));
        }
        valid
    }

    /// Whether an access token is valid, for requests that do not count as data calls.
    pub(crate) fn is_valid(&self, access_token: &str, now: u64) -> bool {
        let session = self.live.get(access_token);
        session.is_some_and(|session| session.is_valid(now))
    }

    /// The thumbprint of the key that an access token is bound to. `None` for any other token.
    pub(crate) fn key_of(&self, access_token: &str) -> Option<Arc<str>> {
        self.live.get(access_token)?.key.clone()
    }

    /// The facts that an app may learn about `token`. `None` if it is invalid, or was granted to no
    /// app.
    pub(crate) fn look_up(&self, token: &str, now: u64) -> Option<TokenFacts<'_>> {
        if let Some(session) = self.live.get(token) {
            return session.is_valid(now).then_some(TokenFacts {
                kind: TokenKind::Access,
                scope: session.scope.as_deref()?,
                issued: session.began,
                ends: session.ends,
            });
        }
        let grant = self.grants.get(token).filter(|grant| grant.is_valid())?;
        Some(TokenFacts {
            kind: TokenKind::Refresh,
            scope: &grant.scope,
            issued: grant.issued,
            ends: None,
        })
    }

    /// Ends a refresh token with its lineage, or an access token alone. `false` if `token` is
    /// neither.
    pub(crate) fn revoke(&mut self, token: &str) -> bool {
        if self.live.remove(token).is_some() {
            return true;
        }
        let grant = self.grants.get(token).filter(|grant| grant.is_valid());
        let Some(lineage) = grant.map(|grant| grant.lineage) else {
            return false;
        };
        self.revoke_lineage(lineage);
        true
    }

    /// Ends one session. `false` if the token is invalid.
    pub(crate) fn end_session(&mut self, access_token: &str, now: u64) -> bool {
        let session = self.live.remove(access_token);
        session.is_some_and(|session| session.is_valid(now))
    }

    /// Ends every session. Refresh tokens stay valid.
    pub(crate) fn expire_sessions(&mut self) {
        self.live.clear();
    }

    /// Revokes every refresh token. Sessions stay valid.
    pub(crate) fn revoke_grants(&mut self) {
        for grant in self.grants.values_mut() {
            grant.status = RefreshTokenStatus::Revoked;
        }
    }

    fn revoke_oldest_approvals(&mut self) {
        let Some(limit) = self.approval_limit else {
            return;
        };
        let valid = self.grants.values().filter(|grant| grant.is_valid());
        let approved: BTreeSet<u64> = valid.map(|grant| grant.lineage).collect();
        let excess = approved.len().saturating_sub(limit);
        for lineage in approved.into_iter().take(excess) {
            self.revoke_lineage(lineage);
        }
    }

    fn revoke_lineage(&mut self, lineage: u64) {
        self.live
            .retain(|_, session| session.lineage != Some(lineage));
        for grant in self.grants.values_mut() {
            if grant.lineage == lineage {
                grant.status = RefreshTokenStatus::Revoked;
            }
        }
    }

    fn begin_session(
        &mut self,
        lineage: Option<u64>,
        scope: Option<Arc<str>>,
        mint: &Mint,
    ) -> NewTokens {
        let issued_at = FIRST_ISSUED_AT + 1_000 * self.access_tokens;
        self.access_tokens += 1;
        let serial = TokenSerial {
            org: self.org,
            token: self.access_tokens,
        };
        let Minted { access_token, ends } = mint.access_token(serial, scope.as_deref());
        let session = SessionEntry {
            lineage,
            calls_left: self.calls_per_session,
            scope: scope.clone(),
            began: mint.now,
            ends,
            key: mint.key.clone(),
        };
        self.live.insert(access_token.clone(), session);
        NewTokens {
            access_token,
            is_jwt: ends.is_some(),
            is_bound: mint.key.is_some(),
            refresh_token: None,
            scope,
            issued_at,
        }
    }

    fn new_refresh_token(
        &mut self,
        lineage: u64,
        scope: Arc<str>,
        now: u64,
        key: Option<Arc<str>>,
    ) -> String {
        self.refresh_tokens += 1;
        let token = format!("5Aep861{:0>11}.{:0>68}", self.org, self.refresh_tokens);
        let grant = RefreshTokenEntry {
            lineage,
            scope,
            issued: now,
            status: RefreshTokenStatus::Valid,
            key,
        };
        self.grants.insert(token.clone(), grant);
        token
    }
}

impl RefreshTokenEntry {
    fn is_valid(&self) -> bool {
        matches!(
            self.status,
            RefreshTokenStatus::Valid | RefreshTokenStatus::InProcess
        )
    }
}
