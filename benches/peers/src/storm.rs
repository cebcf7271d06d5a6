//! Many callers meet an expired session at the same moment, over one HTTP/2 connection.

use std::time::Duration;

use http::StatusCode;
use tokio::{
    task::{LocalSet, spawn_local},
    time::{Instant, timeout_at},
};

use crate::{
    clients::{Client, Contender, with_client},
    figures::{grouped, quartiles},
    loopback::{Protocol, current_thread},
    org::{Org, PATH, Scene},
    page::Page,
};

/// When callers that wait have failed.
const LIMIT: Duration = Duration::from_secs(60);

/// What one storm came to.
#[derive(Clone, Copy)]
struct Storm {
    /// Until the last caller was served.
    took: Duration,
    token_calls: usize,
    failures: usize,
}

pub(crate) fn measure(callers: usize, rounds: usize, page: &mut Page) {
    const COUNT: usize = Contender::REFRESHING.len();
    // By contender, and then by round.
    let mut storms = [const { Vec::new() }; COUNT];
    for round in 0..rounds {
        eprintln!("storm of {callers} callers: round {}", round + 1);
        for turn in 0..COUNT {
            let which = (round + turn) % COUNT;
            let contender = Contender::REFRESHING[which];
            storms[which].push(with_client!(contender, C => storm::<C>(callers)));
        }
    }
    let of = |contender| {
        let at = Contender::REFRESHING
            .iter()
            .position(|one| *one == contender)?;
        Some(&storms[at])
    };
    let [by_hand, ..] = &storms;
    let storm = format!(
        "storm over HTTP/2, {} callers",
        grouped(callers.try_into().unwrap_or(i64::MAX))
    );
    page.row(format!("{storm}: ms (median of {rounds})"), |one| {
        let [_, ms, _] = quartiles(
            of(one)?
                .iter()
                .map(|storm| storm.took.as_secs_f64() * 1e3)
                .collect(),
        );
        Some(format!("{ms:.0}"))
    });
    page.row(
        format!("{storm}: time over retry by hand (quartiles)"),
        |one| {
            let pairs = of(one)?.iter().zip(by_hand);
            let ratios =
                pairs.map(|(one, by_hand)| one.took.as_secs_f64() / by_hand.took.as_secs_f64());
            let [first, middle, third] = quartiles(ratios.collect());
            Some(match one {
                Contender::RetryByHand => "1.00".to_string(),
                _ => format!("{middle:.2} ({first:.2}..{third:.2})"),
            })
        },
    );
    page.row(
        format!("{storm}: token calls · failures, worst round"),
        |one| {
            let token_calls = of(one)?.iter().map(|storm| storm.token_calls).max()?;
            let failures = of(one)?.iter().map(|storm| storm.failures).max()?;
            Some(format!("{token_calls} · {failures}"))
        },
    );
}

/// Runs one storm with a new client and org.
fn storm<C: Client>(callers: usize) -> Storm {
    let org = Org::serve(Scene {
        callers,
        ..Scene::default()
    });
    let (took, failures) = LocalSet::new().block_on(&current_thread(), async {
        let client = C::connect(&org.origin(), Protocol::Http2)
            .await
            .expect("a client");
        // Their requests are made before.
        let ready: Vec<_> = (0..callers).map(|_| client.get(PATH)).collect();
        let start = Instant::now();
        let tasks: Vec<_> = ready
            .into_iter()
            .map(|caller| {
                spawn_local(async move {
                    let is_served = matches!(caller.await, Ok(StatusCode::OK));
                    is_served.then(Instant::now)
                })
            })
            .collect();
        let mut served = Vec::new();
        for task in tasks {
            if let Ok(Ok(Some(at))) = timeout_at(start + LIMIT, task).await {
                served.push(at - start);
            }
        }
        let failures = callers - served.len();
        (served.into_iter().max().unwrap_or(LIMIT), failures)
    });
    Storm {
        took,
        token_calls: org.token_calls(),
        failures,
    }
}
