//! Input that cannot work gives an error that says what to do.

use std::{collections::HashMap, error::Error as _};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderName, HeaderValue, Request, StatusCode, header::AUTHORIZATION};
use http_body_util::Full;
use tower::{Layer, Service};
use tower_salesforce_auth::{
    Error, ErrorKind, InstanceUrl, LoginUrl, RefreshContext, RefreshError, RefreshErrorKind,
    SalesforceAuthLayer, Secret, Session, SessionHandle,
    handle::{Origin, SessionHandleBuilder},
    oauth::App,
    request::SkipAuth,
};

use crate::support::{Api, INSTANCE, Refresher, get, layer_error, send, session, starting_with};

#[test]
fn an_unsafe_instance_url_is_refused() {
    for (url, advice) in [
        ("http://example.my.salesforce.com", "https only"),
        ("ftp://example.my.salesforce.com", "https only"),
        ("https://example.lightning.force.com", "My Domain"),
        ("https://Example.Lightning.Force.Com/", "My Domain"),
        (
            "https://example.my.salesforce.com/services",
            "scheme and host alone",
        ),
        (
            "https://example.my.salesforce.com?sid=hush",
            "scheme and host alone",
        ),
        (
            "https://user:hush@example.my.salesforce.com",
            "before the @",
        ),
        ("https://example.my.salesforce.com:99999", "up to 65535"),
        ("https://example.my.salesforce.com:84e3", "up to 65535"),
        ("https://example.my.salesforce.com:", "up to 65535"),
        ("http://[::1]:99999", "up to 65535"),
        ("example.my.salesforce.com", "expected https://<host>"),
        ("/services/data", "expected https://<host>"),
        ("https://", "expected https://<host>"),
        ("", "expected https://<host>"),
        ("not a url", "expected https://<host>"),
    ] {
        let error = Session::new("T0", url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidUrl, "{url}");
        assert!(error.to_string().starts_with("the instance URL"), "{error}");
        assert!(error.to_string().contains(advice), "{url}: {error}");
        let chain = format!("{error} {error:?} {:?}", error.source());
        assert!(!chain.contains("hush"), "{chain}");
    }
    for (url, shown) in [
        ("https://example.my.salesforce.com", INSTANCE),
        ("https://EXAMPLE.my.salesforce.com/", INSTANCE),
        (" https://example.my.salesforce.com:443/ ", INSTANCE),
        (
            "https://example.my.salesforce.com:8443",
            "https://example.my.salesforce.com:8443",
        ),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
        ("http://127.9.9.9", "http://127.9.9.9"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ] {
        let url: InstanceUrl = url.parse().unwrap();
        assert_eq!(url.to_string(), shown);
    }
}

#[test]
fn a_login_url_keeps_its_path_and_refuses_unsafe_urls() {
    let site: LoginUrl = "https://example.my.site.com/partners/".parse().unwrap();
    assert_eq!(site.to_string(), "https://example.my.site.com/partners");
    assert_eq!(LoginUrl::sandbox().host(), "test.salesforce.com");
    for url in [
        "http://login.salesforce.com",
        "https://example.lightning.force.com",
        "https://login.salesforce.com/?display=hush",
        "https://login.salesforce.com/services/oauth2/token",
        "https://user:hush@login.salesforce.com",
    ] {
        let error = url.parse::<LoginUrl>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidUrl);
        assert!(!error.to_string().contains("hush"));
    }
}

#[test]
fn a_token_that_cannot_be_a_header_value_is_refused() {
    for token in [
        "",
        "two words",
        "line\nbreak",
        "tab\t",
        "caf\u{e9}",
        "nul\0",
        " T0",
        "T0\r\n",
    ] {
        let error = Session::new(token, INSTANCE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidToken, "{token:?}");
        let shown = format!("{error} {error:?}");
        assert!(token.is_empty() || !shown.contains(token), "{shown}");
    }
    assert!(Session::new("00Dxx0000001gEF!AQEAQ.a_b-c/d+e=", INSTANCE).is_ok());
    assert!(
        Session::from_session_id(
            "00Dxx!A",
            "https://example.my.salesforce.com/services/Soap/u/64.0/00Dxx"
        )
        .is_ok()
    );
}

