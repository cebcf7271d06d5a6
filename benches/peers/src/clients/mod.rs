//! The clients under comparison, each with a session of one org and open connections.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::Full;
use hyper_util::client::legacy::{Client as HyperClient, connect::HttpConnector};
use tower::BoxError;
use tower_salesforce_auth::request::SkipAuth;

pub(crate) use by_hand::{RetryByHand, TokenByHand};
pub(crate) use of_cirrus::OfCirrus;
pub(crate) use of_force::Force;
pub(crate) use of_reqwest::Reqwest;
pub(crate) use with_layer::{InjectOnly, WithLayer};

use crate::{
    contenders::{self, Headers},
    loopback::{HttpClient, Protocol, send},
    org::{PATH, WARM_UP_PATH},
};

mod by_hand;
mod of_cirrus;
mod of_force;
mod of_reqwest;
mod with_layer;

/// Crates whose versions are on the page.
pub(crate) const VERSIONS: [&str; 7] = [
    "cirrus",
    "cirrus-auth",
    "force",
    "reqwest",
    "hyper",
    "hyper-util",
    "tokio",
];

/// The name of an app. The org does not look at it.
const CLIENT_ID: &str = "3MVG9";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    TokenByHand,
    RetryByHand,
    InjectOnly,
    Layer,
    Reqwest,
    Force,
    Cirrus,
}

impl Contender {
    pub(crate) const COUNT: usize = 7;

    pub(crate) const ALL: [Self; Self::COUNT] = [
        Self::TokenByHand,
        Self::RetryByHand,
        Self::InjectOnly,
        Self::Layer,
        Self::Reqwest,
        Self::Force,
        Self::Cirrus,
    ];

    /// Those that replace a rejected session. The loop by hand is first, since the others are compared with it.
    pub(crate) const REFRESHING: [Self; 4] =
        [Self::RetryByHand, Self::Layer, Self::Force, Self::Cirrus];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::TokenByHand => "token by hand",
            Self::RetryByHand => "retry by hand",
            Self::InjectOnly => "this layer, no replay",
            Self::Layer => "this layer",
            Self::Reqwest => "reqwest, token by hand",
            Self::Force => "force",
            Self::Cirrus => "cirrus",
        }
    }
}

/// Does the work with the type of the contender's client.
macro_rules! with_client {
    ($contender:expr, $client:ident => $work:expr) => {
        match $contender {
            $crate::clients::Contender::TokenByHand => {
                type $client = $crate::clients::TokenByHand;
                $work
            }
            $crate::clients::Contender::RetryByHand => {
                type $client = $crate::clients::RetryByHand;
                $work
            }
            $crate::clients::Contender::InjectOnly => {
                type $client = $crate::clients::InjectOnly;
                $work
            }
            $crate::clients::Contender::Layer => {
                type $client = $crate::clients::WithLayer;
                $work
            }
            $crate::clients::Contender::Reqwest => {
                type $client = $crate::clients::Reqwest;
                $work
            }
            $crate::clients::Contender::Force => {
                type $client = $crate::clients::Force;
                $work
            }
            $crate::clients::Contender::Cirrus => {
                type $client = $crate::clients::OfCirrus;
                $work
            }
        }
    };
}
pub(crate) use with_client;

pub(crate) trait Client: Clone + 'static {
    /// A client with the org's first tokens. Its connections are open, also that for token calls.
    fn connect(origin: &str, protocol: Protocol) -> impl Future<Output = Result<Self, BoxError>>;

    /// Makes a request, and sends it when the future is polled. The whole answer is read, and its status returned.
    ///
    /// The future need not be `Send`: that of force is not.
    fn get(
        &self,
        path: &'static str,
    ) -> impl Future<Output = Result<StatusCode, BoxError>> + 'static;
}

/// Makes the same requests for all clients that take one.
#[derive(Clone)]
struct Requests {
    origin: Arc<str>,
    /// The URI of [`PATH`], parsed once.
    usual: Uri,
}

impl Requests {
    fn to(origin: &str) -> Result<Self, BoxError> {
        let usual = format!("{origin}{PATH}").parse()?;
        Ok(Self {
            origin: origin.into(),
            usual,
        })
    }

    fn get(&self, path: &'static str) -> Request<Full<Bytes>> {
        let mut request = contenders::request(Headers(8), Full::default());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = if path == PATH {
            self.usual.clone()
        } else {
            format!("{}{path}", self.origin).parse().expect("a URI")
        };
        request
    }
}

fn bearer(token: &str) -> Result<HeaderValue, BoxError> {
    let mut bearer = HeaderValue::from_str(&format!("Bearer {token}"))?;
    bearer.set_sensitive(true);
    Ok(bearer)
}

async fn status_of<C: HttpClient<Full<Bytes>>>(
    mut client: C,
    request: Request<Full<Bytes>>,
) -> Result<StatusCode, BoxError> {
    Ok(send(&mut client, request).await?.status())
}

/// Opens the connection.
async fn warm<C: HttpClient<Full<Bytes>>>(client: C, origin: &str) -> Result<(), BoxError> {
    let request = Request::get(format!("{origin}{WARM_UP_PATH}")).extension(SkipAuth);
    status_of(client, request.body(Full::default())?).await?;
    Ok(())
}

type Hyper<B> = HyperClient<HttpConnector, B>;
