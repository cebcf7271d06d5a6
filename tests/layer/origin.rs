//! Which hosts get the token (R16), and what happens when the instance moves (R18).

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{AUTHORIZATION, HOST, LOCATION},
};
use http_body_util::{BodyExt, Full};
use proptest::prelude::*;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_salesforce_auth::{
    Error, ErrorKind, LoginUrl, RefreshContext, RefreshError, ReplayBody, SalesforceAuthLayer,
    Session, SessionHandle, request::AuthOutcome,
};

use crate::support::{
    Answering, Api, INSTANCE, Refresher, expired, get, post, send, session, starting_with,
};

/// The origin and the token of each request.
type Seen = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// Every host at once: the instance accepts `T1` and redirects `/away`, all other hosts reject.
fn internet<B>(
    seen: &Seen,
    away: &'static str,
) -> Answering<impl FnMut(Request<B>) -> Response<Full<Bytes>> + Clone + use<B>> {
    let seen = seen.clone();
    Answering(move |request: Request<B>| {
        let token = request.headers().get(AUTHORIZATION).cloned();
        let token = token.map(|token| token.to_str().unwrap().to_owned());
        let origin = format!(
            "{}://{}",
            request.uri().scheme_str().unwrap_or("none"),
            request.uri().authority().map_or("none", |a| a.as_str())
        );
        seen.lock().unwrap().push((origin.clone(), token.clone()));
        if origin != INSTANCE {
            return expired();
        }
        if request.uri().path() == "/away" {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::FOUND;
            let location = HeaderValue::from_static(away);
            response.headers_mut().insert(LOCATION, location);
            return response;
        }
        if token.as_deref() == Some("Bearer T1") {
            Response::new(Full::default())
        } else {
            expired()
        }
    })
}

#[tokio::test]
async fn r16_a_foreign_host_gets_no_token_and_no_refresh() {
    for uri in [
        "https://example.com/services/data/",
        "https://example.my.salesforce.com.example.com/",
        "https://example.my.salesforce.com@example.com/",
        "https://example.my.salesforce.com:8443/",
        "https://example.my.salesforce.com:user/",
        "https://example.my.salesforce.com:99999/",
        "https://example.my.salesforce.com:-443/",
        "https://example.my.salesforce.com:0x1bb/",
        "https://other.my.salesforce.com/",
        "https://my.salesforce.com/",
        "http://example.my.salesforce.com/",
        "http://example.my.salesforce.com:443/",
        "https://example.my.salesforce.com./",
        "ftp://example.my.salesforce.com/",
    ] {
        let seen = Seen::default();
        let refresher = Refresher::of(&Api::accepting("T1"));
        let service = refresher.layer().layer(internet(&seen, ""));

        let response = send(&service, get(uri)).await.unwrap();

        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{uri}");
        assert!(response.extensions().get::<AuthOutcome>().is_none());
        assert_eq!(refresher.count(), 0, "{uri}");
        let seen = seen.lock().unwrap();
        assert!(seen.iter().all(|(_, token)| token.is_none()), "{uri}");
    }
}

#[tokio::test]
async fn r16_the_instance_is_recognised_however_it_is_written() {
    for uri in [
        "/services/data/",
        "//example.com/services/data/",
        "https://example.my.salesforce.com/services/data/",
        "https://EXAMPLE.my.Salesforce.com/services/data/",
        "https://example.my.salesforce.com:443/services/data/",
        "https://example.my.salesforce.com:/services/data/",
        "https://user@example.my.salesforce.com/services/data/",
    ] {
        let api = Api::accepting("T0");
        let refresher = Refresher::of(&api);
        let service = refresher.layer().layer(api.clone());

        let response = send(&service, get(uri)).await.unwrap();

        assert_eq!(response.status(), StatusCode::OK, "{uri}");
        let sent_to = api.seen()[0].uri.clone();
        assert_eq!(
            sent_to.host().unwrap().to_ascii_lowercase(),
            "example.my.salesforce.com"
        );
        assert_eq!(sent_to.scheme_str(), Some("https"));
    }
}

