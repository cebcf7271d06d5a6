//! What goes wrong has an error that says what to do.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceExt};
use tower_salesforce_auth::{
    BoxError, Error, ErrorKind, RefreshFn, SalesforceAuthLayer, Session, SessionHandle,
    emulator::Org,
    flow::ClientCredentials,
    oauth::{self, Dpop, DpopKey},
    observer::DpopNotice,
    request::UndocumentedDpop,
};

use crate::support::{Notices, answering, app, bound_app, get, recorded, requiring_org, whole};

#[tokio::test]
async fn r35_an_app_that_requires_dpop_names_the_setting() {
    let org = requiring_org();
    let error = ClientCredentials::new(org.clone(), app(&org))
        .log_in()
        .await
        .unwrap_err();
    assert_eq!(error.error_code(), Some("invalid_dpop_proof"));
    assert!(error.is_terminal());
    assert!(error.to_string().contains("App::dpop"), "{error}");
}

#[tokio::test]
async fn r35_a_bound_token_without_a_proof_names_the_setting() {
    let answer =
        r#"{"access_token":"T","instance_url":"https://a.my.salesforce.com","token_type":"DPoP"}"#;
    let server = answering(200, &[], answer);
    let app = app(&Org::new());
    let error = ClientCredentials::new(server, app)
        .log_in()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("App::dpop"), "{error}");
}

#[tokio::test]
async fn r35_a_clock_that_is_off_is_shown_with_the_servers() {
    let org = requiring_org();
    let behind = || SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let dpop = Dpop::from(DpopKey::generate().unwrap()).clock(behind);
    let error = ClientCredentials::new(org.clone(), app(&org).dpop(dpop))
        .log_in()
        .await;
    let told = error.unwrap_err().to_string();
    assert!(told.contains("iat is out of range"), "{told}");
    assert!(told.contains("Sun, 09 Sep 2001 01:46:40 GMT"), "{told}");

    let date = &[("date", "Sat, 28 Nov 2026 00:00:00 GMT")][..];
    let server = answering(400, date, r#"{"error":"invalid_dpop_proof"}"#);
    let error = ClientCredentials::new(server, bound_app(&org).0)
        .log_in()
        .await;
    let told = error.unwrap_err().to_string();
    assert!(
        told.contains("the server's says Sat, 28 Nov 2026 00:00:00 GMT"),
        "{told}"
    );
}

#[tokio::test]
async fn r35_a_server_that_answers_bearer_is_told_once() {
    let org = Org::new();
    org.ignore_dpop(true);
    let notices = Notices::default();
    let login = ClientCredentials::new(org.clone(), bound_app(&org).0);
    let handle = SessionHandle::builder(login)
        .observer(notices.clone())
        .build();
    let layer = SalesforceAuthLayer::from(handle.clone());
    let (client, requests) = recorded(org.clone());
    assert_eq!(get(&layer, whole(client)).await, StatusCode::OK);
    handle.refresh().await.unwrap();
    assert_eq!(*notices.0.lock().unwrap(), [DpopNotice::NotBound]);
    let request = &requests.take()[0];
    assert!(!request.headers().contains_key("dpop"));
    assert!(
        request.headers()["authorization"]
            .as_bytes()
            .starts_with(b"Bearer ")
    );
}

#[tokio::test]
async fn r35_an_api_without_a_documented_proof_is_named() {
    let org = requiring_org();
    let layer = SalesforceAuthLayer::new(ClientCredentials::new(org.clone(), bound_app(&org).0));
    let job = || {
        Request::get("/services/async/66.0/job/750")
            .body(Full::<Bytes>::default())
            .unwrap()
    };
    let rpc = Request::post("/eventbus.v1.PubSub/GetTopic")
        .header("content-type", "application/grpc")
        .body(Full::<Bytes>::default())
        .unwrap();
    for (request, api) in [(job(), "Bulk API 1.0"), (rpc, "Pub/Sub")] {
        let error = layer.layer(org.clone()).oneshot(request).await.unwrap_err();
        let error = error.downcast_ref::<Error>().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        let told = error.to_string();
        assert!(
            told.contains(api) && told.contains("UndocumentedDpop"),
            "{told}"
        );
    }
    assert_eq!(org.counters().data_requests, 0);
    let mut request = job();
    request.extensions_mut().insert(UndocumentedDpop);
    let response = layer.layer(org.clone()).oneshot(request).await.unwrap();
    // There is no such job, and the session is accepted.
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(org.counters().data_accepted, 1);
}

#[tokio::test]
async fn r35_no_output_shows_the_private_key() {
    let org = requiring_org();
    let (app, key) = bound_app(&org);
    let session = ClientCredentials::new(org.clone(), app.clone())
        .log_in()
        .await
        .unwrap();
    let pem = key.to_pem();
    let server = answering(
        400,
        &[],
        format!(
            r#"{{"error":"invalid_dpop_proof","error_description":"{}"}}"#,
            "x"
        ),
    );
    let error = ClientCredentials::new(server, app.clone())
        .log_in()
        .await
        .unwrap_err();
    let shown = format!("{app:?} {app:#?} {session:?} {session:#?} {error} {error:?} {error:#?}");
    for line in pem.expose().lines().skip(1) {
        assert!(!shown.contains(line.trim_end_matches('=')), "{shown}");
    }
}

/// A client that repeats the request in its error.
#[tokio::test]
async fn r35_no_error_repeats_a_proof() {
    let client = tower::service_fn(async |request: Request<Full<Bytes>>| {
        let (head, body) = request.into_parts();
        let headers = head.headers.iter();
        let headers: Vec<_> = headers.map(|(_, value)| value.to_str().unwrap()).collect();
        let body = body.collect().await?.to_bytes();
        let body = String::from_utf8_lossy(&body);
        let error = format!("no route for {}, {body}", headers.join(", "));
        Err::<Response<Full<Bytes>>, _>(BoxError::from(error))
    });
    let org = requiring_org();
    let (app, key) = bound_app(&org);
    let session = ClientCredentials::new(org.clone(), app.clone())
        .log_in()
        .await
        .unwrap();
    let login = ClientCredentials::new(client, app)
        .log_in()
        .await
        .unwrap_err();
    let identity = oauth::identity(client, &session).await.unwrap_err();
    let server_url = format!("{}/services/Soap/u/64.0", org.instance_url());
    let soap = Session::from_session_id(session.access_token().clone(), &server_url).unwrap();
    let logout = SessionHandle::fixed(soap.with_dpop_key(key))
        .logout(client)
        .await;
    // Each proof begins so: the header is the same.
    let begin = "eyJ0eXAiOiJkcG9wK2p3dCIs";
    for shown in [
        format!("{login} {login:?} {login:#?}"),
        format!("{identity} {identity:?} {identity:#?}"),
        format!("{logout:?} {logout:#?}"),
    ] {
        assert!(shown.contains("could not be reached"), "{shown}");
        assert!(!shown.contains(begin), "{shown}");
    }
}
