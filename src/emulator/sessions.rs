//! Which tokens are good: the bookkeeping of grants and sessions, without I/O.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// `issued_at` of the first token, in milliseconds since the Unix epoch.
const FIRST_ISSUED_AT: u64 = 1_750_000_000_000;

/// Tokens are numbered, so two orgs of one process would issue the same ones. A client that sends
/// one org's token to the other must be caught: each org writes its own number into its tokens.
static ORGS: AtomicU64 = AtomicU64::new(1);

/// Every token of one org.
pub(super) struct Sessions {
    org: u64,
    access_tokens: u64,
    refresh_tokens: u64,
    families: u64,
    /// How many calls each access token issued from now on is good for.
    pub(super) calls_per_session: Option<u64>,
    live: HashMap<String, Session>,
    grants: HashMap<String, Presentable>,
}

struct Session {
    /// `None` for a session that no refresh token can outlive: client credentials.
    family: Option<u64>,
    calls_left: Option<u64>,
}

struct Presentable {
    family: u64,
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
pub(super) struct NewTokens {
    pub(super) access_token: String,
    pub(super) refresh_token: Option<String>,
    /// Milliseconds since the Unix epoch.
    pub(super) issued_at: u64,
}

/// Why a refresh token was refused.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum RefreshRefusal {
    /// Unknown or revoked.
    Dead,
    /// Rotated out earlier. Its family is revoked by now.
    Reused,
    /// Another request with this token has not been answered yet.
    InProcess,
}

impl Sessions {
    pub(super) fn new() -> Self {
        Self {
            org: ORGS.fetch_add(1, Ordering::Relaxed),
            access_tokens: 0,
            refresh_tokens: 0,
            families: 0,
            calls_per_session: None,
            live: HashMap::new(),
            grants: HashMap::new(),
        }
    }

    /// A new family: a session and the refresh token to go on with.
    pub(super) fn authorize(&mut self) -> (NewTokens, String) {
        self.families += 1;
        let family = self.families;
        let tokens = self.begin_session(Some(family));
        (tokens, self.new_refresh_token(family))
    }

    /// A session of its own, without a refresh token.
    pub(super) fn begin_lone_session(&mut self) -> NewTokens {
        self.begin_session(None)
    }

    /// Takes a refresh token in for processing.
    pub(super) fn begin_refresh(&mut self, token: &str) -> Result<(), RefreshRefusal> {
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
    pub(super) fn finish_refresh(&mut self, token: &str, rotate: bool) -> Option<NewTokens> {
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
        let mut tokens = self.begin_session(Some(family));
        tokens.refresh_token = rotate.then(|| self.new_refresh_token(family));
        Some(tokens)
    }

    /// Undoes [`begin_refresh`](Self::begin_refresh): the caller went away.
    pub(super) fn abandon_refresh(&mut self, token: &str) {
        if let Some(grant) = self.grants.get_mut(token)
            && grant.standing == Standing::InProcess
        {
            grant.standing = Standing::Good;
        }
    }

    /// Uses a session for one call; `false` if the token is not good.
    pub(super) fn spend_call(&mut self, access_token: &str) -> bool {
        let Some(session) = self.live.get_mut(access_token) else {
            return false;
        };
        match &mut session.calls_left {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }

    /// Ends every session. Refresh tokens stay good.
    pub(super) fn expire_sessions(&mut self) {
        self.live.clear();
    }

    /// Revokes every refresh token. Sessions stay good.
    pub(super) fn revoke_grants(&mut self) {
        for grant in self.grants.values_mut() {
            grant.standing = Standing::Revoked;
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

    fn begin_session(&mut self, family: Option<u64>) -> NewTokens {
        let issued_at = FIRST_ISSUED_AT + 1_000 * self.access_tokens;
        self.access_tokens += 1;
        // As long as the real ones, so that a measurement with them means something.
        let access_token = format!(
            "00Dxx0000001gEF!AQEAQ{:0>11}.{:0>79}",
            self.org, self.access_tokens
        );
        let session = Session {
            family,
            calls_left: self.calls_per_session,
        };
        self.live.insert(access_token.clone(), session);
        NewTokens {
            access_token,
            refresh_token: None,
            issued_at,
        }
    }

    fn new_refresh_token(&mut self, family: u64) -> String {
        self.refresh_tokens += 1;
        let token = format!("5Aep861{:0>11}.{:0>68}", self.org, self.refresh_tokens);
        let grant = Presentable {
            family,
            standing: Standing::Good,
        };
        self.grants.insert(token.clone(), grant);
        token
    }
}