#[tokio::test]
async fn r16_a_foreign_host_causes_no_login_without_a_session() {
    let seen = Seen::default();
    let refresher = Refresher::of(&Api::accepting("T1"));
    let service = refresher.layer_without_session().layer(internet(&seen, ""));

    let response = send(&service, get("https://example.com/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(refresher.count(), 0);

    // Before the first login another org's host may be the instance. After it the host is foreign.
    let uri = "https://other.my.salesforce.com/";
    let response = send(&service, get(uri)).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(refresher.count(), 1);
    assert!(
        seen.lock()
            .unwrap()
            .iter()
            .all(|(_, token)| token.is_none())
    );
}

#[tokio::test]
async fn r16_an_allowed_origin_gets_the_token_and_its_401_counts() {
    let seen = Seen::default();
    let refresher = Refresher::of(&Api::accepting("T1"));
    let handle = refresher
        .builder()
        .allow_origin("https://api.salesforce.com".parse().unwrap())
        .build();
    let service = SalesforceAuthLayer::from(handle).layer(internet(&seen, ""));

    let uri = "https://API.salesforce.com:443/einstein/ai-agent/v1/";
    let response = send(&service, get(uri)).await.unwrap();

    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let tokens: Vec<_> = seen
        .lock()
        .unwrap()
        .iter()
        .map(|(origin, token)| format!("{origin} {}", token.as_deref().unwrap_or("none")))
        .collect();
    assert_eq!(
        tokens,
        [
            "https://API.salesforce.com:443 Bearer T0",
            "https://API.salesforce.com:443 Bearer T1"
        ]
    );
    assert_eq!(refresher.count(), 1);

    let response = send(&service, get("https://example.com/")).await.unwrap();
    assert!(response.extensions().get::<AuthOutcome>().is_none());
    assert_eq!(seen.lock().unwrap()[2].1, None);
}

/// Targets of redirects that must not get the token.
const AWAY: [&str; 3] = [
    "https://example.com/",
    "//example.com/",
    "http://example.my.salesforce.com/",
];

/// Sends a request that is redirected, and checks that the foreign host gets no token and costs no refresh.
async fn loses_the_token<S, B>(service: S, uri: &str, seen: &Seen, refresher: &Refresher)
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error: std::fmt::Debug> + Clone,
{
    let response = send(&service, get(uri)).await.unwrap();

    let seen = seen.lock().unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{seen:?}");
    assert_eq!(refresher.count(), 0, "{seen:?}");
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert_eq!(seen[0].1.as_deref(), Some("Bearer T0"), "{seen:?}");
    assert_eq!(seen[1].1, None, "{seen:?}");
}

#[tokio::test]
async fn r16_a_redirect_loses_the_token_with_the_layer_outside() {
    for away in AWAY {
        let seen = Seen::default();
        let refresher = Refresher::of(&Api::accepting("T1"));
        let followed = FollowRedirectLayer::new().layer(internet(&seen, away));
        let service = refresher.layer().layer(followed);
        loses_the_token(service, "/away", &seen, &refresher).await;
    }
}

#[tokio::test]
async fn r16_a_redirect_loses_the_token_with_the_layer_inside() {
    for away in AWAY {
        let seen = Seen::default();
        let refresher = Refresher::of(&Api::accepting("T1"));
        let service = refresher.layer().layer(internet(&seen, away));
        let service = FollowRedirectLayer::new().layer(service);
        // The redirect layer resolves a location against the URI of its request, which must be absolute.
        let uri = format!("{INSTANCE}/away");
        loses_the_token(service, &uri, &seen, &refresher).await;
    }
}

#[tokio::test]
async fn r16_a_redirect_within_the_instance_is_refreshed_for() {
    let seen = Seen::default();
    let refresher = Refresher::of(&Api::accepting("T1"));
    let followed = FollowRedirectLayer::new().layer(internet(&seen, "/services/data/"));
    let service = refresher.layer().layer(followed);
    let response = send(&service, get("/away")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(refresher.count(), 1);
}

#[tokio::test]
async fn r29_a_callers_own_authorization_is_left_alone() {
    let api = Api::accepting("T1");
    let refresher = Refresher::of(&api);
    let service = refresher.layer().layer(api.clone());
    let mut request = get("/services/data/");
    let own = HeaderValue::from_static("Bearer mine");
    request.headers_mut().insert(AUTHORIZATION, own);

    let response = send(&service, request).await.unwrap();

    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(response.extensions().get::<AuthOutcome>().is_none());
    assert_eq!((api.calls(), refresher.count()), (1, 0));
    assert_eq!(api.tokens(), ["mine"]);
}

#[tokio::test]
async fn r18_a_replay_goes_to_the_instance_of_the_refresh() {
    const NEW: &str = "https://example--new.my.salesforce.com";
    for uri in [
        "/services/data/?q=1",
        "https://example.my.salesforce.com/services/data/?q=1",
    ] {
        let api = Api::accepting("T1");
        let layer = starting_with(session("T0"), |_: RefreshContext| async {
            Session::new("T1", NEW).map_err(RefreshError::terminal)
        });
        let service = layer.layer(api.clone());
        let mut request = get(uri);
        let host = HeaderValue::from_static("example.my.salesforce.com");
        request.headers_mut().insert(HOST, host);

        let response = send(&service, request).await.unwrap();

        assert_eq!(response.status(), StatusCode::OK);
        let seen = api.seen();
        let uris: Vec<_> = seen.iter().map(|seen| seen.uri.to_string()).collect();
        let path = "/services/data/?q=1";
        assert_eq!(uris, [format!("{INSTANCE}{path}"), format!("{NEW}{path}")]);
        assert_eq!(seen[1].headers[HOST], "example--new.my.salesforce.com");
    }
}

#[tokio::test]
async fn r18_an_untrusted_instance_url_gets_no_token() {
    for url in [
        "https://example.com",
        "https://salesforce.com.example.com",
        "https://xsalesforce.com",
    ] {
        let api = Api::accepting("T1");
        let builder = SessionHandle::builder(move |_: RefreshContext| async move {
            Session::new("T1", url).map_err(RefreshError::terminal)
        })
        .initial_session(session("T0"));
        let handle = builder.clone().build();
        let service = SalesforceAuthLayer::from(handle).layer(api.clone());

        let error = send(&service, get("/services/data/")).await.unwrap_err();

        let error: &Error = error.downcast_ref().unwrap();
        assert_eq!(error.kind(), ErrorKind::Refresh);
        let error = error.refresh_error().unwrap();
        let kind = tower_salesforce_auth::RefreshErrorKind::UntrustedInstance;
        assert_eq!(error.kind(), kind);
        assert!(error.is_terminal());
        assert!(error.to_string().contains("allow_origin"), "{error}");
        assert_eq!(api.tokens(), ["T0"]);

        let handle = builder.allow_origin(url.parse().unwrap()).build();
        let service = SalesforceAuthLayer::from(handle).layer(api.clone());
        let response = send(&service, get("/services/data/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
}

/// What a server elsewhere says of this machine is not believed. A program that names no login URL speaks for itself.
#[tokio::test]
async fn r18_a_loopback_instance_needs_a_loopback_login() {
    const LOOPBACK: &str = "http://localhost:1";
    let login = |url: &str| Some(url.parse::<LoginUrl>().unwrap());
    let gateway = |token: &str| LoginUrl::production().with_token_endpoint(token).ok();
    for (login_url, is_trusted) in [
        (login("https://login.salesforce.com"), false),
        (login("https://acme.my.salesforce.com"), false),
        (login("https://login.example.com"), false),
        (gateway("https://gateway.example.com/token"), false),
        (login("http://localhost:9"), true),
        (login("http://127.0.0.1:9/site"), true),
        (login("http://[::1]:9"), true),
        (gateway("http://localhost:9/token"), true),
        (None, true),
    ] {
        for instance in [LOOPBACK, "https://127.0.0.1:8443", "http://[::1]:1"] {
            let login_url = login_url.clone();
            let handle = SessionHandle::builder(move |_: RefreshContext| {
                let session = Session::new("T1", instance).map(|session| match &login_url {
                    Some(url) => session.with_login_url(url.clone()),
                    None => session,
                });
                async { session.map_err(RefreshError::terminal) }
            });
            let result = handle.clone().build().session().await;
            let kind = result.as_ref().err().and_then(Error::refresh_error);
            assert_eq!(result.is_ok(), is_trusted, "{instance}: {kind:?}");
            let allowed = handle.allow_origin(instance.parse().unwrap()).build();
            assert!(allowed.session().await.is_ok());
        }
    }
}

#[tokio::test]
async fn a_connect_passes_and_an_asterisk_uri_is_refused() {
    let api = Api::accepting("T0");
    let refresher = Refresher::of(&api);
    let service = refresher.layer().layer(api.clone());

    let mut connect = get("/");
    *connect.method_mut() = Method::CONNECT;
    *connect.uri_mut() = Uri::from_static("example.my.salesforce.com:443");
    send(&service, connect).await.unwrap();
    assert_eq!(api.seen()[0].authorizations(), [""; 0]);

    // Joined to the instance URL, `*` would become part of the host.
    let mut options = get("/");
    *options.method_mut() = Method::OPTIONS;
    *options.uri_mut() = Uri::from_static("*");
    let error = send(&service, options).await.unwrap_err();
    let error: &Error = error.downcast_ref().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert_eq!(api.calls(), 1);
}

const GATEWAY: &str = "https://gateway.example.com";

/// R23, with an instance outside the Salesforce domains.
#[tokio::test(start_paused = true)]
async fn r23_a_request_to_a_custom_instance_waits_for_the_refresh() {
    let api = Api::accepting("T1");
    let layer = starting_with(
        Session::new("T0", GATEWAY).unwrap(),
        |_: RefreshContext| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(Session::new("T1", GATEWAY).unwrap())
        },
    );
    let service = layer.layer(api.clone());
    layer
        .handle()
        .invalidate(layer.handle().try_session().unwrap().generation());
    let response = send(&service, get("https://gateway.example.com/services/data"))
        .await
        .unwrap();
    assert_eq!(
        (response.status(), api.tokens()),
        (StatusCode::OK, vec!["T1".to_owned()])
    );
}

const MOVED: &str = "https://moved.my.salesforce.com";

/// R18 and R23: the refresh that a request waits for moves the instance.
#[tokio::test(start_paused = true)]
async fn r18_a_request_that_waited_follows_the_move() {
    let api = Api::accepting("T1");
    let layer = starting_with(session("T0"), |_: RefreshContext| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(Session::new("T1", MOVED).unwrap())
    });
    let service = layer.layer(api.clone());
    let rejected = tokio::spawn({
        let s = service.clone();
        async move {
            send(&s, get("https://example.my.salesforce.com/a"))
                .await
                .unwrap()
                .status()
        }
    });
    tokio::time::sleep(Duration::from_millis(1)).await;
    let waited = send(&service, get("https://example.my.salesforce.com/b"))
        .await
        .unwrap()
        .status();
    assert_eq!(rejected.await.unwrap(), StatusCode::OK);
    let seen: Vec<_> = api
        .seen()
        .iter()
        .map(|s| format!("{} {:?}", s.uri, s.authorizations()))
        .collect();
    assert_eq!(waited, StatusCode::OK, "{seen:#?}");
}

/// Callers may keep absolute URIs. After the move their requests go to the new instance.
#[tokio::test]
async fn r18_a_request_to_the_old_instance_follows_the_move() {
    let api = Api::accepting("T1");
    let layer = starting_with(session("T0"), |_: RefreshContext| async {
        Session::new("T1", MOVED).map_err(RefreshError::terminal)
    });
    layer.handle().refresh().await.unwrap();
    let service = layer.layer(api.clone());
    for uri in [
        "/a",
        "https://example.my.salesforce.com/a",
        "https://moved.my.salesforce.com/a",
    ] {
        let response = send(&service, get(uri)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{uri}");
    }
    assert!(
        api.seen()
            .iter()
            .all(|seen| seen.uri.to_string() == format!("{MOVED}/a"))
    );

    // The old instance was never one of another org.
    let identity = |id: &str| format!("https://login.salesforce.com/id/{id}/005xx000001SwiUAAS");
    let set = |token, url, id| {
        layer.handle().set(
            Session::new(token, url)
                .unwrap()
                .with_identity_url(identity(id)),
        )
    };
    set("T1", MOVED, "00Dxx0000001gEFEAY");
    set(
        "T2",
        "https://other.my.salesforce.com",
        "00Dyy0000001gEFEAY",
    );
    let response = send(&service, get("https://moved.my.salesforce.com/a"))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let last = api.seen().pop().unwrap();
    assert_eq!(last.uri.host(), Some("moved.my.salesforce.com"));
    assert_eq!(last.authorizations(), [""; 0]);

    // It was also never one of a session of an unknown org on another host.
    layer.handle().set(Session::new("T3", INSTANCE).unwrap());
    send(&service, get("https://other.my.salesforce.com/a"))
        .await
        .unwrap();
    let last = api.seen().pop().unwrap();
    assert_eq!(last.uri.host(), Some("other.my.salesforce.com"));
    assert_eq!(last.authorizations(), [""; 0]);
}

/// R5, with a move and with `FollowRedirect` inside, which adds the URI to every response.
#[tokio::test(start_paused = true)]
async fn r05_a_straggler_of_a_moved_instance_is_replayed() {
    let api = Api::accepting("T1");
    let slow = {
        let api = api.clone();
        service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
            let api = api.clone();
            async move {
                if request.uri().path() == "/slow"
                    && request.uri().host() == Some("example.my.salesforce.com")
                {
                    tokio::time::sleep(Duration::from_secs(10)).await;
                }
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap();
                let trailers = body.trailers().cloned();
                Ok::<_, std::convert::Infallible>(api.answer(head, body.to_bytes(), trailers))
            }
        })
    };
    let layer = starting_with(session("T0"), |_: RefreshContext| async {
        Ok(Session::new("T1", MOVED).unwrap())
    });
    let service = ServiceBuilder::new()
        .layer(&layer)
        .layer(FollowRedirectLayer::new())
        .service(slow);
    let straggler = tokio::spawn(
        service
            .clone()
            .oneshot(get("https://example.my.salesforce.com/slow")),
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    let fast = send(&service, get("https://example.my.salesforce.com/fast"))
        .await
        .unwrap();
    assert_eq!(fast.status(), StatusCode::OK);
    let straggler = straggler.await.unwrap().unwrap();
    assert_eq!(
        straggler.status(),
        StatusCode::OK,
        "{:?}",
        straggler.extensions().get::<AuthOutcome>()
    );
}

/// A request to another host causes no login, and does not fail with the session.
#[tokio::test(start_paused = true)]
async fn r16_a_foreign_request_passes_while_the_session_is_dead() {
    let refreshes = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refreshes);
    let api = Api::accepting("T1");
    let layer = starting_with(session("T0"), move |_: RefreshContext| {
        count.fetch_add(1, Ordering::SeqCst);
        async { Err(RefreshError::terminal("dead grant")) }
    });
    let service = layer.layer(api.clone());
    let _ = send(&service, get("/x")).await;
    let foreign = send(&service, get("http://localhost:9090/metrics")).await;
    assert!(
        foreign.is_ok(),
        "{:?}; refreshes {}",
        foreign.err(),
        refreshes.load(Ordering::SeqCst)
    );
    assert_eq!(refreshes.load(Ordering::SeqCst), 1);
}

/// A request with its own authorization does not wait for the refresh, even with a relative URI.
#[tokio::test(start_paused = true)]
async fn r29_own_authorization_passes_during_a_refresh() {
    let api = Api::accepting("mine");
    let layer = starting_with(session("T0"), |_: RefreshContext| pending());
    let service = layer.layer(api.clone());
    layer
        .handle()
        .invalidate(layer.handle().try_session().unwrap().generation());
    let request = Request::get("/x")
        .header("authorization", "Bearer mine")
        .body(Full::<Bytes>::default())
        .unwrap();
    let response = send(&service, request).await;
    assert!(response.is_ok(), "{:?}", response.err());
}

/// A session of another org is set while the request waits for its answer.
#[tokio::test(start_paused = true)]
async fn r27_a_request_to_one_org_is_not_replayed_against_another() {
    let api = Api::accepting("TB");
    let slow = {
        let api = api.clone();
        service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
            let api = api.clone();
            async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let (head, body) = request.into_parts();
                Ok::<_, std::convert::Infallible>(api.answer(
                    head,
                    body.collect().await.unwrap().to_bytes(),
                    None,
                ))
            }
        })
    };
    let org = |token: &str, instance: &str, id: &str| {
        Session::new(token, instance)
            .unwrap()
            .with_identity_url(format!("https://login.salesforce.com/id/{id}/005xx"))
    };
    let layer = starting_with(
        org("TA", "https://a.my.salesforce.com", "00DA"),
        async |_: RefreshContext| Err(RefreshError::terminal("no")),
    );
    let handle = layer.handle();
    let sent = tokio::spawn(
        layer
            .layer(slow)
            .oneshot(post("https://a.my.salesforce.com/delete-everything", "x")),
    );
    tokio::time::sleep(Duration::from_millis(1)).await;
    handle.set(org("TB", "https://b.my.salesforce.com", "00DB"));
    let _ = sent.await;
    let seen: Vec<_> = api.seen().iter().map(|s| s.uri.to_string()).collect();
    assert!(
        seen.iter().all(|uri| uri.starts_with("https://a.")),
        "{seen:?}"
    );
}

