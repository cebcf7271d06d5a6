//! A client that does not go through the layer: a session for protocols that are no HTTP service.
//!
//! ```sh
//! cargo run --example own_client
//! ```
//!
//! Two calls are enough: [`SessionHandle::session`] before each use, and [`SessionHandle::invalidate`] when the session
//! was rejected. Any number of connections share one login for each session that ends.

use std::io;

use http::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use tower_salesforce_auth::{
    BoxError, LiveSession, SessionHandle, emulator::Org, flow::ClientCredentials,
    https::HttpsClient, oauth::App,
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let org = Org::new();
    let served = org.serve().await?;
    let app =
        App::new(org.login_url().parse()?, org.client_id()).client_secret(org.client_secret());
    let handle = SessionHandle::new(ClientCredentials::new(HttpsClient::new()?, app));

    for round in [
        "There is no session yet",
        "The session has ended at the org",
    ] {
        let mut callers = JoinSet::new();
        for _ in 0..20 {
            callers.spawn(ask(handle.clone()));
        }
        for status in callers.join_all().await {
            assert_eq!(status?, StatusCode::OK);
        }
        println!(
            "{round}: 20 connections ask at once, and each has a good answer. Logins so far: {}.",
            org.counters().token_requests
        );
        org.expire_sessions();
    }
    served.shutdown().await;
    Ok(())
}

/// Sends a request with the session, and again with the next session if that one was rejected.
async fn ask(handle: SessionHandle) -> Result<StatusCode, BoxError> {
    let session = handle.session().await?;
    let status = exchange(&session).await?;
    if status != StatusCode::UNAUTHORIZED {
        return Ok(status);
    }
    // The generation names the rejected session. If another caller has refreshed it meanwhile, this does nothing.
    handle.invalidate(session.generation());
    let session = handle.session().await?;
    Ok(exchange(&session).await?)
}

/// The other protocol: here HTTP/1.1 written by hand.
async fn exchange(session: &LiveSession) -> io::Result<StatusCode> {
    let instance = session.instance_url().to_string();
    let authority = instance.trim_start_matches("http://").trim_end_matches('/');
    let mut connection = TcpStream::connect(authority).await?;
    let request = format!(
        "GET /services/data/v66.0/limits HTTP/1.1\r\nHost: {authority}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
        session.access_token().expose(),
    );
    connection.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    StatusCode::from_bytes(status.as_bytes()).map_err(io::Error::other)
}
