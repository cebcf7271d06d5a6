//! No trace, event or record of a request shows a private key, a token or a proof.

use std::{
    fmt::{Debug, Write},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use tower::{ServiceBuilder, ServiceExt};
use tower_http::trace::{DefaultMakeSpan, TraceLayer};
use tower_salesforce_auth::{
    LiveSession, SalesforceAuthLayer, Secret, SessionHandle,
    flow::RefreshToken,
    oauth::AuthorizationUrl,
    observer::{Observer, RefreshFailed, RefreshSucceeded},
    store::MemoryStore,
};

use crate::{
    support::{app_per_grant, bound_app, get, requiring_org, whole},
    traced::Traced,
};

/// Keeps all events as text.
#[derive(Clone, Default)]
struct Shown(Arc<Mutex<String>>);

impl Shown {
    fn add(&self, event: &dyn Debug) {
        let mut shown = self.0.lock().unwrap();
        write!(shown, "{event:?} {event:#?}").unwrap();
    }
}

impl Observer for Shown {
    fn session_changed(&self, session: &LiveSession) {
        self.add(session);
    }

    fn refresh_succeeded(&self, event: &RefreshSucceeded) {
        self.add(event);
    }

    fn refresh_failed(&self, event: &RefreshFailed) {
        self.add(event);
    }

    fn refresh_token_changed(&self, token: &Secret) {
        self.add(token);
    }
}

#[tokio::test]
async fn r35_no_trace_shows_a_key_a_token_or_a_proof() {
    let (traced, _guard) = Traced::begin();
    let org = requiring_org();
    org.require_dpop_nonce(true);
    let shown = Shown::default();
    let mut secrets = Vec::new();
    for app in [bound_app(&org).0, app_per_grant(&org)] {
        let uri = org.redirect_uri();
        let request = AuthorizationUrl::new(&app, &uri).build().unwrap();
        shown.add(&(&request, request.pending(), &app));
        let session = crate::stores::authorized(&org, &app).await;
        let flow = RefreshToken::new(org.clone(), app, "none");
        let handle = SessionHandle::builder(flow)
            .observer(shown.clone())
            .store(MemoryStore::new(), "user")
            .build();
        handle.set(session);
        handle.save().await.unwrap();
        let layer = SalesforceAuthLayer::from(handle.clone());
        let service = ServiceBuilder::new()
            .layer(
                TraceLayer::new_for_http()
                    .make_span_with(DefaultMakeSpan::new().include_headers(true)),
            )
            .service(whole(org.clone()));
        for _ in 0..2 {
            let live = handle.session().await.unwrap();
            let pem = live.dpop_key().unwrap().to_pem();
            secrets.extend(pem.expose().lines().skip(1).map(str::to_owned));
            secrets.push(live.access_token().expose().to_owned());
            secrets.push(live.refresh_token().unwrap().expose().to_owned());
            shown.add(&(&handle, &live, &layer));
            org.expire_sessions();
            let service = service
                .clone()
                .map_response(|response: Response<_>| response.map(|_| Full::<Bytes>::default()));
            assert_eq!(get(&layer, service).await, StatusCode::OK);
        }
        handle.logout_and_revoke(org.clone()).await.unwrap();
    }
    secrets.push("eyJ0eXAiOiJkcG9wK2p3dCIs".to_owned());
    let shown = shown.0.lock().unwrap().clone() + &traced.text();
    assert!(shown.contains("dpop") && shown.contains("Sensitive"));
    for secret in secrets.iter().filter(|secret| !secret.starts_with("---")) {
        assert!(!shown.contains(secret.as_str()), "{secret}");
    }
}
