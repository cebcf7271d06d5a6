//! Sessions that expire without a 401, over sockets (R21, R22).

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Request, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{StreamBody, combinators::UnsyncBoxBody};
use tower_salesforce_auth::{
    emulator::Org,
    request::{AuthOutcome, ReplaySkipped},
};

use crate::support::{AnyBody, ECHO, LIMITS, Protocol, client, get, in_memory, layer, post, send};

const JOB: &str = "/services/async/64.0/job";
const SOAP: &str = "/services/Soap/u/64.0";

fn bulk(form: &'static str, job: &'static str) -> Request<AnyBody> {
    let mut request = post(JOB, in_memory(job));
    let form = HeaderValue::from_static(form);
    request.headers_mut().insert("content-type", form);
    request
}

fn envelope(session_id: &str) -> String {
    format!(
        "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Header>\
         <SessionHeader xmlns=\"urn:partner.soap.sforce.com\"><sessionId>{session_id}</sessionId></SessionHeader>\
         </s:Header><s:Body><getUserInfo xmlns=\"urn:partner.soap.sforce.com\"/></s:Body></s:Envelope>"
    )
}

fn soap_call(body: AnyBody) -> Request<AnyBody> {
    let mut request = post(SOAP, body);
    let headers = request.headers_mut();
    headers.insert("soapaction", HeaderValue::from_static("\"\""));
    headers.insert("content-type", HeaderValue::from_static("text/xml"));
    request
}

fn soap(session_id: &str) -> Request<AnyBody> {
    let envelope = envelope(session_id);
    let length = envelope.len();
    let mut request = soap_call(in_memory(envelope));
    request
        .headers_mut()
        .insert("content-length", length.into());
    request
}

/// A body of a few frames, with or without a known size.
fn streamed(body: String, says_its_length: bool) -> AnyBody {
    let length = body.len();
    let frames: Vec<_> = body
        .into_bytes()
        .chunks(50)
        .map(|data| Ok(Frame::data(Bytes::copy_from_slice(data))))
        .collect();
    let body = StreamBody::new(stream::iter(frames));
    if says_its_length {
        UnsyncBoxBody::new(Sized { body, left: length })
    } else {
        UnsyncBoxBody::new(body)
    }
}

struct Sized<B> {
    body: B,
    left: usize,
}

impl<B> Body for Sized<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            self.left -= frame.data_ref().map_or(0, Bytes::len);
        }
        Poll::Ready(frame)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}

fn identity() -> Request<AnyBody> {
    get("/id/00Dxx0000001gEFEAY/005xx000001SwiUAAS")
}

fn userinfo() -> Request<AnyBody> {
    get("/services/oauth2/userinfo")
}

fn xml_job() -> Request<AnyBody> {
    bulk(
        "application/xml",
        "<jobInfo><operation>insert</operation><object>Account</object></jobInfo>",
    )
}

fn json_job() -> Request<AnyBody> {
    bulk(
        "application/json",
        r#"{"operation":"insert","object":"Account"}"#,
    )
}

#[tokio::test]
async fn r22_every_api_recovers_with_one_refresh() {
    for protocol in [Protocol::Http1, Protocol::H2] {
        let org = Org::new();
        let _served = org.serve().await.unwrap();
        let grant = org.authorize();
        let client = client(&layer(&org, &grant), protocol);
        let requests: [fn() -> Request<AnyBody>; 5] = [
            xml_job,
            json_job,
            || soap("00Dxx0000001gEF!stale"),
            identity,
            userinfo,
        ];
        for (n, request) in (1..).zip(requests) {
            let (status, extensions, body) = send(&client, request()).await.unwrap();
            assert!(status.is_success(), "{n}: {status} {body:?}");
            assert!(extensions.get::<AuthOutcome>().is_none());
            org.expire_sessions();
            let (status, extensions, body) = send(&client, request()).await.unwrap();
            assert!(status.is_success(), "{n}: {status} {body:?}");
            let outcome: &AuthOutcome = extensions.get().expect("an outcome");
            assert_eq!((outcome.attempts(), outcome.replay_skipped()), (2, None));
            assert_eq!(org.counters().token_requests, n);
        }
        let counters = org.counters();
        assert_eq!((counters.data_rejected, counters.data_accepted), (2, 4));
        assert_eq!(counters.soap_rejected, 1);
        // There is one connection for the data and one for the tokens: rejections return theirs.
        assert_eq!(counters.connections, 2, "{protocol:?}");
    }
}

