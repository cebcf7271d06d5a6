//! A server with one answer.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{Service, service_fn};
use tower_salesforce_auth::BoxError;

/// A server that always gives the same answer.
pub(crate) fn answering(
    status: u16,
    headers: &'static [(&'static str, &'static str)],
    body: impl Into<Bytes>,
) -> impl Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = BoxError, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static {
    let body = body.into();
    service_fn(move |_: Request<Full<Bytes>>| {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let response = response.body(Full::new(body.clone()));
        async { response.map_err(BoxError::from) }
    })
}
