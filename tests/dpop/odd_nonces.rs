//! Servers that send odd nonces, or demand them oddly.

use std::{
    sync::{Arc, Mutex},
    vec::IntoIter,
};

use bytes::Bytes;
use futures_util::{
    FutureExt,
    stream::{self, Iter},
};
use http::{Request, StatusCode, Uri};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::task::JoinSet;
use tower::{Layer, ServiceExt};
use tower_http::follow_redirect::RequestUri;
use tower_salesforce_auth::{
    BoxError, RefreshContext, RefreshFn, ReplayBody, SalesforceAuthLayer, Session, SessionHandle,
    emulator::Org,
    flow::{ClientCredentials, RefreshToken},
    oauth::DpopKey,
    request::{AuthOutcome, NoRefresh, NoReplay, ReplaySkipped},
};

use crate::support::{LIMITS, Proof, answer, bound_app, get, requiring_org, scripted, whole};

const INSTANCE: &str = "https://MyDomainName.my.salesforce.com";
const CHALLENGE: &[u8] = b"DPoP error=\"use_dpop_nonce\"";

/// A handle with a bound session, which a refresh replaces by another one.
fn handle() -> SessionHandle {
    let session = |token: &str, key: &DpopKey| {
        Session::new(token, INSTANCE)
            .unwrap()
            .with_dpop_key(key.clone())
    };
    let key = DpopKey::generate().unwrap();
    let first = session("T0", &key);
    let login = move |_: RefreshContext| std::future::ready(Ok(session("T1", &key)));
    SessionHandle::builder(login).initial_session(first).build()
}

fn limits() -> Request<Full<Bytes>> {
    Request::get(LIMITS).body(Full::default()).unwrap()
}

fn nonce_of<T>(request: &Request<T>) -> Option<String> {
    let proof = Proof::of(request.headers());
    proof
        .claims
        .get("nonce")
        .map(|nonce| nonce.as_str().unwrap().to_owned())
}