/// Rejects the first request, and is ready for a second one once `open` is true.
#[derive(Clone)]
struct Gate {
    seen: Arc<Mutex<Vec<String>>>,
    open: tokio::sync::watch::Receiver<bool>,
}

impl<B> Service<Request<B>> for Gate {
    type Response = Response<Full<Bytes>>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        if self.seen.lock().unwrap().is_empty() || *self.open.borrow() {
            return std::task::Poll::Ready(Ok(()));
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut seen = self.seen.lock().unwrap();
        seen.push(request.uri().to_string());
        let is_first = seen.len() == 1;
        std::future::ready(Ok(if is_first {
            expired()
        } else {
            Response::default()
        }))
    }
}

fn org(id: &str) -> Session {
    Session::new(
        format!("token-of-{id}"),
        &format!("https://{id}.my.salesforce.com"),
    )
    .unwrap()
    .with_identity_url(format!("https://login.salesforce.com/id/{id}/005xx"))
}

#[tokio::test]
async fn r27_a_replay_waiting_for_readiness_avoids_another_org() {
    let (open, is_open) = tokio::sync::watch::channel(false);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let layer = starting_with(org("a"), |_: RefreshContext| async {
        let refreshed = Session::new("refreshed", "https://a.my.salesforce.com").unwrap();
        Ok(refreshed.with_identity_url("https://login.salesforce.com/id/a/005xx"))
    });
    let handle = layer.handle();
    let gate = Gate {
        seen: seen.clone(),
        open: is_open,
    };
    let sent = tokio::spawn({
        let service = layer.layer(gate);
        async move { send(&service, post("https://a.my.salesforce.com/delete", "x")).await }
    });
    while handle
        .try_session()
        .is_none_or(|live| live.access_token().expose() != "refreshed")
    {
        tokio::task::yield_now().await;
    }
    handle.set(org("b"));
    open.send_replace(true);
    let response = sent.await.unwrap().unwrap();
    let outcome: &AuthOutcome = response.extensions().get().unwrap();
    let skipped = tower_salesforce_auth::request::ReplaySkipped::OtherOrg;
    assert_eq!(outcome.replay_skipped(), Some(skipped));
    assert_eq!(
        *seen.lock().unwrap(),
        ["https://a.my.salesforce.com/delete"]
    );
}

