//! Traced events of the flows and the layer (R28), without secrets (R17).

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower::{Layer, ServiceExt};
use tower_http::trace::{DefaultMakeSpan, DefaultOnRequest, DefaultOnResponse, TraceLayer};
use tower_salesforce_auth::{
    RefreshError, SalesforceAuthLayer, Session,
    emulator::{Fault, Org},
    observer::{Observer, RefreshFailed},
};
use tracing::{Instrument, Level, info_span};

use crate::{
    logins::{layers, saml},
    support::{LIMITS, Traced, app, builder, get_limits, layer},
};

/// The only line with this event.
fn line(traced: &Traced, event: &str) -> String {
    let text = traced.text();
    let mut lines = text.lines().filter(|line| line.contains(event));
    let line = lines
        .next()
        .unwrap_or_else(|| panic!("no {event} in {text}"));
    assert!(lines.next().is_none(), "several {event} in {text}");
    line.to_owned()
}

#[tokio::test(start_paused = true)]
async fn r17_no_secret_of_any_flow_is_traced() {
    let (traced, _guard) = Traced::begin();
    let org = Org::new();
    org.rotate_refresh_tokens(true);
    let mut secrets = vec![
        org.client_secret().to_owned(),
        org.password().to_owned(),
        org.security_token().to_owned(),
        saml(&org),
        "eyJ.subject.token".to_owned(),
        "PRIVATE KEY".to_owned(),
    ];
    let keep = |secrets: &mut Vec<String>, layer: &SalesforceAuthLayer| {
        let handle = layer.handle();
        let session = handle.try_session();
        secrets.extend(session.map(|live| live.access_token().expose().to_owned()));
        secrets.extend(
            handle
                .refresh_token()
                .map(|token| token.expose().to_owned()),
        );
    };
    let mut layers = layers(&org);
    layers.push(("a session", layer(&org)));
    let wire = TraceLayer::new_for_http()
        .make_span_with(
            DefaultMakeSpan::new()
                .include_headers(true)
                .level(Level::TRACE),
        )
        .on_request(DefaultOnRequest::new().level(Level::TRACE))
        .on_response(
            DefaultOnResponse::new()
                .include_headers(true)
                .level(Level::TRACE),
        );
    for (name, layer) in layers {
        keep(&mut secrets, &layer);
        for fault in [Fault::None, Fault::LoseAnswer, Fault::Maintenance] {
            org.expire_sessions();
            org.on_token(fault.clone());
            org.on_soap_login(fault.clone());
            let uri = format!("{}{LIMITS}", org.instance_url());
            let request = Request::get(uri).body(Full::<Bytes>::default()).unwrap();
            let client = layer.layer(wire.clone().layer(org.clone()));
            let answer = client.oneshot(request).await;
            if fault == Fault::None {
                assert_eq!(answer.unwrap().status(), 200, "{name}");
            }
            keep(&mut secrets, &layer);
        }
        org.on_token(Fault::None);
        org.on_soap_login(Fault::None);
        layer.handle().reset();
        org.expire_sessions();
        // The lost answer has spent the refresh token, so this fails for some flows.
        let _ = get_limits(&layer, &org).await;
        keep(&mut secrets, &layer);
        let _ = layer.handle().logout_and_revoke(org.clone()).await;
    }
    let text = traced.text();
    for event in [
        "refresh started",
        "refresh succeeded",
        "refresh failed",
        "request replayed",
        "re-authentication required",
        "logged out",
        "session changed",
        "authorization",
    ] {
        assert!(text.contains(event), "{event} in {text}");
    }
    secrets.retain(|secret| !secret.is_empty());
    assert!(secrets.len() > 30, "{}", secrets.len());
    for secret in secrets {
        assert!(!text.contains(&secret), "{secret} in {text}");
    }
}

#[tokio::test]
async fn r28_a_refresh_is_traced_in_the_span_of_its_request() {
    let org = Org::new();
    let layer = layer(&org);
    org.expire_sessions();
    let (traced, _guard) = Traced::begin();
    get_limits(&layer, &org)
        .instrument(info_span!("request", id = 7))
        .await
        .unwrap();
    let host = app(&org).login_url().host().to_owned();
    let span = format!(
        r#" request{{id=7}}:salesforce.refresh{{reason=Rejected attempt=1 grant="refresh_token" host="{host}""#
    );
    for event in ["refresh started", "session changed", "refresh succeeded"] {
        let line = line(&traced, event);
        assert!(line.contains(&span), "{span} in {line}");
    }
    let succeeded = line(&traced, "refresh succeeded");
    assert!(succeeded.contains(" INFO ") && succeeded.contains("waiters=1"));
    assert!(succeeded.contains(r#"outcome="succeeded""#), "{succeeded}");
    let replayed = line(&traced, "request replayed");
    assert!(
        replayed.contains(" request{id=7}: ") && replayed.contains("attempt=2"),
        "{replayed}"
    );
}

/// Records failed refreshes.
#[derive(Clone, Default)]
struct Failures(Arc<Mutex<Vec<RefreshFailed>>>);

impl Observer for Failures {
    fn refresh_failed(&self, event: &RefreshFailed) {
        self.0.lock().unwrap().push(event.clone());
    }

    fn reauthentication_required(&self, failure: &RefreshError) {
        assert_eq!(failure.error_code(), Some("invalid_grant"));
    }
}

#[tokio::test]
async fn r28_a_failed_refresh_carries_the_servers_error_code() {
    let org = Org::new();
    let failures = Failures::default();
    let handle = builder(&org).observer(failures.clone()).build();
    let layer = SalesforceAuthLayer::from(handle);
    org.expire_sessions();
    org.revoke_grants();
    let (traced, _guard) = Traced::begin();
    get_limits(&layer, &org).await.unwrap_err();
    {
        let failures = failures.0.lock().unwrap();
        let [failed] = &failures[..] else {
            panic!("{failures:?}");
        };
        assert_eq!(failed.error().error_code(), Some("invalid_grant"));
        assert!(failed.error().is_terminal() && !failed.will_retry());
        let description = failed.description().unwrap();
        assert_eq!(description.grant(), "refresh_token");
        assert_eq!(description.host(), app(&org).login_url().host());
    }
    for event in ["refresh failed", "re-authentication required"] {
        let line = line(&traced, event);
        assert!(line.contains(r#"error_code="invalid_grant""#), "{line}");
    }
    assert!(line(&traced, "re-authentication required").contains("ERROR"));
}

#[tokio::test]
async fn r28_a_skipped_replay_and_a_logout_are_traced() {
    let org = Org::new();
    let grant = org.authorize();
    let session = Session::new(grant.access_token(), grant.instance_url()).unwrap();
    let layer = SalesforceAuthLayer::fixed(session);
    org.expire_sessions();
    let (traced, _guard) = Traced::begin();
    get_limits(&layer, &org).await.unwrap();
    assert!(line(&traced, "replay skipped").contains("NotConfigured"));
    let _ = layer.handle().logout(org.clone()).await;
    assert!(line(&traced, "logged out").contains("INFO"));
}
