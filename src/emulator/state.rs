//! Everything an org remembers.

use super::app::App;
use super::clock::Clock;
use super::codes::Codes;
use super::counters::Counters;
use super::devices::Devices;
use super::ingest::Jobs;
use super::mint::Mint;
use super::records::Records;
use super::sessions::Sessions;
use super::user::{LoginRefusal, ORG_ID, USER_ID, User};

/// The state behind an org's one mutex. It is never locked across an await.
pub(super) struct State {
    /// Where data calls go, as told in token answers.
    pub(super) instance_url: String,
    /// Where tokens come from.
    pub(super) login_url: String,
    pub(super) rotate_refresh_tokens: bool,
    /// How much of a rejected request's body is read; `None` for all of it.
    pub(super) answer_early: Option<usize>,
    /// The least number of bytes in the body of a 401.
    pub(super) error_body_size: usize,
    /// What every session is refused with, if it is refused.
    pub(super) refusal_of_sessions: Option<String>,
    pub(super) controls_exposed: bool,
    pub(super) clock: Clock,
    pub(super) app: App,
    pub(super) user: User,
    pub(super) codes: Codes,
    pub(super) devices: Devices,
    pub(super) sessions: Sessions,
    pub(super) records: Records,
    pub(super) jobs: Jobs,
    pub(super) counters: Counters,
}

impl State {
    pub(super) fn new(url: &str) -> Self {
        let sessions = Sessions::new();
        Self {
            instance_url: url.to_owned(),
            login_url: url.to_owned(),
            rotate_refresh_tokens: true,
            answer_early: None,
            error_body_size: 0,
            refusal_of_sessions: None,
            controls_exposed: false,
            clock: Clock::system(),
            app: App::new(),
            user: User::new(),
            codes: Codes::new(sessions.org),
            devices: Devices::new(sessions.org),
            sessions,
            records: Records::new(),
            jobs: Jobs::default(),
            counters: Counters::default(),
        }
    }

    /// How access tokens issued `now` are made.
    pub(super) fn mint(&self, now: u64) -> Mint {
        Mint {
            now,
            jwt_issuer: self.app.issues_jwts.then(|| self.login_url.clone()),
        }
    }

    /// The identity URL of the org's one user.
    pub(super) fn identity_url(&self) -> String {
        format!("{}/id/{ORG_ID}/{USER_ID}", self.login_url)
    }

    /// Takes the user through the login gate, and counts how that ended.
    pub(super) fn log_in(
        &mut self,
        login: impl FnOnce(&mut User) -> Result<(), LoginRefusal>,
    ) -> Result<(), LoginRefusal> {
        let entered = login(&mut self.user);
        match entered {
            Ok(()) => self.counters.logins += 1,
            Err(_) => self.counters.failed_logins += 1,
        }
        entered
    }
}
