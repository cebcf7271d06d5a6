//! A port of the instance that requests go to, as an org with mutual TLS demands (R37).

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http::{HeaderValue, Response, StatusCode, header::HOST};
use proptest::prelude::*;
use tower::Layer;
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_salesforce_auth::{
    RefreshContext, RefreshError, SalesforceAuthLayer, Session, SessionHandle,
    emulator::Org,
    handle::SessionHandleBuilder,
    oauth,
    store::{MemoryStore, SessionStore},
};

use crate::support::{Answering, Api, INSTANCE, get, post, send, session};

const NEW: &str = "https://example--new.my.salesforce.com";
const PATH: &str = "/services/data/?q=1";

/// A handle whose first refresh moves the org from `INSTANCE` to `NEW`, at port 8443.
fn moving() -> SessionHandleBuilder {
    let refreshes = Arc::new(AtomicUsize::new(0));
    SessionHandle::builder(move |_: RefreshContext| {
        let number = refreshes.fetch_add(1, Ordering::SeqCst) + 1;
        async move { Session::new(format!("T{number}"), NEW).map_err(RefreshError::terminal) }
    })
    .initial_session(session("T0"))
    .instance_port(8443)
}

fn layer() -> SalesforceAuthLayer {
    moving().build().into()
}

/// Where each request went, and the token it had.
fn sent(api: &Api) -> Vec<(String, String)> {
    let seen = api.seen().into_iter().map(|seen| seen.uri.to_string());
    seen.zip(api.tokens()).collect()
}

