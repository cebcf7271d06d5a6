//! Sessions that change: from bound to bearer, from bearer to bound, and in their refresh token alone.

use std::sync::{Arc, Mutex};

use http::StatusCode;
use tower_salesforce_auth::{
    RefreshContext, SalesforceAuthLayer, Session, SessionHandle,
    emulator::Org,
    flow::RefreshToken,
    oauth::{Dpop, DpopKey},
    store::Record,
};

use crate::support::{Proof, answer, app, ath, get, scripted, whole};

const INSTANCE: &str = "https://MyDomainName.my.salesforce.com";

/// A handle whose first session is the first of these, and each refresh returns the next.
fn handle(sessions: impl IntoIterator<Item = Session>) -> SessionHandle {
    let mut sessions = sessions.into_iter();
    let first = sessions.next().unwrap();
    let rest = Arc::new(Mutex::new(sessions.collect::<Vec<_>>().into_iter()));
    let login = move |_: RefreshContext| {
        let next = rest.lock().unwrap().next().unwrap();
        std::future::ready(Ok(next))
    };
    SessionHandle::builder(login).initial_session(first).build()
}

#[tokio::test]
async fn r35_what_a_replay_proves_is_its_own_session() {
    let key = DpopKey::generate().unwrap();
    let bearer = |token| Session::new(token, INSTANCE).unwrap();
    let bound = |token| bearer(token).with_dpop_key(key.clone());
    for (sessions, expected) in [
        ([bound("T0"), bearer("T1")], ["DPoP T0", "Bearer T1"]),
        ([bearer("T0"), bound("T1")], ["Bearer T0", "DPoP T1"]),
    ] {
        let (client, requests) = scripted(|_, number| match number {
            0 => answer(401, &[], ""),
            _ => answer(200, &[], ""),
        });
        let layer = SalesforceAuthLayer::from(handle(sessions));
        assert_eq!(get(&layer, whole(client)).await, StatusCode::OK);
        let requests = requests.take();
        assert_eq!(requests.len(), 2);
        for (request, expected) in requests.iter().zip(expected) {
            assert_eq!(request.headers()["authorization"], expected);
            let (scheme, token) = expected.split_once(' ').unwrap();
            if scheme == "DPoP" {
                assert_eq!(Proof::of(request.headers()).claim("ath"), ath(token));
            } else {
                assert!(!request.headers().contains_key("dpop"));
            }
        }
    }
}

#[tokio::test]
async fn r35_a_rotated_token_alone_keeps_the_settings_of_the_app() {
    // The key is read from a record: its settings are those of the app.
    let key = DpopKey::generate().unwrap();
    let session = Session::new("T0", INSTANCE)
        .unwrap()
        .with_refresh_token("R0");
    let record = Record::new(session.with_dpop_key(key)).encode();
    let session = Record::decode(record.expose()).unwrap().session().clone();
    let org = Org::new();
    let app = app(&org).dpop(Dpop::per_grant().htu(format!("{INSTANCE}:443/"), "https://inside"));
    let (login, _) = scripted(|_, _| {
        answer(
            500,
            &[],
            r#"{"error":"invalid_grant","refresh_token":"R1"}"#,
        )
    });
    let handle = SessionHandle::builder(RefreshToken::new(login, app, "none"))
        .initial_session(session)
        .build();
    let layer = SalesforceAuthLayer::from(handle.clone());
    let (client, requests) = scripted(|_, _| answer(200, &[], ""));
    assert_eq!(get(&layer, whole(client.clone())).await, StatusCode::OK);
    handle.refresh().await.unwrap_err();
    let newest = handle.try_session().unwrap();
    assert_eq!(newest.refresh_token().unwrap().expose(), "R1");
    assert_eq!(get(&layer, whole(client)).await, StatusCode::OK);
    for request in requests.take() {
        let htu = Proof::of(request.headers()).claim("htu").to_owned();
        assert!(htu.starts_with("https://inside/"), "{htu}");
    }
}
