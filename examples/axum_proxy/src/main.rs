//! A reverse proxy that adds the session: programs that know nothing of OAuth ask it, and it asks the org.
//!
//! ```sh
//! cargo run -p axum_proxy
//! ```
//!
//! It prints a `curl` line to try, and serves on loopback until Ctrl-C; with `-- --demo` it tries that line itself, while
//! the session expires, and ends. Bodies stream through in both directions, whatever their size.
//!
//! Without more, the org is an emulated one. For a real one, set `SF_LOGIN_URL`, the My Domain, and `SF_CLIENT_ID` and
//! `SF_CLIENT_SECRET` of an app with a Run As user: that user's permissions are what every caller has. `PROXY_API_KEY` is
//! what callers have to show, drawn at random if it is not set, and `PROXY_PORT` where to listen.

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
    BoxError, SalesforceAuthLayer,
    emulator::{Org, Served},
    flow::ClientCredentials,
    https::HttpsClient,
    oauth::App,
};

use self::proxy::{Rules, router};

const LIMITS: &str = "/services/data/v66.0/limits";

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    tracing_subscriber::fmt().init();
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
    // Other machines need TLS: put something before it that ends it, and keep this on loopback. It should also give up on
    // who takes for ever to send a head, as nothing does here.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    println!("curl -H \"X-Api-Key: {shown}\" {url}{LIMITS}");

    if is_demo {
        let serving = tokio::spawn(axum::serve(listener, proxy).into_future());
        // The first request logs in.
        ask(&format!("{url}{LIMITS}"), &key).await?;
        if let Some((org, _)) = &upstream.emulated {
            println!("The session expires:");
            org.expire_sessions();
        }
        ask(&format!("{url}{LIMITS}"), &key).await?;
        serving.abort();
        return Ok(());
    }
    axum::serve(listener, proxy)
        .with_graceful_shutdown(async { drop(tokio::signal::ctrl_c().await) })
        .await?;
    Ok(())
}

/// The way of a request, from the caller to the org.
fn stack(app: App, rules: Rules) -> Result<Router, BoxError> {
    // The login has a client of its own, which nothing of what follows holds up.
    let login = ClientCredentials::new(HttpsClient::new()?, app);
    let client = ServiceBuilder::new()
        // Above the layer are the limits: `router` puts them there.
        //
        // From here on a request has the session. It may be sent twice, with what was read of its body by then.
        .layer(SalesforceAuthLayer::new(login))
        // Below it, each attempt is one request. The session in it is marked as sensitive.
        .layer(TraceLayer::new_for_http())
        // Not `FollowRedirect`: where the org sends a caller is for the caller to know. Nor a decompression: what is packed
        // goes through as it is, if the caller asked for that. A packed 401 that no refresh cures costs one, though.
        .service(HttpsClient::new()?);
    Ok(router(client, rules))
}

/// The org behind the proxy.
struct Upstream {
    app: App,
    emulated: Option<(Org, Served)>,
}

impl Upstream {
    async fn from_env() -> Result<Self, BoxError> {
        if let Ok(login_url) = env::var("SF_LOGIN_URL") {
            let variable = |name| env::var(name).map_err(|_| format!("{name} is not set"));
            let app = App::new(login_url.parse()?, variable("SF_CLIENT_ID")?)
                .client_secret(variable("SF_CLIENT_SECRET")?);
            return Ok(Self {
                app,
                emulated: None,
            });
        }
        let org = Org::new();
        let served = org.serve().await?;
        let app =
            App::new(org.login_url().parse()?, org.client_id()).client_secret(org.client_secret());
        Ok(Self {
            app,
            emulated: Some((org, served)),
        })
    }
}

/// Does what the `curl` line does.
async fn ask(url: &str, key: &str) -> Result<(), BoxError> {
    let request = Request::get(url)
        .header(headers::API_KEY, key)
        .body(Empty::<Bytes>::new())?;
    let response = HttpsClient::new()?.oneshot(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    println!("{status}: {}", String::from_utf8_lossy(&body));
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
