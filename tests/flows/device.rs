//! The device flow and its polling rules.

use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;
use tower_salesforce_auth::{
    RefreshErrorKind,
    emulator::{Fault, Org},
    flow::DeviceFlow,
};

use crate::support::app;

#[tokio::test(start_paused = true)]
async fn it_asks_at_the_interval_until_the_user_has_decided() {
    let org = Org::new();
    let flow = DeviceFlow::new(org.clone(), app(&org)).scope("api refresh_token");
    let code = flow.begin().await.unwrap();
    assert_eq!(code.interval(), Duration::from_secs(5));
    assert_eq!(code.expires_in(), Duration::from_secs(600));
    let complete = code.verification_uri_complete();
    assert!(
        complete.ends_with(&format!("/setup/connect?user_code={}", code.user_code())),
        "{complete}"
    );
    let started = Instant::now();
    let before = org.counters().token_requests;
    let waiting = tokio::spawn({
        let (flow, code) = (flow.clone(), code.clone());
        async move { flow.wait(&code).await }
    });
    tokio::time::sleep(Duration::from_secs(21)).await;
    assert_eq!(org.counters().token_requests, before + 4);
    assert!(org.approve_device(code.user_code()));
    let session = waiting.await.unwrap().unwrap();
    assert_eq!(started.elapsed().as_secs(), 25);
    assert!(session.refresh_token().is_some());
}

#[tokio::test(start_paused = true)]
async fn it_asks_less_often_when_told_so_or_when_nobody_answers() {
    let org = Org::new();
    let flow = DeviceFlow::new(org.clone(), app(&org));
    let code = flow.begin().await.unwrap();
    let refusals = [
        Fault::refuse(StatusCode::BAD_REQUEST, "slow_down", "asked too often"),
        Fault::Maintenance,
        Fault::LoseAnswer,
        Fault::None,
    ];
    assert!(!org.approve_device("none"));
    let mut asked_at = Vec::new();
    let started = Instant::now();
    let waiting = flow.wait(&code);
    tokio::pin!(waiting);
    for fault in refusals {
        let before = org.counters().token_requests;
        org.on_token(fault.clone());
        if fault == Fault::None {
            assert!(org.approve_device(code.user_code()));
        }
        // The first four askings meet a fault each.
        loop {
            tokio::select! {
                biased;
                session = &mut waiting => {
                    session.unwrap();
                    asked_at.push(started.elapsed().as_secs());
                    break;
                }
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
            }
            if org.counters().token_requests > before {
                asked_at.push(started.elapsed().as_secs());
                break;
            }
        }
    }
    // Five more seconds each time: 5, +10, +15, +20.
    assert_eq!(asked_at, [5, 15, 30, 50]);
}

#[tokio::test(start_paused = true)]
async fn a_user_who_says_no_or_nothing_ends_it() {
    let org = Org::new();
    let flow = DeviceFlow::new(org.clone(), app(&org));
    let code = flow.begin().await.unwrap();
    assert!(org.deny_device(code.user_code()));
    let error = flow.wait(&code).await.unwrap_err();
    assert_eq!(error.error_code(), Some("access_denied"));

    let code = flow.begin().await.unwrap();
    let started = Instant::now();
    let error = flow.wait(&code).await.unwrap_err();
    assert_eq!(error.kind(), RefreshErrorKind::TimedOut);
    assert_eq!(started.elapsed(), Duration::from_secs(600));
}

#[tokio::test]
async fn a_code_that_is_refused_is_an_error_at_once() {
    let org = Org::new();
    org.on_token(Fault::refuse(
        StatusCode::BAD_REQUEST,
        "invalid_scope",
        "no such scope",
    ));
    let flow = DeviceFlow::new(org.clone(), app(&org)).scope("everything");
    let error = flow.begin().await.unwrap_err();
    assert_eq!(error.error_code(), Some("invalid_scope"));
    assert!(error.is_terminal());
}
