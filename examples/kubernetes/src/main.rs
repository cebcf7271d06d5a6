//! Pods share one user's session in a Secret of Kubernetes, and one refresh token that works only once.
//!
//! ```sh
//! cargo run -p kubernetes
//! ```
//!
//! **It was not run on a cluster.** Outside of one, the API server is a mock in this process, and the pods are tasks. In a pod it
//! uses the cluster's API server, with the permissions of `rbac.yaml`. The Salesforce org is an emulator in both cases.
//!
//! `backend` has a `LeaseBackend`: a Secret has the record, and a `coordination.k8s.io` Lease the lock. It makes its calls as
//! JSON over the crate's own `HttpsClient`: six kinds of calls, which need no client library.
//!
//! Encrypt the records, as here: who may read the Secrets of a namespace could otherwise use the sessions. `follow_store` does
//! nothing with this backend: for notices, let `changed` watch the Secret (`?watch=true`).

mod api;
mod backend;
mod mock;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use tokio::task::JoinSet;
use tower::{Layer, ServiceExt};
use tower_salesforce_auth::{
    BoxError, SalesforceAuthLayer, SessionHandle,
    emulator::{Fault, Org},
    flow::RefreshToken,
    oauth::App,
    store::{EncryptionKey, LeaseStore},
};

use self::{api::Api, backend::KubernetesBackend, mock::MockServer};

const PODS: usize = 4;

/// The number of times that the session expires.
const EXPIRIES: usize = 5;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mock = MockServer::default();
    let api = || match Api::in_cluster() {
        Ok(Some(api)) => Ok(api),
        Ok(None) => Ok(mock.api()),
        Err(error) => Err(error),
    };
    let org = Org::new();
    org.on_token(Fault::Delay(Duration::from_millis(100)));
    let app =
        App::new(org.login_url().parse()?, org.client_id()).client_secret(org.client_secret());
    let grant = org.authorize();
    // From a Secret of its own, in a real program.
    let key = EncryptionKey::new([7; 32]);
    let mut pods = Vec::new();
    for _ in 0..PODS {
        let store = LeaseStore::new(KubernetesBackend::new(api()?)).encryption(key.clone());
        let login = RefreshToken::new(org.clone(), app.clone(), grant.refresh_token());
        let handle = SessionHandle::builder(login)
            .store(store, "integration-user")
            .build();
        pods.push(SalesforceAuthLayer::from(handle));
    }
    for _ in 0..EXPIRIES {
        let mut requests = JoinSet::new();
        for pod in &pods {
            let client = pod.layer(org.clone());
            requests.spawn(async move {
                let request =
                    Request::get("/services/data/v66.0/limits").body(Full::<Bytes>::default())?;
                Ok::<_, BoxError>(client.oneshot(request).await?.status())
            });
        }
        while let Some(answered) = requests.join_next().await {
            if answered?? != StatusCode::OK {
                return Err("a request failed".into());
            }
        }
        org.expire_sessions();
    }
    let counters = org.counters();
    println!(
        "{PODS} pods, {EXPIRIES} sessions: {} token calls, {} refresh tokens presented twice, {} calls to the mock API server",
        counters.token_requests,
        counters.refresh_token_reuses,
        mock.calls()
    );
    Ok(())
}
