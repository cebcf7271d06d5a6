//! An org, and clients of it. The org is a service itself, and so needs no socket.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_salesforce_auth::{
    AuthOutcome, BoxError, RefreshContext, RefreshReason, SalesforceAuthLayer, emulator::Org,
    oauth::App,
};

pub(crate) const LIMITS: &str = "/services/data/v66.0/limits";

/// The org's app, as it is registered there.
pub(crate) fn app(org: &Org) -> App {
    public_app(org).client_secret(org.client_secret())
}

/// The same without its secret.
pub(crate) fn public_app(org: &Org) -> App {
    App::new(org.login_url().parse().unwrap(), org.client_id())
}

pub(crate) fn first_login() -> RefreshContext {
    RefreshContext::new(RefreshReason::FirstLogin)
}

/// Asks the org for something that needs a session.
pub(crate) async fn get_limits(
    layer: &SalesforceAuthLayer,
    org: &Org,
) -> Result<(StatusCode, Option<AuthOutcome>), BoxError> {
    let uri = format!("{}{LIMITS}", org.instance_url());
    let request = Request::get(uri).body(Full::<Bytes>::default())?;
    let response = layer.layer(org.clone()).oneshot(request).await?;
    let outcome = response.extensions().get::<AuthOutcome>().cloned();
    Ok((response.status(), outcome))
}

/// How often the org was asked to let somebody in, by whatever protocol.
pub(crate) fn login_calls(org: &Org) -> u64 {
    let counters = org.counters();
    counters.token_requests + counters.soap_requests
}

// === A client that is looked over the shoulder ===

/// What was sent, request by request.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Request<Bytes>>>>);

impl Log {
    pub(crate) fn take(&self) -> Vec<Request<Bytes>> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The form of the one request that was sent.
    pub(crate) fn form(&self) -> Vec<(String, String)> {
        let requests = self.take();
        let [request] = requests.as_slice() else {
            panic!("{} requests", requests.len());
        };
        form_urlencoded::parse(request.body())
            .into_owned()
            .collect()
    }
}

/// A client for a flow, and a log of what it sends to `service`.
pub(crate) fn logged<S>(
    service: S,
) -> (
    impl Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = BoxError, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static,
    Log,
)
where
    S: Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = BoxError>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    let log = Log::default();
    let client = {
        let log = log.clone();
        service_fn(move |request: Request<Full<Bytes>>| {
            let (log, service) = (log.clone(), service.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                let entry = Request::from_parts(head.clone(), body.clone());
                log.0.lock().unwrap().push(entry);
                let request = Request::from_parts(head, Full::new(body));
                service.oneshot(request).await
            }
        })
    };
    (client, log)
}

/// A server that always answers the same.
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
