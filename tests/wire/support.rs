//! What the tests over sockets share: clients of the org.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tower::{Layer, Service, ServiceExt};
use tower_salesforce_auth::{
    BoxError, ReplayBody, SalesforceAuth, SalesforceAuthLayer, Session,
    emulator::{Grant, Org},
    flow::RefreshToken,
};

#[path = "../support/app.rs"]
mod app;
#[path = "../support/echo.rs"]
mod echo;
#[path = "../support/refusal.rs"]
mod refusal;
#[path = "../support/rest.rs"]
mod rest;
#[path = "../support/socket.rs"]
mod socket;
#[path = "../support/starting.rs"]
mod starting;

pub(crate) use self::{
    app::app,
    echo::{ECHO, echoed},
    refusal::assert_refused,
    rest::LIMITS,
    socket::client as token_client,
    starting::starting_with,
};

pub(crate) type AnyBody = UnsyncBoxBody<Bytes, std::io::Error>;
pub(crate) type TokenClient = Client<HttpConnector, Full<Bytes>>;
pub(crate) type ApiClient = SalesforceAuth<Client<HttpConnector, ReplayBody<AnyBody>>>;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Protocol {
    Http1,
    H2,
}

/// A layer that begins with the session of a grant, and refreshes it.
pub(crate) fn layer(org: &Org, grant: &Grant) -> SalesforceAuthLayer {
    let session = Session::new(grant.access_token(), grant.instance_url()).unwrap();
    starting_with(session, refresh_token(org, grant))
}

pub(crate) fn refresh_token(org: &Org, grant: &Grant) -> RefreshToken<TokenClient> {
    RefreshToken::new(token_client(), app(org), grant.refresh_token())
}

/// A client of hyper-util inside the layer.
pub(crate) fn client(layer: &SalesforceAuthLayer, protocol: Protocol) -> ApiClient {
    let mut connector = HttpConnector::new();
    // Nagle's algorithm and delayed acknowledgements would cost each streamed body some 40 ms.
    connector.set_nodelay(true);
    let mut builder = Client::builder(TokioExecutor::new());
    builder.http2_only(matches!(protocol, Protocol::H2));
    layer.layer(builder.build(connector))
}

pub(crate) fn get(uri: &str) -> Request<AnyBody> {
    Request::get(uri).body(in_memory("")).unwrap()
}

pub(crate) fn post(uri: &str, body: AnyBody) -> Request<AnyBody> {
    Request::post(uri).body(body).unwrap()
}

pub(crate) fn in_memory(data: impl Into<Bytes>) -> AnyBody {
    UnsyncBoxBody::new(Full::new(data.into()).map_err(|never| match never {}))
}

pub(crate) async fn send<S, B>(
    service: &S,
    request: Request<AnyBody>,
) -> Result<(StatusCode, http::Extensions, Bytes), BoxError>
where
    S: Service<Request<AnyBody>, Response = Response<B>, Error = BoxError> + Clone,
    B: Body,
    B::Error: Into<BoxError>,
{
    let (head, body) = service.clone().oneshot(request).await?.into_parts();
    let body = body.collect().await.map_err(Into::into)?.to_bytes();
    Ok((head.status, head.extensions, body))
}
