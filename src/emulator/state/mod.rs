//! The state of an org.

pub(super) mod app;
pub(super) mod backend;
pub(super) mod bulk_jobs;
pub(super) mod clock;
pub(super) mod codes;
pub(super) mod counters;
pub(super) mod cursors;
pub(super) mod decision;
pub(super) mod devices;
pub(super) mod dpop;
pub(super) mod ids;
pub(super) mod jobs;
pub(super) mod keys;
pub(super) mod mint;
pub(super) mod records;
pub(super) mod schema;
pub(super) mod sessions;
pub(super) mod upload;
pub(super) mod user;

use self::app::ConnectedApp;
use self::bulk_jobs::BulkJobs;
use self::clock::OrgClock;
use self::codes::Codes;
use self::counters::Counters;
use self::cursors::Cursors;
use self::devices::Devices;
use self::dpop::Dpop;
use self::ids::{ORG_ID, USER_ID};
use self::jobs::Jobs;
use self::mint::Mint;
use self::records::{Record, Records};
use self::schema::USER;
use self::sessions::SessionTable;
use self::user::{LoginRefusal, User};

/// The state of an org. No lock on it lives across an await.
pub(crate) struct OrgState {
    /// The base URL of data calls, reported in token answers.
    pub(crate) instance_url: String,
    /// The base URL of the OAuth endpoints.
    pub(crate) login_url: String,
    pub(crate) rotate_refresh_tokens: bool,
    /// How much of the body of a rejected request the org reads. `None` for all of it.
    pub(crate) answer_early: Option<usize>,
    /// The minimum length of the body of a 401.
    pub(crate) error_body_size: usize,
    /// The message for every session. `None` unless the org refuses all sessions.
    pub(crate) refusal_of_sessions: Option<String>,
    pub(crate) controls_exposed: bool,
    pub(crate) clock: OrgClock,
    pub(crate) app: ConnectedApp,
    pub(crate) dpop: Dpop,
    pub(crate) user: User,
    pub(crate) codes: Codes,
    pub(crate) devices: Devices,
    pub(crate) sessions: SessionTable,
    pub(crate) records: Records,
    pub(crate) cursors: Cursors,
    pub(crate) jobs: Jobs,
    pub(crate) bulk_jobs: BulkJobs,
    pub(crate) counters: Counters,
}

impl OrgState {
    pub(crate) fn new(url: &str, password: &str) -> Self {
        let sessions = SessionTable::new();
        Self {
            instance_url: url.to_owned(),
            login_url: url.to_owned(),
            rotate_refresh_tokens: true,
            answer_early: None,
            error_body_size: 0,
            refusal_of_sessions: None,
            controls_exposed: false,
            clock: OrgClock::system(),
            app: ConnectedApp::new(),
            dpop: Dpop::default(),
            user: User::new(password),
            codes: Codes::new(sessions.org),
            devices: Devices::new(sessions.org),
            sessions,
            records: Records::new(),
            cursors: Cursors::default(),
            jobs: Jobs::default(),
            bulk_jobs: BulkJobs::default(),
            counters: Counters::default(),
        }
    }

    /// The settings for access tokens issued `now`.
    pub(crate) fn mint(&self, now: u64) -> Mint {
        Mint {
            now,
            jwt_issuer: self.app.issues_jwts.then(|| self.login_url.clone()),
            key: None,
        }
    }

    /// The identity URL of the user.
    pub(crate) fn identity_url(&self) -> String {
        format!("{}/id/{ORG_ID}/{USER_ID}", self.login_url)
    }

    /// Deactivates or reactivates the user, and says so in the user's record.
    pub(crate) fn set_active(&mut self, active: bool) {
        self.user.active = active;
        let change = Record::from_iter([("IsActive".to_owned(), active.into())]);
        self.records.update(&USER, USER_ID, change);
    }

    /// Runs `login` on the user and counts the result.
    pub(crate) fn log_in(
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
