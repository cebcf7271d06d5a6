//! Settings of the layer and of its session.

use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use http::StatusCode;
use tower::Layer;
use tower_salesforce_auth::{
    LiveSession, RefreshContext, RefreshError, RefreshErrorKind, SalesforceAuthLayer, Session,
    SessionHandle,
    layer::OnRefreshFailure,
    observer::Observer,
    request::ReplaySkipped,
    store::{MemoryStore, SessionStore},
    verdict::SalesforceClassifier,
};

use crate::support::{Api, counting, counting_builder, get, layer_error, outcome, send, session};

#[tokio::test(start_paused = true)]
async fn a_refresh_timeout_of_any_length_works() {
    for timeout in [Duration::ZERO, Duration::MAX] {
        let api = Api::accepting("T1");
        let handle = SessionHandle::builder(|_: RefreshContext| async {
            tokio::task::yield_now().await;
            Ok(session("T1"))
        })
        .refresh_timeout(timeout)
        .build();
        let layer = SalesforceAuthLayer::from(handle);
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

/// Records the sessions that were reported.
#[derive(Clone, Default)]
struct Changes(Arc<Mutex<Vec<String>>>);

impl Changes {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Observer for Changes {
    fn session_changed(&self, session: &LiveSession) {
        let token = session.access_token().expose().to_owned();
        self.0.lock().unwrap().push(token);
    }
}

/// The key of the sessions in a store.
const KEY: &str = "example";

/// The access token of the session in a store.
async fn stored(store: &MemoryStore) -> Option<String> {
    let record = store.load(KEY).await.unwrap()?;
    Some(record.session().access_token().expose().to_owned())
}

fn token(handle: &SessionHandle) -> Option<String> {
    let live = handle.try_session()?;
    Some(live.access_token().expose().to_owned())
}

#[tokio::test(start_paused = true)]
async fn r46_a_setting_of_a_cloned_builder_leaves_the_original() {
    const GATEWAY: &str = "https://gateway.example.com";
    let original = SessionHandle::builder(|_: RefreshContext| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Session::new("T1", GATEWAY).map_err(RefreshError::terminal)
    });
    let (changes, store) = (Changes::default(), MemoryStore::new());
    let clone = original
        .clone()
        .initial_session(session("T0"))
        .store(store.clone(), KEY)
        .observer(changes.clone())
        .allow_origin(GATEWAY.parse().unwrap());
    let impatient = original.clone().refresh_timeout(Duration::ZERO);

    let handle = original.build();
    assert_eq!(token(&handle), None);
    let error = handle.session().await.unwrap_err();
    let kind = error.refresh_error().unwrap().kind();
    assert_eq!(kind, RefreshErrorKind::UntrustedInstance);
    handle.set(session("T9"));
    assert_eq!((changes.take(), stored(&store).await), (vec![], None));

    let handle = clone.build();
    assert_eq!(token(&handle).as_deref(), Some("T0"));
    handle.refresh().await.unwrap();
    assert_eq!(changes.take(), ["T1"]);
    assert_eq!(stored(&store).await.as_deref(), Some("T1"));

    let error = impatient.build().session().await.unwrap_err();
    let kind = error.refresh_error().unwrap().kind();
    assert_eq!(kind, RefreshErrorKind::TimedOut);
}

#[tokio::test]
async fn r46_handles_of_a_cloned_builder_share_no_session() {
    let (builder, refreshes) = counting_builder(|n| async move { Ok(session(&format!("T{n}"))) });
    let (one, other) = (builder.clone().build(), builder.build());
    one.refresh().await.unwrap();
    assert_eq!(token(&one).as_deref(), Some("T1"));
    assert_eq!(token(&other).as_deref(), Some("T0"));
    other.refresh().await.unwrap();
    assert_eq!(token(&one).as_deref(), Some("T1"));
    assert_eq!(refreshes.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn r46_the_order_of_a_builders_settings_does_not_matter() {
    for order in [
        ["session", "observer", "store"],
        ["session", "store", "observer"],
        ["observer", "session", "store"],
        ["observer", "store", "session"],
        ["store", "session", "observer"],
        ["store", "observer", "session"],
    ] {
        let (changes, store) = (Changes::default(), MemoryStore::new());
        let mut builder = SessionHandle::builder(async |_: RefreshContext| Ok(session("T1")));
        for setting in order {
            builder = match setting {
                "session" => builder.initial_session(session("T0")),
                "observer" => builder.observer(changes.clone()),
                _ => builder.store(store.clone(), KEY),
            };
        }
        let handle = builder.build();
        // An initial session is neither reported nor stored.
        assert_eq!(token(&handle).as_deref(), Some("T0"), "{order:?}");
        assert_eq!(changes.take(), [""; 0], "{order:?}");
        assert_eq!(stored(&store).await, None, "{order:?}");

        handle.refresh().await.unwrap();
        assert_eq!(token(&handle).as_deref(), Some("T1"), "{order:?}");
        assert_eq!(changes.take(), ["T1"], "{order:?}");
        assert_eq!(stored(&store).await.as_deref(), Some("T1"), "{order:?}");
    }
}

#[tokio::test]
async fn r46_layers_of_one_handle_share_its_session_alone() {
    let api = Api::accepting("T1");
    let (builder, refreshes) = counting_builder(|n| async move { Ok(session(&format!("T{n}"))) });
    let handle = builder.build();
    let passive = SalesforceAuthLayer::from(handle.clone()).max_refreshes(0);
    let active = SalesforceAuthLayer::from(handle);
    let response = send(&passive.layer(api.clone()), get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    for layer in [active, passive] {
        let response = send(&layer.layer(api.clone()), get("/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert_eq!(refreshes.load(Ordering::SeqCst), 1);
    assert_eq!(api.tokens(), ["T0", "T0", "T1", "T1"]);
}

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
