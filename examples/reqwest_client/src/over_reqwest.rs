//! reqwest, as a tower service of `http` requests.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use reqwest::redirect;
use tower::{Service, ServiceBuilder};
use tower_reqwest::HttpClientLayer;
use tower_salesforce_auth::BoxError;

/// A reqwest client as a session needs it, to be built, or added to.
pub(crate) fn client() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        // It follows ten by default, and only a token in `Authorization` would stay behind when the host changes.
        .redirect(redirect::Policy::none())
        .connect_timeout(Duration::from_secs(10))
        // For one attempt, its body included; for all of a request there is tower's, outside the layer.
        .timeout(Duration::from_secs(30))
    // A proxy is found in the environment, by reqwest itself: HTTPS_PROXY, ALL_PROXY, NO_PROXY.
}

/// The client below the layer, and the one of a flow: they differ in the body alone.
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
        // reqwest has a body type of its own. This is not a copy: what is sent is taken out of the other piece by piece.
        .map_request(|request: Request<B>| request.map(reqwest::Body::wrap))
        // Its service is one of requests of its own, too: this makes it one of `http`'s.
        .layer(HttpClientLayer)
        // Innermost: connections, TLS, the proxy.
        .service(client)
}
