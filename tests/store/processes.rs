//! Several processes with one session and one refresh token (R7).

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http::StatusCode;
use serde_json::json;
use tokio::task::JoinSet;
use tower_salesforce_auth::{
    SalesforceAuthLayer, SessionHandle,
    emulator::Org,
    observer::{Observer, RefreshStarted, SessionAdopted, StoreFailed},
    store::FileStore,
};

use crate::support::{Program, flow, get_limits, listen, part, say};

const PROCESSES: usize = 5;
const TASKS: usize = 30;

#[tokio::test(flavor = "multi_thread")]
async fn r07_processes_that_share_a_store_refresh_once() {
    let org = Org::new();
    let served = org.serve().await.unwrap();
    let grant = org.authorize();
    let directory = tempfile::tempdir().unwrap();
    let part = json!({ "refresh_token": grant.refresh_token() });
    let mut programs: Vec<_> = (0..PROCESSES)
        .map(|_| Program::start("processes::worker", &org, directory.path(), &part))
        .collect();

    // All processes log in at once, with the same refresh token and an empty store.
    for program in &mut programs {
        assert_eq!(program.hear().await, "ready");
    }
    for program in &mut programs {
        program.write("log in").await;
    }
    let mut token_calls = 0;
    let mut adoptions = 0;
    for program in &mut programs {
        let (called, adopted) = report(&program.hear().await, 1);
        token_calls += called;
        adoptions += adopted;
    }
    assert_eq!((token_calls, adoptions), (1, PROCESSES - 1));
    assert_eq!(org.counters().tokens_issued, 1);

    // The session expires for all processes, three times.
    for round in 2..5 {
        org.expire_sessions();
        for program in &mut programs {
            program.write("go").await;
        }
        for program in &mut programs {
            let (called, adopted) = report(&program.hear().await, TASKS);
            token_calls += called;
            adoptions += adopted;
        }
        let counters = org.counters();
        assert_eq!((token_calls, counters.tokens_issued), (round, round as u64));
        assert_eq!(adoptions, round * (PROCESSES - 1));
        assert_eq!(
            (
                counters.token_refusals,
                counters.refresh_token_reuses,
                counters.concurrent_refreshes
            ),
            (0, 0, 0)
        );
    }
    for program in programs {
        program.end().await;
    }
    let left: Vec<_> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(
        matches!(&left[..], [record] if record.to_string_lossy().ends_with(".json")),
        "{left:?}"
    );
    served.shutdown().await;
}

/// The token calls and adoptions of a worker since its last report.
fn report(said: &str, requests: usize) -> (usize, usize) {
    let mut numbers = said
        .split(' ')
        .map(|number| number.parse::<usize>().unwrap());
    let mut next = || numbers.next().unwrap();
    assert_eq!(next(), requests, "{said}");
    (next(), next())
}

#[derive(Default)]
struct Counts {
    token_calls: AtomicUsize,
    adoptions: AtomicUsize,
}

struct Counting(Arc<Counts>);

impl Observer for Counting {
    fn refresh_started(&self, _: &RefreshStarted) {
        self.0.token_calls.fetch_add(1, Ordering::SeqCst);
    }

    fn session_adopted(&self, _: &SessionAdopted) {
        self.0.adoptions.fetch_add(1, Ordering::SeqCst);
    }

    fn store_failed(&self, event: &StoreFailed) {
        panic!("{event:?}");
    }
}

/// Sends one request, then `TASKS` at a time, whenever it gets a line. Prints the successes, token calls and adoptions.
#[tokio::test]
#[ignore = "a process of another test"]
async fn worker() {
    let Some(part) = part() else { return };
    let store = FileStore::open(part["directory"].as_str().unwrap()).unwrap();
    let counts = Arc::new(Counts::default());
    let handle = SessionHandle::builder(flow(&part))
        .store(store, "one for all")
        .observer(Counting(counts.clone()))
        .build();
    let layer = SalesforceAuthLayer::from(handle);
    say("ready");
    for tasks in [1, TASKS, TASKS, TASKS] {
        listen().await;
        let mut requests = JoinSet::new();
        for _ in 0..tasks {
            let layer = layer.clone();
            requests.spawn(async move { get_limits(&layer).await.unwrap() });
        }
        let answers = requests.join_all().await;
        let succeeded = answers
            .iter()
            .filter(|status| **status == StatusCode::OK)
            .count();
        let take = |count: &AtomicUsize| count.swap(0, Ordering::SeqCst);
        say(format_args!(
            "{succeeded} {} {}",
            take(&counts.token_calls),
            take(&counts.adoptions)
        ));
    }
}
