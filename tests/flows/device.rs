//! The device flow and its polling (RFC 8628).

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use tokio::time::Instant;
use tower::{ServiceExt, service_fn};
use tower_salesforce_auth::{
    RefreshErrorKind,
    emulator::{Fault, Org},
    flow::{DeviceAuthorization, HttpClient},
};

use crate::support::{answering, app, production_app, recorded};

#[tokio::test(start_paused = true)]
async fn a_device_polls_at_the_interval_until_the_user_decides() {
    let org = Org::new();
    let flow = DeviceAuthorization::new(org.clone(), app(&org)).scope("api refresh_token");
    let code = flow.begin().await.unwrap();
    assert_eq!(code.interval(), Duration::from_secs(5));
    assert_eq!(code.expires_in(), Duration::from_secs(600));
    let complete = code.verification_uri_complete();
    assert!(
        complete.ends_with(&format!("/setup/connect?user_code={}", code.user_code())),
        "{complete}"
    );
    let asked_at = Arc::new(Mutex::new(Vec::new()));
    let flow = {
        let (org, code, asked_at) = (org.clone(), code.clone(), asked_at.clone());
        asking(&org.clone(), asked_at, move |asked| {
            // The user decides after the fourth poll.
            if asked == 4 {
                assert!(org.approve_device(code.user_code()));
            }
        })
    };
    let session = flow.wait(&code).await.unwrap();
    assert_eq!(*asked_at.lock().unwrap(), [5, 10, 15, 20, 25]);
    assert!(session.refresh_token().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_device_polls_slower_after_slow_down_or_no_answer() {
    let org = Org::new();
    let code = DeviceAuthorization::new(org.clone(), app(&org))
        .begin()
        .await
        .unwrap();
    assert!(!org.approve_device("none"));
    let asked_at = Arc::new(Mutex::new(Vec::new()));
    let flow = {
        let (org, code, asked_at) = (org.clone(), code.clone(), asked_at.clone());
        let slow_down = Fault::refuse(StatusCode::BAD_REQUEST, "slow_down", "asked too often");
        let faults = [Fault::Maintenance, Fault::LoseAnswer, Fault::None];
        org.on_token(slow_down);
        asking(&org.clone(), asked_at, move |asked| {
            // Each of the first polls meets a fault, and the fourth meets none.
            if let Some(fault) = faults.get(asked - 1) {
                if *fault == Fault::None {
                    assert!(org.approve_device(code.user_code()));
                }
                org.on_token(fault.clone());
            }
        })
    };
    flow.wait(&code).await.unwrap();
    // The interval grows by 5 s each time: 5, +10, +15, +20.
    assert_eq!(*asked_at.lock().unwrap(), [5, 15, 30, 50]);
}

/// A flow that records its polls in seconds since now, and calls `then` with their number after each answer.
fn asking(
    org: &Org,
    asked_at: Arc<Mutex<Vec<u64>>>,
    then: impl Fn(usize) + Send + Sync + 'static,
) -> DeviceAuthorization<impl HttpClient> {
    let (client, then) = (org.clone(), Arc::new(then));
    let started = Instant::now();
    let client = service_fn(move |request: Request<Full<Bytes>>| {
        let asked = {
            let mut asked_at = asked_at.lock().unwrap();
            asked_at.push(started.elapsed().as_secs());
            asked_at.len()
        };
        let (client, then) = (client.clone(), Arc::clone(&then));
        async move {
            let answered = client.oneshot(request).await;
            then(asked);
            answered
        }
    });
    DeviceAuthorization::new(client, app(org))
}

#[tokio::test(start_paused = true)]
async fn a_device_stops_if_the_user_denies_or_never_answers() {
    let org = Org::new();
    let flow = DeviceAuthorization::new(org.clone(), app(&org));
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
async fn a_refused_device_code_is_an_error_at_once() {
    let org = Org::new();
    org.on_token(Fault::refuse(
        StatusCode::BAD_REQUEST,
        "invalid_scope",
        "no such scope",
    ));
    let flow = DeviceAuthorization::new(org.clone(), app(&org)).scope("everything");
    let error = flow.begin().await.unwrap_err();
    assert_eq!(error.error_code(), Some("invalid_scope"));
    assert!(error.is_terminal());
}

#[tokio::test(start_paused = true)]
async fn r14_extreme_server_numbers_do_not_break_the_device_flow() {
    let begin = |numbers: &str| {
        let body = format!(
            r#"{{"device_code":"d","user_code":"U","verification_uri":"https://example.com"{numbers}}}"#
        );
        let client = answering(200, &[], body);
        async move {
            DeviceAuthorization::new(client, production_app())
                .begin()
                .await
                .unwrap()
        }
    };
    let five = Duration::from_secs(5);
    assert_eq!(begin(r#","interval":0"#).await.interval(), five);
    assert_eq!(begin(r#","interval":"5""#).await.interval(), five);
    assert_eq!(begin(r#","interval":null"#).await.interval(), five);
    for numbers in [
        r#","interval":18446744073709551615,"expires_in":600"#,
        r#","interval":1,"expires_in":600"#,
    ] {
        let code = begin(numbers).await;
        let (client, requests) = recorded(answering(
            503,
            &[("retry-after", "18446744073709551615")],
            "",
        ));
        let error = DeviceAuthorization::new(client, production_app())
            .wait(&code)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), RefreshErrorKind::TimedOut);
        assert!(requests.take().len() <= 1);
    }
}