/// The size of the envelope is declared by the caller, or found by the transport.
#[tokio::test]
async fn r22_an_envelope_has_the_right_length_at_every_attempt() {
    for protocol in [Protocol::Http1, Protocol::H2] {
        let org = Org::new();
        let _served = org.serve().await.unwrap();
        let grant = org.authorize();
        let client = client(&layer(&org, &grant), protocol);
        for stale in ["", "short", &"long".repeat(100)] {
            for (n, body) in [
                in_memory(envelope(stale)),
                streamed(envelope(stale), false),
                streamed(envelope(stale), true),
            ]
            .into_iter()
            .enumerate()
            {
                org.expire_sessions();
                let before = org.counters().token_requests;
                let (status, extensions, body) = send(&client, soap_call(body)).await.unwrap();
                assert_eq!(status, StatusCode::OK, "{n} {stale}: {body:?}");
                let outcome: &AuthOutcome = extensions.get().expect("an outcome");
                assert_eq!(outcome.attempts(), 2);
                assert_eq!(org.counters().token_requests, before + 1);
            }
        }
    }
}

#[tokio::test]
async fn r22_other_refusals_cost_no_refresh() {
    let org = Org::new();
    let _served = org.serve().await.unwrap();
    let grant = org.authorize();
    let client = client(&layer(&org, &grant), Protocol::Http1);
    let mut no_operation = soap("x");
    *no_operation.body_mut() = in_memory("<Envelope><Body/></Envelope>");
    no_operation.headers_mut().remove("content-length");
    for (request, expected) in [
        (bulk("application/json", "{}"), StatusCode::BAD_REQUEST),
        (
            bulk("application/xml", "<jobInfo/>"),
            StatusCode::BAD_REQUEST,
        ),
        (no_operation, StatusCode::INTERNAL_SERVER_ERROR),
        (get("/id/00Dxx0000001gEFEAZ/x"), StatusCode::FORBIDDEN),
    ] {
        let (status, extensions, body) = send(&client, request).await.unwrap();
        assert_eq!(status, expected, "{body:?}");
        assert!(!body.is_empty());
        assert!(extensions.get::<AuthOutcome>().is_none());
    }
    assert_eq!(org.counters().token_requests, 0);
}

#[tokio::test]
async fn r21_a_refused_session_costs_no_refresh() {
    let org = Org::new();
    let _served = org.serve().await.unwrap();
    let grant = org.authorize();
    let client = client(&layer(&org, &grant), Protocol::Http1);
    for message in [
        "This session is not valid for use with the REST API",
        "Connected app is not attached to Agent",
        "BlackTab users",
    ] {
        for size in [0, 200 * 1024] {
            org.refuse_sessions(message);
            org.error_body_size(size);
            let (status, extensions, body) = send(&client, get(LIMITS)).await.unwrap();
            assert_eq!(status, StatusCode::UNAUTHORIZED);
            let outcome: &AuthOutcome = extensions.get().expect("an outcome");
            assert_eq!(outcome.attempts(), 1);
            assert_eq!(outcome.replay_skipped(), Some(ReplaySkipped::Incurable));
            let text = String::from_utf8(body.to_vec()).unwrap();
            assert!(text.contains(message) && text.len() >= size);
        }
    }
    assert_eq!(org.counters().token_requests, 0);
    org.refuse_sessions(None);
    let (status, ..) = send(&client, post(ECHO, in_memory("x"))).await.unwrap();
    assert_eq!(status, StatusCode::OK, "the session is in use still");
}
