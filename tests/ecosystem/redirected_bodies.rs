//! A 307 for a request with a body, with tower-http's `FollowRedirect` on either side of the layer.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{
    Request, Response, StatusCode,
    header::{AUTHORIZATION, LOCATION},
};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_http::follow_redirect::{
    FollowRedirectLayer,
    policy::{Policy, PolicyExt, SameOrigin, Standard, clone_body_fn},
};
use tower_salesforce_auth::{RefreshContext, RefreshError, SalesforceAuthLayer, Session};

const INSTANCE: &str = "https://example.my.salesforce.com";
const ACCOUNT: &str = r#"{"Name":"Example"}"#;

/// Who was asked, with which session, and with which body.
type Hops = Arc<Mutex<Vec<(String, String, Bytes)>>>;

/// The instance sends `/moved` elsewhere on itself, and `/away` to a foreign host. The session `T0` has expired.
fn wire<B>(
    hops: &Hops,
) -> impl Service<Request<B>, Response = Response<Full<Bytes>>, Error = BoxError, Future: Send>
+ Clone
+ Send
+ use<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let hops = Arc::clone(hops);
    service_fn(move |request: Request<B>| {
        let hops = Arc::clone(&hops);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(Into::into)?.to_bytes();
            let token = head
                .headers
                .get(AUTHORIZATION)
                .map_or("none", |it| it.to_str().unwrap());
            let target = format!("{} {}", head.uri.host().unwrap(), head.uri.path());
            hops.lock().unwrap().push((target, token.to_owned(), body));
            let answer = Response::builder();
            let answer = match (head.uri.path(), token) {
                ("/moved", _) => answer.status(307).header(LOCATION, "/accounts"),
                ("/away", _) => answer
                    .status(307)
                    .header(LOCATION, "https://example.com/accounts"),
                (_, "Bearer T0") => answer.status(401),
                _ => answer.status(201),
            };
            Ok::<_, BoxError>(answer.body(Full::default())?)
        }
    })
}

fn layer() -> SalesforceAuthLayer {
    let layer = SalesforceAuthLayer::new(|_: RefreshContext| async {
        Session::new("T1", INSTANCE).map_err(RefreshError::terminal)
    });
    layer.handle().set(Session::new("T0", INSTANCE).unwrap());
    layer
}

/// The standard policy, and bodies that can be cloned.
fn keeping_bodies() -> impl Policy<Full<Bytes>, BoxError> + Clone + Send {
    let bodies = clone_body_fn(|body: &Full<Bytes>| Some(body.clone()));
    Standard::default().and::<_, Full<Bytes>, BoxError>(bodies)
}

async fn post<S>(service: S, path: &str) -> StatusCode
where
    S: Service<Request<Full<Bytes>>, Error: std::fmt::Debug>,
    S::Response: Into<Response<()>>,
{
    let request = Request::post(format!("{INSTANCE}{path}")).body(Full::from(ACCOUNT));
    let response = service.oneshot(request.unwrap()).await.unwrap();
    response.into().status()
}

fn hop(target: &str, token: &str) -> (String, String, Bytes) {
    (target.to_owned(), token.to_owned(), Bytes::from(ACCOUNT))
}

const MOVED: &str = "example.my.salesforce.com /moved";
const AWAY: &str = "example.my.salesforce.com /away";
const ACCOUNTS: &str = "example.my.salesforce.com /accounts";

/// Only the status is looked at.
fn status<B>(response: Response<B>) -> Response<()> {
    response.map(drop)
}

#[tokio::test]
async fn the_standard_policy_returns_a_307_for_a_request_with_a_body() {
    let hops = Hops::default();
    let service = ServiceBuilder::new()
        .map_response(status)
        .layer(FollowRedirectLayer::new())
        .layer(layer())
        .service(wire(&hops));
    assert_eq!(
        post(service, "/moved").await,
        StatusCode::TEMPORARY_REDIRECT
    );
    assert_eq!(*hops.lock().unwrap(), [hop(MOVED, "Bearer T0")]);
}

#[tokio::test]
async fn a_policy_that_clones_bodies_follows_with_the_same_bytes() {
    let hops = Hops::default();
    let service = ServiceBuilder::new()
        .map_response(status)
        .layer(FollowRedirectLayer::with_policy(keeping_bodies()))
        .layer(layer())
        .service(wire(&hops));
    assert_eq!(post(service, "/moved").await, StatusCode::CREATED);
    let expected = [
        hop(MOVED, "Bearer T0"),
        hop(ACCOUNTS, "Bearer T0"),
        // The replay, at the place that the redirect named.
        hop(ACCOUNTS, "Bearer T1"),
    ];
    assert_eq!(*hops.lock().unwrap(), expected);
}

#[tokio::test]
async fn a_body_that_is_kept_goes_to_a_foreign_host_unless_forbidden() {
    let hops = Hops::default();
    let service = ServiceBuilder::new()
        .map_response(status)
        .layer(FollowRedirectLayer::with_policy(keeping_bodies()))
        .layer(layer())
        .service(wire(&hops));
    assert_eq!(post(service, "/away").await, StatusCode::CREATED);
    // Without the session.
    let expected = [hop(AWAY, "Bearer T0"), hop("example.com /accounts", "none")];
    assert_eq!(*hops.lock().unwrap(), expected);

    let hops = Hops::default();
    let at_home = keeping_bodies().and::<_, Full<Bytes>, BoxError>(SameOrigin::new());
    let service = ServiceBuilder::new()
        .map_response(status)
        .layer(FollowRedirectLayer::with_policy(at_home))
        .layer(layer())
        .service(wire(&hops));
    assert_eq!(
        post(service.clone(), "/away").await,
        StatusCode::TEMPORARY_REDIRECT
    );
    assert_eq!(*hops.lock().unwrap(), [hop(AWAY, "Bearer T0")]);
    assert_eq!(post(service, "/moved").await, StatusCode::CREATED);
}

/// Inside, the body is a `ReplayBody`, of which there is one for each attempt: no policy can clone it.
#[tokio::test]
async fn follow_redirect_inside_returns_a_307_for_a_request_with_a_body() {
    let hops = Hops::default();
    let service = ServiceBuilder::new()
        .map_response(status)
        .layer(layer())
        .layer(FollowRedirectLayer::new())
        .service(wire(&hops));
    assert_eq!(
        post(service, "/moved").await,
        StatusCode::TEMPORARY_REDIRECT
    );
    assert_eq!(*hops.lock().unwrap(), [hop(MOVED, "Bearer T0")]);
}
