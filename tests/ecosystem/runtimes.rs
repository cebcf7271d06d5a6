//! Runtimes that come and go, and clients that stay.

use std::{thread, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use http::Request;
use http_body_util::{BodyExt, Full};
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, Service, ServiceExt};
use tower_salesforce_auth::{
    Error, ErrorKind, SalesforceAuthLayer,
    emulator::Org,
    flow::ClientCredentials,
    https::{HttpsClient, SalesforceClient},
    oauth::App,
};

const LIMITS: &str = "/services/data/v66.0/limits";

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// A runtime for servers, which outlives all others.
fn server() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

fn client(org: &Org) -> SalesforceClient {
    let app = App::new(org.login_url().parse().unwrap(), org.client_id())
        .client_secret(org.client_secret());
    let login = ClientCredentials::new(HttpsClient::new().unwrap(), app);
    SalesforceAuthLayer::new(login).layer(HttpsClient::new().unwrap())
}

fn get() -> Request<Full<Bytes>> {
    Request::get(LIMITS).body(Full::default()).unwrap()
}

async fn limits(client: &SalesforceClient) -> u16 {
    let response = tokio::time::timeout(Duration::from_secs(20), client.clone().oneshot(get()));
    let response = response
        .await
        .unwrap()
        .unwrap_or_else(|error| panic!("{error:?}"));
    let status = response.status().as_u16();
    response.into_body().collect().await.unwrap();
    status
}

/// Each thread has a runtime that ends at once, while others wait for the refresh that it began.
#[test]
fn runtimes_that_end_while_others_wait_fail_no_request() {
    let server = server();
    for _ in 0..20 {
        let org = Org::new();
        let _served = server.block_on(org.serve()).unwrap();
        let client = client(&org);
        assert_eq!(runtime().block_on(limits(&client)), 200);
        org.expire_sessions();
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let client = client.clone();
                thread::spawn(move || runtime().block_on(limits(&client)))
            })
            .collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), 200);
        }
    }
}

#[test]
fn a_client_outlives_many_runtimes_one_after_another() {
    let server = server();
    let org = Org::new();
    let _served = server.block_on(org.serve()).unwrap();
    let client = client(&org);
    for n in 0..30 {
        if n % 3 == 0 {
            org.expire_sessions();
        }
        let runtime = if n % 2 == 0 {
            runtime()
        } else {
            Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap()
        };
        assert_eq!(runtime.block_on(limits(&client)), 200);
        assert_eq!(runtime.block_on(limits(&client)), 200);
    }
}

#[test]
fn a_runtime_that_ends_in_the_middle_fails_no_other() {
    let server = server();
    let org = Org::new();
    let _served = server.block_on(org.serve()).unwrap();
    let client = client(&org);
    assert_eq!(runtime().block_on(limits(&client)), 200);
    for _ in 0..20 {
        // It begins a request, and ends before the answer.
        let short = runtime();
        let mut sending = Box::pin(client.clone().oneshot(get()));
        let answer = short.block_on(async { sending.as_mut().now_or_never() });
        assert!(answer.is_none());
        drop(short);
        drop(sending);
        assert_eq!(runtime().block_on(limits(&client)), 200);
    }
}

#[test]
fn a_future_made_outside_of_a_runtime_is_served_inside() {
    let server = server();
    let org = Org::new();
    let _served = server.block_on(org.serve()).unwrap();
    let mut client = client(&org);
    for _ in 0..3 {
        let sending = client.clone().oneshot(get());
        let response = runtime().block_on(sending).unwrap();
        assert_eq!(response.status(), 200);
        // Called by hand: ready in one runtime, called outside, polled in another.
        runtime()
            .block_on(std::future::poll_fn(|cx| client.poll_ready(cx)))
            .unwrap();
        let sending = client.call(get());
        assert_eq!(runtime().block_on(sending).unwrap().status(), 200);
        org.expire_sessions();
    }
}

#[test]
fn a_request_outside_of_any_runtime_is_an_error() {
    let https = HttpsClient::<Full<Bytes>>::new().unwrap();
    let request = Request::get("https://localhost:9/")
        .body(Full::default())
        .unwrap();
    let error = https.oneshot(request).now_or_never().unwrap().unwrap_err();
    let error: &Error = error.downcast_ref().unwrap();
    assert_eq!(error.kind(), ErrorKind::NoRuntime);
    assert!(error.to_string().contains("tokio runtime"), "{error}");
}

/// The task that waits for the end of a runtime ends with the client, too.
#[test]
fn a_client_that_is_gone_leaves_no_task() {
    let server = server();
    let org = Org::new();
    let _served = server.block_on(org.serve()).unwrap();
    let runtime = runtime();
    let client = client(&org);
    assert_eq!(runtime.block_on(limits(&client)), 200);
    drop(client);
    runtime.block_on(async {
        for _ in 0..1_000 {
            if tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks()
                == 0
            {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("tasks are left");
    });
}