#[tokio::test]
async fn r27_a_request_waiting_for_a_session_avoids_another_org() {
    for uri in ["/delete", "https://a.my.salesforce.com/delete"] {
        let api = Api::accepting("token-of-b");
        let layer = starting_with(org("a"), |_: RefreshContext| pending());
        let handle = layer.handle();
        handle.invalidate(handle.try_session().unwrap().generation());
        let service = layer.layer(api.clone());
        let mut sent = Box::pin(send(&service, post(uri, "x")));
        assert!(futures_util::poll!(&mut sent).is_pending());
        handle.set(org("b"));
        let error = sent.await.unwrap_err();
        let error: &Error = error.downcast_ref().unwrap();
        assert_eq!(error.kind(), ErrorKind::OtherOrg, "{uri}");
        assert_eq!(api.calls(), 0);
    }
}

/// A client may take a port that is none for the default one.
fn has_default_port(uri: &Uri) -> bool {
    let authority = uri.authority().unwrap().as_str();
    authority.ends_with("example.my.salesforce.com")
        || authority.ends_with("example.my.salesforce.com:")
        || uri.port_u16() == Some(443)
}

proptest! {
    /// With any text around the instance's name, only the instance itself gets the token.
    #[test]
    fn r16_no_uri_but_the_instances_own_gets_the_token(
        scheme in "https?",
        before in "[a-z0-9.@:-]{0,6}",
        after in "[a-z0-9.@:-]{0,6}",
    ) {
        let uri = format!("{scheme}://{before}example.my.salesforce.com{after}/");
        let Ok(uri) = uri.parse::<Uri>() else { return Ok(()) };
        let Ok(request) = Request::get(uri.clone()).body(Full::<Bytes>::default()) else {
            return Ok(());
        };
        let is_instance = scheme == "https"
            && uri.host() == Some("example.my.salesforce.com")
            && has_default_port(&uri);
        let sees_token = Arc::new(Mutex::new(false));
        let inner = {
            let sees_token = sees_token.clone();
            Answering(move |request: Request<_>| {
                *sees_token.lock().unwrap() = request.headers().contains_key(AUTHORIZATION);
                Response::new(Full::<Bytes>::default())
            })
        };
        let service = SalesforceAuthLayer::fixed(session("T0")).layer(inner);
        let sent = futures_util::future::FutureExt::now_or_never(send(&service, request));
        prop_assert!(sent.expect("an answer at once").is_ok());
        prop_assert_eq!(*sees_token.lock().unwrap(), is_instance, "{}", uri);
    }
}
