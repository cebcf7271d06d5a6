//! An org that is served over loopback.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Request;
use http::StatusCode;
use http::header::AUTHORIZATION;
use http_body::Frame;
use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::channel::Channel;
use serde_json::Value;
use serde_json::json;
use tokio::task::JoinSet;
use tower_salesforce_auth::emulator::Fault;
use tower_salesforce_auth::emulator::Org;

use crate::support::{
    ECHO, LIMITS, bearer, channel_client, client, echoed, empty, refresh, refresh_form,
    token_request,
};

#[tokio::test]
async fn a_served_org_speaks_both_protocols_on_one_port() {
    let org = Org::new();
    let before = org.authorize();
    let served = org.serve().await.unwrap();
    assert!(served.url().starts_with("http://127.0.0.1:"));
    assert_eq!(org.instance_url(), served.url());
    assert_eq!(org.login_url(), served.url());
    let token_url = format!("{}/services/oauth2/token", served.url());
    assert_eq!(org.token_url(), token_url);

    for http2 in [false, true] {
        let client = client(http2);
        let limits = || {
            Request::get(format!("{}{LIMITS}", served.url()))
                .header(AUTHORIZATION, bearer(before.access_token()))
                .body(empty())
                .unwrap()
        };
        let response = client.request(limits()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let version = if http2 {
            http::Version::HTTP_2
        } else {
            http::Version::HTTP_11
        };
        assert_eq!(response.version(), version);
        drop(response.into_body().collect().await.unwrap());

        let mut request = token_request(refresh_form(&org, org.authorize().refresh_token()));
        *request.uri_mut() = org.token_url().parse().unwrap();
        let response = client.request(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["instance_url"], served.url());
    }
    assert_eq!(org.counters().connections, 2);
    served.shutdown().await;
}

#[tokio::test]
async fn shutting_down_or_dropping_ends_every_connection() {
    let org = Org::new();
    org.on_data(Fault::Hang);
    for (http2, dropped) in [(false, false), (true, false), (false, true), (true, true)] {
        let served = org.serve().await.unwrap();
        let url = served.url().to_owned();
        let limits = Request::get(format!("{url}{LIMITS}"))
            .body(empty())
            .unwrap();
        let arrived = org.counters().data_requests + 1;
        let call = tokio::spawn(client(http2).request(limits));
        while org.counters().data_requests < arrived {
            tokio::task::yield_now().await;
        }
        if dropped {
            drop(served);
        } else {
            served.shutdown().await;
            // The port is closed at once.
            let versions = Request::get(format!("{url}/services/data/"));
            let result = client(http2).request(versions.body(empty()).unwrap()).await;
            assert!(result.unwrap_err().is_connect());
        }
        assert!(call.await.unwrap().is_err());
    }
}

#[tokio::test]
async fn a_refresh_cut_off_by_shutdown_spends_no_refresh_token() {
    let org = Org::new();
    let grant = org.authorize();
    for http2 in [false, true] {
        let served = org.serve().await.unwrap();
        org.on_token(Fault::Hang);
        let arrived = org.counters().token_requests + 1;
        let mut request = token_request(refresh_form(&org, grant.refresh_token()));
        *request.uri_mut() = org.token_url().parse().unwrap();
        let call = tokio::spawn(client(http2).request(request));
        while org.counters().token_requests < arrived {
            tokio::task::yield_now().await;
        }
        served.shutdown().await;
        assert!(call.await.unwrap().is_err());
    }
    org.on_token(Fault::None);
    let response = refresh(&org, grant.refresh_token()).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(org.counters().concurrent_refreshes, 0);
}

#[tokio::test]
async fn an_org_served_twice_can_be_moved_between_its_two_addresses() {
    let org = Org::new();
    let old = org.serve().await.unwrap();
    let new = org.serve().await.unwrap();
    assert_ne!(old.url(), new.url());
    assert_eq!(org.instance_url(), new.url());
    org.move_instance(old.url());
    let grant = org.authorize();
    assert_eq!(grant.instance_url(), old.url());
    for url in [old.url(), new.url()] {
        let request = Request::get(format!("{url}{LIMITS}"))
            .header(AUTHORIZATION, bearer(grant.access_token()));
        let response = client(false).request(request.body(empty()).unwrap()).await;
        assert_eq!(response.unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn a_lost_answer_ends_the_connection_or_the_stream() {
    let org = Org::new();
    let _served = org.serve().await.unwrap();
    for http2 in [false, true] {
        let grant = org.authorize();
        org.on_token(Fault::LoseAnswer);
        let mut request = token_request(refresh_form(&org, grant.refresh_token()));
        *request.uri_mut() = org.token_url().parse().unwrap();
        assert!(client(http2).request(request).await.is_err());
    }
    assert_eq!(org.counters().tokens_issued, 2);
}

#[tokio::test]
async fn an_early_401_reaches_the_client_while_it_is_still_sending() {
    let org = Org::new();
    org.answer_early(0);
    let served = org.serve().await.unwrap();
    for http2 in [false, true] {
        // The body never ends and sends nothing.
        let (sender, body) = Channel::<Bytes>::new(1);
        let request = Request::post(format!("{}{ECHO}", served.url()));
        let response = channel_client(http2)
            .request(request.body(body).unwrap())
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        drop(sender);
    }
}

#[tokio::test]
async fn the_echo_reports_trailers_from_a_connection() {
    let org = Org::new();
    let served = org.serve().await.unwrap();
    let grant = org.authorize();
    let (mut sender, body) = Channel::<Bytes>::new(2);
    sender.send_data(Bytes::from("abc")).await.unwrap();
    let trailers = HeaderMap::from_iter([(
        "checksum".parse().unwrap(),
        HeaderValue::from_static("900150983cd24fb0"),
    )]);
    sender.send(Frame::trailers(trailers)).await.unwrap();
    drop(sender);
    let request = Request::post(format!("{}{ECHO}", served.url()))
        .header(AUTHORIZATION, bearer(grant.access_token()))
        .body(body)
        .unwrap();
    let response = channel_client(true).request(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let echo = echoed(&body);
    assert_eq!(echo["body_length"], 3);
    assert_eq!(echo["trailers"], json!([["checksum", "900150983cd24fb0"]]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_carries_a_thousand_concurrent_calls() {
    const CALLS: u64 = 1_000;
    let org = Org::new();
    let served = org.serve().await.unwrap();
    let grant = org.authorize();
    org.on_data(Fault::Hang);

    let client = client(true);
    // The first call opens the connection that the other calls share.
    let versions = Request::get(format!("{}/services/data/", served.url()));
    let response = client.request(versions.body(empty()).unwrap()).await;
    assert_eq!(response.unwrap().status(), StatusCode::OK);

    let mut calls = JoinSet::new();
    for _ in 0..CALLS {
        let request = Request::post(format!("{}{ECHO}", served.url()))
            .header(AUTHORIZATION, bearer(grant.access_token()))
            .body(Full::from(vec![0; 4_096]))
            .unwrap();
        let client = client.clone();
        calls.spawn(async move {
            let response = client.request(request).await.unwrap();
            let status = response.status();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let echo = echoed(&body);
            (status, echo["body_length"].as_u64())
        });
    }
    // The loop ends only if the org holds all calls at once.
    while org.counters().data_accepted < CALLS {
        tokio::task::yield_now().await;
    }
    org.on_data(Fault::None);
    let answers = calls.join_all().await;
    assert!(
        answers
            .iter()
            .all(|answer| *answer == (StatusCode::OK, Some(4_096)))
    );
    assert_eq!(answers.len() as u64, CALLS);
    assert_eq!(org.counters().connections, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_calls_with_one_refresh_token_get_one_session() {
    const CALLS: u64 = 100;
    let org = Org::new();
    let served = org.serve().await.unwrap();
    let grant = org.authorize();
    org.on_token(Fault::Hang);
    let client = client(true);
    let mut calls = JoinSet::new();
    for _ in 0..CALLS {
        let mut request = token_request(refresh_form(&org, grant.refresh_token()));
        *request.uri_mut() = format!("{}/services/oauth2/token", served.url())
            .parse()
            .unwrap();
        calls.spawn(client.request(request));
    }
    while org.counters().concurrent_refreshes < CALLS - 1 {
        tokio::task::yield_now().await;
    }
    org.on_token(Fault::None);
    let answers = calls.join_all().await;
    let granted = answers
        .into_iter()
        .filter(|answer| answer.as_ref().unwrap().status() == StatusCode::OK);
    assert_eq!(granted.count(), 1);
    assert_eq!(org.counters().tokens_issued, 1);
    assert_eq!(org.counters().token_refusals, CALLS - 1);
    assert_eq!(org.counters().refresh_token_reuses, 0);
}

#[tokio::test]
async fn an_org_is_served_on_a_chosen_port() {
    let org = Org::new();
    let served = org.serve_on((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    assert_eq!(org.login_url(), served.url());
    let port: u16 = served.url().rsplit(':').next().unwrap().parse().unwrap();

    let error = Org::new().serve_on((Ipv4Addr::LOCALHOST, port)).await;
    assert_eq!(error.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    served.shutdown().await;
    let again = Org::new().serve_on((Ipv4Addr::LOCALHOST, port)).await;
    assert_eq!(again.unwrap().url(), org.login_url());
}

#[tokio::test]
async fn an_org_is_served_on_loopback_only() {
    for address in [
        (Ipv4Addr::UNSPECIFIED, 0).into(),
        (Ipv4Addr::new(192, 0, 2, 1), 0).into(),
        std::net::SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    ] {
        let error = Org::new().serve_on(address).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{address}");
    }
}