#[tokio::test]
async fn r35_a_demand_without_a_usable_nonce_says_so() {
    let huge = "n".repeat(10_000);
    for nonce in [
        None,
        Some(&b""[..]),
        Some(b"a b"),
        Some(b"n\xe9"),
        Some(huge.as_bytes()),
    ] {
        let nonce = nonce.map(<[u8]>::to_vec);
        let (server, requests) = scripted(move |_, _| {
            let headers = nonce.as_deref().map(|nonce| ("dpop-nonce", nonce));
            let headers: Vec<_> = headers.into_iter().collect();
            answer(400, &headers, r#"{"error":"use_dpop_nonce"}"#)
        });
        let login = ClientCredentials::new(server, bound_app(&Org::new()).0);
        let error = login.log_in().await.unwrap_err();
        assert_eq!(error.error_code(), Some("use_dpop_nonce"));
        assert!(
            error.to_string().contains("sent none that can be used"),
            "{error}"
        );
        assert_eq!(requests.take().len(), 1);
    }
}

#[tokio::test]
async fn r35_the_first_of_several_nonces_is_used() {
    let (server, requests) = scripted(|_, number| match number {
        0 => answer(
            401,
            &[("dpop-nonce", b"first"), ("dpop-nonce", b"second")],
            "",
        ),
        _ => answer(200, &[("dpop-nonce", b"n\"\\")], ""),
    });
    let layer = SalesforceAuthLayer::from(handle());
    for _ in 0..2 {
        assert_eq!(get(&layer, whole(server.clone())).await, StatusCode::OK);
    }
    let nonces: Vec<_> = requests.take().iter().map(nonce_of).collect();
    let nonces: Vec<_> = nonces.iter().map(Option::as_deref).collect();
    assert_eq!(nonces, [None, Some("first"), Some("n\"\\")]);
}

#[tokio::test]
async fn r35_a_nonce_on_every_answer_costs_no_replay() {
    let (server, requests) = scripted(|head, _| {
        let is_fresh = head.headers["authorization"] == "DPoP T1";
        answer(
            if is_fresh { 200 } else { 401 },
            &[("dpop-nonce", b"n1")],
            "",
        )
    });
    let handle = handle();
    let layer = SalesforceAuthLayer::from(handle.clone());
    // The first nonce may be the cause of the rejection, and then there is a new one no longer.
    assert_eq!(get(&layer, whole(server.clone())).await, StatusCode::OK);
    assert_eq!(requests.take().len(), 3);
    handle.set(
        Session::new("T2", INSTANCE)
            .unwrap()
            .with_dpop_key(handle.try_session().unwrap().dpop_key().unwrap().clone()),
    );
    assert_eq!(get(&layer, whole(server)).await, StatusCode::OK);
    assert_eq!(requests.take().len(), 2);
}

#[tokio::test]
async fn r35_a_nonce_of_an_unreplayable_request_is_no_refresh() {
    let (server, requests) = scripted(|_, number| match number {
        0 => answer(
            401,
            &[("dpop-nonce", b"n1"), ("www-authenticate", CHALLENGE)],
            "",
        ),
        _ => answer(200, &[], ""),
    });
    let layer = SalesforceAuthLayer::from(handle());
    let service = layer.layer(whole(server));
    let mut request = limits();
    request.extensions_mut().insert(NoReplay);
    let response = service.clone().oneshot(request).await.unwrap();
    let outcome = response.extensions().get::<AuthOutcome>().unwrap();
    assert_eq!(outcome.replay_skipped(), Some(ReplaySkipped::NotWanted));
    assert!(!outcome.refreshed());
    assert_eq!(service.oneshot(limits()).await.unwrap().status(), 200);
    let nonces: Vec<_> = requests.take().iter().map(nonce_of).collect();
    assert_eq!(nonces, [None, Some("n1".to_owned())]);
}

#[tokio::test]
async fn r35_a_nonce_of_another_host_stays_with_that_host() {
    let (server, requests) = scripted(|_, number| {
        let mut response = answer(200, &[("dpop-nonce", b"foreign")], "");
        if number == 0 {
            // A redirect was followed inside the layer.
            let uri = Uri::from_static("https://example.com/");
            response.extensions_mut().insert(RequestUri(uri));
        }
        response
    });
    let layer = SalesforceAuthLayer::from(handle());
    for _ in 0..2 {
        assert_eq!(get(&layer, whole(server.clone())).await, StatusCode::OK);
    }
    assert_eq!(nonce_of(&requests.take()[1]), None);
}

#[tokio::test]
async fn r35_all_demands_at_once_end() {
    // An expired token, a new nonce, and a demand for it, at every answer.
    let (server, requests) = scripted(|_, number| {
        let nonce = format!("n{number}");
        let headers = [
            ("dpop-nonce", nonce.as_bytes()),
            ("www-authenticate", CHALLENGE),
        ];
        answer(401, &headers, r#"[{"errorCode":"INVALID_SESSION_ID"}]"#)
    });
    let handle = handle();
    let layer = SalesforceAuthLayer::from(handle.clone());
    for _ in 0..3 {
        let response = layer
            .layer(whole(server.clone()))
            .oneshot(limits())
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(requests.take().len(), 2);
    }
    assert_eq!(handle.try_session().unwrap().access_token().expose(), "T0");
}

#[tokio::test(flavor = "multi_thread")]
async fn r35_a_nonce_for_a_thousand_callers_costs_no_refresh() {
    let org = requiring_org();
    org.require_dpop_nonce_for_data(true);
    let layer = SalesforceAuthLayer::new(ClientCredentials::new(org.clone(), bound_app(&org).0));
    layer.handle().session().await.unwrap();
    let client = layer.layer(org.clone());
    for _ in 0..2 {
        org.rotate_dpop_nonce();
        let before = org.counters();
        let mut callers = JoinSet::new();
        for _ in 0..1_000 {
            callers.spawn(client.clone().oneshot(limits()));
        }
        for response in callers.join_all().await {
            assert_eq!(response.unwrap().status(), StatusCode::OK);
        }
        let after = org.counters();
        assert_eq!(after.token_requests, 1);
        assert!(after.data_requests - before.data_requests <= 2_000);
        assert_eq!(after.dpop_proofs_refused, 0);
    }
}

#[tokio::test]
async fn r35_a_session_that_nothing_refreshes_gets_its_nonce() {
    let demanding = || {
        scripted(|head, _| {
            let proof = Proof::of(&head.headers);
            let status = if proof.claim("nonce") == "n1" {
                200
            } else {
                401
            };
            answer(
                status,
                &[("dpop-nonce", b"n1"), ("www-authenticate", CHALLENGE)],
                "",
            )
        })
    };
    let fixed = || SalesforceAuthLayer::fixed((*handle().try_session().unwrap()).clone());

    // A fixed session costs one replay.
    let (server, requests) = demanding();
    assert_eq!(get(&fixed(), whole(server)).await, StatusCode::OK);
    assert_eq!(requests.take().len(), 2);

    // A rejection that demands nothing is returned.
    let (server, requests) = scripted(|_, _| answer(401, &[], ""));
    let service = fixed().layer(whole(server));
    let response = service.oneshot(limits()).await.unwrap();
    let outcome = response.extensions().get::<AuthOutcome>().unwrap();
    assert_eq!(outcome.replay_skipped(), Some(ReplaySkipped::NotConfigured));
    assert_eq!(requests.take().len(), 1);

    // A request without a replay gets its rejection, and the next one has the nonce.
    let mut without_refresh = limits();
    without_refresh.extensions_mut().insert(NoRefresh);
    let mut without_replay = limits();
    without_replay.extensions_mut().insert(NoReplay);
    let refreshed = || SalesforceAuthLayer::from(handle());
    for (layer, request, skipped) in [
        (
            refreshed(),
            without_refresh.clone(),
            ReplaySkipped::NotWanted,
        ),
        (
            refreshed().max_refreshes(0),
            limits(),
            ReplaySkipped::NotWanted,
        ),
        (fixed(), without_replay, ReplaySkipped::NotConfigured),
        (fixed(), without_refresh, ReplaySkipped::NotConfigured),
    ] {
        let (server, requests) = demanding();
        let service = layer.layer(whole(server));
        let response = service.clone().oneshot(request.clone()).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        let outcome = response.extensions().get::<AuthOutcome>().unwrap();
        assert_eq!(outcome.replay_skipped(), Some(skipped));
        assert_eq!((outcome.attempts(), outcome.refreshed()), (1, false));
        assert_eq!(service.oneshot(request).await.unwrap().status(), 200);
        assert_eq!(requests.take().len(), 2);
    }
}

#[test]
fn r35_a_nonce_outside_of_a_runtime_is_kept() {
    let (server, requests) = scripted(|_, number| {
        answer(
            if number == 0 { 401 } else { 200 },
            &[("dpop-nonce", b"n1")],
            "",
        )
    });
    let session = (*handle().try_session().unwrap()).clone();
    let service = SalesforceAuthLayer::fixed(session).layer(whole(server));
    let send = || {
        let sent = service.clone().oneshot(limits()).now_or_never();
        sent.unwrap().unwrap().status()
    };
    assert_eq!(send(), StatusCode::UNAUTHORIZED);
    assert_eq!(send(), StatusCode::OK);
    assert_eq!(nonce_of(&requests.take()[1]), Some("n1".to_owned()));
}

#[tokio::test]
async fn r35_a_demand_of_the_token_endpoint_is_met_once() {
    let nonce = ("dpop-nonce", &b"n1"[..]);
    let challenge = ("www-authenticate", CHALLENGE);
    let tokens =
        r#"{"access_token":"T1","instance_url":"https://a.my.salesforce.com","token_type":"DPoP"}"#;
    for (status, headers, body, is_repeated) in [
        (400, vec![nonce], r#"{"error":"use_dpop_nonce"}"#, true),
        (401, vec![nonce, challenge], "", true),
        // A gateway may answer everything with 200.
        (200, vec![nonce], r#"{"error":"use_dpop_nonce"}"#, true),
        // The server has looked at the refresh token.
        (
            400,
            vec![nonce, challenge],
            r#"{"error":"invalid_grant"}"#,
            false,
        ),
        (200, vec![nonce, challenge], tokens, false),
        (
            400,
            vec![nonce],
            r#"{"error":"use_dpop_nonce","refresh_token":"R1"}"#,
            false,
        ),
        (400, vec![nonce], r#"{"error":"invalid_dpop_proof"}"#, false),
        (503, vec![nonce], "", false),
    ] {
        let (server, requests) = scripted(move |_, number| match number {
            0 => answer(status, &headers, body),
            _ => answer(200, &[], tokens),
        });
        let flow = RefreshToken::new(server, bound_app(&Org::new()).0, "R0");
        let session = flow.log_in().await;
        assert_eq!(
            session.is_ok(),
            is_repeated || body == tokens,
            "{status} {body}"
        );
        let nonces: Vec<_> = requests.take().iter().map(nonce_of).collect();
        let expected = [None, Some("n1".to_owned())];
        assert_eq!(
            nonces,
            expected[..=usize::from(is_repeated)],
            "{status} {body}"
        );
    }
}

#[tokio::test]
async fn r35_a_stream_is_sent_again_for_a_nonce() {
    type Frames = Vec<Result<Frame<Bytes>, BoxError>>;
    let received = Arc::new(Mutex::new(Vec::new()));
    let server = {
        let received = received.clone();
        tower::service_fn(
            move |request: Request<ReplayBody<StreamBody<Iter<IntoIter<_>>>>>| {
                let received = received.clone();
                async move {
                    let has_nonce = nonce_of(&request).is_some();
                    let body = request.into_body().collect().await?.to_bytes();
                    received.lock().unwrap().push(body);
                    let status = if has_nonce { 200 } else { 401 };
                    Ok::<_, BoxError>(answer(status, &[("dpop-nonce", b"n1")], ""))
                }
            },
        )
    };
    let frames: Frames = ["one ", "two ", "three"]
        .map(|part| Ok(Frame::data(Bytes::from(part))))
        .into();
    let body = StreamBody::new(stream::iter(frames));
    let request = Request::post("/services/data/v66.0/composite")
        .body(body)
        .unwrap();
    let session = (*handle().try_session().unwrap()).clone();
    let layer = SalesforceAuthLayer::fixed(session);
    let response = layer.layer(server).oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(
        *received.lock().unwrap(),
        ["one two three", "one two three"]
    );
}

#[tokio::test]
async fn r35_a_session_that_is_set_before_a_nonce_is_told() {
    let handle = handle();
    let key = handle.try_session().unwrap().dpop_key().unwrap().clone();
    let (server, requests) = scripted({
        let handle = handle.clone();
        move |_, number| {
            if number > 0 {
                return answer(200, &[], "");
            }
            let session = Session::new("T1", INSTANCE).unwrap();
            handle.set(session.with_dpop_key(key.clone()));
            let headers = [("dpop-nonce", &b"n1"[..]), ("www-authenticate", CHALLENGE)];
            answer(401, &headers, "")
        }
    });
    let layer = SalesforceAuthLayer::from(handle);
    let response = layer.layer(whole(server)).oneshot(limits()).await.unwrap();
    let outcome = response.extensions().get::<AuthOutcome>().unwrap();
    assert_eq!((outcome.attempts(), outcome.refreshed()), (2, true));
    let replay = &requests.take()[1];
    assert_eq!(replay.headers()["authorization"], "DPoP T1");
    assert_eq!(nonce_of(replay), Some("n1".to_owned()));
}
