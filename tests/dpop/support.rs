//! What the tests of DPoP share.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, request::Parts};
use http_body_util::{BodyExt, Full};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::ThumbprintHash};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tower::{Layer, Service, ServiceExt};
use tower_salesforce_auth::{
    BoxError, ReplayBody, SalesforceAuthLayer,
    emulator::Org,
    oauth::{App, Dpop, DpopKey},
    observer::{DpopNotice, Observer},
};

#[path = "../support/answering.rs"]
mod answering;
#[path = "../support/app.rs"]
mod app;
#[path = "../support/record.rs"]
mod record;
#[path = "../support/rest.rs"]
mod rest;

pub(crate) use self::{
    answering::answering,
    app::app,
    record::{Requests, recorded},
    rest::LIMITS,
};

/// The app of the org, with a key of its own.
pub(crate) fn bound_app(org: &Org) -> (App, DpopKey) {
    let key = DpopKey::generate().unwrap();
    (app(org).dpop(key.clone()), key)
}

/// The app of the org, with a new key for each grant.
pub(crate) fn app_per_grant(org: &Org) -> App {
    app(org).dpop(Dpop::per_grant())
}

/// An org whose app requires DPoP.
pub(crate) fn requiring_org() -> Org {
    let org = Org::new();
    org.require_dpop(true);
    org
}

/// What a proof says, checked by another library than the ones that make and check proofs otherwise.
pub(crate) struct Proof {
    pub(crate) thumbprint: String,
    pub(crate) claims: Value,
}

impl Proof {
    pub(crate) fn read(proof: &str) -> Self {
        let header = jsonwebtoken::decode_header(proof).unwrap();
        assert_eq!(header.typ.as_deref(), Some("dpop+jwt"));
        assert_eq!(header.alg, Algorithm::ES256);
        let jwk = header.jwk.unwrap();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        let key = DecodingKey::from_jwk(&jwk).unwrap();
        let decoded = jsonwebtoken::decode::<Value>(proof, &key, &validation).unwrap();
        let (encoded_header, _) = proof.split_once('.').unwrap();
        let encoded_header = URL_SAFE_NO_PAD.decode(encoded_header).unwrap();
        let header: Value = serde_json::from_slice(&encoded_header).unwrap();
        assert!(
            header["jwk"].get("d").is_none(),
            "the private key is in the proof"
        );
        Self {
            thumbprint: jwk.thumbprint(ThumbprintHash::SHA256).unwrap(),
            claims: decoded.claims,
        }
    }

    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let proofs: Vec<_> = headers.get_all("dpop").iter().collect();
        assert_eq!(proofs.len(), 1);
        assert!(proofs[0].is_sensitive());
        Self::read(proofs[0].to_str().unwrap())
    }

    pub(crate) fn claim(&self, name: &str) -> &str {
        self.claims[name].as_str().unwrap_or_default()
    }
}

/// The hash of an access token.
pub(crate) fn ath(token: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(token))
}

/// Sends a GET of the limits, by a relative URI.
pub(crate) async fn get<S>(layer: &SalesforceAuthLayer, service: S) -> StatusCode
where
    S: Service<
            Request<ReplayBody<Full<Bytes>>>,
            Response = Response<Full<Bytes>>,
            Error = BoxError,
        > + Clone,
{
    let request = Request::get(LIMITS).body(Full::default()).unwrap();
    let response = layer.layer(service).oneshot(request).await.unwrap();
    response.status()
}

/// A service for the layer that sends to `client`.
pub(crate) fn whole<C>(
    client: C,
) -> impl Service<
    Request<ReplayBody<Full<Bytes>>>,
    Response = Response<Full<Bytes>>,
    Error = BoxError,
    Future: Send,
> + Clone
+ Send
+ Sync
+ 'static
where
    C: Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = BoxError>
        + Clone
        + Send
        + Sync
        + 'static,
    C::Future: Send,
{
    tower::service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
        let client = client.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let request = Request::from_parts(head, Full::new(body));
            client.oneshot(request).await
        }
    })
}

/// A server that answers as `answer` says: from the head of a request, and its number.
pub(crate) fn scripted(
    answer: impl Fn(&Parts, usize) -> Response<Full<Bytes>> + Clone + Send + Sync + 'static,
) -> (
    impl Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = BoxError, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static,
    Requests,
) {
    let number = Arc::new(AtomicUsize::new(0));
    recorded(tower::service_fn(move |request: Request<Full<Bytes>>| {
        let (head, _) = request.into_parts();
        let answer = answer(&head, number.fetch_add(1, Ordering::Relaxed));
        std::future::ready(Ok::<_, BoxError>(answer))
    }))
}

/// An answer of a scripted server.
pub(crate) fn answer(
    status: u16,
    headers: &[(&'static str, &[u8])],
    body: &str,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_owned()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        let value = HeaderValue::from_bytes(value).unwrap();
        response.headers_mut().append(*name, value);
    }
    response
}

/// Keeps the notices of the keys that sessions are bound to.
#[derive(Clone, Default)]
pub(crate) struct Notices(pub(crate) Arc<Mutex<Vec<DpopNotice>>>);

impl Observer for Notices {
    fn dpop_notice(&self, notice: &DpopNotice) {
        self.0.lock().unwrap().push(notice.clone());
    }
}
