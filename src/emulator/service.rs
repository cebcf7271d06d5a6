//! `Org` as a tower service: routes each request to its endpoint.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower_service::Service;

use super::controls;
use super::endpoint::{
    authorize, bulk, connect, data, discovery, identity, introspect, rest, revoke, soap, token,
};
use super::org::Org;
use super::state::backend::Backend;
use super::wire::answer::{self, HttpAnswer};
use super::wire::receive::collect;
use crate::error::BoxError;

impl<B> Service<Request<B>> for Org
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ResponseFuture {
            answer: Box::pin(route(self.clone(), request)),
        }
    }
}

/// The answer of an [`Org`] to one request.
///
/// The request arrives when the future is first polled. Dropping the future acts like a broken
/// connection to a real org, with one exception: an unanswered refresh request leaves its refresh
/// token valid.
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture {
    answer: Pin<Box<dyn Future<Output = Result<HttpAnswer, BoxError>> + Send>>,
}

impl Future for ResponseFuture {
    type Output = Result<Response<Full<Bytes>>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.answer.as_mut().poll(cx)
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

async fn route<B>(org: Org, request: Request<B>) -> Result<HttpAnswer, BoxError>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let (parts, body) = request.into_parts();
    // Controls come first, because the counters leave out requests to them.
    if let Some(name) = controls::named(&org, parts.uri.path()) {
        return controls::answer(&org, &parts, name, body).await;
    }
    let org = org.backend();
    count(org, parts.headers.get_all(AUTHORIZATION).iter().count());
    match OrgRoute::of(parts.uri.path()) {
        OrgRoute::Token => token::answer(org, &parts, body).await,
        OrgRoute::Revoke => revoke::answer(org, &parts, body).await,
        OrgRoute::Data(path) => data::answer(org, &parts, path, body).await,
        OrgRoute::Bulk(path) => bulk::answer(org, &parts, path, body).await,
        OrgRoute::Soap(endpoint) => soap::answer(org, &parts, &endpoint, body).await,
        route => {
            let body = collect(body).await?;
            Ok(match route {
                OrgRoute::Authorize => authorize::answer(org, &parts, &body),
                OrgRoute::Connect => connect::answer(org, &parts, &body),
                OrgRoute::Introspect => introspect::answer(org, &parts, &body),
                OrgRoute::Userinfo => identity::userinfo(org, &parts),
                OrgRoute::Identity(path) => identity::identity(org, &parts, path),
                OrgRoute::Keys => discovery::keys(&parts.method),
                OrgRoute::Discovery => discovery::document(org, &parts.method),
                OrgRoute::Versions => rest::versions(&parts.method),
                _ => answer::not_found(),
            })
        }
    }
}

/// The endpoint that a path leads to.
enum OrgRoute<'a> {
    Authorize,
    Token,
    Revoke,
    Introspect,
    Userinfo,
    /// The verification page of the device flow.
    Connect,
    Keys,
    Discovery,
    /// The rest of the path after `/id/`.
    Identity(&'a str),
    Versions,
    /// A data call, with the rest of the path after `/services/data/`.
    Data(&'a str),
    /// The rest of the path after `/services/async/`.
    Bulk(&'a str),
    Soap(soap::SoapEndpoint<'a>),
    Nowhere,
}

impl<'a> OrgRoute<'a> {
    fn of(path: &'a str) -> Self {
        match path {
            "/services/data" | "/services/data/" => return Self::Versions,
            "/setup/connect" => return Self::Connect,
            "/id/keys" => return Self::Keys,
            "/.well-known/openid-configuration" => return Self::Discovery,
            _ => {}
        }
        if let Some(path) = path.strip_prefix("/services/data/") {
            Self::Data(path)
        } else if path.starts_with("/services/apexrest/") {
            // The org has no Apex class. The endpoint checks the session and then answers 404.
            Self::Data("")
        } else if let Some(path) = path.strip_prefix("/services/async/") {
            Self::Bulk(path)
        } else if let Some(path) = path.strip_prefix("/id/") {
            Self::Identity(path)
        } else if let Some(path) = path.strip_prefix("/services/Soap/") {
            soap::SoapEndpoint::of(path).map_or(Self::Nowhere, Self::Soap)
        } else {
            Self::of_oauth(path).unwrap_or(Self::Nowhere)
        }
    }

    /// The endpoints that exist at the org and below the path of each site.
    fn of_oauth(path: &str) -> Option<Self> {
        let (site, endpoint) = path.split_once("/services/oauth2/")?;
        if site.rfind('/').is_some_and(|slash| slash != 0) {
            return None;
        }
        match endpoint {
            "authorize" => Some(Self::Authorize),
            "token" => Some(Self::Token),
            "revoke" => Some(Self::Revoke),
            "introspect" => Some(Self::Introspect),
            "userinfo" => Some(Self::Userinfo),
            _ => None,
        }
    }
}

fn count(org: &Backend, authorizations: usize) {
    let counters = &mut org.state().counters;
    counters.requests += 1;
    if authorizations > 1 {
        counters.requests_with_several_authorizations += 1;
    }
}
