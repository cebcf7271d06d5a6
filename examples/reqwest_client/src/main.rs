//! The layer over reqwest: the session ends, and a hundred requests, every other one a POST, share one refresh.
//!
//! ```sh
//! cargo run -p reqwest_client
//! ```
//!
//! reqwest is not a service of `http` requests; tower-reqwest makes it one. Use it in a program that has reqwest already, with
//! its settings for proxies, certificates, decompression and cookies. Otherwise hyper is simpler, with one step less for each
//! request and no second set of types: see `hyper_client`.
//!
//! By default the org is emulated. For a real org, set `SF_LOGIN_URL` to its My Domain, and `SF_CLIENT_ID` and
//! `SF_CLIENT_SECRET` to those of an app with the client credentials flow. The example creates no records there.

mod over_reqwest;
#[cfg(test)]
#[path = "../../../tests/ecosystem/support.rs"]
mod support;
#[cfg(test)]
mod tests;

use std::{env, time::Duration};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use tokio::task::JoinSet;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_salesforce_auth::{
    BoxError, SalesforceAuthLayer,
    emulator::{Org, Served},
    flow::ClientCredentials,
    oauth::{self, App},
};

const CALLERS: usize = 100;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let target = Target::from_env().await?;

    // The flow has its own client: its token calls must not queue behind the requests that wait for them.
    let for_tokens = over_reqwest::service(target.reqwest()?);
    let for_data = over_reqwest::service(target.reqwest()?);
    let login = ClientCredentials::new(for_tokens.clone(), target.app.clone());
    let layer = SalesforceAuthLayer::new(login);
    let handle = layer.handle();

    let client = ServiceBuilder::new()
        // Outermost: it bounds the wait of a caller, a refresh and the second attempt included.
        .timeout(Duration::from_secs(90))
        // Then the session. It keeps the body for a replay, so it has to be outside of the conversion into a reqwest body,
        // which can be sent only once.
        .layer(layer)
        // Innermost: reqwest. Its own timeout bounds each attempt.
        .service(for_data);

    for round in [
        "There is no session yet",
        "The session has ended at the org",
    ] {
        println!("{round}, and {CALLERS} requests begin at once.");
        let mut callers = JoinSet::new();
        for n in 0..CALLERS {
            let client = client.clone();
            let request = target.request(n)?;
            callers.spawn(async move { send(client, request).await });
        }
        let answers = callers.join_all().await;
        let good = answers.iter().filter(|answer| answer.is_ok()).count();
        println!("  {good} of them had a good answer.");
        if let Some(Err(error)) = answers.into_iter().find(Result::is_err) {
            return Err(error);
        }
        if let Some((org, _)) = &target.emulated {
            let counters = org.counters();
            println!(
                "  So far the org has issued {} session(s), and rejected {} request(s), which the layer sent again.",
                counters.tokens_issued, counters.data_rejected
            );
        }

        // The session ends at the server, as by time. The layer does not know yet.
        let session = handle.session().await?;
        oauth::revoke(for_tokens.clone(), &target.app, session.access_token()).await?;
    }
    Ok(())
}

/// Sends a request, and receives the whole answer.
async fn send<S, ResBody>(client: S, request: Request<Full<Bytes>>) -> Result<Bytes, BoxError>
where
    S: Service<Request<Full<Bytes>>, Response = http::Response<ResBody>, Error = BoxError>,
    ResBody: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
{
    let (head, body) = client.oneshot(request).await?.into_parts();
    let body = body.collect().await.map_err(Into::into)?.to_bytes();
    if !head.status.is_success() {
        return Err(format!("the org answered {}", head.status).into());
    }
    Ok(body)
}

/// The org, and the app to log in with.
struct Target {
    app: App,
    emulated: Option<(Org, Served)>,
}

impl Target {
    async fn from_env() -> Result<Self, BoxError> {
        if let Ok(login_url) = env::var("SF_LOGIN_URL") {
            let client_id = env::var("SF_CLIENT_ID").map_err(|_| "SF_CLIENT_ID is not set")?;
            let client_secret =
                env::var("SF_CLIENT_SECRET").map_err(|_| "SF_CLIENT_SECRET is not set")?;
            return Ok(Self {
                app: App::new(login_url.parse()?, client_id).client_secret(client_secret),
                emulated: None,
            });
        }
        let org = Org::new();
        let served = org.serve().await?;
        println!("An emulated org is at {}.", served.url());
        Ok(Self {
            app: App::new(org.login_url().parse()?, org.client_id())
                .client_secret(org.client_secret()),
            emulated: Some((org, served)),
        })
    }

    fn reqwest(&self) -> reqwest::Result<reqwest::Client> {
        let client = over_reqwest::client();
        match self.emulated {
            // reqwest uses a proxy for loopback too, unless NO_PROXY lists it.
            Some(_) => client.no_proxy().build(),
            None => client.build(),
        }
    }

    /// A request whose URI is a path: the layer adds the instance.
    fn request(&self, n: usize) -> http::Result<Request<Full<Bytes>>> {
        if n.is_multiple_of(2) || self.emulated.is_none() {
            return Request::get("/services/data/v66.0/limits").body(Full::default());
        }
        Request::builder()
            .method(Method::POST)
            .uri("/services/data/v66.0/sobjects/Account")
            .header("content-type", "application/json")
            .body(Full::from(format!(r#"{{"Name":"Account {n}"}}"#)))
    }
}
