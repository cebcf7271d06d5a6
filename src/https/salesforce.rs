//! A ready client for one org: the layer around an [`HttpsClient`].

use bytes::Bytes;
use http_body::Body;
use http_body_util::Full;
use tower_layer::Layer;

use crate::{
    body::ReplayBody,
    error::{BoxError, Error},
    https::HttpsClient,
    layer::{layer::SalesforceAuthLayer, service::SalesforceAuth},
    refresh::hook::RefreshFn,
};

/// An [`HttpsClient`] whose requests carry a live Salesforce session, for request bodies of type `B`.
///
/// Made by [`client`], or by a [`SalesforceAuthLayer`] around [`HttpsClient::new`].
///
/// ```
/// use tower_salesforce_auth::https::SalesforceClient;
///
/// struct Accounts {
///     salesforce: SalesforceClient,
/// }
/// ```
pub type SalesforceClient<B = Full<Bytes>> = SalesforceAuth<HttpsClient<ReplayBody<B>>>;

/// Makes a client that logs in and refreshes with a flow, with default settings.
///
/// `flow` gets an [`HttpsClient`] of its own, apart from the one that is wrapped: a login must not wait for a connection
/// that requests hold while they wait for the login. With other settings, or a session that is shared, build a
/// [`SessionHandle`](crate::SessionHandle::builder) and a layer.
///
/// ```no_run
/// use bytes::Bytes;
/// use http::Request;
/// use http_body_util::Full;
/// use tower::ServiceExt;
/// use tower_salesforce_auth::{BoxError, flow::ClientCredentials, https, oauth::App};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let my_domain = "https://MyDomainName.my.salesforce.com".parse()?;
/// let app = App::new(my_domain, "3MVG9…").client_secret("1955…");
/// let client = https::client(|http| ClientCredentials::new(http, app))?;
///
/// let request = Request::get("/services/data/v66.0/limits").body(Full::<Bytes>::default())?;
/// println!("{}", client.oneshot(request).await?.status());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// As for [`HttpsClient::new`].
pub fn client<R, B>(
    flow: impl FnOnce(HttpsClient<Full<Bytes>>) -> R,
) -> Result<SalesforceClient<B>, Error>
where
    R: RefreshFn,
    B: Body + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let login = flow(HttpsClient::new()?);
    Ok(SalesforceAuthLayer::new(login).layer(HttpsClient::new()?))
}
