//! SOAP calls, whose session and proof are in the envelope.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use tower::{Layer, ServiceExt};
use tower_salesforce_auth::{
    RefreshFn, SalesforceAuthLayer, Session, SessionHandle, emulator::Org, flow::ClientCredentials,
};

use crate::support::{Proof, bound_app, recorded, requiring_org, whole};

#[tokio::test]
async fn r35_a_soap_logout_of_a_bound_session_is_proven() {
    let org = requiring_org();
    let (app, key) = bound_app(&org);
    let bound = ClientCredentials::new(org.clone(), app)
        .log_in()
        .await
        .unwrap();
    let server_url = format!("{}/services/Soap/u/64.0", org.instance_url());
    let session = Session::from_session_id(bound.access_token().clone(), &server_url).unwrap();
    let handle = SessionHandle::fixed(session.with_dpop_key(key.clone()));
    let (client, requests) = recorded(org.clone());
    handle.logout(client).await.unwrap();
    assert_eq!(org.counters().soap_logouts, 1);
    let request = requests.take().pop().unwrap();
    let envelope = str::from_utf8(request.body()).unwrap();
    let (_, rest) = envelope.split_once("<urn:proof>").unwrap();
    let proof = Proof::read(rest.split_once('<').unwrap().0);
    assert_eq!(proof.claim("htu"), request.uri().to_string());
    assert_eq!(proof.thumbprint, key.thumbprint());
}

#[tokio::test]
async fn r35_a_soap_replay_with_a_bearer_session_has_no_proof() {
    let org = Org::new();
    let (client, requests) = recorded(org.clone());
    let login = ClientCredentials::new(org.clone(), bound_app(&org).0);
    let layer = SalesforceAuthLayer::new(login);
    let envelope = r#"<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/" xmlns:u="urn:partner.soap.sforce.com"><e:Header><u:SessionHeader><u:sessionId>stale</u:sessionId></u:SessionHeader></e:Header><e:Body><u:getUserInfo/></e:Body></e:Envelope>"#;
    layer.handle().session().await.unwrap();
    org.expire_sessions();
    // From now on the org issues bearer tokens.
    org.ignore_dpop(true);
    let request = Request::post("/services/Soap/u/64.0")
        .header("soapaction", "\"\"")
        .header("content-length", envelope.len())
        .body(Full::<Bytes>::from(envelope))
        .unwrap();
    let answer = layer.layer(whole(client)).oneshot(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let requests = requests.take();
    let [first, replay] = &requests[..] else {
        panic!("{requests:?}");
    };
    assert!(first.headers().contains_key("dpop"));
    assert!(!replay.headers().contains_key("dpop"));
    let session = layer.handle().try_session().unwrap();
    let expected = envelope.replace("stale", session.access_token().expose());
    assert_eq!(str::from_utf8(replay.body()).unwrap(), expected);
    let length = replay.headers()["content-length"].to_str().unwrap();
    assert_eq!(length, replay.body().len().to_string());
}
