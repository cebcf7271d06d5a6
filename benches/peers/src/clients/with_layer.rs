//! hyper-util's client under this layer.

use bytes::Bytes;
use http::StatusCode;
use http_body_util::Full;
use tower::{BoxError, Layer};
use tower_salesforce_auth::{
    ReplayBody, SalesforceAuth, SalesforceAuthLayer, Session, SessionHandle, flow::RefreshToken,
    oauth::App,
};

use super::{CLIENT_ID, Client, Hyper, Requests, status_of, warm};
use crate::{
    loopback::{Loopback, Protocol},
    org::{access_token, refresh_token},
};

/// hyper-util's client under this layer, as it is by default.
#[derive(Clone)]
pub(crate) struct WithLayer {
    client: SalesforceAuth<Hyper<ReplayBody<Full<Bytes>>>>,
    requests: Requests,
}

/// The same with replay off.
#[derive(Clone)]
pub(crate) struct InjectOnly(WithLayer);

impl WithLayer {
    async fn with(
        origin: &str,
        protocol: Protocol,
        adapt: impl FnOnce(SalesforceAuthLayer) -> SalesforceAuthLayer,
    ) -> Result<Self, BoxError> {
        let token_client = Loopback::client(protocol);
        warm(token_client.clone(), origin).await?;
        let app = App::new(origin.parse()?, CLIENT_ID);
        let session = Session::new(access_token(0), origin)?;
        let handle = SessionHandle::builder(RefreshToken::new(token_client, app, refresh_token(0)))
            .initial_session(session)
            .build();
        let client = adapt(handle.into()).layer(Loopback::client(protocol));
        warm(client.clone(), origin).await?;
        Ok(Self {
            client,
            requests: Requests::to(origin)?,
        })
    }
}

impl Client for WithLayer {
    async fn connect(origin: &str, protocol: Protocol) -> Result<Self, BoxError> {
        Self::with(origin, protocol, |layer| layer).await
    }

    fn get(
        &self,
        path: &'static str,
    ) -> impl Future<Output = Result<StatusCode, BoxError>> + 'static {
        status_of(self.client.clone(), self.requests.get(path))
    }
}

impl Client for InjectOnly {
    async fn connect(origin: &str, protocol: Protocol) -> Result<Self, BoxError> {
        let client = WithLayer::with(origin, protocol, |layer| layer.max_refreshes(0));
        Ok(Self(client.await?))
    }

    fn get(
        &self,
        path: &'static str,
    ) -> impl Future<Output = Result<StatusCode, BoxError>> + 'static {
        self.0.get(path)
    }
}
