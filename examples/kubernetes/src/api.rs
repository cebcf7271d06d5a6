//! The calls to the API server: objects as JSON, over any HTTP client.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::time::timeout;
use tower::{ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_salesforce_auth::{
    BoxError,
    https::{HttpsClient, Proxy},
    store::{StoreError, StoreErrorKind},
};

/// How long a call may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Where a pod finds its token, its namespace and the certificate of the API server.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

pub(crate) type Client = BoxCloneSyncService<Request<Full<Bytes>>, Response<Bytes>, BoxError>;

/// A kind of object.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Secret,
    Lease,
}

impl Kind {
    fn group(self) -> &'static str {
        match self {
            Self::Secret => "/api/v1",
            Self::Lease => "/apis/coordination.k8s.io/v1",
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Self::Secret => "secrets",
            Self::Lease => "leases",
        }
    }
}

/// The API server, as one pod sees it.
#[derive(Clone)]
pub(crate) struct Api {
    client: Client,
    /// Scheme, host and port.
    server: String,
    namespace: String,
    /// The file with the token, which Kubernetes replaces now and then. `None`: no token is sent.
    token: Option<PathBuf>,
}

impl Api {
    pub(crate) fn new(client: Client, server: &str, namespace: &str) -> Self {
        Self {
            client,
            server: server.to_owned(),
            namespace: namespace.to_owned(),
            token: None,
        }
    }

    /// The API server of the cluster that this process runs in. `None` outside of a cluster.
    pub(crate) fn in_cluster() -> Result<Option<Self>, BoxError> {
        let variable = |name| std::env::var(name).ok();
        let (Some(host), Some(port)) = (
            variable("KUBERNETES_SERVICE_HOST"),
            variable("KUBERNETES_SERVICE_PORT"),
        ) else {
            return Ok(None);
        };
        let directory = PathBuf::from(SERVICE_ACCOUNT);
        let read = |name| {
            let path = directory.join(name);
            std::fs::read_to_string(&path).map_err(|error| {
                format!(
                    "{} cannot be read: {error}. Mount the token of a service account",
                    path.display()
                )
            })
        };
        let client = HttpsClient::builder()
            .proxy(Proxy::none())
            .root_certificates(read("ca.crt")?)?
            .build::<Full<Bytes>>()?;
        let client = service_fn(move |request: Request<Full<Bytes>>| {
            let client = client.clone();
            async move {
                let (head, body) = client.oneshot(request).await?.into_parts();
                let body = body.collect().await?.to_bytes();
                Ok::<_, BoxError>(Response::from_parts(head, body))
            }
        });
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host
        };
        let mut api = Self::new(
            Client::new(client),
            &format!("https://{host}:{port}"),
            read("namespace")?.trim(),
        );
        api.token = Some(directory.join("token"));
        Ok(Some(api))
    }

    /// Reads an object. `None` if there is none.
    pub(crate) async fn get(&self, kind: Kind, name: &str) -> Result<Option<Value>, StoreError> {
        let (status, object) = self.send(Method::GET, kind, Some(name), None).await?;
        match status {
            StatusCode::OK => Ok(Some(object)),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(refused(status, &object)),
        }
    }

    /// Creates an object. `None` if there is one of this name.
    pub(crate) async fn create(
        &self,
        kind: Kind,
        object: Value,
    ) -> Result<Option<Value>, StoreError> {
        let (status, object) = self.send(Method::POST, kind, None, Some(object)).await?;
        written(status, object)
    }

    /// Replaces the object of the `resourceVersion` that this one has. `None` if there is another one by now, or none.
    pub(crate) async fn replace(
        &self,
        kind: Kind,
        object: Value,
    ) -> Result<Option<Value>, StoreError> {
        let name = object["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let sent = self.send(Method::PUT, kind, Some(&name), Some(object));
        let (status, object) = sent.await?;
        written(status, object)
    }

    /// Deletes the object of this `resourceVersion`. Returns whether it is gone.
    pub(crate) async fn delete(
        &self,
        kind: Kind,
        name: &str,
        version: &Value,
    ) -> Result<bool, StoreError> {
        let options = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": { "resourceVersion": version },
        });
        let sent = self.send(Method::DELETE, kind, Some(name), Some(options));
        let (status, answer) = sent.await?;
        match status {
            StatusCode::OK | StatusCode::ACCEPTED | StatusCode::NOT_FOUND => Ok(true),
            StatusCode::CONFLICT => Ok(false),
            _ => Err(refused(status, &answer)),
        }
    }

    async fn send(
        &self,
        method: Method,
        kind: Kind,
        name: Option<&str>,
        body: Option<Value>,
    ) -> Result<(StatusCode, Value), StoreError> {
        let (server, namespace) = (&self.server, &self.namespace);
        let mut uri = format!(
            "{server}{}/namespaces/{namespace}/{}",
            kind.group(),
            kind.plural()
        );
        if let Some(name) = name {
            uri = format!("{uri}/{name}");
        }
        let body = body
            .map(|body| Bytes::from(body.to_string()))
            .unwrap_or_default();
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(unavailable)?;
        if let Some(path) = &self.token {
            let token = tokio::fs::read_to_string(path).await.map_err(unavailable)?;
            let mut value =
                HeaderValue::try_from(format!("Bearer {}", token.trim())).map_err(unavailable)?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let answered = timeout(LIMIT, self.client.clone().oneshot(request)).await;
        let response = answered.map_err(unavailable)?.map_err(unavailable)?;
        let object = serde_json::from_slice(response.body()).unwrap_or_default();
        Ok((response.status(), object))
    }
}

fn written(status: StatusCode, object: Value) -> Result<Option<Value>, StoreError> {
    match status {
        StatusCode::OK | StatusCode::CREATED => Ok(Some(object)),
        StatusCode::CONFLICT | StatusCode::NOT_FOUND => Ok(None),
        _ => Err(refused(status, &object)),
    }
}

fn refused(status: StatusCode, answer: &Value) -> StoreError {
    // The message of a `Status` names the object and the permission, and no content.
    let message = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let said = answer["message"].as_str().unwrap_or("without a message");
            format!("the API server refused it with {status}: {said}. Apply rbac.yaml")
        }
        _ => format!("the API server answered with {status}"),
    };
    StoreError::new(StoreErrorKind::Unavailable, message)
}

fn unavailable(error: impl Into<BoxError>) -> StoreError {
    let message = "the API server of Kubernetes cannot be reached";
    StoreError::new(StoreErrorKind::Unavailable, message).with_source(error)
}
