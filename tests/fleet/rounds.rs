//! Rounds with random faults (R33). `FLEET_ROUNDS` sets how many there are, and `FLEET_SEED` repeats those of a seed. With the former,
//! the tests of the same requirement at each step run whole.

use std::{
    env,
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use tokio::{task::JoinSet, time::sleep};

use crate::{
    cut_off::is_saved,
    database::Kind,
    faults::Fault,
    fleet::{Fleet, Settings},
    part::{Order, Step},
    program::Signal,
    random::Random,
};

const PROCESSES: usize = 5;
const TASKS: usize = 3;

/// How many rounds each database has, unless the environment says otherwise.
const ROUNDS: usize = 3;

/// Fleets of each database that run at the same time.
const LANES: usize = 2;

/// The longest fault. With a third of the lease it is shorter than the lease: what a process could not save, it saves first.
const LONGEST_FAULT_MS: usize = 1_200;

/// The steps at which a process has no session that only it knows.
const SAFE: [Step; 3] = [Step::Lock, Step::Locked, Step::Release];

#[derive(Clone, Copy, Debug)]
enum Event {
    None,
    Fails(Fault, Step, Duration),
    /// The process is killed, and another one takes its place.
    Kill(Step),
    /// The process is stopped until the others have a session.
    Stop(Step),
}

impl Event {
    fn random(random: &mut Random) -> Self {
        match random.below(8) {
            0 => Self::None,
            1 => Self::Kill(SAFE[random.below(SAFE.len())]),
            2 => Self::Stop(SAFE[random.below(SAFE.len())]),
            _ => Self::Fails(
                Fault::ALL[random.below(Fault::ALL.len())],
                Step::ALL[random.below(Step::ALL.len())],
                Duration::from_millis(random.below(LONGEST_FAULT_MS) as u64),
            ),
        }
    }
}

/// Whether the tests may take minutes.
pub(crate) fn are_all_wanted() -> bool {
    env::var_os("FLEET_ROUNDS").is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn r33_random_faults_of_redis_lose_no_token() {
    lose_no_token(Kind::Redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r33_random_faults_of_postgres_lose_no_token() {
    lose_no_token(Kind::Postgres).await;
}

async fn lose_no_token(kind: Kind) {
    let number = |name: &str| {
        let value = env::var(name).ok()?;
        Some(value.parse::<u64>().expect("a number"))
    };
    let seed = number("FLEET_SEED").unwrap_or_else(|| RandomState::new().hash_one(kind));
    let rounds = number("FLEET_ROUNDS").map_or(ROUNDS, |rounds| usize::try_from(rounds).unwrap());
    println!("FLEET_SEED={seed}");
    let mut lanes = JoinSet::new();
    for lane in 0..LANES {
        let random = Random(seed.wrapping_add(lane as u64) | 1);
        let rounds = (rounds + lane) / LANES;
        lanes.spawn(run(kind, rounds, random));
    }
    lanes.join_all().await;
}

async fn run(kind: Kind, rounds: usize, mut random: Random) {
    let settings = Settings {
        lease: Duration::from_secs(3),
        lock_timeout: Duration::from_secs(1),
        refresh_timeout: Duration::from_secs(4),
        ..Settings::default()
    };
    let Some(mut fleet) = Fleet::start(kind, PROCESSES, settings).await else {
        return;
    };
    let mut issued = fleet.counters().tokens_issued;
    for round in 0..rounds {
        let event = Event::random(&mut random);
        let victim = random.below(PROCESSES);
        let at = format!("round {round}: {event:?} at process {victim}");
        println!("{at}");
        play(event, victim, &mut fleet, &at).await;
        issued += 1;
        assert_eq!(fleet.counters().tokens_issued, issued, "{at}");
        fleet.assert_no_fault(&at).await;
    }
}

/// The session expires, one process begins to refresh it, and something happens to it or to the database.
async fn play(event: Event, victim: usize, fleet: &mut Fleet, at: &str) {
    for program in &mut fleet.programs {
        program.take_unheard();
    }
    fleet.org.expire_sessions();
    let step = match event {
        Event::None => None,
        Event::Fails(_, step, _) | Event::Kill(step) | Event::Stop(step) => Some(step),
    };
    if let Some(step) = step {
        let program = &mut fleet.programs[victim];
        program.halt_at(step).await;
        program.order(Order::SendUntilGood(TASKS)).await;
        program.is_at(step).await;
    } else {
        fleet.programs[victim]
            .order(Order::SendUntilGood(TASKS))
            .await;
    }
    match event {
        Event::None => others_send(victim, fleet).await,
        Event::Fails(fault, _, duration) => {
            fault.begin(fleet);
            fleet.programs[victim].order(Order::Go).await;
            others_send(victim, fleet).await;
            sleep(duration).await;
            fault.end(fleet);
        }
        Event::Kill(_) => {
            let replacement = fleet.start_program().await;
            let killed = std::mem::replace(&mut fleet.programs[victim], replacement);
            killed.kill().await;
            others_send(victim, fleet).await;
            fleet.programs[victim]
                .order(Order::SendUntilGood(TASKS))
                .await;
        }
        Event::Stop(_) => {
            fleet.programs[victim].signal(Signal::Stop).await;
            others_send(victim, fleet).await;
            others_have_sent(victim, fleet, at).await;
            fleet.programs[victim].signal(Signal::Continue).await;
            fleet.programs[victim].order(Order::Go).await;
            let sent = fleet.programs[victim].sent().await;
            assert_eq!(sent.succeeded, TASKS, "{at}: {sent:?}");
            return;
        }
    }
    for sent in fleet.sent().await {
        assert_eq!(sent.succeeded, TASKS, "{at}: {sent:?}");
        fleet.assert_no_hang(&sent, at);
    }
    is_saved(fleet, at).await;
}

async fn others_send(victim: usize, fleet: &mut Fleet) {
    for (number, program) in fleet.programs.iter_mut().enumerate() {
        if number != victim {
            program.order(Order::SendUntilGood(TASKS)).await;
        }
    }
}

async fn others_have_sent(victim: usize, fleet: &mut Fleet, at: &str) {
    let mut all = Vec::new();
    for (number, program) in fleet.programs.iter_mut().enumerate() {
        if number != victim {
            all.push(program.sent().await);
        }
    }
    for sent in all {
        assert_eq!(sent.succeeded, TASKS, "{at}: {sent:?}");
        fleet.assert_no_hang(&sent, at);
    }
}
