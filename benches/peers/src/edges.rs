//! What goes wrong around a refresh, and what each client makes of it.

use std::time::Duration;

use http::StatusCode;
use tokio::{
    task::{JoinSet, LocalSet, spawn_local},
    time::{Instant, sleep, timeout_at},
};

use crate::{
    clients::{Client, Contender, with_client},
    loopback::{Protocol, current_thread},
    org::{Accepts, LATE_PATH, Org, PATH, Scene},
    page::Page,
};

/// How long a refresh that never ends is watched.
const WATCHED: Duration = Duration::from_secs(65);

const WAITERS: usize = 10;

pub(crate) fn measure(hung: bool, page: &mut Page) {
    for callers in [1, 100] {
        let name =
            format!("new token rejected too, {callers} callers: requests · token calls · status");
        page.row(name.replace("1 callers", "1 caller"), |contender| {
            run(
                contender,
                |contender| with_client!(contender, C => alone(rejected_again::<C>(callers))),
            )
        });
    }
    page.row(
        "late 401 for the old token: token calls · status",
        |contender| {
            run(
                contender,
                |contender| with_client!(contender, C => alone(late::<C>())),
            )
        },
    );
    for (rotates, which) in [(false, "do not rotate"), (true, "rotate")] {
        let name = format!(
            "caller dropped 150 ms into a refresh of 200 ms, refresh tokens {which}: token calls, what a waiter gets"
        );
        page.row(name, |contender| {
            run(
                contender,
                |contender| with_client!(contender, C => alone(dropped::<C>(rotates))),
            )
        });
    }
    if !hung {
        return;
    }
    let cells = all_hung();
    let name = format!(
        "refresh that never ends, {WAITERS} callers, watched for {} s: callers that got an error, when, token calls",
        WATCHED.as_secs()
    );
    page.row(name, |contender| {
        let at = Contender::REFRESHING
            .iter()
            .position(|one| *one == contender)?;
        Some(cells[at].clone())
    });
}

/// Runs the edge for those that replace a rejected session.
fn run(contender: Contender, edge: impl Fn(Contender) -> String) -> Option<String> {
    Contender::REFRESHING
        .contains(&contender)
        .then(|| edge(contender))
}

fn alone(edge: impl Future<Output = String>) -> String {
    LocalSet::new().block_on(&current_thread(), edge)
}

async fn connect<C: Client>(org: &Org) -> C {
    C::connect(&org.origin(), Protocol::Http2)
        .await
        .expect("a client")
}

/// The org accepts no token at all.
async fn rejected_again<C: Client>(callers: usize) -> String {
    let org = Org::serve(Scene {
        callers,
        accepts: Accepts::None,
        ..Scene::default()
    });
    let client: C = connect(&org).await;
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let call = client.get(PATH);
        tasks.spawn_local(async move { outcome(&call.await) });
    }
    let mut outcomes = tasks.join_all().await;
    outcomes.sort();
    outcomes.dedup();
    format!(
        "{} · {} · {}",
        org.requests(),
        org.token_calls(),
        outcomes.join(" or ")
    )
}

/// One caller's rejection arrives after another caller has refreshed.
async fn late<C: Client>() -> String {
    let org = Org::serve(Scene::default());
    let client: C = connect(&org).await;
    let late = spawn_local(client.get(LATE_PATH));
    org.late_arrival().await;
    let other = client.get(PATH).await;
    assert_eq!(outcome(&other), "200", "of the caller that refreshes");
    org.release();
    let late = late.await.expect("no panic");
    format!("{} · {}", org.token_calls(), outcome(&late))
}

/// The caller that began a refresh gives up, and another one waits for it.
async fn dropped<C: Client>(rotates: bool) -> String {
    let org = Org::serve(Scene {
        token_call: Some(Duration::from_millis(200)),
        rotates,
        ..Scene::default()
    });
    let client: C = connect(&org).await;
    let start = Instant::now();
    let dropped = spawn_local(client.get(PATH));
    while org.token_calls() == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    let waiter = spawn_local(client.get(PATH));
    sleep(Duration::from_millis(150).saturating_sub(start.elapsed())).await;
    dropped.abort();
    let waited = waiter.await.expect("no panic");
    let took = start.elapsed().as_millis();
    format!(
        "{}, {} after {took} ms",
        org.token_calls(),
        outcome(&waited)
    )
}

/// All of them at once, so that the time passes once.
fn all_hung() -> Vec<String> {
    LocalSet::new().block_on(&current_thread(), async {
        let all = Contender::REFRESHING.map(|contender| {
            eprintln!(
                "a refresh that never ends: {}, {} s for all",
                contender.name(),
                WATCHED.as_secs()
            );
            with_client!(contender, C => spawn_local(hung::<C>()))
        });
        let mut cells = Vec::new();
        for one in all {
            cells.push(one.await.expect("no panic"));
        }
        cells
    })
}

/// The token endpoint takes the request, and never answers.
async fn hung<C: Client>() -> String {
    let org = Org::serve(Scene {
        token_call: None,
        ..Scene::default()
    });
    let client: C = connect(&org).await;
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..WAITERS {
        let call = client.get(PATH);
        tasks.spawn_local(async move {
            let _ = call.await;
            start.elapsed().as_secs_f64()
        });
    }
    let mut ended = Vec::new();
    while let Ok(Some(Ok(at))) = timeout_at(start + WATCHED, tasks.join_next()).await {
        ended.push(at);
    }
    let when = match *ended.as_slice() {
        [] => "–".to_string(),
        [only] => format!("{only:.0} s"),
        [first, .., last] if last - first < 1.0 => format!("{last:.0} s"),
        [first, .., last] => format!("{first:.0} to {last:.0} s"),
    };
    format!(
        "{} of {WAITERS}, {when}, {}",
        ended.len(),
        org.token_calls()
    )
}

fn outcome<E>(answer: &Result<StatusCode, E>) -> String {
    match answer {
        Ok(status) => status.as_str().to_string(),
        Err(_) => "an error".to_string(),
    }
}
