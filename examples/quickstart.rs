//! The main job, end to end: a session expires under 1,000 concurrent requests, and all of them succeed.
//!
//! ```sh
//! cargo run -p quickstart
//! ```
//!
//! The Salesforce org is an emulator on loopback, where the clients need no TLS. A program that talks to a real org uses
//! `HttpsClient` in their place; everything else stays the same.

use std::process::ExitCode;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{task::JoinSet, time::Instant};
use tower::{Layer, Service, ServiceExt};
use tower_salesforce_auth::{
    BoxError, SalesforceAuthLayer, Session, SessionHandle,
    emulator::{Fault, Org},
    flow::RefreshToken,
    oauth::App,
};

const CALLERS: usize = 1_000;

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    // The org, and the tokens that a user's consent in a browser would have given us.
    let org = Org::new();
    let served = org.serve().await?;
    let grant = org.authorize();

    // The flow has its own HTTP client: its token calls must not wait for the requests that wait for them.
    let app =
        App::new(org.login_url().parse()?, org.client_id()).client_secret(org.client_secret());
    let flow = RefreshToken::new(
        Client::builder(TokioExecutor::new()).build_http(),
        app,
        grant.refresh_token(),
    );

    // The layer, and any HTTP client inside it. Clones share the session.
    let session = Session::new(grant.access_token(), grant.instance_url())?;
    let handle = SessionHandle::builder(flow)
        .initial_session(session)
        .build();
    let layer = SalesforceAuthLayer::from(handle);
    let client = layer.layer(
        Client::builder(TokioExecutor::new())
            .http2_only(true)
            .build_http(),
    );

    println!("An org listens on {}.", served.url());
    let query = "/services/data/v66.0/query?q=SELECT+Name+FROM+Account+LIMIT+3";
    let (status, body) = send(client.clone(), Method::GET, query, "").await?;
    let records: serde_json::Value = serde_json::from_slice(&body)?;
    println!(
        "A query: {status}, {} accounts, the first is {}.",
        records["totalSize"], records["records"][0]["Name"]
    );

    // A token call over the internet takes a while. On loopback the delay shows what happens in the meantime.
    org.on_token(Fault::Delay(std::time::Duration::from_millis(50)));
    org.expire_sessions();
    let before = org.counters();
    println!("The session expires; {CALLERS} requests at once, every other one a JSON POST:");
    let started = Instant::now();
    let mut callers = JoinSet::new();
    for n in 0..CALLERS {
        let client = client.clone();
        callers.spawn(async move {
            if n % 2 == 0 {
                let account = format!(r#"{{"Name":"Account {n}"}}"#);
                let path = "/services/data/v66.0/sobjects/Account";
                let (status, _) = send(client, Method::POST, path, &account).await?;
                Ok(status == StatusCode::CREATED)
            } else {
                let (status, _) = send(client, Method::GET, query, "").await?;
                Ok::<_, BoxError>(status == StatusCode::OK)
            }
        });
    }
    let answers = callers.join_all().await;
    let took = started.elapsed();
    let after = org.counters();

    let succeeded = answers.iter().filter(|ok| matches!(ok, Ok(true))).count();
    let rejected = after.data_rejected - before.data_rejected;
    let refreshes = after.token_requests - before.token_requests;
    let sent = usize::try_from(after.data_requests - before.data_requests)?;
    let replayed = sent.saturating_sub(CALLERS);
    println!("  rejected   {rejected:>5}  with the 401 of an expired session");
    println!("  refreshes  {refreshes:>5}  for all of them");
    println!("  replayed   {replayed:>5}  with the new session; the others had waited for it");
    println!("  succeeded  {succeeded:>5}");
    println!("  took       {:>5} ms", took.as_millis());
    for error in answers.iter().filter_map(|answer| answer.as_ref().err()) {
        print!("  failed: {error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            print!(": {error}");
            cause = error.source();
        }
        println!();
    }

    let is_as_promised = succeeded == CALLERS
        && refreshes == 1
        && rejected > 0
        && u64::try_from(replayed)? == rejected
        && after.refresh_token_reuses == 0
        && after.requests_with_several_authorizations == 0;
    served.shutdown().await;
    if is_as_promised {
        return Ok(ExitCode::SUCCESS);
    }
    println!("That is not what was promised. The org counted: {after:?}");
    Ok(ExitCode::FAILURE)
}

/// Sends a request whose URI is a path: the layer adds the instance.
async fn send<S, ResBody>(
    client: S,
    method: Method,
    path: &str,
    body: &str,
) -> Result<(StatusCode, Bytes), BoxError>
where
    S: Service<Request<Full<Bytes>>, Response = http::Response<ResBody>, Error = BoxError>,
    ResBody: http_body::Body<Error: Into<BoxError>>,
{
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(Full::from(body.to_owned()))?;
    let response = client.oneshot(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(Into::into)?;
    Ok((status, body.to_bytes()))
}
