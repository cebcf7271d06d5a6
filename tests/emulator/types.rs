//! The public types of the emulator.

use bytes::Bytes;
use http::Request;
use http::Response;
use http::StatusCode;
use http_body_util::Empty;
use http_body_util::Full;
use tower::Service;
use tower_salesforce_auth::BoxError;
use tower_salesforce_auth::emulator::Fault;
use tower_salesforce_auth::emulator::Grant;
use tower_salesforce_auth::emulator::Org;
use tower_salesforce_auth::emulator::ResponseFuture;

use crate::support::get_limits;

#[test]
fn debug_prints_no_secrets() {
    let org = Org::new();
    let grant = org.authorize();
    let printed = format!("{org:?} {grant:?}");
    for secret in [
        org.client_secret(),
        grant.access_token(),
        grant.refresh_token(),
    ] {
        assert!(!printed.contains(secret));
    }
    assert!(printed.contains("https://emulator.my.salesforce.com"));
}

#[test]
fn orgs_and_their_futures_can_be_sent_and_shared() {
    fn send<T: Send>() {}
    fn send_and_sync<T: Send + Sync>() {}
    fn service<S, B>()
    where
        S: Service<Request<B>, Response = Response<Full<Bytes>>, Error = BoxError>,
    {
    }
    send_and_sync::<Org>();
    send_and_sync::<Grant>();
    send_and_sync::<Fault>();
    send::<ResponseFuture>();
    service::<Org, Empty<Bytes>>();
    service::<Org, hyper::body::Incoming>();
    service::<Org, http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>>();
}

#[tokio::test]
async fn clones_are_the_same_org() {
    let org = Org::new();
    let clone = org.clone();
    let grant = org.authorize();
    let status = get_limits(&clone, grant.access_token()).await;
    assert_eq!(status, StatusCode::OK);
    clone.expire_sessions();
    let status = get_limits(&org, grant.access_token()).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert_eq!(org.counters(), clone.counters());
}
