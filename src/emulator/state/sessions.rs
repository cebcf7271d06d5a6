//! Which tokens are good: the bookkeeping of grants and sessions, without I/O.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::mint::{Mint, Minted, Serial};
use crate::emulator::wire::scope;

/// `issued_at` of the first token, in milliseconds since the Unix epoch.
const FIRST_ISSUED_AT: u64 = 1_750_000_000_000;

/// Tokens are numbered, so two orgs of one process would issue the same ones. A client that sends
/// one org's token to the other must be caught: each org writes its own number into its tokens.
static ORGS: AtomicU64 = AtomicU64::new(1);

/// Every token of one org.
pub(crate) struct Sessions {
    pub(crate) org: u64,
    access_tokens: u64,
    refresh_tokens: u64,
    families: u64,
    /// The ids of the assertions that were used.
    jtis: HashSet<String>,
    /// How many refresh tokens the user may have approved at a time.
    pub(crate) approval_limit: Option<usize>,
    /// How many calls each access token issued from now on is good for.
    pub(crate) calls_per_session: Option<u64>,
    live: HashMap<String, Session>,
    grants: HashMap<String, Presentable>,
}

struct Session {
    /// `None` for a session that no refresh token can outlive: client credentials.
    family: Option<u64>,
    calls_left: Option<u64>,
    /// `None` for a plain session id, which no app was granted.
    scope: Option<Arc<str>>,
    /// Seconds since the Unix epoch.
    began: u64,
    /// When a JWT-based access token ends. Opaque ones have no such moment.
    ends: Option<u64>,
}

impl Session {
    fn is_good(&self, now: u64) -> bool {
        self.calls_left != Some(0) && self.ends.is_none_or(|end| now < end)
    }
}

struct Presentable {
    family: u64,
    scope: Arc<str>,
    /// Seconds since the Unix epoch.
    issued: u64,
    standing: Standing,
}

/// Where a refresh token stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Good,
    InProcess,
    RotatedOut,
    Revoked,
}

/// The tokens of one answer.
pub(crate) struct NewTokens {
    pub(crate) access_token: String,
    pub(crate) is_jwt: bool,
    pub(crate) refresh_token: Option<String>,
    pub(crate) scope: Option<Arc<str>>,
    /// Milliseconds since the Unix epoch.
    pub(crate) issued_at: u64,
}

/// What is known of a token that is good.
pub(crate) struct Known<'a> {
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

/// Why a refresh token was refused.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefreshRefusal {
    /// Unknown or revoked.
    Dead,
    /// Rotated out earlier. Its family is revoked by now.
    Reused,
    /// Another request with this token has not been answered yet.
    InProcess,
}

impl Sessions {
    pub(crate) fn new() -> Self {
        Self {
            org: ORGS.fetch_add(1, Ordering::Relaxed),
            access_tokens: 0,
            refresh_tokens: 0,
            families: 0,
            jtis: HashSet::new(),
            approval_limit: None,
            calls_per_session: None,
            live: HashMap::new(),
            grants: HashMap::new(),
        }
    }

    /// A new family: a session and, if the scope says so, the refresh token to go on with.
    pub(crate) fn authorize(&mut self, scope: &str, mint: &Mint) -> NewTokens {
        self.families += 1;
        let family = self.families;
        let scope = Arc::from(scope);
        let mut tokens = self.begin_session(Some(family), Some(Arc::clone(&scope)), mint);
        if scope::refreshes(&scope) {
            tokens.refresh_token = Some(self.new_refresh_token(family, scope, mint.now));
            self.revoke_oldest_approvals();
        }
        tokens
    }

    /// A session of its own, without a refresh token. Without a scope it is a plain session id.
    pub(crate) fn begin_lone_session(&mut self, scope: Option<&str>, mint: &Mint) -> NewTokens {
        self.begin_session(None, scope.map(Arc::from), mint)
    }

    /// Remembers the id of an assertion; `false` if it has been used before.
    pub(crate) fn take_jti(&mut self, jti: &str) -> bool {
        self.jtis.insert(jti.to_owned())
    }

    /// Whether the user has approved the app: by a refresh token that is still good.
    pub(crate) fn has_approval(&self) -> bool {
        self.grants.values().any(Presentable::is_good)
    }

    /// Takes a refresh token in for processing.
    pub(crate) fn begin_refresh(&mut self, token: &str) -> Result<(), RefreshRefusal> {
        let Some(grant) = self.grants.get_mut(token) else {
            return Err(RefreshRefusal::Dead);
        };
        match grant.standing {
            Standing::Good => {
                grant.standing = Standing::InProcess;
                Ok(())
            }
            Standing::InProcess => Err(RefreshRefusal::InProcess),
            Standing::Revoked => Err(RefreshRefusal::Dead),
            Standing::RotatedOut => {
                let family = grant.family;
                self.revoke_family(family);
                Err(RefreshRefusal::Reused)
            }
        }
    }