#[tokio::test]
async fn r37_requests_and_replays_keep_the_port_over_a_move() {
    for uri in [
        PATH.to_owned(),
        format!("{INSTANCE}{PATH}"),
        format!("{INSTANCE}:443{PATH}"),
        format!("{INSTANCE}:8443{PATH}"),
    ] {
        let api = Api::accepting("T1");
        let service = layer().layer(api.clone());
        let mut request = get(&uri);
        let host = HeaderValue::from_static("example.my.salesforce.com");
        request.headers_mut().insert(HOST, host);
        let response = send(&service, request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{uri}");
        let at = |instance: &str, token: &str| (format!("{instance}:8443{PATH}"), token.to_owned());
        assert_eq!(sent(&api), [at(INSTANCE, "T0"), at(NEW, "T1")], "{uri}");
        let hosts: Vec<_> = api
            .seen()
            .iter()
            .map(|seen| seen.headers[HOST].clone())
            .collect();
        assert_eq!(hosts[1], "example--new.my.salesforce.com:8443");
        // A URI that is complete is sent with the header that it came with.
        let is_complete = uri.contains(":8443");
        let port = if is_complete { "" } else { ":8443" };
        assert_eq!(hosts[0], format!("example.my.salesforce.com{port}"));
        // After the move, in every way to name the old and the new instance.
        for uri in [
            PATH.to_owned(),
            uri.clone(),
            format!("{INSTANCE}{PATH}"),
            format!("{INSTANCE}:8443{PATH}"),
            format!("{NEW}{PATH}"),
            format!("{NEW}:8443{PATH}"),
        ] {
            send(&service, get(&uri)).await.unwrap();
            assert_eq!(sent(&api).pop(), Some(at(NEW, "T1")), "{uri}");
        }
    }
}

#[tokio::test]
async fn r37_a_first_request_waits_and_goes_to_the_port() {
    for uri in [
        PATH.to_owned(),
        format!("{NEW}{PATH}"),
        format!("{NEW}:8443{PATH}"),
    ] {
        let api = Api::accepting("T");
        let handle = SessionHandle::builder(|_: RefreshContext| async {
            Session::new("T", NEW).map_err(RefreshError::terminal)
        })
        .instance_port(8443)
        .build();
        let service = SalesforceAuthLayer::from(handle.clone()).layer(api.clone());
        send(&service, get(&uri)).await.unwrap();
        assert_eq!(
            sent(&api),
            [(format!("{NEW}:8443{PATH}"), "T".to_owned())],
            "{uri}"
        );
        let live = handle.try_session().unwrap();
        assert_eq!(live.instance_url().to_string(), format!("{NEW}:8443"));
    }
}

/// The answer of a refresh that is refused may have rotated the refresh token of the session in use.
#[tokio::test]
async fn r37_a_session_with_a_rotated_token_keeps_the_port() {
    let api = Api::accepting("T0");
    let handle = SessionHandle::builder(|_: RefreshContext| async {
        let session = Session::new("T1", "https://example.com").unwrap();
        Ok(session.with_refresh_token("R2"))
    })
    .initial_session(session("T0").with_refresh_token("R1"))
    .instance_port(8443)
    .build();
    handle.refresh().await.unwrap_err();
    let live = handle.try_session().unwrap();
    assert_eq!(live.refresh_token().unwrap().expose(), "R2");
    let service = SalesforceAuthLayer::from(handle).layer(api.clone());
    send(&service, get(PATH)).await.unwrap();
    assert_eq!(
        sent(&api),
        [(format!("{INSTANCE}:8443{PATH}"), "T0".to_owned())]
    );
}

#[tokio::test]
async fn r37_no_other_port_of_the_instance_gets_the_token() {
    for port in ["444", "80", "8444", "0", "65536", "x"] {
        let api = Api::accepting("T0");
        let service = layer().layer(api.clone());
        let response = send(&service, get(&format!("{INSTANCE}:{port}{PATH}")))
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(api.tokens(), [""], "{port}");
    }
}

proptest! {
    /// In any order of requests and rejections, a token goes to port 8443 of an instance of the org only.
    #[test]
    fn r37_no_token_leaves_the_port(
        requests in prop::collection::vec((0_usize..4, prop::option::of(prop::sample::select(vec![0_u16, 80, 443, 8443, 8444]))), 1..8),
        rejections in prop::collection::vec(any::<bool>(), 8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let api = Api::accepting("T0");
            let service = layer().layer(api.clone());
            for ((host, port), is_rejected) in requests.into_iter().zip(rejections) {
                let port = port.map(|port| format!(":{port}")).unwrap_or_default();
                let uri = match host {
                    0 => PATH.to_owned(),
                    1 => format!("{INSTANCE}{port}{PATH}"),
                    2 => format!("{NEW}{port}{PATH}"),
                    _ => format!("https://other.my.salesforce.com{port}{PATH}"),
                };
                if is_rejected {
                    api.accept("T1");
                }
                let _ = send(&service, get(&uri)).await;
            }
            let ports = [INSTANCE, NEW].map(|instance| format!("{instance}:8443{PATH}"));
            for (uri, token) in sent(&api) {
                assert!(token.is_empty() || ports.contains(&uri), "{token} to {uri}");
            }
        });
    }
}

#[tokio::test]
async fn r37_a_redirect_to_the_usual_port_loses_the_token() {
    let api = Api::accepting("T0");
    let seen = api.clone();
    let redirecting = Answering(move |request: http::Request<_>| {
        let (head, _): (_, tower_salesforce_auth::ReplayBody<_>) = request.into_parts();
        let is_first = head.uri.path() == "/away";
        let mut response: Response<_> = seen.answer(head, bytes::Bytes::new(), None);
        if is_first {
            *response.status_mut() = StatusCode::FOUND;
            let away = HeaderValue::from_static("https://example.my.salesforce.com/elsewhere");
            response.headers_mut().insert("location", away);
        }
        response
    });
    let service = layer().layer(FollowRedirectLayer::new().layer(redirecting));
    let _ = send(&service, get("/away")).await;
    for (uri, token) in sent(&api) {
        assert!(
            token.is_empty() || uri.contains(":8443"),
            "{token} to {uri}"
        );
    }
    assert_eq!(api.tokens()[..2], ["T0", ""]);
}