#[test]
fn an_unsafe_origin_is_refused() {
    for (origin, advice) in [
        ("http://api.salesforce.com", "https only"),
        ("ftp://api.salesforce.com", "https only"),
        ("https://example.lightning.force.com", "My Domain"),
        ("https://api.salesforce.com/einstein", "alone"),
        ("https://api.salesforce.com?sid=hush", "alone"),
        ("https://user:hush@api.salesforce.com", "before the @"),
        ("https://api.salesforce.com:99999", "up to 65535"),
        ("https://api.salesforce.com:", "up to 65535"),
        ("api.salesforce.com", "expected https://<host>"),
        ("//api.salesforce.com", "expected https://<host>"),
        ("*", "expected https://<host>"),
        ("https://", "expected https://<host>"),
        ("", "expected https://<host>"),
        ("not an origin", "expected https://<host>"),
    ] {
        let error = origin.parse::<Origin>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidUrl, "{origin}");
        assert!(error.to_string().starts_with("the origin"), "{error}");
        assert!(error.to_string().contains(advice), "{origin}: {error}");
        let chain = format!("{error} {error:?} {:?}", error.source());
        assert!(!chain.contains("hush"), "{chain}");
    }
}

#[test]
fn an_origin_is_the_same_however_it_is_written() {
    for (origin, shown) in [
        ("https://api.salesforce.com", "https://api.salesforce.com"),
        (
            " https://API.salesforce.com:443/ ",
            "https://api.salesforce.com",
        ),
        (
            "https://api.salesforce.com:7443",
            "https://api.salesforce.com:7443",
        ),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://[::1]:80", "http://[::1]"),
    ] {
        let origin: Origin = origin.parse().unwrap();
        assert_eq!(origin.to_string(), shown);
        assert_eq!(origin, shown.parse().unwrap());
        assert_eq!(format!("{origin:?}"), format!("Origin({shown})"));
    }
}

#[tokio::test]
async fn a_wildcard_origin_allows_no_other_host() {
    let api = Api::accepting("T0");
    // `*` is a host name here, which no request has.
    let handle = SessionHandleBuilder::fixed(session("T0"))
        .allow_origin("https://*".parse().unwrap())
        .build();
    let service = SalesforceAuthLayer::from(handle).layer(api.clone());
    send(&service, get("https://example.com/")).await.unwrap();
    assert_eq!(api.tokens(), [""]);
}

