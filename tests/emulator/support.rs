//! What the tests of the emulator share: calls of an org.

use bytes::Bytes;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header::AUTHORIZATION;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::channel::Channel;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use serde_json::json;
use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;
use tower::ServiceExt;
use tower_salesforce_auth::emulator::Grant;
use tower_salesforce_auth::emulator::Org;

#[path = "../support/echo.rs"]
mod echo;
#[path = "../support/rest.rs"]
mod rest;

pub(crate) use self::{
    echo::{ECHO, echoed},
    rest::LIMITS,
};

pub(crate) const SESSION_EXPIRED: &str =
    r#"[{"message":"Session expired or invalid","errorCode":"INVALID_SESSION_ID"}]"#;

pub(crate) type Answer = Response<Full<Bytes>>;

/// A client with its own grant.
pub(crate) struct Caller {
    org: Org,
    grant: Grant,
}

impl Caller {
    pub(crate) fn new(org: &Org) -> Self {
        Self {
            org: org.clone(),
            grant: org.authorize(),
        }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.call(Method::GET, path, "").await
    }

    pub(crate) async fn get_json(&mut self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        json_of(response).await
    }

    pub(crate) async fn post(&mut self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.call(Method::POST, path, body).await
    }

    /// Runs a query.
    pub(crate) async fn query(&mut self, soql: &str) -> Answer {
        let path = format!("/services/data/v66.0/query?{}", encode(&[("q", soql)]));
        self.get(&path).await
    }

    pub(crate) async fn call(
        &mut self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(AUTHORIZATION, bearer(self.grant.access_token()))
            .body(Full::new(body.into()))
            .unwrap();
        send(&self.org, request).await
    }
}

pub(crate) fn send(
    org: &Org,
    request: Request<Full<Bytes>>,
) -> impl Future<Output = Answer> + use<> {
    let call = org.clone().oneshot(request);
    async { call.await.unwrap() }
}

/// The status and the text of an answer.
pub(crate) async fn text_answer(org: &Org, request: Request<Full<Bytes>>) -> (StatusCode, String) {
    let response = send(org, request).await;
    let status = response.status();
    let body = bytes_of(response).await;
    (status, String::from_utf8(body.to_vec()).unwrap())
}

pub(crate) fn refresh(org: &Org, token: &str) -> impl Future<Output = Answer> + use<> {
    send(org, token_request(refresh_form(org, token)))
}

/// A token request of `pairs`, with the app's id and secret.
pub(crate) async fn grant(org: &Org, pairs: &[(&str, &str)]) -> Answer {
    send(org, token_request(form(org, pairs))).await
}

/// The parameters `pairs`, encoded, with the app's id and secret.
pub(crate) fn form(org: &Org, pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .append_pair("client_id", org.client_id())
        .append_pair("client_secret", org.client_secret())
        .extend_pairs(pairs)
        .finish()
}

pub(crate) fn encode(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

/// A form sent to `path`.
pub(crate) fn post_form(path: &str, form: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(path)
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Full::new(form.into()))
        .unwrap()
}

pub(crate) fn set_time(org: &Org, seconds: u64) {
    org.set_clock(move || std::time::UNIX_EPOCH + Duration::from_secs(seconds));
}

pub(crate) fn fields(body: &Value) -> Vec<&str> {
    body.as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

pub(crate) async fn get_limits(org: &Org, token: &str) -> StatusCode {
    let request = Request::get(LIMITS).header(AUTHORIZATION, bearer(token));
    send(org, request.body(empty()).unwrap()).await.status()
}

pub(crate) fn refresh_form(org: &Org, token: &str) -> String {
    let (id, secret) = (org.client_id(), org.client_secret());
    format!("grant_type=refresh_token&refresh_token={token}&client_id={id}&client_secret={secret}")
}

pub(crate) fn token_request(form: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post("/services/oauth2/token")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Full::new(form.into()))
        .unwrap()
}

pub(crate) fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

pub(crate) fn empty() -> Full<Bytes> {
    Full::default()
}

pub(crate) async fn assert_refused(response: Answer, error: &str, description: &str) {
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.headers()["cache-control"], "no-store");
    let body = json!({ "error": error, "error_description": description });
    assert_eq!(json_of(response).await, body);
}

pub(crate) async fn bytes_of(response: Answer) -> Bytes {
    let collected: Result<_, Infallible> = response.into_body().collect().await;
    collected.unwrap().to_bytes()
}

pub(crate) async fn json_of(response: Answer) -> Value {
    serde_json::from_slice(&bytes_of(response).await).unwrap()
}

pub(crate) fn client(http2: bool) -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .build_http()
}

pub(crate) fn channel_client(http2: bool) -> Client<HttpConnector, Channel<Bytes>> {
    Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .build_http()
}