#[tokio::test]
async fn r37_a_clone_of_the_builder_has_its_own_port() {
    let builder = moving();
    let api = Api::accepting("T0");
    let other = builder.clone().instance_port(9443).build();
    for (handle, port) in [
        (other, ":9443"),
        (builder.clone().instance_port(443).build(), ""),
        (builder.build(), ":8443"),
    ] {
        let service = SalesforceAuthLayer::from(handle).layer(api.clone());
        send(&service, post(PATH, "{}")).await.unwrap();
        assert_eq!(
            sent(&api).pop().unwrap().0,
            format!("{INSTANCE}{port}{PATH}")
        );
    }
}

/// The Pub/Sub API knows the org by the URL that the server named, and a store keeps that one.
#[tokio::test]
async fn r37_metadata_and_records_have_no_port() {
    let store = MemoryStore::new();
    let api = Api::accepting("T0");
    let handle = moving()
        .store(store.clone(), "user")
        .allow_origin("https://api.pubsub.salesforce.com".parse().unwrap())
        .build();
    let service = SalesforceAuthLayer::from(handle.clone()).layer(api.clone());
    let mut call = post(
        "https://api.pubsub.salesforce.com/eventbus.v1.PubSub/GetTopic",
        "",
    );
    let grpc = HeaderValue::from_static("application/grpc");
    call.headers_mut().insert("content-type", grpc);
    let _ = send(&service, call).await;
    // The call was rejected, and the refresh moved the org.
    let seen = api.seen().into_iter();
    let named: Vec<_> = seen
        .map(|seen| seen.headers["instanceurl"].clone())
        .collect();
    assert_eq!(named, [INSTANCE, NEW]);
    let record = store.load("user").await.unwrap().unwrap();
    assert_eq!(record.session().instance_url().to_string(), NEW);
}

/// Every call that carries the session's token goes where the requests go.
#[tokio::test]
async fn r37_identity_and_logout_go_to_the_port() {
    let org = Org::new();
    let grant = org.authorize();
    let api = Api::accepting("");
    let seen = Recorded(api.clone());
    let session = Session::new(grant.access_token(), INSTANCE).unwrap();
    let session = session.with_identity_url(format!(
        "{INSTANCE}/id/00Dxx0000001gEREAY/005xx000001SwiUAAS"
    ));
    let handle = SessionHandleBuilder::fixed(session)
        .instance_port(8443)
        .build();
    let live = handle.session().await.unwrap();
    let _ = oauth::identity(seen.clone(), &live).await;
    let _ = oauth::userinfo(seen.clone(), &live).await;
    let _ = handle.logout(seen.clone()).await;
    let server_url = format!("{INSTANCE}/services/Soap/u/64.0");
    let soap = Session::from_session_id("00Dxx!AQEAQ", &server_url).unwrap();
    let handle = SessionHandleBuilder::fixed(soap)
        .instance_port(8443)
        .build();
    let _ = handle.logout(seen.clone()).await;
    let paths = [
        "/id/",
        "/services/oauth2/userinfo",
        "/services/oauth2/revoke",
        "/services/Soap/",
    ];
    let uris: Vec<_> = api.seen().iter().map(|seen| seen.uri.to_string()).collect();
    assert_eq!(uris.len(), paths.len(), "{uris:?}");
    for (uri, path) in uris.iter().zip(paths) {
        assert!(uri.starts_with(&format!("{INSTANCE}:8443{path}")), "{uri}");
    }
}

/// A client of flows that records into an API.
#[derive(Clone)]
struct Recorded(Api);

impl tower::Service<http::Request<http_body_util::Full<bytes::Bytes>>> for Recorded {
    type Response = Response<http_body_util::Full<bytes::Bytes>>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<http_body_util::Full<bytes::Bytes>>) -> Self::Future {
        let (head, _) = request.into_parts();
        std::future::ready(Ok(self.0.answer(head, bytes::Bytes::new(), None)))
    }
}