#[test]
fn a_refresh_without_a_runtime_says_that_it_needs_one() {
    let api = Api::accepting("T0");
    let refresher = Refresher::of(&api);

    // Without a refresh the layer needs no runtime.
    let service = refresher.layer().layer(api.clone());
    let answer = send(&service, get("/")).now_or_never().expect("an answer");
    assert_eq!(answer.unwrap().status(), StatusCode::OK);

    api.accept("T1");
    let answer = send(&service, get("/")).now_or_never().expect("an answer");
    let error = answer.unwrap_err();
    assert_eq!(layer_error(&error).kind(), ErrorKind::NoRuntime);
    assert!(error.to_string().contains("#[tokio::main]"), "{error}");

    let service = refresher.layer_without_session().layer(api.clone());
    let answer = send(&service, get("/")).now_or_never().expect("an answer");
    assert_eq!(
        layer_error(&answer.unwrap_err()).kind(),
        ErrorKind::NoRuntime
    );
    assert_eq!(refresher.count(), 0);

    // The same layer works inside a runtime, even for a request that was made outside.
    let mut service = service;
    let request = service.call(get("/"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    assert_eq!(runtime.block_on(request).unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_relative_uri_without_a_session_names_the_remedy() {
    // A fixed session that was invalidated cannot be replaced.
    let handle = SessionHandle::fixed(session("T0"));
    handle.invalidate(handle.try_session().unwrap().generation());
    let service = SalesforceAuthLayer::from(handle).layer(Api::accepting("T0"));
    let error = send(&service, get("/services/data/")).await.unwrap_err();
    assert_eq!(layer_error(&error).kind(), ErrorKind::NoSession);
    assert!(error.to_string().contains("set a session"), "{error}");

    // `SkipAuth` must not wait for a session.
    let api = Api::accepting("T1");
    let refresher = Refresher::of(&api);
    let service = refresher.layer_without_session().layer(api.clone());
    let mut request = get("/services/data/");
    request.extensions_mut().insert(SkipAuth);
    let error = send(&service, request).await.unwrap_err();
    assert_eq!(layer_error(&error).kind(), ErrorKind::NoSession);
    assert!(error.to_string().contains("absolute URI"), "{error}");
    assert_eq!((api.calls(), refresher.count()), (0, 0));
}

#[tokio::test]
async fn an_invalid_session_from_a_refresh_is_a_refresh_error() {
    let layer = SalesforceAuthLayer::new(|_: RefreshContext| async {
        Session::new("", INSTANCE).map_err(RefreshError::terminal)
    });
    let service = layer.layer(Api::accepting("T0"));
    let error = send(&service, get("/")).await.unwrap_err();
    let error = layer_error(&error).refresh_error().unwrap();
    assert_eq!(error.kind(), RefreshErrorKind::Other);
    assert!(error.is_terminal());
    let cause: &Error = error.causes().next().unwrap().downcast_ref().unwrap();
    assert_eq!(cause.kind(), ErrorKind::InvalidToken);
}

/// Prints every public type that can hold a secret.
#[tokio::test]
async fn r17_no_public_type_prints_a_secret() {
    let secrets = ["TOKEN-hush", "REFRESH-hush", "SECRET-hush"];
    let session = Session::new(secrets[0], INSTANCE)
        .unwrap()
        .with_refresh_token(secrets[1]);
    let layer = starting_with(session.clone(), |_: RefreshContext| async {
        Err::<Session, _>(RefreshError::terminal("revoked"))
    });
    let handle = layer.handle();
    let service = layer.layer(Api::accepting("nothing"));
    let client = service.get_ref().clone();
    let app = App::new(LoginUrl::production(), "id").client_secret(secrets[2]);
    let context = RefreshContext::new(tower_salesforce_auth::observer::RefreshReason::Manual)
        .with_refresh_token(secrets[1]);
    let mut shown = vec![
        format!("{session:?} {:?}", session.access_token()),
        format!("{layer:?} {handle:?} {:?}", handle.try_session()),
        format!("{:?}", handle.subscribe()),
        format!("{context:?}"),
        format!("{:?}", Secret::from(secrets[2])),
        format!(
            "{:?}",
            tower_salesforce_auth::flow::RefreshToken::new(client.clone(), app.clone(), secrets[1])
        ),
        format!(
            "{:?}",
            tower_salesforce_auth::flow::ClientCredentials::new(client, app)
        ),
    ];
    let request = Request::get("/").body(Full::<Bytes>::default()).unwrap();
    let error = send(&service, request).await.unwrap_err();
    let mut cause: Option<&dyn std::error::Error> = Some(&*error);
    while let Some(error) = cause {
        shown.push(format!("{error} {error:?}"));
        cause = error.source();
    }
    for shown in shown {
        assert!(!shown.contains("hush"), "{shown}");
    }
}

/// A full header map makes the http crate panic on a plain insert.
#[tokio::test]
async fn a_full_header_map_is_an_error_and_not_a_panic() {
    let api = Api::accepting("own");
    let service = Refresher::of(&api).layer().layer(api.clone());
    for authorization in [Some("Bearer own"), None] {
        let mut request = get("/services/data/");
        let headers = request.headers_mut();
        if let Some(authorization) = authorization {
            headers.insert(AUTHORIZATION, HeaderValue::from_static(authorization));
        }
        let one = HeaderValue::from_static("1");
        for number in 0.. {
            let name = HeaderName::from_bytes(format!("x-{number}").as_bytes()).unwrap();
            if headers.try_append(name, one.clone()).is_err() {
                break;
            }
        }
        match (send(&service, request).await, authorization) {
            (Ok(response), Some(_)) => assert_eq!(response.status(), StatusCode::OK),
            (Err(error), None) => {
                assert_eq!(layer_error(&error).kind(), ErrorKind::InvalidRequest);
            }
            (came, _) => panic!("{came:?}"),
        }
    }
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
