//! Settings of the layer and of its session.

use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, header::AUTHORIZATION};
use http_body_util::Full;
use tower::{Layer, ServiceExt};
use tower_salesforce_auth::{
    AuthorizationScheme, OnRefreshFailure, RefreshContext, RefreshError, RefreshErrorKind,
    ReplayBody, ReplaySkipped, SalesforceAuthLayer, Session, emulator::Org,
    verdict::SalesforceClassifier,
};

use crate::support::{Api, counting, get, layer, layer_error, outcome, send, session};

#[tokio::test]
async fn the_authorization_scheme_is_bearer_unless_set() {
    let org = Org::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let inner = {
        let (org, seen) = (org.clone(), Arc::clone(&seen));
        tower::service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
            let value = request.headers()[AUTHORIZATION].clone();
            assert!(value.is_sensitive());
            let (scheme, _) = value.to_str().unwrap().split_once(' ').unwrap();
            seen.lock().unwrap().push(scheme.to_owned());
            org.clone().oneshot(request)
        })
    };
    let request = || {
        Request::get("/services/data/v66.0/limits")
            .body(Full::<Bytes>::default())
            .unwrap()
    };
    let layer = layer(&org);
    layer.layer(inner.clone()).oneshot(request()).await.unwrap();
    // The scheme also holds for the current session.
    let layer = layer.authorization_scheme(AuthorizationScheme::OAuth);
    let response = layer.layer(inner.clone()).oneshot(request()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    org.expire_sessions();
    let response = layer.layer(inner).oneshot(request()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(*seen.lock().unwrap(), ["Bearer", "OAuth", "OAuth", "OAuth"]);
}

#[tokio::test]
async fn allow_origin_holds_for_a_handle_taken_before() {
    let layer = SalesforceAuthLayer::new(|_: RefreshContext| async {
        Session::new("T1", "https://example.com").map_err(RefreshError::terminal)
    });
    let handle = layer.handle();
    assert!(handle.token().await.is_err());
    let _layer = layer.allow_origin("https://example.com").unwrap();
    assert!(handle.token().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_refresh_timeout_of_any_length_works() {
    for timeout in [Duration::ZERO, Duration::MAX] {
        let api = Api::accepting("T1");
        let layer = SalesforceAuthLayer::new(|_: RefreshContext| async {
            tokio::task::yield_now().await;
            Ok(session("T1"))
        })
        .refresh_timeout(timeout);
        let answer = send(&layer.layer(api), get("/")).await;
        match answer {
            Ok(response) => assert_eq!(response.status(), StatusCode::OK),
            Err(error) => {
                let error = layer_error(&error).refresh_error().unwrap();
                assert_eq!(
                    (error.kind(), timeout),
                    (RefreshErrorKind::TimedOut, Duration::ZERO)
                );
            }
        }
    }
}

// === Settings are values (R46) ===

#[tokio::test]
async fn r46_a_setting_of_a_cloned_layer_leaves_the_original() {
    let api = Api::accepting("nothing");
    let (original, _) = counting(|n| async move { Ok(session(&format!("T{n}"))) });
    let clone = original
        .clone()
        .max_refreshes(3)
        .on_refresh_failure(OnRefreshFailure::Respond)
        .classifier(SalesforceClassifier::new().incurable("expired"));
    let more = original.clone().max_refreshes(3);
    for (layer, attempts) in [(clone, 1), (more, 4), (original, 2)] {
        layer.handle().set(session("T0"));
        let response = send(&layer.layer(api.clone()), get("/")).await.unwrap();
        assert_eq!(outcome(&response).attempts(), attempts);
    }
}

#[tokio::test]
async fn r46_the_order_of_a_layers_settings_does_not_matter() {
    let settings: [fn(SalesforceAuthLayer) -> SalesforceAuthLayer; 2] = [
        |layer| {
            layer
                .max_refreshes(5)
                .on_refresh_failure(OnRefreshFailure::Respond)
        },
        |layer| {
            layer
                .on_refresh_failure(OnRefreshFailure::Respond)
                .max_refreshes(5)
        },
    ];
    for set in settings {
        let api = Api::accepting("nothing");
        let (layer, refreshes) = counting(|n| async move {
            if n == 3 {
                return Err(RefreshError::terminal("revoked"));
            }
            Ok(session(&format!("T{n}")))
        });
        let response = send(&set(layer).layer(api), get("/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(refreshes.load(Ordering::SeqCst), 3);
        assert_eq!(
            outcome(&response).replay_skipped(),
            Some(ReplaySkipped::RefreshFailed)
        );
    }
}
