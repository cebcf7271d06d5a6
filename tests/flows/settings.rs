//! Settings of the layer that concern sessions of all flows.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, StatusCode, header::AUTHORIZATION};
use http_body_util::Full;
use tower::{Layer, ServiceExt};
use tower_salesforce_auth::{
    AuthorizationScheme, InstanceUrl, LiveSession, LoginUrl, Observer, ReplayBody,
    SalesforceAuthLayer, Session, emulator::Org, flow::RefreshToken,
};

use crate::support::{app, get_limits, layer};

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
    // Also for the session that is in use already.
    let layer = layer.authorization_scheme(AuthorizationScheme::OAuth);
    let response = layer.layer(inner.clone()).oneshot(request()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    org.expire_sessions();
    let response = layer.layer(inner).oneshot(request()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(*seen.lock().unwrap(), ["Bearer", "OAuth", "OAuth", "OAuth"]);
}

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<LiveSession>>>);

impl Observer for Kept {
    fn session_changed(&self, session: &LiveSession) {
        self.0.lock().unwrap().push(session.clone());
    }
}

#[tokio::test]
async fn an_observer_gets_every_session_before_it_is_used() {
    let org = Org::new();
    let kept = Kept::default();
    let layer = layer(&org).observer(kept.clone());
    for renewals in 1..=3 {
        org.expire_sessions();
        get_limits(&layer, &org).await.unwrap();
        let kept = kept.0.lock().unwrap();
        assert_eq!(kept.len(), renewals);
        let current = layer.handle().current().unwrap();
        let last = kept.last().unwrap();
        assert_eq!(last.generation(), current.generation());
        assert_eq!(last.refresh_token(), current.refresh_token());
        assert_eq!(last.organization_id(), Some("00Dxx0000001gEFEAY"));
    }
    let session = Session::new("00Dxx!set", &org.instance_url()).unwrap();
    layer.handle().set(session);
    assert_eq!(
        kept.0.lock().unwrap()[3].access_token().expose(),
        "00Dxx!set"
    );
}

/// It is told although no session came of it: there may be no other that still works.
#[tokio::test]
async fn r03_an_observer_gets_a_refresh_token_without_a_session() {
    let body = r#"{"access_token":["A1"],"refresh_token":"R1","instance_url":"https://example.my.salesforce.com"}"#;
    let client = crate::support::answering(200, &[], body);
    let org = Org::new();
    let kept = Kept::default();
    let session = Session::new("00Dxx!AQ", &org.instance_url()).unwrap();
    let layer = SalesforceAuthLayer::new(RefreshToken::new(client, app(&org), "R0"))
        .session(session)
        .observer(kept.clone());
    layer.handle().refresh().await.unwrap_err();
    let kept = kept.0.lock().unwrap();
    assert_eq!(kept[0].refresh_token().unwrap().expose(), "R1");
    assert_eq!(kept[0].access_token().expose(), "00Dxx!AQ");
}

#[tokio::test]
async fn an_observer_that_panics_or_uses_the_handle_is_harmless() {
    struct Curious(Mutex<Option<tower_salesforce_auth::SessionHandle>>);

    impl Observer for Curious {
        fn session_changed(&self, session: &LiveSession) {
            let handle = self.0.lock().unwrap();
            let handle = handle.as_ref().unwrap();
            assert_eq!(handle.current().unwrap().generation(), session.generation());
            handle.refresh_token().unwrap();
            panic!("after all");
        }
    }

    let org = Org::new();
    let layer = layer(&org);
    let handle = layer.handle();
    let layer = layer.observer(Curious(Mutex::new(Some(handle))));
    org.expire_sessions();
    assert_eq!(get_limits(&layer, &org).await.unwrap().0, StatusCode::OK);
}

#[test]
fn urls_deserialize_and_work_as_map_keys() {
    #[derive(serde::Deserialize)]
    struct Settings {
        login_url: LoginUrl,
        instance_url: InstanceUrl,
    }
    let settings: Settings = serde_json::from_value(serde_json::json!({
        "login_url": "https://MyDomainName.my.site.com/partners/",
        "instance_url": "https://MyDomainName.my.salesforce.com",
    }))
    .unwrap();
    let same = "https://mydomainname.my.site.com/partners";
    assert_eq!(settings.login_url.to_string(), same);
    assert_eq!(
        settings.instance_url.host(),
        "mydomainname.my.salesforce.com"
    );
    let apps = HashMap::from([(settings.login_url, "an app")]);
    assert_eq!(apps[&same.parse::<LoginUrl>().unwrap()], "an app");

    let error = serde_json::from_value::<LoginUrl>("http://login.salesforce.com".into());
    assert!(error.unwrap_err().to_string().contains("https"));
}
