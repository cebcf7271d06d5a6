//! force.

use std::{sync::Arc, time::Duration};

use force::{
    auth::{AuthorizationCode, TokenManager},
    http::HttpExecutor,
};
use http::{Method, StatusCode};
use tower::BoxError;

use super::{
    CLIENT_ID, Client,
    of_reqwest::{Urls, build, headers},
};
use crate::{
    loopback::Protocol,
    org::{TOKEN_PATH, WARM_UP_PATH},
};

/// The timeout of each request, and of each token call: force's own default for both.
const FORCE_TIMEOUT: Duration = Duration::from_secs(30);

/// Its own default.
const FORCE_RETRIES: u32 = 3;

/// force's executor and its token manager, put together as its own session does. Its ready client takes no HTTP client.
#[derive(Clone)]
pub(crate) struct Force {
    executor: HttpExecutor,
    tokens: Arc<TokenManager<AuthorizationCode>>,
    urls: Urls,
}

impl Client for Force {
    async fn connect(origin: &str, protocol: Protocol) -> Result<Self, BoxError> {
        let client = build!(reqwest_0_12::Client::builder(), protocol)?;
        client
            .get(format!("{origin}{WARM_UP_PATH}"))
            .send()
            .await?
            .bytes()
            .await?;
        let token_client = build!(
            reqwest_0_12::Client::builder().timeout(FORCE_TIMEOUT),
            protocol
        )?;
        let flow = AuthorizationCode::new(
            CLIENT_ID,
            None,
            "http://localhost/callback",
            "code",
            "verifier",
            format!("{origin}{TOKEN_PATH}"),
        );
        let tokens = TokenManager::new(flow.with_client(token_client));
        // Logs in: it cannot be given a session. The org answers with the first tokens.
        tokens.token().await?;
        Ok(Self {
            executor: HttpExecutor::with_client(client, FORCE_RETRIES, FORCE_TIMEOUT),
            tokens: Arc::new(tokens),
            urls: Urls::to(origin)?,
        })
    }

    fn get(
        &self,
        path: &'static str,
    ) -> impl Future<Output = Result<StatusCode, BoxError>> + 'static {
        let mut request = reqwest_0_12::Request::new(Method::GET, self.urls.of(path));
        *request.headers_mut() = headers();
        let this = self.clone();
        async move {
            let token = this.tokens.token().await?;
            let refresh = || this.tokens.force_refresh();
            let answer = this
                .executor
                .execute_response(request, &token, refresh)
                .await?;
            let status = answer.status();
            answer.bytes().await?;
            Ok(status)
        }
    }
}
