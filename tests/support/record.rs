//! A client whose requests are recorded.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower::{Service, ServiceExt, service_fn};
use tower_salesforce_auth::BoxError;

/// The requests that a client has sent.
#[derive(Clone, Default)]
pub(crate) struct Requests(Arc<Mutex<Vec<Request<Bytes>>>>);

impl Requests {
    pub(crate) fn take(&self) -> Vec<Request<Bytes>> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A client that sends to `service`, and the requests that it sends.
pub(crate) fn recorded<S>(
    service: S,
) -> (
    impl Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = BoxError, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static,
    Requests,
)
where
    S: Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = BoxError>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    let requests = Requests::default();
    let client = {
        let requests = requests.clone();
        service_fn(move |request: Request<Full<Bytes>>| {
            let (requests, service) = (requests.clone(), service.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                let record = Request::from_parts(head.clone(), body.clone());
                requests.0.lock().unwrap().push(record);
                let request = Request::from_parts(head, Full::new(body));
                service.oneshot(request).await
            }
        })
    };
    (client, requests)
}
