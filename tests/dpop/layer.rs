//! Requests with a bound session, through storms of rejections.

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use tokio::task::JoinSet;
use tower::{Layer, ServiceExt};
use tower_salesforce_auth::{
    SalesforceAuthLayer, SessionHandle,
    emulator::Org,
    flow::{ClientCredentials, RefreshToken},
    oauth::{self, Identity},
};

use crate::support::{
    LIMITS, Proof, app_per_grant, ath, bound_app, recorded, requiring_org, whole,
};

const CALLERS: usize = 1_000;

/// A layer whose session was authorized by the user, with rotation.
async fn layer(org: &Org) -> SalesforceAuthLayer {
    let app = app_per_grant(org);
    let session = crate::stores::authorized(org, &app).await;
    let flow = RefreshToken::new(org.clone(), app, "none");
    SessionHandle::builder(flow)
        .initial_session(session)
        .build()
        .into()
}

fn envelope(token: &str) -> String {
    format!(
        r#"<?xml version="1.0"?><e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/" xmlns:u="urn:partner.soap.sforce.com"><e:Header><u:SessionHeader><u:sessionId>{token}</u:sessionId></u:SessionHeader></e:Header><e:Body><u:getUserInfo/></e:Body></e:Envelope>"#
    )
}

/// A REST call, a SOAP call, or a call of Bulk API 2.0.
fn request(number: usize) -> Request<Full<Bytes>> {
    let body = |text: String| Full::new(Bytes::from(text));
    match number % 3 {
        0 => Request::get(LIMITS).body(Full::default()),
        1 => Request::post("/services/Soap/u/64.0")
            .header("soapaction", "\"\"")
            .header("content-type", "text/xml")
            .body(body(envelope("stale"))),
        _ => Request::post("/services/data/v66.0/jobs/ingest")
            .header("content-type", "application/json")
            .body(body(
                r#"{"object":"Account","operation":"insert"}"#.to_owned(),
            )),
    }
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn r35_a_storm_of_a_thousand_costs_one_refresh() {
    let org = requiring_org();
    org.require_dpop_nonce(true);
    let layer = layer(&org).await;
    let client = layer.layer(org.clone());
    for number in 0..3 {
        let answer = client.clone().oneshot(request(number)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
    let before = org.counters();
    org.expire_sessions();
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        callers.spawn(client.clone().oneshot(request(number)));
    }
    for answer in callers.join_all().await {
        assert_eq!(answer.unwrap().status(), StatusCode::OK);
    }
    let after = org.counters();
    assert_eq!(after.tokens_issued - before.tokens_issued, 1);
    assert_eq!(after.refresh_token_reuses, 0);
    assert_eq!(after.dpop_proofs_refused, 0);
}

/// Asks who the user is until a session is good for it.
async fn identify(org: Org, handle: SessionHandle) -> Identity {
    loop {
        let live = handle.session().await.unwrap();
        match oauth::identity(org.clone(), &live).await {
            Ok(identity) => return identity,
            Err(error) => {
                assert_eq!(error.error_code(), Some("Bad_OAuth_Token"), "{error}");
                handle.invalidate(live.generation());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r35_identity_calls_in_a_storm_cost_one_refresh() {
    let org = requiring_org();
    org.require_dpop_nonce(true);
    org.require_dpop_nonce_for_data(true);
    let layer = layer(&org).await;
    let handle = layer.handle();
    let client = layer.layer(org.clone());
    let id = handle
        .session()
        .await
        .unwrap()
        .identity_url()
        .unwrap()
        .to_owned();
    let path = id.parse::<Uri>().unwrap().path().to_owned();
    for round in 1..=2 {
        let before = org.counters();
        org.expire_sessions();
        org.rotate_dpop_nonce();
        let mut callers = JoinSet::new();
        for number in 0..CALLERS {
            let (client, org, handle) = (client.clone(), org.clone(), handle.clone());
            let asked = Request::get(&path).body(Full::<Bytes>::default()).unwrap();
            callers.spawn(async move {
                match number % 5 {
                    0 => assert!(!identify(org, handle).await.user_id.is_empty()),
                    1 => assert_eq!(
                        client.oneshot(asked).await.unwrap().status(),
                        StatusCode::OK
                    ),
                    _ => {
                        let answer = client.oneshot(request(number)).await.unwrap();
                        assert_eq!(answer.status(), StatusCode::OK);
                    }
                }
            });
        }
        callers.join_all().await;
        let after = org.counters();
        assert_eq!(after.tokens_issued - before.tokens_issued, 1, "{round}");
        assert_eq!(after.refresh_token_reuses, 0);
        assert_eq!(after.dpop_proofs_refused, 0);
    }
}

#[tokio::test]
async fn r35_each_replay_has_a_new_proof() {
    let org = requiring_org();
    let layer = layer(&org).await;
    let (client, requests) = recorded(org.clone());
    org.expire_sessions();
    let answer = layer
        .layer(whole(client))
        .oneshot(request(0))
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let requests = requests.take();
    assert_eq!(requests.len(), 2);
    let proofs: Vec<_> = requests
        .iter()
        .map(|request| Proof::of(request.headers()))
        .collect();
    assert_ne!(proofs[0].claim("jti"), proofs[1].claim("jti"));
    for (request, proof) in requests.iter().zip(&proofs) {
        let token = request.headers()["authorization"].to_str().unwrap();
        let token = token.strip_prefix("DPoP ").unwrap();
        assert_eq!(proof.claim("ath"), ath(token));
    }
    assert_ne!(proofs[0].claim("ath"), proofs[1].claim("ath"));
}

#[tokio::test]
async fn r35_a_replay_to_a_moved_instance_has_its_uri() {
    let org = requiring_org();
    let layer = layer(&org).await;
    let (client, requests) = recorded(org.clone());
    org.expire_sessions();
    org.move_instance("https://moved.my.salesforce.com");
    let mut query = request(0);
    *query.uri_mut() = format!("{LIMITS}?a=b").parse().unwrap();
    let answer = layer.layer(whole(client)).oneshot(query).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let requests = requests.take();
    let proof = Proof::of(requests[1].headers());
    assert_eq!(
        proof.claim("htu"),
        format!("https://moved.my.salesforce.com{LIMITS}")
    );
}

#[tokio::test]
async fn r35_a_soap_call_has_its_proof_beside_the_session() {
    let org = requiring_org();
    let (app, key) = bound_app(&org);
    let layer = SalesforceAuthLayer::new(ClientCredentials::new(org.clone(), app));
    let (client, requests) = recorded(org.clone());
    let service = layer.layer(whole(client));
    for _ in 0..2 {
        let answer = service.clone().oneshot(request(1)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        org.expire_sessions();
    }
    let requests = requests.take();
    assert_eq!(requests.len(), 3);
    let mut ids = std::collections::HashSet::new();
    for request in &requests {
        let body = str::from_utf8(request.body()).unwrap();
        assert_eq!(
            body.matches("<u:DpopProofHeader><u:proof>").count(),
            1,
            "{body}"
        );
        let (_, rest) = body.split_once("<u:proof>").unwrap();
        let (proof, _) = rest.split_once("</u:proof>").unwrap();
        let proof = Proof::read(proof);
        assert_eq!(proof.thumbprint, key.thumbprint());
        assert_eq!(proof.claim("htu"), request.uri().to_string());
        assert_eq!(proof.claim("htm"), "POST");
        assert!(ids.insert(proof.claim("jti").to_owned()));
        assert!(ids.insert(Proof::of(request.headers()).claim("jti").to_owned()));
        let token = body
            .split("<u:sessionId>")
            .nth(1)
            .unwrap()
            .split('<')
            .next()
            .unwrap();
        assert_eq!(proof.claim("ath"), ath(token));
    }
}

#[tokio::test]
async fn r35_a_soap_envelope_of_any_form_gets_its_proof() {
    let org = requiring_org();
    let layer = SalesforceAuthLayer::new(ClientCredentials::new(org.clone(), bound_app(&org).0));
    let session =
        r#"<SessionHeader xmlns="urn:partner.soap.sforce.com"><sessionId/></SessionHeader>"#;
    let proof = r#"<DpopProofHeader xmlns="urn:partner.soap.sforce.com"><proof>old</proof></DpopProofHeader>"#;
    for header in [
        session.to_owned(),
        format!("{session}{proof}"),
        format!("{proof}{session}"),
    ] {
        let envelope = format!(
            r#"<Envelope xmlns="http://schemas.xmlsoap.org/soap/envelope/"><Header>{header}</Header><Body><getUserInfo xmlns="urn:partner.soap.sforce.com"/></Body></Envelope>"#
        );
        let request = Request::post("/services/Soap/u/64.0")
            .header("soapaction", "\"\"")
            .header("content-length", envelope.len())
            .body(Full::new(Bytes::from(envelope)))
            .unwrap();
        let (client, requests) = recorded(org.clone());
        let answer = layer.layer(whole(client)).oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{header}");
        let request = requests.take().pop().unwrap();
        let length = request.headers()["content-length"].to_str().unwrap();
        assert_eq!(length, request.body().len().to_string());
    }
}

#[tokio::test]
async fn r35_a_request_of_the_callers_own_is_not_touched() {
    let org = Org::new();
    let layer = SalesforceAuthLayer::new(ClientCredentials::new(org.clone(), bound_app(&org).0));
    let (client, requests) = recorded(org.clone());
    let uri = format!("{}{LIMITS}", org.instance_url());
    let own = Request::get(&uri)
        .header("authorization", "DPoP own")
        .header("dpop", "own proof")
        .body(Full::default())
        .unwrap();
    let answer = layer
        .layer(whole(client.clone()))
        .oneshot(own)
        .await
        .unwrap();
    let _ = answer.into_body().collect().await;
    let foreign = Request::get("https://example.com/")
        .body(Full::default())
        .unwrap();
    let _ = layer.layer(whole(client)).oneshot(foreign).await.unwrap();
    let requests = requests.take();
    assert_eq!(requests[0].headers()["dpop"], "own proof");
    assert!(!requests[1].headers().contains_key("dpop"));
}
