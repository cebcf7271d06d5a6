//! The layer over hyper, with TLS: the session ends, and a hundred requests share one refresh.
//!
//! ```sh
//! cargo run -p hyper_client
//! ```
//!
//! `HttpsClient` (feature `https-client`) is hyper-util's client with hyper-rustls; [`by_hand`] builds the same from these two.
//! The environment names the proxy: `HTTPS_PROXY` or `ALL_PROXY`, and `NO_PROXY` for the hosts to reach without it.
//!
//! By default the org is emulated, and served with TLS. For a real org, set `SF_LOGIN_URL` to its My Domain, and
//! `SF_CLIENT_ID` and `SF_CLIENT_SECRET` to those of an app with the client credentials flow.

#[path = "../../../tests/ecosystem/tls.rs"]
mod tls;

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::task::JoinSet;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tower::{ServiceBuilder, ServiceExt};
use tower_salesforce_auth::{
    BoxError, LoginUrl, ReplayBody, SalesforceAuthLayer, SessionHandle,
    emulator::Org,
    flow::ClientCredentials,
    https::{HttpsClient, HttpsClientBuilder, Proxy},
    oauth::{self, App},
    observer::{Observer, RefreshSucceeded},
};

const CALLERS: usize = 100;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let Target {
        app,
        https,
        _served,
    } = Target::from_env().await?;

    // Each `build` makes a client with its own connections. The flow has its own client: its token calls must not wait for
    // the requests that wait for them.
    let login = ClientCredentials::new(https.build()?, app.clone());
    let logins = Arc::new(AtomicU64::new(0));
    let handle = SessionHandle::builder(login)
        .observer(Logins(Arc::clone(&logins)))
        .build();

    let client = ServiceBuilder::new()
        // Outermost: it bounds the wait of a caller, a refresh and the second attempt included. It does not stop the
        // refresh, which other callers wait for.
        .timeout(Duration::from_secs(60))
        // Then the session: layers above see one request and one answer, layers below see each attempt.
        .layer(SalesforceAuthLayer::from(handle.clone()))
        // Innermost: connections. The client follows no redirect, so that no answer decides where the token goes.
        .service(https.build()?);

    for round in [
        "There is no session yet",
        "The session has ended at the org",
    ] {
        println!("{round}, and {CALLERS} requests begin at once.");
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let client = client.clone();
            callers.spawn(async move {
                let request = Request::get("/services/data/v66.0/limits");
                let request = request.body(Full::<Bytes>::default())?;
                client.oneshot(request).await
            });
        }
        let mut good = 0;
        let mut version = None;
        while let Some(answer) = callers.join_next().await {
            let answer = answer??;
            good += usize::from(answer.status() == StatusCode::OK);
            version = Some(answer.version());
        }
        println!(
            "  {good} of them had a good answer, over {:?}. So far the program has logged in {} time(s).",
            version.unwrap_or_default(),
            logins.load(Ordering::Relaxed),
        );

        // The session ends at the server, as by time or by an administrator. The layer does not know yet.
        let session = handle.session().await?;
        oauth::revoke(https.build()?, &app, session.access_token()).await?;
    }
    Ok(())
}

/// Counts the sessions that the flow obtained.
struct Logins(Arc<AtomicU64>);

impl Observer for Logins {
    fn refresh_succeeded(&self, _event: &RefreshSucceeded) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The org, the app to log in with, and the client for them.
struct Target {
    app: App,
    https: HttpsClientBuilder,
    /// The emulated org, which serves until this is dropped. `None` for a real org.
    _served: Option<tls::TlsServed>,
}

impl Target {
    async fn from_env() -> Result<Self, BoxError> {
        if let Ok(login_url) = env::var("SF_LOGIN_URL") {
            let login_url: LoginUrl = login_url.parse()?;
            let client_id = env::var("SF_CLIENT_ID").map_err(|_| "SF_CLIENT_ID is not set")?;
            let client_secret =
                env::var("SF_CLIENT_SECRET").map_err(|_| "SF_CLIENT_SECRET is not set")?;
            return Ok(Self {
                app: App::new(login_url, client_id).client_secret(client_secret),
                // The platform's root certificates, and the environment's proxy.
                https: HttpsClient::builder(),
                _served: None,
            });
        }
        let org = Org::new();
        let served = tls::serve(&org, &["h2", "http/1.1"]).await?;
        println!("An emulated org is at {}.", served.url);
        let login_url: LoginUrl = served.url.parse()?;
        Ok(Self {
            app: App::new(login_url, org.client_id()).client_secret(org.client_secret()),
            // A self-signed certificate has to be trusted explicitly. A proxy could not reach an org on this machine.
            https: HttpsClient::builder()
                .root_certificates(&served.root_pem)?
                .proxy(Proxy::none()),
            _served: Some(served),
        })
    }
}

/// Builds the same as `HttpsClient`, for programs that choose the parts. This client goes below the layer; with the body
/// `Full<Bytes>` it goes into a flow.
#[expect(dead_code, reason = "shown, and compiled, and not used")]
fn by_hand() -> Result<Client<HttpsConnector<HttpConnector>, ReplayBody<Full<Bytes>>>, BoxError> {
    // Without an explicit provider, it takes that of the process, and panics if there is not exactly one.
    let connector = HttpsConnectorBuilder::new()
        .with_provider_and_webpki_roots(aws_lc_rs::default_provider())?
        // Refuses plain HTTP. `https_or_http` would allow it for requests without a token.
        .https_only()
        // Offered by ALPN; the server chooses.
        .enable_http1()
        .enable_http2()
        .build();
    // For a proxy: hyper-util's `Matcher::from_env` finds it, and `Tunnel` is a connector around the `HttpConnector`.
    Ok(Client::builder(TokioExecutor::new())
        // Closes idle connections. Without a timer, an expired connection stays open until the next request.
        .pool_idle_timeout(Duration::from_secs(90))
        .pool_timer(TokioTimer::new())
        .build(connector))
}
