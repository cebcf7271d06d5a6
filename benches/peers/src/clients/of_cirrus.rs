//! cirrus.

use std::sync::Arc;

use cirrus::{Cirrus, Replay};
use cirrus_auth::RefreshTokenAuth;
use http::{Method, StatusCode};
use tower::BoxError;

use super::{CLIENT_ID, Client, of_reqwest::build};
use crate::{
    loopback::Protocol,
    org::{WARM_UP_PATH, access_token, refresh_token},
};

/// cirrus's client with a refresh token.
#[derive(Clone)]
pub(crate) struct OfCirrus {
    client: Arc<Cirrus>,
}

impl Client for OfCirrus {
    async fn connect(origin: &str, protocol: Protocol) -> Result<Self, BoxError> {
        let client = build!(reqwest::Client::builder(), protocol)?;
        let token_client = build!(cirrus_auth::token_client_builder(), protocol)?;
        for client in [&client, &token_client] {
            client
                .get(format!("{origin}{WARM_UP_PATH}"))
                .send()
                .await?
                .bytes()
                .await?;
        }
        let auth = RefreshTokenAuth::builder()
            .consumer_key(CLIENT_ID)
            .refresh_token(refresh_token(0))
            .initial_access_token(access_token(0))
            .login_url(origin)
            .instance_url(origin)
            .http_client(token_client)
            .build()?;
        let client = Cirrus::builder()
            .auth(Arc::new(auth))
            .http_client(client)
            .build()?;
        Ok(Self {
            client: Arc::new(client),
        })
    }

    fn get(
        &self,
        path: &'static str,
    ) -> impl Future<Output = Result<StatusCode, BoxError>> + 'static {
        let client = Arc::clone(&self.client);
        let of_this_request =
            ["x-request-id", "traceparent"].map(|name| format!("{name} of this request"));
        async move {
            let headers = as_text(&of_this_request);
            let answer = client
                .send_raw(Method::GET, path, None, &headers, None, Replay::ByMethod)
                .await;
            match answer {
                Ok(answer) => Ok(StatusCode::from_u16(answer.status)?),
                // A rejection that it does not replay is an error.
                Err(cirrus::CirrusError::Api { status, .. }) => Ok(StatusCode::from_u16(status)?),
                Err(error) => Err(error.into()),
            }
        }
    }
}

/// The headers of the other clients' requests, as text: cirrus takes no others.
fn as_text([request_id, trace]: &[String; 2]) -> [(&'static str, &str); 8] {
    const JSON: &str = "application/json";
    const CLIENT: &str = "of this client";
    [
        ("accept", JSON),
        ("x-request-id", request_id),
        ("content-type", JSON),
        ("user-agent", CLIENT),
        ("accept-encoding", JSON),
        ("traceparent", trace),
        ("sforce-query-options", JSON),
        ("sforce-call-options", CLIENT),
    ]
}

#[cfg(test)]
mod tests {
    use super::as_text;
    use crate::clients::of_reqwest::headers;

    #[test]
    fn headers_as_text_are_those_of_the_others() {
        let of_this_request =
            ["x-request-id", "traceparent"].map(|name| format!("{name} of this request"));
        let text = as_text(&of_this_request);
        let headers = headers();
        let others = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().expect("text")));
        assert_eq!(others.collect::<Vec<_>>(), text);
    }
}