    /// Ends the processing that [`begin_refresh`](Self::begin_refresh) began with a new session.
    ///
    /// `None` if the token was revoked in between.
    pub(crate) fn finish_refresh(
        &mut self,
        token: &str,
        rotate: bool,
        mint: &Mint,
    ) -> Option<NewTokens> {
        let grant = self.grants.get_mut(token)?;
        if grant.standing != Standing::InProcess {
            return None;
        }
        grant.standing = if rotate {
            Standing::RotatedOut
        } else {
            Standing::Good
        };
        let family = grant.family;
        let scope = Arc::clone(&grant.scope);
        let mut tokens = self.begin_session(Some(family), Some(Arc::clone(&scope)), mint);
        tokens.refresh_token = rotate.then(|| self.new_refresh_token(family, scope, mint.now));
        Some(tokens)
    }

    /// Undoes [`begin_refresh`](Self::begin_refresh): the caller went away.
    pub(crate) fn abandon_refresh(&mut self, token: &str) {
        if let Some(grant) = self.grants.get_mut(token)
            && grant.standing == Standing::InProcess
        {
            grant.standing = Standing::Good;
        }
    }

    /// Uses a session for one call; `false` if the token is not good.
    pub(crate) fn spend_call(&mut self, access_token: &str, now: u64) -> bool {
        let Some(session) = self.live.get_mut(access_token) else {
            return false;
        };
        let good = session.is_good(now);
        if good {
            session.calls_left = session.calls_left.map(|left| left.saturating_sub(1));
        }
        good
    }

    /// Whether an access token is good for a request that is not counted as a data call.
    pub(crate) fn is_good(&self, access_token: &str, now: u64) -> bool {
        let session = self.live.get(access_token);
        session.is_some_and(|session| session.is_good(now))
    }

    /// What an app may learn about `token`: nothing unless it was granted to the app and is good.
    pub(crate) fn look_up(&self, token: &str, now: u64) -> Option<Known<'_>> {
        if let Some(session) = self.live.get(token) {
            return session.is_good(now).then_some(Known {
                kind: TokenKind::Access,
                scope: session.scope.as_deref()?,
                issued: session.began,
                ends: session.ends,
            });
        }
        let grant = self.grants.get(token).filter(|grant| grant.is_good())?;
        Some(Known {
            kind: TokenKind::Refresh,
            scope: &grant.scope,
            issued: grant.issued,
            ends: None,
        })
    }

    /// Ends a refresh token with all that came of it, or an access token alone; `false` if `token`
    /// is neither.
    pub(crate) fn revoke(&mut self, token: &str) -> bool {
        if self.live.remove(token).is_some() {
            return true;
        }
        let grant = self.grants.get(token).filter(|grant| grant.is_good());
        let Some(family) = grant.map(|grant| grant.family) else {
            return false;
        };
        self.revoke_family(family);
        true
    }

    /// Ends one session; `false` if the token is not good.
    pub(crate) fn end_session(&mut self, access_token: &str, now: u64) -> bool {
        let session = self.live.remove(access_token);
        session.is_some_and(|session| session.is_good(now))
    }

    /// Ends every session. Refresh tokens stay good.
    pub(crate) fn expire_sessions(&mut self) {
        self.live.clear();
    }

    /// Revokes every refresh token. Sessions stay good.
    pub(crate) fn revoke_grants(&mut self) {
        for grant in self.grants.values_mut() {
            grant.standing = Standing::Revoked;
        }
    }

    fn revoke_oldest_approvals(&mut self) {
        let Some(limit) = self.approval_limit else {
            return;
        };
        let good = self.grants.values().filter(|grant| grant.is_good());
        let approved: BTreeSet<u64> = good.map(|grant| grant.family).collect();
        let excess = approved.len().saturating_sub(limit);
        for family in approved.into_iter().take(excess) {
            self.revoke_family(family);
        }
    }

    fn revoke_family(&mut self, family: u64) {
        self.live
            .retain(|_, session| session.family != Some(family));
        for grant in self.grants.values_mut() {
            if grant.family == family {
                grant.standing = Standing::Revoked;
            }
        }
    }

    fn begin_session(
        &mut self,
        family: Option<u64>,
        scope: Option<Arc<str>>,
        mint: &Mint,
    ) -> NewTokens {
        let issued_at = FIRST_ISSUED_AT + 1_000 * self.access_tokens;
        self.access_tokens += 1;
        let serial = Serial {
            org: self.org,
            token: self.access_tokens,
        };
        let Minted { access_token, ends } = mint.access_token(serial, scope.as_deref());
        let session = Session {
            family,
            calls_left: self.calls_per_session,
            scope: scope.clone(),
            began: mint.now,
            ends,
        };
        self.live.insert(access_token.clone(), session);
        NewTokens {
            access_token,
            is_jwt: ends.is_some(),
            refresh_token: None,
            scope,
            issued_at,
        }
    }

    fn new_refresh_token(&mut self, family: u64, scope: Arc<str>, now: u64) -> String {
        self.refresh_tokens += 1;
        let token = format!("5Aep861{:0>11}.{:0>68}", self.org, self.refresh_tokens);
        let grant = Presentable {
            family,
            scope,
            issued: now,
            standing: Standing::Good,
        };
        self.grants.insert(token.clone(), grant);
        token
    }
}

impl Presentable {
    fn is_good(&self) -> bool {
        matches!(self.standing, Standing::Good | Standing::InProcess)
    }
}
