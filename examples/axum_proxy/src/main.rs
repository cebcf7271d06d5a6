//! A reverse proxy that adds the session: programs without OAuth send their requests to it, and it forwards them to the org.
//!
//! ```sh
//! cargo run -p axum_proxy
//! ```
//!
//! The proxy prints a `curl` line to try, and serves on loopback until Ctrl-C. With `-- --demo` it tries that line itself,
//! while the session expires, and ends. Bodies of any size stream through in both directions.
//!
//! By default the org is emulated. For a real org, set `SF_LOGIN_URL`, the My Domain, and `SF_CLIENT_ID` and
//! `SF_CLIENT_SECRET` of an app with a Run As user: every caller has that user's permissions. `PROXY_API_KEY` is the key that
//! callers must send (default: a random key), and `PROXY_PORT` the port to listen on (default: a free port).

mod headers;
mod proxy;
mod refusal;
#[cfg(test)]
mod tests;

use std::{env, fmt::Write, net::Ipv4Addr};

use axum::Router;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use tokio::net::TcpListener;
use tower::{ServiceBuilder, ServiceExt};
use tower_http::trace::TraceLayer;
use tower_salesforce_auth::{
    BoxError, LoginUrl, SalesforceAuthLayer,
    emulator::{Org, Served},
    flow::ClientCredentials,
    https::HttpsClient,
    oauth::App,
};

use self::proxy::{Rules, router};

const LIMITS: &str = "/services/data/v66.0/limits";

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // To stderr: what is printed below is for people.
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let mut is_demo = false;
    for argument in env::args().skip(1) {
        if argument != "--demo" {
            return Err(format!("{argument} is not an option: there is --demo alone").into());
        }
        is_demo = true;
    }
    let (key, shown) = match env::var("PROXY_API_KEY") {
        Ok(key) if key.is_empty() => return Err("PROXY_API_KEY is set, but empty".into()),
        Ok(key) => (key, "$PROXY_API_KEY".to_owned()),
        Err(_) => {
            let key = random_key()?;
            (key.clone(), key)
        }
    };
    let port = match env::var("PROXY_PORT") {
        Ok(port) => port
            .parse()
            .map_err(|_| format!("PROXY_PORT is no port: {port}"))?,
        Err(_) => 0,
    };
    let upstream = Upstream::from_env().await?;
    let proxy = stack(upstream.app, Rules::new(&*key))?;
    // Other machines need TLS: put a TLS terminator in front, and keep this proxy on loopback. The terminator should also
    // limit the time of a request head, which has no limit here.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let kind = match upstream.emulated {
        Some(_) => "an emulated org",
        None => "the org",
    };
    println!(
        "The proxy at {url} forwards to {kind} at {}, and adds the session to each request:",
        upstream.login_url
    );
    println!("\n  curl -H \"X-Api-Key: {shown}\" {url}{LIMITS}\n");

    if is_demo {
        let serving = tokio::spawn(axum::serve(listener, proxy).into_future());
        println!("The first request makes the proxy log in:");
        ask(&format!("{url}{LIMITS}"), &key).await?;
        if let Some((org, _)) = &upstream.emulated {
            println!(
                "The session ends at the org. The next request is rejected, and the caller does not see it:"
            );
            org.expire_sessions();
        }
        ask(&format!("{url}{LIMITS}"), &key).await?;
        if let Some((org, _)) = &upstream.emulated {
            let counters = org.counters();
            println!(
                "The proxy logged in {} times, and sent {} rejected request(s) again.",
                counters.token_requests, counters.data_rejected
            );
        }
        serving.abort();
        return Ok(());
    }
    println!("It serves until Ctrl-C.");
    axum::serve(listener, proxy)
        .with_graceful_shutdown(async { drop(tokio::signal::ctrl_c().await) })
        .await?;
    Ok(())
}

/// The stack of a request, from the caller to the org.
fn stack(app: App, rules: Rules) -> Result<Router, BoxError> {
    // The flow has its own client, so that no layer of the stack delays a login.
    let login = ClientCredentials::new(HttpsClient::new()?, app);
    let client = ServiceBuilder::new()
        // Above the layer are the limits: `router` puts them there.
        //
        // From here on a request has the session. The layer may send it twice, with the body that it has kept.
        .layer(SalesforceAuthLayer::new(login))
        // Below the layer, each attempt is one request. Its session header is marked as sensitive.
        .layer(TraceLayer::new_for_http())
        // No `FollowRedirect`: redirects go back to the caller. No decompression: a compressed body goes through unchanged.
        // The layer cannot read a compressed 401, so one that no refresh cures costs a refresh.
        .service(HttpsClient::new()?);
    Ok(router(client, rules))
}

/// The org behind the proxy.
struct Upstream {
    app: App,
    login_url: LoginUrl,
    emulated: Option<(Org, Served)>,
}

impl Upstream {
    async fn from_env() -> Result<Self, BoxError> {
        if let Ok(login_url) = env::var("SF_LOGIN_URL") {
            let variable = |name| env::var(name).map_err(|_| format!("{name} is not set"));
            let app = App::new(login_url.parse()?, variable("SF_CLIENT_ID")?)
                .client_secret(variable("SF_CLIENT_SECRET")?);
            return Ok(Self {
                login_url: app.login_url().clone(),
                app,
                emulated: None,
            });
        }
        let org = Org::new();
        let served = org.serve().await?;
        let app =
            App::new(org.login_url().parse()?, org.client_id()).client_secret(org.client_secret());
        Ok(Self {
            login_url: app.login_url().clone(),
            app,
            emulated: Some((org, served)),
        })
    }
}

/// Sends the request of the `curl` line.
async fn ask(url: &str, key: &str) -> Result<(), BoxError> {
    let request = Request::get(url)
        .header(headers::API_KEY, key)
        .body(Empty::<Bytes>::new())?;
    let response = HttpsClient::new()?.oneshot(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    println!("  {status}: {}", String::from_utf8_lossy(&body));
    if status == StatusCode::OK {
        Ok(())
    } else {
        Err("the proxy did not answer as it should".into())
    }
}

fn random_key() -> Result<String, BoxError> {
    let mut key = String::new();
    for _ in 0..2 {
        write!(key, "{:016x}", getrandom::u64()?)?;
    }
    Ok(key)
}
