//! Requests over loopback, the server's answer to them, and the layer that sends them.

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tower_salesforce_auth::{
    RefreshContext, RefreshError, SalesforceAuthLayer, Session, SessionHandle,
};

use crate::contenders::{self, Headers, in_memory, token};

/// The length of the body of a request that has one.
const BODY: usize = 256;

/// A kind of request, in a table.
pub(crate) fn name(method: &Method) -> String {
    match *method {
        Method::GET => "GET".to_string(),
        _ => format!("{method} {BODY} B"),
    }
}

/// Makes a request of this kind.
#[derive(Clone)]
pub(crate) struct Sent {
    method: Method,
    uri: Uri,
    authorization: Option<HeaderValue>,
}

impl Sent {
    pub(crate) fn to(origin: &str, method: &Method) -> Self {
        let path = "/services/data/v66.0/sobjects/Account/001xx000003DGb2AAG";
        Self {
            method: method.clone(),
            uri: format!("{origin}{path}").parse().expect("a URI"),
            authorization: None,
        }
    }

    pub(crate) fn authorized(mut self) -> Self {
        let bearer = format!("Bearer {}", token());
        let mut authorization = HeaderValue::from_str(&bearer).expect("a token");
        authorization.set_sensitive(true);
        self.authorization = Some(authorization);
        self
    }

    pub(crate) fn request(&self) -> Request<Full<Bytes>> {
        let body = match self.method {
            Method::GET => Full::default(),
            _ => in_memory(BODY),
        };
        let mut request = contenders::request(Headers(8), body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        if let Some(authorization) = &self.authorization {
            request
                .headers_mut()
                .insert(AUTHORIZATION, authorization.clone());
        }
        request
    }
}

pub(crate) fn layer(instance: &str) -> SalesforceAuthLayer {
    let session = Session::new(token(), instance).expect("a valid session");
    let refreshed = session.clone();
    SessionHandle::builder(move |_: RefreshContext| {
        // The server rejects nothing, so no refresh runs.
        std::future::ready(Ok::<_, RefreshError>(refreshed.clone()))
    })
    .initial_session(session)
    .build()
    .into()
}

pub(crate) async fn accept(
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    request.into_body().collect().await?;
    let mut answer = Response::new(Full::from(r#"{"Id":"001xx000003DGb2AAG"}"#));
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(answer)
}
