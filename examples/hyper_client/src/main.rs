//! The layer over hyper, with TLS: the session ends, and a hundred requests renew it once.
//!
//! ```sh
//! cargo run -p hyper_client
//! ```
//!
//! `HttpsClient` (feature `https-client`) is hyper-util's client with hyper-rustls; [`by_hand`] makes the same of these two.
//! A proxy is taken from the environment: `HTTPS_PROXY` (or `ALL_PROXY`) names it, `NO_PROXY` the hosts to reach without.
//!
//! Without more, the org is an emulated one behind TLS. For a real one, set `SF_LOGIN_URL` to its My Domain, and
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
    BoxError, LoginUrl, Observer, RefreshSucceeded, ReplayBody, SalesforceAuthLayer,
    emulator::Org,
    flow::ClientCredentials,
    https::{HttpsClient, HttpsClientBuilder, Proxy},
    oauth::{self, App},
};

const CALLERS: usize = 100;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let Target {
        login_url,
        app,
        https,
        _served,
    } = Target::from_env().await?;

    // Each `build` makes a client with connections of its own. The flow has one for itself: what it sends must not wait
    // for the requests that wait for it.
    let login = ClientCredentials::new(https.build()?, app);
    let logins = Arc::new(AtomicU64::new(0));
    let layer = SalesforceAuthLayer::new(login).observer(Logins(Arc::clone(&logins)));
    let handle = layer.handle();

    let client = ServiceBuilder::new()
        // Outermost: how long a caller waits at most, a refresh and the second attempt included. It does not end the
        // refresh, which others wait for too.
        .timeout(Duration::from_secs(60))
        // Then the session: whatever is above sees one request and one answer, whatever is below each attempt.
        .layer(layer)
        // Innermost: connections. It follows no redirect, so that no answer says where the token goes next.
        .service(https.build()?);

    for round in ["logged in", "the session ended"] {
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
            "{round}: {good} of {CALLERS} good answers over {:?}, {} login(s) so far",
            version.unwrap_or_default(),
            logins.load(Ordering::Relaxed),
        );

        // It ends at the server, as it would by time or by an administrator. Nobody here is told.
        let session = handle.token().await?;
        oauth::revoke(https.build()?, &login_url, session.access_token()).await?;
    }
    Ok(())
}

/// Counts what the flow brought.
struct Logins(Arc<AtomicU64>);

impl Observer for Logins {
    fn refresh_succeeded(&self, _event: &RefreshSucceeded) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Where to log in, as what, and how to get there.
struct Target {
    login_url: LoginUrl,
    app: App,
    https: HttpsClientBuilder,
    /// The emulated org, for as long as this lives.
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
                app: App::new(login_url.clone(), client_id).client_secret(client_secret),
                login_url,
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
            app: App::new(login_url.clone(), org.client_id()).client_secret(org.client_secret()),
            login_url,
            // What nobody else has signed has to be trusted by name. The org is on this machine, where no proxy leads.
            https: HttpsClient::builder()
                .root_certificates(&served.root_pem)?
                .proxy(Proxy::none()),
            _served: Some(served),
        })
    }
}

/// What `HttpsClient` is made of, for who wants to choose the parts. It goes where that goes: into a flow, with `Full<Bytes>`
/// for a body, and below the layer, with this one.
#[expect(dead_code, reason = "shown, and compiled, and not used")]
fn by_hand() -> Result<Client<HttpsConnector<HttpConnector>, ReplayBody<Full<Bytes>>>, BoxError> {
    // Without a provider it takes the process's, and panics if there are two to choose from, or none.
    let connector = HttpsConnectorBuilder::new()
        .with_provider_and_webpki_roots(aws_lc_rs::default_provider())?
        // Nothing goes over plain HTTP. `https_or_http` would send what the layer adds no token to.
        .https_only()
        // Offered by ALPN; the server chooses.
        .enable_http1()
        .enable_http2()
        .build();
    // A proxy would be hyper-util's `Matcher::from_env`, which finds it, and `Tunnel`, a connector around the `HttpConnector`.
    Ok(Client::builder(TokioExecutor::new())
        // A connection goes when nobody uses it; without a timer it is only passed over.
        .pool_idle_timeout(Duration::from_secs(90))
        .pool_timer(TokioTimer::new())
        .build(connector))
}
