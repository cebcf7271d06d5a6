//! reqwest, as a tower service of `http` requests.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use reqwest::redirect;
use tower::{Service, ServiceBuilder};
use tower_reqwest::HttpClientLayer;
use tower_salesforce_auth::BoxError;

/// A builder of reqwest clients with the settings that the layer needs.
pub(crate) fn client() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        // By default reqwest follows ten redirects, and drops only `Authorization` when the host changes.
        .redirect(redirect::Policy::none())
        .connect_timeout(Duration::from_secs(10))
        // Bounds each attempt, its body included. tower's timeout, outside the layer, bounds the whole request.
        .timeout(Duration::from_secs(30))
    // reqwest finds a proxy in the environment: HTTPS_PROXY, ALL_PROXY, NO_PROXY.
}

/// A service for the layer, or for a flow: the two differ in the body type only.
pub(crate) fn service<B>(
    client: reqwest::Client,
) -> impl Service<
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
    ServiceBuilder::new()
        // reqwest has its own body type. The conversion copies nothing: it streams the wrapped body.
        .map_request(|request: Request<B>| request.map(reqwest::Body::wrap))
        // reqwest's service takes its own requests: this makes it a service of `http` requests.
        .layer(HttpClientLayer)
        // Innermost: connections, TLS, the proxy.
        .service(client)
}
