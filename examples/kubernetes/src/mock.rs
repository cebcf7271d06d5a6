//! A mock of the API server: the objects of two kinds, with `resourceVersion`s that it compares.

use std::{
    collections::BTreeMap,
    future::ready,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::service_fn;
use tower_salesforce_auth::BoxError;

use crate::api::{Api, Client};

#[derive(Clone, Default)]
pub(crate) struct MockServer(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The objects by their paths.
    objects: BTreeMap<String, Value>,
    last_version: u64,
    calls: usize,
    /// What every call is answered with. `None` while it works.
    fails: Option<StatusCode>,
}

impl MockServer {
    /// The API server, as one pod sees it.
    pub(crate) fn api(&self) -> Api {
        let server = self.clone();
        let client = service_fn(move |request: Request<Full<Bytes>>| {
            let server = server.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                let body = serde_json::from_slice(&body).unwrap_or_default();
                let (status, answer) = server.answer(&head.method, head.uri.path(), body);
                let mut response = Response::new(Bytes::from(answer.to_string()));
                *response.status_mut() = status;
                ready(Ok::<_, BoxError>(response)).await
            }
        });
        Api::new(
            Client::new(client),
            "https://kubernetes.default.svc",
            "default",
        )
    }

    /// How many calls it has answered.
    pub(crate) fn calls(&self) -> usize {
        self.0.lock().expect("no panic").calls
    }

    #[cfg(test)]
    pub(crate) fn fail(&self, status: impl Into<Option<StatusCode>>) {
        self.0.lock().expect("no panic").fails = status.into();
    }

    /// All objects, as text.
    #[cfg(test)]
    pub(crate) fn shown(&self) -> String {
        format!("{:?}", self.0.lock().expect("no panic").objects)
    }

    fn answer(&self, method: &Method, path: &str, body: Value) -> (StatusCode, Value) {
        let mut state = self.0.lock().expect("no panic");
        state.calls += 1;
        if let Some(status) = state.fails {
            return (
                status,
                json!({ "kind": "Status", "message": "no permission" }),
            );
        }
        let stored = state.objects.get(path).cloned();
        let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
        match (method.as_str(), stored) {
            ("GET", Some(object)) => (StatusCode::OK, object),
            ("POST", _) => {
                let name = body["metadata"]["name"].as_str().unwrap_or_default();
                let path = format!("{path}/{name}");
                if !is_name(name) {
                    return status(StatusCode::UNPROCESSABLE_ENTITY);
                }
                if state.objects.contains_key(&path) {
                    return status(StatusCode::CONFLICT);
                }
                (StatusCode::CREATED, state.write(path, body))
            }
            ("PUT", Some(object)) if version(&object) != version(&body) => {
                status(StatusCode::CONFLICT)
            }
            // What changes nothing is not written.
            ("PUT", Some(object)) if object == body => (StatusCode::OK, object),
            ("PUT", Some(_)) => (StatusCode::OK, state.write(path.to_owned(), body)),
            ("DELETE", Some(object)) => {
                if body["preconditions"]["resourceVersion"] != version(&object) {
                    return status(StatusCode::CONFLICT);
                }
                state.objects.remove(path);
                status(StatusCode::OK)
            }
            ("GET" | "PUT" | "DELETE", None) => status(StatusCode::NOT_FOUND),
            _ => status(StatusCode::METHOD_NOT_ALLOWED),
        }
    }
}

impl State {
    fn write(&mut self, path: String, mut object: Value) -> Value {
        self.last_version += 1;
        object["metadata"]["resourceVersion"] = json!(self.last_version.to_string());
        self.objects.insert(path, object.clone());
        object
    }
}

/// Whether an object may have this name (RFC 1123).
fn is_name(name: &str) -> bool {
    let is_permitted =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty() && name.len() <= 253 && name.bytes().all(is_permitted)
}

fn status(status: StatusCode) -> (StatusCode, Value) {
    (status, json!({ "kind": "Status", "code": status.as_u16() }))
}
