//! reqwest alone, and what the clients over it share.

use http::{HeaderMap, HeaderValue, Method, StatusCode, header::AUTHORIZATION};
use reqwest::Url;
use tower::BoxError;

use super::{Client, bearer};
use crate::{
    contenders::{self, Headers},
    loopback::Protocol,
    org::{PATH, WARM_UP_PATH, access_token},
};

/// What each client of reqwest is built with: as large as that of the others, so that no request waits for an update of it.
pub(super) const WINDOW: u32 = (1 << 31) - 1;

/// A client of reqwest, from this builder. Both versions in use have the same methods.
macro_rules! build {
    ($builder:expr, $protocol:expr) => {{
        let builder = $builder.no_proxy();
        match $protocol {
            $crate::loopback::Protocol::Http1 => builder.http1_only(),
            $crate::loopback::Protocol::Http2 => builder
                .http2_prior_knowledge()
                .http2_initial_connection_window_size($crate::clients::of_reqwest::WINDOW),
        }
        .build()
    }};
}

pub(super) use build;

/// The URL of a path. Clients of reqwest take a URL that is parsed already, as the others take a URI.
#[derive(Clone)]
pub(super) struct Urls {
    origin: Url,
    usual: Url,
}

impl Urls {
    pub(super) fn to(origin: &str) -> Result<Self, BoxError> {
        let origin = Url::parse(origin)?;
        let usual = origin.join(PATH)?;
        Ok(Self { origin, usual })
    }

    pub(super) fn of(&self, path: &'static str) -> Url {
        if path == PATH {
            self.usual.clone()
        } else {
            self.origin.join(path).expect("a URL")
        }
    }
}

pub(super) fn headers() -> HeaderMap {
    contenders::request(Headers(8), ()).into_parts().0.headers
}

/// reqwest, with a token in each request: what the peers are built on.
#[derive(Clone)]
pub(crate) struct Reqwest {
    client: reqwest::Client,
    urls: Urls,
    authorization: HeaderValue,
}

impl Client for Reqwest {
    async fn connect(origin: &str, protocol: Protocol) -> Result<Self, BoxError> {
        let client = build!(reqwest::Client::builder(), protocol)?;
        client
            .get(format!("{origin}{WARM_UP_PATH}"))
            .send()
            .await?
            .bytes()
            .await?;
        Ok(Self {
            client,
            urls: Urls::to(origin)?,
            authorization: bearer(&access_token(0))?,
        })
    }

    fn get(
        &self,
        path: &'static str,
    ) -> impl Future<Output = Result<StatusCode, BoxError>> + 'static {
        let mut request = reqwest::Request::new(Method::GET, self.urls.of(path));
        *request.headers_mut() = headers();
        request
            .headers_mut()
            .insert(AUTHORIZATION, self.authorization.clone());
        let client = self.client.clone();
        async move {
            let answer = client.execute(request).await?;
            let status = answer.status();
            answer.bytes().await?;
            Ok(status)
        }
    }
}
