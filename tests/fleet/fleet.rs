//! Processes on one database, with one strict authorization server and a network between.

use std::time::Duration;

use tower_salesforce_auth::emulator::{Counters, Fault, Org, Served};

use crate::{
    database::{Database, Kind},
    part::{Counts, Part, Sent},
    program::Program,
    proxy::Proxy,
};

/// How much longer than its limit a request may take on a busy machine.
pub(crate) const SLACK: Duration = Duration::from_secs(4);

/// What the processes of a fleet are told.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) follows: bool,
    pub(crate) lease: Duration,
    pub(crate) lock_timeout: Duration,
    pub(crate) refresh_timeout: Duration,
    /// How long a token call takes.
    pub(crate) token_call: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            follows: false,
            lease: Duration::from_secs(15),
            lock_timeout: Duration::from_secs(10),
            refresh_timeout: Duration::from_secs(30),
            token_call: Duration::from_millis(20),
        }
    }
}

pub(crate) struct Fleet {
    pub(crate) org: Org,
    pub(crate) database: Database,
    pub(crate) proxy: Proxy,
    pub(crate) programs: Vec<Program>,
    pub(crate) settings: Settings,
    part: Part,
    _served: Served,
}

impl Fleet {
    /// Starts a server and processes, which log in: one of them with a token call. `None` if the server is not installed.
    pub(crate) async fn start(kind: Kind, processes: usize, settings: Settings) -> Option<Self> {
        let database = Database::start(kind)?;
        database.prepare().await;
        let proxy = Proxy::start(database.address()).await;
        let org = Org::new();
        let served = org.serve().await.unwrap();
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap();
        let part = Part {
            store_url: database.url_at(proxy.address()),
            login_url: org.login_url(),
            client_id: org.client_id().to_owned(),
            client_secret: org.client_secret().to_owned(),
            refresh_token: org.authorize().refresh_token().to_owned(),
            follows: settings.follows,
            lease_ms: ms(settings.lease),
            lock_timeout_ms: ms(settings.lock_timeout),
            refresh_timeout_ms: ms(settings.refresh_timeout),
        };
        org.on_token(Fault::Delay(settings.token_call));
        let mut fleet = Self {
            org,
            database,
            proxy,
            programs: Vec::new(),
            settings,
            part,
            _served: served,
        };
        for _ in 0..processes {
            let program = fleet.start_program().await;
            fleet.programs.push(program);
        }
        for sent in fleet.send_until_good(1).await {
            assert_eq!(sent.succeeded, 1, "{sent:?}");
        }
        assert_eq!(fleet.counters().tokens_issued, 1);
        Some(fleet)
    }

    pub(crate) async fn start_program(&self) -> Program {
        Program::start(&self.part).await
    }

    pub(crate) fn counters(&self) -> Counters {
        self.org.counters()
    }

    /// All processes send this many requests at once.
    pub(crate) async fn send(&mut self, requests: usize) -> Vec<Sent> {
        for program in &mut self.programs {
            program.order(crate::part::Order::Send(requests)).await;
        }
        self.sent().await
    }

    /// All processes send until each of their tasks succeeds.
    pub(crate) async fn send_until_good(&mut self, tasks: usize) -> Vec<Sent> {
        for program in &mut self.programs {
            program
                .order(crate::part::Order::SendUntilGood(tasks))
                .await;
        }
        self.sent().await
    }

    pub(crate) async fn sent(&mut self) -> Vec<Sent> {
        let mut all = Vec::new();
        for program in &mut self.programs {
            all.push(program.sent().await);
        }
        all
    }

    /// What all processes have done.
    pub(crate) async fn counts(&mut self) -> Counts {
        let mut total = Counts::default();
        for program in &mut self.programs {
            let counts = program.counts().await;
            total.loads += counts.loads;
            total.locks += counts.locks;
            total.calls += counts.calls;
            total.unlocked_calls += counts.unlocked_calls;
            total.saves += counts.saves;
            total.renewed += counts.renewed;
            total.adoptions += counts.adoptions;
        }
        total
    }

    /// No refresh token was presented twice, and no token call began without the lock.
    pub(crate) async fn assert_no_fault(&mut self, at: &str) {
        let counters = self.counters();
        assert_eq!(
            (
                counters.refresh_token_reuses,
                counters.concurrent_refreshes,
                counters.token_refusals,
            ),
            (0, 0, 0),
            "reuses, concurrent refreshes and refusals: {at}"
        );
        assert_eq!(self.counts().await.unlocked_calls, 0, "{at}");
    }

    /// No request took longer than the refresh timeout. A request is sent at most twice, and waits for one refresh.
    pub(crate) fn assert_no_hang(&self, sent: &Sent, at: &str) {
        let limit = self.settings.refresh_timeout + SLACK;
        assert!(
            u128::from(sent.slowest_ms) <= limit.as_millis(),
            "{sent:?}: {at}"
        );
    }
}
