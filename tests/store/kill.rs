//! Processes that are killed during a refresh (R6).

use std::{
    future::pending,
    hash::{BuildHasher, RandomState},
    path::Path,
    time::Duration,
};

use http::StatusCode;
use serde_json::json;
use tokio::time::Instant;
use tower_salesforce_auth::{
    RefreshContext, RefreshError, RefreshFn, Session,
    emulator::Org,
    flow::RefreshToken,
    store::{BoxFuture, FileStore, Record, Save, SessionStore, StoreError, StoreLock},
};

use crate::{
    random::Random,
    support::{
        KEY, Program, app, client, flow, get_limits, part, refresh_token, save, say, session,
        stored, storing,
    },
};

/// Where a process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    BeforeTokenCall,
    BeforeSave,
    DuringSave,
    BeforeUnlock,
}

const STEPS: [Step; 4] = [
    Step::BeforeTokenCall,
    Step::BeforeSave,
    Step::DuringSave,
    Step::BeforeUnlock,
];

const KILLS: usize = 200;

/// The number of orgs, each with its own store, that are tested in parallel.
const LANES: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn r06_a_killed_process_leaves_a_usable_store() {
    let seed = RandomState::new().hash_one(KILLS);
    println!("seed {seed}");
    let mut lanes = tokio::task::JoinSet::new();
    for lane in 0..LANES {
        let random = Random(seed.wrapping_add(lane as u64) | 1);
        lanes.spawn(kill_again_and_again(random, KILLS / LANES));
    }
    let mut lost = [0; STEPS.len()];
    let mut killed = [0; STEPS.len()];
    let mut saves = Vec::new();
    for lane in lanes.join_all().await {
        for step in 0..STEPS.len() {
            killed[step] += lane.killed[step];
            lost[step] += lane.lost[step];
        }
        saves.extend(lane.saves);
    }
    saves.sort_unstable();
    println!("killed {killed:?}, of these with the grant lost {lost:?} (seed {seed})");
    println!(
        "a save took {} us, in the middle of {}",
        saves[saves.len() / 2],
        saves.len()
    );
    assert_eq!(killed.iter().sum::<usize>(), KILLS);
    // A grant is lost only between the rotation at the server and the save on disk, which no client can prevent.
    assert_eq!(lost[0], 0);
    assert_eq!(lost[1], killed[1]);
    assert_eq!(lost[3], 0);
}

#[derive(Default)]
struct Toll {
    killed: [usize; STEPS.len()],
    lost: [usize; STEPS.len()],
    /// The durations of saves, in microseconds.
    saves: Vec<u64>,
}

async fn kill_again_and_again(mut random: Random, kills: usize) -> Toll {
    let org = Org::new();
    let served = org.serve().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::open(directory.path())
        .unwrap()
        .lock_timeout(Duration::ZERO);
    save(&store, session(&org.authorize())).await;
    let mut toll = Toll::default();
    for _ in 0..kills {
        let step = STEPS[random.below(STEPS.len())];
        let before = stored(&store).await.unwrap();
        org.expire_sessions();
        let saved_in = kill_at(step, &org, directory.path(), &mut random).await;
        toll.saves.extend(saved_in);
        toll.killed[step as usize] += 1;

        // The record can be loaded and locked at once.
        let after = stored(&store).await.unwrap();
        store.lock(KEY).await.unwrap().unlock().await;
        let is_saved = refresh_token(&before) != refresh_token(&after);
        match step {
            Step::BeforeTokenCall | Step::BeforeSave => assert!(!is_saved),
            Step::DuringSave => {}
            Step::BeforeUnlock => assert!(is_saved),
        }

        // The next refresh succeeds, unless the server has rotated and the disk has not.
        let is_rotated = step != Step::BeforeTokenCall;
        let layer = storing(
            store.clone(),
            RefreshToken::new(client(), app(&org), "none"),
        );
        org.expire_sessions();
        let answer = get_limits(&layer).await;
        if is_rotated && !is_saved {
            answer.unwrap_err();
            toll.lost[step as usize] += 1;
            // The user then has to authorize the app again.
            save(&store, session(&org.authorize())).await;
        } else {
            assert_eq!(answer.unwrap(), StatusCode::OK, "killed {step:?}");
        }
    }
    served.shutdown().await;
    toll
}

/// Kills a process at a step. Returns how many microseconds its save took, if it saved.
async fn kill_at(step: Step, org: &Org, directory: &Path, random: &mut Random) -> Option<u64> {
    let part = json!({ "step": format!("{step:?}") });
    let mut victim = Program::start("kill::victim", org, directory, &part);
    let mut window = None;
    if step == Step::BeforeUnlock {
        window = victim.hear().await.parse().ok();
    }
    assert_eq!(victim.hear().await, format!("{step:?}"));
    if step == Step::DuringSave {
        // The kill comes before, during or after the save, which takes some milliseconds.
        let after = Instant::now() + Duration::from_micros(random.below(12_000) as u64);
        while Instant::now() < after {
            std::hint::spin_loop();
        }
    }
    victim.kill().await;
    window
}

/// Sends a request, and stops at a step of its refresh.
#[tokio::test]
#[ignore = "a process of another test"]
async fn victim() {
    let Some(part) = part() else { return };
    let name = part["part"]["step"].as_str().unwrap();
    let halt = Halt(
        STEPS
            .into_iter()
            .find(|step| format!("{step:?}") == name)
            .unwrap(),
    );
    let store = FileStore::open(part["directory"].as_str().unwrap()).unwrap();
    let login = Halting {
        inner: flow(&part),
        halt,
    };
    let layer = storing(Halting { inner: store, halt }, login);
    get_limits(&layer).await.unwrap();
    // The process saved before it was killed.
    assert_eq!(halt.0, Step::DuringSave);
    pending::<()>().await;
}

#[derive(Clone, Copy)]
struct Halt(Step);

impl Halt {
    async fn at(self, step: Step) {
        if self.0 == step {
            say(format_args!("{step:?}"));
            if step != Step::DuringSave {
                pending::<()>().await;
            }
        }
    }
}

struct Halting<T> {
    inner: T,
    halt: Halt,
}

impl<F: RefreshFn> RefreshFn for Halting<F> {
    async fn refresh(&self, context: RefreshContext) -> Result<Session, RefreshError> {
        self.halt.at(Step::BeforeTokenCall).await;
        self.inner.refresh(context).await
    }
}

impl<S: SessionStore> SessionStore for Halting<S> {
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        self.inner.load(key)
    }

    fn lock<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Box<dyn StoreLock>, StoreError>> {
        Box::pin(async move {
            let inner = self.inner.lock(key).await?;
            let lock: Box<dyn StoreLock> = Box::new(Halting {
                inner,
                halt: self.halt,
            });
            Ok(lock)
        })
    }
}

impl StoreLock for Halting<Box<dyn StoreLock>> {
    fn load(&mut self) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        self.inner.load()
    }

    fn save<'a>(&'a mut self, save: Save<'a>) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.halt.at(Step::BeforeSave).await;
            self.halt.at(Step::DuringSave).await;
            let since = Instant::now();
            self.inner.save(save).await?;
            if self.halt.0 == Step::BeforeUnlock {
                say(since.elapsed().as_micros());
            }
            self.halt.at(Step::BeforeUnlock).await;
            Ok(())
        })
    }

    fn delete(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.delete()
    }
}
