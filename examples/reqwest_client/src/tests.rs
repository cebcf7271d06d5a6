//! The layer over reqwest, put together as the example does it.

use std::net::Ipv4Addr;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full, channel::Channel};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::{net::TcpListener, task::JoinSet};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_salesforce_auth::{
    BoxError, RefreshFn, SalesforceAuthLayer, Session, SessionHandle,
    emulator::Org,
    flow::{ClientCredentials, RefreshToken},
    oauth::App,
    request::{AuthOutcome, ReplaySkipped, SkipAuth},
};

use crate::{
    over_reqwest,
    support::{all_at_once, redirecting_server},
};

const ECHO: &str = "/services/data/v66.0/echo";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_callers_share_one_refresh_and_all_bodies_arrive() {
    const CALLERS: u32 = 200;
    let org = Org::new();
    let _served = org.serve().await.unwrap();
    let client = ServiceBuilder::new()
        .layer(layer(&org))
        .map_future(all_at_once(CALLERS))
        .service(reqwest());
    org.expire_sessions();

    let mut callers = JoinSet::new();
    for n in 0..CALLERS {
        let client = client.clone();
        // From an empty body to more than the replay limit of a stream.
        let body = Bytes::from(n.to_be_bytes().repeat(n as usize * 100));
        callers.spawn(async move {
            let request = Request::post(ECHO).body(Full::new(body.clone()))?;
            let response = client.oneshot(request).await?;
            assert_eq!(attempts(&response), 2);
            Ok::<_, BoxError>((echo(response).await?, body))
        });
    }
    for answer in callers.join_all().await {
        let (echo, body) = answer.unwrap();
        assert_is(&echo, &body);
    }
    let counters = org.counters();
    assert_eq!(counters.token_requests, 1);
    assert_eq!(counters.data_rejected, u64::from(CALLERS));
    assert_eq!(counters.data_requests, 2 * u64::from(CALLERS));
}

#[tokio::test]
async fn a_short_stream_is_replayed() {
    let org = Org::new();
    let _served = org.serve().await.unwrap();
    let client = layer(&org).layer(reqwest());
    org.expire_sessions();

    let response = stream(&client, 3).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(attempts(&response), 2);
    assert_is(&echo(response).await.unwrap(), &b"x".repeat(3 * PIECE));
    assert_eq!(org.counters().token_requests, 1);
}

#[tokio::test]
async fn a_long_stream_is_not_replayed_but_the_session_is_refreshed() {
    let org = Org::new();
    let _served = org.serve().await.unwrap();
    let client = layer(&org).layer(reqwest());
    org.expire_sessions();

    let response = stream(&client, 9).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let outcome = response.extensions().get::<AuthOutcome>().unwrap();
    assert_eq!(
        outcome.replay_skipped(),
        Some(ReplaySkipped::BodyNotReplayable)
    );
    assert_eq!(org.counters().data_requests, 1);

    let response = stream(&client, 9).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(attempts(&response), 1);
    assert_is(&echo(response).await.unwrap(), &b"x".repeat(9 * PIECE));
    assert_eq!(org.counters().token_requests, 1);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let org = Org::new();
    let client = layer(&org).layer(reqwest());
    let (url, target) = redirecting_server().await;
    let request = Request::get(url).extension(SkipAuth);
    let request = request.body(Full::<Bytes>::default()).unwrap();
    let response = client.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::FOUND);
    assert!(target.accept().now_or_never().is_none());
}

const PIECE: usize = 8 * 1024;

/// Sends this many pieces, each after the one before was taken.
async fn stream<S, ResBody>(client: &S, pieces: usize) -> Result<Response<ResBody>, BoxError>
where
    S: Service<Request<Channel<Bytes>>, Response = Response<ResBody>, Error = BoxError> + Clone,
{
    let (mut sender, body) = Channel::new(1);
    let sending = async move {
        for _ in 0..pieces {
            let piece = Bytes::from_static(&[b'x'; PIECE]);
            if sender.send_data(piece).await.is_err() {
                return;
            }
        }
    };
    let request = Request::post(ECHO).body(body).unwrap();
    tokio::join!(client.clone().oneshot(request), sending).0
}

/// A layer with a session, whose flow uses reqwest as well.
/// The layer sees why reqwest could not connect, without a type of reqwest's: the advice tells.
#[tokio::test]
async fn a_login_that_reaches_no_server_says_why() {
    let refusing = || async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let org = Org::new();
    let served = org.serve().await.unwrap();
    let refused = format!("https://localhost:{}", refusing().await);
    let plain = served
        .url()
        .replace("http://127.0.0.1", "https://localhost");
    for (login_url, expected) in [
        (refused, "no server listens there"),
        (plain, "check that an HTTPS server listens"),
        (
            "https://name.invalid".to_owned(),
            "check the name of the host",
        ),
    ] {
        let app = App::new(login_url.parse().unwrap(), org.client_id());
        let error = ClientCredentials::new(reqwest(), app).log_in().await;
        let line = error.unwrap_err().to_string();
        let host = login_url.strip_prefix("https://").unwrap();
        assert!(
            line.starts_with(&format!("{host} could not be reached: ")),
            "{line}"
        );
        assert!(line.contains(expected), "{line}");
    }
}

fn layer(org: &Org) -> SalesforceAuthLayer {
    let grant = org.authorize();
    let app = App::new(org.login_url().parse().unwrap(), org.client_id())
        .client_secret(org.client_secret());
    let flow = RefreshToken::new(reqwest(), app, grant.refresh_token());
    let session = Session::new(grant.access_token(), grant.instance_url()).unwrap();
    SessionHandle::builder(flow)
        .initial_session(session)
        .build()
        .into()
}

fn reqwest<B>() -> impl Service<
    Request<B>,
    Response = Response<reqwest::Body>,
    Error = reqwest::Error,
    Future: Send + 'static,
> + Clone
+ Send
+ Sync
+ 'static
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Sync + 'static,
{
    over_reqwest::service(over_reqwest::client().no_proxy().build().unwrap())
}

fn attempts<B>(response: &Response<B>) -> u32 {
    let outcome = response.extensions().get::<AuthOutcome>();
    outcome.map_or(1, AuthOutcome::attempts)
}

async fn echo<B>(response: Response<B>) -> Result<Value, BoxError>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    let body = response.into_body().collect().await.map_err(Into::into)?;
    Ok(serde_json::from_slice(&body.to_bytes())?)
}

/// Asserts that the org received this body.
fn assert_is(echo: &Value, body: &[u8]) {
    let digest = Sha256::digest(body);
    let digest = digest
        .iter()
        .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    assert_eq!(echo["body_length"], body.len());
    assert_eq!(echo["body_sha256"], digest);
    assert_eq!(echo["authorization_count"], 1);
}
