//! hyper-util's client, with a token by hand, and in a loop.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header::AUTHORIZATION};
use http_body_util::Full;
use tokio::sync::Mutex;
use tower::BoxError;

use super::{CLIENT_ID, Client, Hyper, Requests, bearer, status_of, warm};
use crate::{
    loopback::{Loopback, Protocol, send},
    org::{TOKEN_PATH, access_token, refresh_token},
};

/// hyper-util's client, with a token in each request.
#[derive(Clone)]
pub(crate) struct TokenByHand {
    client: Hyper<Full<Bytes>>,
    requests: Requests,
    authorization: HeaderValue,
}

impl Client for TokenByHand {
    async fn connect(origin: &str, protocol: Protocol) -> Result<Self, BoxError> {
        let client = Loopback::client(protocol);
        warm(client.clone(), origin).await?;
        Ok(Self {
            client,
            requests: Requests::to(origin)?,
            authorization: bearer(&access_token(0))?,
        })
    }

    fn get(
        &self,
        path: &'static str,
    ) -> impl Future<Output = Result<StatusCode, BoxError>> + 'static {
        let mut request = self.requests.get(path);
        let authorization = self.authorization.clone();
        request.headers_mut().insert(AUTHORIZATION, authorization);
        status_of(self.client.clone(), request)
    }
}

/// hyper-util's client, with the leanest loop that refreshes once for all callers: a mutex around the tokens, a clone of the
/// request, and a comparison of the header that was sent with the newest.
#[derive(Clone)]
pub(crate) struct RetryByHand {
    client: Hyper<Full<Bytes>>,
    requests: Requests,
    shared: Arc<Shared>,
}

struct Shared {
    token_client: Hyper<Full<Bytes>>,
    endpoint: Uri,
    tokens: Mutex<Tokens>,
}

struct Tokens {
    authorization: HeaderValue,
    refresh_token: String,
}

impl Client for RetryByHand {
    async fn connect(origin: &str, protocol: Protocol) -> Result<Self, BoxError> {
        let client = Loopback::client(protocol);
        let token_client = Loopback::client(protocol);
        warm(client.clone(), origin).await?;
        warm(token_client.clone(), origin).await?;
        Ok(Self {
            client,
            requests: Requests::to(origin)?,
            shared: Arc::new(Shared {
                token_client,
                endpoint: format!("{origin}{TOKEN_PATH}").parse()?,
                tokens: Mutex::new(Tokens {
                    authorization: bearer(&access_token(0))?,
                    refresh_token: refresh_token(0),
                }),
            }),
        })
    }

    fn get(
        &self,
        path: &'static str,
    ) -> impl Future<Output = Result<StatusCode, BoxError>> + 'static {
        let request = self.requests.get(path);
        let mut client = self.client.clone();
        let shared = Arc::clone(&self.shared);
        async move {
            let answer = shared.send(&mut client, request).await?;
            Ok(answer.status())
        }
    }
}

impl Shared {
    async fn send(
        &self,
        client: &mut Hyper<Full<Bytes>>,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, BoxError> {
        let used = self.tokens.lock().await.authorization.clone();
        let mut attempt = request.clone();
        attempt.headers_mut().insert(AUTHORIZATION, used.clone());
        let answer = send(client, attempt).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let authorization = {
            let mut current = self.tokens.lock().await;
            if current.authorization == used {
                *current = self.refresh(&current.refresh_token).await?;
            }
            current.authorization.clone()
        };
        let mut again = request;
        again.headers_mut().insert(AUTHORIZATION, authorization);
        send(client, again).await
    }

    async fn refresh(&self, refresh_token: &str) -> Result<Tokens, BoxError> {
        let form =
            format!("grant_type=refresh_token&client_id={CLIENT_ID}&refresh_token={refresh_token}");
        let request = Request::post(self.endpoint.clone()).body(Full::from(form))?;
        let answer = send(&mut self.token_client.clone(), request).await?;
        if answer.status() != StatusCode::OK {
            return Err("the refresh token was refused".into());
        }
        let answer: serde_json::Value = serde_json::from_slice(answer.body())?;
        let token = |name: &str| answer[name].as_str().ok_or("no token");
        Ok(Tokens {
            authorization: bearer(token("access_token")?)?,
            refresh_token: token("refresh_token")?.to_string(),
        })
    }
}
