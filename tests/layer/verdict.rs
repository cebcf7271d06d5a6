//! Which answers are rejections (R22), which are incurable (R21), and what is sent again.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use proptest::prelude::*;
use tokio_test::{assert_ready, task};
use tower::{Layer, ServiceExt, service_fn};
use tower_salesforce_auth::{
    BoxError, Error, ErrorKind, RefreshContext, RefreshError, SalesforceAuthLayer, Session,
    handle::SessionHandleBuilder,
    request::{AuthOutcome, ReplaySkipped, SkipAuth},
    verdict::{Api, Classify, Extent, ResponseHead, SalesforceClassifier, Verdict},
};

use crate::support::{EXPIRED, INSTANCE, counting, counting_builder, session, starting_with};

// === What the APIs answer ===

const REST: &str = "/services/data/v66.0/limits";
const BULK: &str = "/services/async/64.0/job";
const SOAP: &str = "/services/Soap/u/64.0/00Dxx0000001gEF";
const IDENTITY: &str = "/id/00Dxx0000001gEFEAY/005xx000001SwiUAAS";
const USERINFO: &str = "/services/oauth2/userinfo";
const GRPC: &str = "/eventbus.v1.PubSub/GetTopic";

const NOT_FOR_REST: &str = r#"[{"message":"This session is not valid for use with the REST API","errorCode":"INVALID_SESSION_ID"}]"#;
const BULK_XML: &str = r#"<?xml version="1.0" encoding="UTF-8"?><error xmlns="http://www.force.com/2009/06/asyncapi/dataload">
 <exceptionCode>InvalidSessionId</exceptionCode>
 <exceptionMessage>Invalid session id</exceptionMessage>
</error>"#;
const BULK_JSON: &str =
    r#"{"exceptionCode":"InvalidSessionId","exceptionMessage":"Invalid session id"}"#;

fn fault(code: &str, message: &str) -> String {
    let local = code.rsplit(':').next().unwrap();
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"
  xmlns:sf="urn:fault.partner.soap.sforce.com" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
 <soapenv:Body><soapenv:Fault>
  <faultcode>{code}</faultcode>
  <faultstring>{local}: {message}</faultstring>
  <detail><sf:UnexpectedErrorFault xsi:type="sf:UnexpectedErrorFault">
    <sf:exceptionCode>{local}</sf:exceptionCode>
    <sf:exceptionMessage>{message}</sf:exceptionMessage>
  </sf:UnexpectedErrorFault></detail>
 </soapenv:Fault></soapenv:Body></soapenv:Envelope>"#
    )
}

const ILLEGAL_SESSION: &str = "Invalid Session ID found in SessionHeader: Illegal Session. Session not found, missing \
                               session hash: 2b35";

/// Path, status, body.
type Row = (&'static str, u16, String);

fn row(path: &'static str, status: u16, body: impl Into<String>) -> Row {
    (path, status, body.into())
}

fn expired() -> Vec<Row> {
    let mut rows = vec![
        row(REST, 401, EXPIRED),
        row(
            REST,
            401,
            r#"<?xml version="1.0" encoding="UTF-8"?><Errors><Error><errorCode>INVALID_SESSION_ID</errorCode><message>Session expired or invalid</message></Error></Errors>"#,
        ),
        row(
            REST,
            401,
            r#"[{"message":"INVALID_JWT_FORMAT","errorCode":"INVALID_AUTH_HEADER"}]"#,
        ),
        row(
            REST,
            401,
            r#"{"errors":[{"message":"JWT Token is required"}]}"#,
        ),
        row(REST, 401, "<html>who are you?</html>"),
        row(REST, 401, ""),
        row(REST, 401, "\u{1f}\u{8b}"),
        row(BULK, 401, EXPIRED),
        row(SOAP, 401, EXPIRED),
        row(USERINFO, 401, EXPIRED),
        row(BULK, 400, BULK_XML),
        row(BULK, 400, BULK_JSON),
        row(
            BULK,
            400,
            " { \"exceptionMessage\" : \"\",\n \"exceptionCode\" : \"InvalidSessionId\" } ",
        ),
        row(
            BULK,
            400,
            "<a:error xmlns:a='u'><a:exceptionCode> InvalidSessionId </a:exceptionCode></a:error>",
        ),
        row(
            "/services/async/64.0/job/750/batch",
            400,
            format!("{BULK_XML}\n"),
        ),
        row(SOAP, 500, fault("sf:INVALID_SESSION_ID", ILLEGAL_SESSION)),
        row(
            "/services/Soap/m/64.0",
            500,
            fault("soapenv:INVALID_SESSION_ID", ""),
        ),
        row(
            "/services/Soap/class/Mine",
            500,
            fault("INVALID_SESSION_ID", "x"),
        ),
        row(
            SOAP,
            500,
            "<Envelope><Body><Fault><faultcode>sf:INVALID_SESSION_ID</faultcode></Fault></Body></Envelope>",
        ),
        row(IDENTITY, 403, "Bad_OAuth_Token"),
        row(USERINFO, 403, "Bad_OAuth_Token"),
        row("/services/oauth2/introspect", 403, "\nBad_OAuth_Token\r\n"),
    ];
    for path in [
        "/services/data/v66.0/tooling/query?q=x",
        "/services/data/v66.0/composite",
        "/services/data/v66.0/chatter/feeds",
        "/services/data/v66.0/ui-api/records/001",
        "/services/data/v66.0/jobs/query/750",
        "/services/data/v66.0/graphql",
        "/services/apexrest/mine",
        "/somewhere/else",
    ] {
        rows.push(row(path, 401, EXPIRED));
    }
    rows
}

fn incurable() -> Vec<Row> {
    vec![
        row(REST, 401, NOT_FOR_REST),
        row(REST, 401, NOT_FOR_REST.replace("REST API", "API")),
        row(
            "/einstein/ai-agent/v1/agents/0Xx/sessions",
            401,
            r#"{"message":"Connected app is not attached to Agent"}"#,
        ),
        row(
            REST,
            401,
            "<html><body>BlackTab users cannot use the API</body></html>",
        ),
        // The body is larger than the peek.
        row(
            REST,
            401,
            format!("{NOT_FOR_REST}{}", " ".repeat(100 * 1024)),
        ),
        row(
            SOAP,
            500,
            fault(
                "sf:INVALID_SESSION_ID",
                "This session is not valid for use with the API",
            ),
        ),
    ]
}

fn passing() -> Vec<Row> {
    let limit =
        r#"[{"message":"TotalRequests Limit exceeded.","errorCode":"REQUEST_LIMIT_EXCEEDED"}]"#;
    let disabled = r#"[{"message":"The REST API is not enabled for this Organization.","errorCode":"API_DISABLED_FOR_ORG"}]"#;
    let mut rows = vec![
        row(REST, 403, limit),
        row(REST, 403, disabled),
        row(REST, 403, "Bad_OAuth_Token"),
        row(REST, 403, EXPIRED),
        row(REST, 400, BULK_XML),
        row(REST, 400, BULK_JSON),
        row(REST, 500, fault("sf:INVALID_SESSION_ID", ILLEGAL_SESSION)),
        row(REST, 404, EXPIRED),
        row(REST, 420, EXPIRED),
        row(REST, 200, EXPIRED),
        row(REST, 302, EXPIRED),
        row(
            BULK,
            400,
            BULK_XML.replace("InvalidSessionId", "InvalidBatch"),
        ),
        row(
            BULK,
            400,
            r#"{"exceptionCode":"InvalidJob","exceptionMessage":"exceptionCode: InvalidSessionId"}"#,
        ),
        row(
            BULK,
            400,
            r#"{"exceptionMessage":"\"exceptionCode\":\"InvalidSessionId\""}"#,
        ),
        row(BULK, 400, EXPIRED),
        row(BULK, 400, "InvalidSessionId"),
        row(BULK, 400, "<html>InvalidSessionId</html>"),
        row(BULK, 400, &BULK_XML[..BULK_XML.len() / 2]),
        row(BULK, 400, &BULK_JSON[..BULK_JSON.len() / 2]),
        row(BULK, 400, ""),
        row(BULK, 403, BULK_XML),
        row(BULK, 200, BULK_XML),
        row(BULK, 500, BULK_XML),
        row(SOAP, 500, fault("sf:INVALID_LOGIN", "INVALID_SESSION_ID")),
        row(
            SOAP,
            500,
            fault(
                "sf:UNKNOWN_EXCEPTION",
                "Destination URL not reset. The URL returned from login must be set in the SforceService",
            ),
        ),
        row(SOAP, 500, "<html>faultcode INVALID_SESSION_ID</html>"),
        row(SOAP, 500, "INVALID_SESSION_ID"),
        row(SOAP, 500, ""),
        row(SOAP, 200, fault("sf:INVALID_SESSION_ID", "")),
        row(SOAP, 503, fault("sf:INVALID_SESSION_ID", "")),
        row(IDENTITY, 403, "Missing_OAuth_Token"),
        row(IDENTITY, 403, "Wrong_Org"),
        row(IDENTITY, 403, "Bad_Id"),
        row(IDENTITY, 403, "Bad_OAuth"),
        row(IDENTITY, 403, "Bad_OAuth_Tokens"),
        row(IDENTITY, 403, "Bad_OAuth_Token Bad_OAuth_Token"),
        row(IDENTITY, 403, "Bad_OAuth _Token"),
        row(IDENTITY, 403, format!("Bad_OAuth_Token{}", " ".repeat(100))),
        row(IDENTITY, 403, ""),
        row(IDENTITY, 404, "Bad_OAuth_Token"),
        row(IDENTITY, 500, "Internal Error"),
    ];
    for status in [420, 429, 500, 502, 503, 504] {
        rows.push(row(REST, status, r#"[{"errorCode":"SERVER_UNAVAILABLE"}]"#));
    }
    rows
}

// === An API ===

/// A body that comes in scripted pieces.
#[derive(Clone, Debug, Default)]
struct Pieces {
    steps: VecDeque<Step>,
    polls: Arc<AtomicUsize>,
}

#[derive(Clone, Debug)]
enum Step {
    Data(Bytes),
    Pending,
    /// Pending forever.
    Stalled,
    Trailers,
}

impl Pieces {
    fn whole(body: impl Into<Bytes>) -> Self {
        Self::new([Step::Data(body.into())])
    }

    /// One byte at a time, each after a pending poll.
    fn bytewise(body: &[u8]) -> Self {
        Self::new(body.chunks(1).flat_map(|byte| {
            let data = Step::Data(Bytes::copy_from_slice(byte));
            [Step::Pending, data]
        }))
    }

    fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            steps: steps.into_iter().collect(),
            polls: Arc::default(),
        }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.polls.fetch_add(1, Ordering::SeqCst);
        match self.steps.pop_front() {
            None => Poll::Ready(None),
            Some(Step::Data(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Some(Step::Pending) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Step::Stalled) => {
                self.steps.push_front(Step::Stalled);
                Poll::Pending
            }
            Some(Step::Trailers) => {
                let mut trailers = HeaderMap::new();
                trailers.insert("x-end", HeaderValue::from_static("yes"));
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
        }
    }
}

/// A request with all its attempts, and its response.
#[derive(Debug)]
struct Report {
    response: Response<Bytes>,
    trailers: Option<HeaderMap>,
    outcome: Option<AuthOutcome>,
    sent: Vec<Request<Bytes>>,
    refreshes: usize,
}

fn refreshing() -> (SessionHandleBuilder, Arc<AtomicUsize>) {
    counting_builder(|n| async move {
        let session = Session::new(format!("T{n}"), INSTANCE).map_err(RefreshError::terminal)?;
        Ok(session.with_ids("00Dxx0000001gEFEAY", "005xx000001SwiUAAS"))
    })
}

fn refreshing_layer() -> (SalesforceAuthLayer, Arc<AtomicUsize>) {
    let (builder, refreshes) = refreshing();
    (builder.build().into(), refreshes)
}

/// Sends a request to an API that gives these answers, and then succeeds.
async fn ask_with<B>(
    (layer, refreshes): (SalesforceAuthLayer, Arc<AtomicUsize>),
    request: Request<B>,
    answers: impl IntoIterator<Item = Response<Pieces>>,
) -> Report
where
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let answers = Arc::new(Mutex::new(answers.into_iter().collect::<VecDeque<_>>()));
    let sent = Arc::new(Mutex::new(Vec::new()));
    let log = sent.clone();
    let api = service_fn(move |request: Request<_>| {
        let (answers, log) = (answers.clone(), log.clone());
        async move {
            let (head, body): (_, tower_salesforce_auth::ReplayBody<B>) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            log.lock().unwrap().push(Request::from_parts(head, body));
            let answer = answers.lock().unwrap().pop_front();
            Ok::<_, BoxError>(answer.unwrap_or_else(|| Response::new(Pieces::whole("ok"))))
        }
    });
    let response = layer.layer(api).oneshot(request).await.unwrap();
    let outcome = response.extensions().get::<AuthOutcome>().cloned();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned();
    Report {
        response: Response::from_parts(head, body.to_bytes()),
        trailers,
        outcome,
        sent: Arc::try_unwrap(sent).map_or_else(
            |sent| std::mem::take(&mut *sent.lock().unwrap()),
            |sent| sent.into_inner().unwrap(),
        ),
        refreshes: refreshes.load(Ordering::SeqCst),
    }
}

async fn ask(path: &str, answers: impl IntoIterator<Item = Response<Pieces>>) -> Report {
    ask_with(refreshing_layer(), post(path, ""), answers).await
}

fn post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let body = Full::new(body.into());
    Request::post(path).body(body).unwrap()
}

fn answer(status: u16, body: Pieces) -> Response<Pieces> {
    Response::builder().status(status).body(body).unwrap()
}

impl Report {
    fn assert_replayed(&self, what: &str) {
        assert_eq!((self.sent.len(), self.refreshes), (2, 1), "{what}");
        assert_eq!(self.response.status(), 200, "{what}");
        let outcome = self.outcome.as_ref().expect(what);
        assert_eq!(outcome.attempts(), 2, "{what}");
        assert_eq!(outcome.replay_skipped(), None, "{what}");
    }

    fn assert_returned(&self, what: &str, skipped: Option<ReplaySkipped>, body: &str) {
        assert_eq!((self.sent.len(), self.refreshes), (1, 0), "{what}");
        assert!(self.response.body() == body, "{what}");
        let outcome = self.outcome.as_ref();
        assert_eq!(
            outcome.map(AuthOutcome::replay_skipped),
            skipped.map(Some),
            "{what}"
        );
        if let Some(outcome) = outcome {
            assert_eq!((outcome.attempts(), outcome.refreshed()), (1, false));
        }
    }
}

// === Verdicts ===

#[tokio::test]
async fn r22_an_expired_session_costs_one_refresh_in_every_api() {
    for (path, status, body) in expired() {
        for pieces in [
            Pieces::whole(body.clone()),
            Pieces::bytewise(body.as_bytes()),
        ] {
            let what = format!("{path} {status} {body}");
            let report = ask(path, [answer(status, pieces)]).await;
            report.assert_replayed(&what);
        }
    }
}

#[tokio::test]
async fn r21_an_incurable_rejection_is_returned_unchanged() {
    for (path, status, body) in incurable() {
        for pieces in [
            Pieces::whole(body.clone()),
            Pieces::bytewise(body.as_bytes()),
        ] {
            let what = format!("{path} {status}");
            let report = ask(path, [answer(status, pieces)]).await;
            report.assert_returned(&what, Some(ReplaySkipped::Incurable), &body);
            assert_eq!(report.response.status(), status);
        }
    }
}

#[tokio::test]
async fn r22_any_other_answer_is_returned_unchanged() {
    for (path, status, body) in passing() {
        for pieces in [
            Pieces::whole(body.clone()),
            Pieces::bytewise(body.as_bytes()),
        ] {
            let what = format!("{path} {status} {body}");
            let report = ask(path, [answer(status, pieces)]).await;
            report.assert_returned(&what, None, &body);
            assert_eq!(report.response.status(), status);
        }
    }
}

#[tokio::test]
async fn r21_a_text_added_by_the_user_marks_it_incurable() {
    let body = r#"[{"message":"Blocked by policy 7","errorCode":"INVALID_SESSION_ID"}]"#;
    let (layer, refreshes) = refreshing_layer();
    let classifier = SalesforceClassifier::new()
        .incurable("")
        .incurable("policy 7");
    let layer = layer.classifier(classifier);
    for text in [body, NOT_FOR_REST] {
        let refreshing = (layer.clone(), refreshes.clone());
        let rejection = answer(401, Pieces::whole(text));
        let report = ask_with(refreshing, post(REST, ""), [rejection]).await;
        report.assert_returned(text, Some(ReplaySkipped::Incurable), text);
    }
    let rejection = answer(401, Pieces::whole(EXPIRED));
    let report = ask_with((layer, refreshes), post(REST, ""), [rejection]).await;
    report.assert_replayed("other rejections are expired sessions");
}

#[tokio::test]
async fn r21_a_jwt_refused_by_soap_is_incurable() {
    let (builder, refreshes) = refreshing();
    let jwt = session("eyJhbGciOiJSUzI1NiJ9.e30.c2lnbmF0dXJl");
    let layer = SalesforceAuthLayer::from(builder.initial_session(jwt).build());
    let body = fault("sf:INVALID_SESSION_ID", ILLEGAL_SESSION);
    let rejection = answer(500, Pieces::whole(body.clone()));
    let report = ask_with((layer, refreshes), post(SOAP, ""), [rejection]).await;
    report.assert_returned("a JWT", Some(ReplaySkipped::Incurable), &body);
}

#[tokio::test]
async fn r21_a_second_rejection_of_any_kind_is_returned() {
    for (second, body, skipped) in [
        (
            401,
            NOT_FOR_REST.to_owned(),
            ReplaySkipped::RefreshesExhausted,
        ),
        (401, EXPIRED.to_owned(), ReplaySkipped::RefreshesExhausted),
        (
            500,
            fault("sf:INVALID_SESSION_ID", ILLEGAL_SESSION),
            ReplaySkipped::RefreshesExhausted,
        ),
        (
            500,
            fault(
                "sf:INVALID_SESSION_ID",
                "This session is not valid for use with the API",
            ),
            ReplaySkipped::Incurable,
        ),
    ] {
        let first = answer(401, Pieces::whole(EXPIRED));
        let second = answer(second, Pieces::whole(body.clone()));
        let report = ask(SOAP, [first, second]).await;
        assert_eq!((report.sent.len(), report.refreshes), (2, 1));
        assert!(report.response.body() == &body);
        let outcome = report.outcome.unwrap();
        assert_eq!(outcome.replay_skipped(), Some(skipped), "{body}");
        assert!(outcome.refreshed());
    }
    // An answer unrelated to the session still has the outcome of the replay.
    let first = answer(401, Pieces::whole(EXPIRED));
    let second = answer(500, Pieces::whole(fault("sf:INVALID_FIELD", "x")));
    let report = ask(SOAP, [first, second]).await;
    let outcome = report.outcome.unwrap();
    assert_eq!((outcome.attempts(), outcome.replay_skipped()), (2, None));
}

#[tokio::test]
async fn a_rejection_of_a_fixed_session_is_not_peeked() {
    for (path, status, body, skipped) in [
        (REST, 401, NOT_FOR_REST, Some(ReplaySkipped::NotConfigured)),
        (BULK, 400, BULK_XML, None),
    ] {
        let layer = SalesforceAuthLayer::fixed(session("T0"));
        let pieces = Pieces::whole(body);
        let polls = pieces.polls.clone();
        let api = service_fn(move |_: Request<_>| {
            let answer = answer(status, pieces.clone());
            async { Ok::<_, BoxError>(answer) }
        });
        let response = layer.layer(api).oneshot(post(path, "")).await.unwrap();
        assert_eq!(polls.load(Ordering::SeqCst), 0);
        let outcome = response.extensions().get::<AuthOutcome>();
        assert_eq!(outcome.and_then(AuthOutcome::replay_skipped), skipped);
    }
}

// === Peeking ===

#[tokio::test]
async fn an_answer_that_is_no_rejection_is_never_peeked() {
    for (path, status, length, encoding) in [
        (REST, 200, None, None),
        (REST, 204, None, None),
        (REST, 304, None, None),
        (REST, 400, None, None),
        (REST, 403, None, None),
        (REST, 404, None, None),
        (REST, 500, None, None),
        (BULK, 200, None, None),
        (BULK, 500, None, None),
        (BULK, 400, Some(1024 * 1024), None),
        (BULK, 400, Some(3), None),
        (BULK, 400, None, Some("br")),
        (SOAP, 200, None, None),
        (SOAP, 500, Some(1024 * 1024), None),
        (IDENTITY, 200, None, None),
        (IDENTITY, 403, Some(14), None),
        (IDENTITY, 403, Some(1024), None),
        (GRPC, 200, None, None),
    ] {
        let (layer, _) = refreshing_layer();
        let pieces = Pieces::new([Step::Stalled]);
        let polls = pieces.polls.clone();
        let api = service_fn(move |_: Request<_>| {
            let mut answer = answer(status, pieces.clone());
            if let Some(length) = length {
                answer.headers_mut().insert("content-length", length.into());
            }
            if let Some(encoding) = encoding {
                let encoding = HeaderValue::from_static(encoding);
                answer.headers_mut().insert("content-encoding", encoding);
            }
            async { Ok::<_, BoxError>(answer) }
        });
        let response = layer.layer(api).oneshot(post(path, "")).await.unwrap();
        assert_eq!(response.status(), status);
        assert!(response.extensions().get::<AuthOutcome>().is_none());
        assert_eq!(polls.load(Ordering::SeqCst), 0, "{path} {status}");
    }
}

/// The data of one frame may have several chunks.
#[tokio::test]
async fn r21_a_text_is_found_across_the_chunks_of_a_frame() {
    for at in [0, 1, NOT_FOR_REST.len() / 2, NOT_FOR_REST.len()] {
        let (layer, refreshes) = refreshing_layer();
        let api = service_fn(move |_: Request<_>| async move {
            let body = Full::new(Bytes::from(NOT_FOR_REST)).map_frame(move |frame| {
                frame.map_data(|data| data.slice(..at).chain(data.slice(at..)))
            });
            let response = Response::builder().status(401).body(body);
            response.map_err(BoxError::from)
        });
        let response = layer.layer(api).oneshot(post(REST, "")).await.unwrap();
        assert_eq!(refreshes.load(Ordering::SeqCst), 0, "{at}");
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), NOT_FOR_REST);
    }
}

/// Only a refresh needs a runtime.
#[test]
fn only_a_rejection_needs_a_runtime() {
    for (status, pieces, is_rejected) in [
        (403, Pieces::whole("Wrong_Org"), false),
        (403, Pieces::whole("Bad_OAuth_Token"), true),
        (403, Pieces::new([Step::Stalled]), false),
        (401, Pieces::whole(NOT_FOR_REST), false),
        (401, Pieces::new([Step::Stalled]), true),
    ] {
        let (layer, _) = refreshing_layer();
        let api = service_fn(move |_: Request<_>| {
            let answer = answer(status, pieces.clone());
            async { Ok::<_, BoxError>(answer) }
        });
        let mut answered = task::spawn(layer.layer(api).oneshot(post(IDENTITY, "")));
        let answered = assert_ready!(answered.poll());
        match answered {
            Ok(response) => assert!(!is_rejected && response.status() == status),
            Err(error) => {
                assert!(is_rejected, "{error}");
                let error: &Error = error.downcast_ref().unwrap();
                assert_eq!(error.kind(), ErrorKind::NoRuntime);
                assert!(layer.handle().try_session().is_some());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_returned_as_soon_as_it_is_no_rejection() {
    let limit = tokio::time::Duration::from_secs(5);
    let begun = fault("sf:INVALID_FIELD", "x");
    let (begun, _) = begun.split_at(begun.find("<faultstring").unwrap());
    for (path, status, beginning, waits) in [
        (IDENTITY, 403, "[", false),
        (IDENTITY, 403, "Missing_", false),
        (IDENTITY, 403, "Bad_OAuth_Token.", false),
        (IDENTITY, 403, "Bad_OA", true),
        (IDENTITY, 403, "Bad_OAuth_Token", true),
        (BULK, 400, "[", false),
        (BULK, 400, "<html>", false),
        (
            BULK,
            400,
            "<error><exceptionCode>InvalidJob</exceptionCode>",
            false,
        ),
        (BULK, 400, "<error><exceptionCode>Inv", true),
        (SOAP, 500, "<html><head>", false),
        (SOAP, 500, begun, false),
        (SOAP, 500, "<soapenv:Envelope>", true),
        (REST, 401, NOT_FOR_REST, false),
    ] {
        let (layer, refreshes) = refreshing_layer();
        let pieces = Pieces::new([Step::Data(Bytes::from(beginning.to_owned())), Step::Stalled]);
        let api = service_fn(move |_: Request<_>| {
            let answer = answer(status, pieces.clone());
            async { Ok::<_, BoxError>(answer) }
        });
        let start = tokio::time::Instant::now();
        let response = layer.layer(api).oneshot(post(path, "")).await.unwrap();
        assert_eq!(refreshes.load(Ordering::SeqCst), 0, "{path} {beginning}");
        assert_eq!(response.status(), status);
        let waited = start.elapsed();
        assert_eq!(waited >= limit, waits, "{path} {beginning}");
        assert_eq!(waited.is_zero(), !waits, "{path} {beginning}");
        let mut body = response.into_body();
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), beginning);
    }
}

fn cut(body: Vec<u8>, cuts: &[(usize, bool)]) -> Vec<Step> {
    let mut rest = Bytes::from(body);
    let mut steps = Vec::new();
    for (length, waits) in cuts {
        let length = (*length).min(rest.len());
        steps.push(Step::Data(rest.split_to(length)));
        if *waits {
            steps.push(Step::Pending);
        }
    }
    steps.push(Step::Data(rest));
    steps
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// The verdict does not depend on where a body is cut into frames.
    #[test]
    fn r21_any_split_of_a_body_gives_the_same_verdict(
        which in any::<prop::sample::Index>(),
        cuts in prop::collection::vec((0_usize..200, any::<bool>()), 0..40),
        padding in prop::sample::select(vec![0_usize, 1, 60_000, 65_536, 200_000]),
        trailers in any::<bool>(),
    ) {
        let rows: Vec<Row> = [expired(), incurable(), passing()].concat();
        let (path, status, mut body) = rows[which.index(rows.len())].clone();
        // White space after the end changes no document, only its length.
        body.extend(std::iter::repeat_n(' ', padding));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let whole = ask(path, [answer(status, Pieces::whole(body.clone()))]).await;
            let mut steps = cut(body.clone().into_bytes(), &cuts);
            if trailers {
                steps.push(Step::Trailers);
            }
            let split = ask(path, [answer(status, Pieces::new(steps))]).await;
            assert_eq!(split.refreshes, whole.refreshes, "{path} {status} {body}");
            assert_eq!(split.sent.len(), whole.sent.len());
            assert_eq!(
                split.outcome.map(|outcome| outcome.replay_skipped()),
                whole.outcome.map(|outcome| outcome.replay_skipped()),
            );
            assert!(split.response.body() == whole.response.body());
            if split.sent.len() == 1 {
                assert!(split.response.body() == &body);
                assert_eq!(split.trailers.is_some(), trailers);
            }
        });
    }

    /// A verdict on a beginning is also the verdict on the whole.
    #[test]
    fn r21_a_verdict_on_a_beginning_holds_for_the_whole(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        noise in prop::collection::vec(any::<u8>(), 0..4),
        noise_at in any::<prop::sample::Index>(),
    ) {
        let rows: Vec<Row> = [expired(), incurable(), passing()].concat();
        let (path, status, body) = rows[which.index(rows.len())].clone();
        let mut body = body.into_bytes();
        let noise_at = noise_at.index(body.len() + 1);
        body.splice(noise_at..noise_at, noise);
        let api = match path {
            BULK => Api::Bulk,
            SOAP => Api::Soap,
            IDENTITY | USERINFO => Api::Identity,
            _ => Api::Rest,
        };
        let response = Response::builder().status(status).body(()).unwrap();
        let head = ResponseHead::new(api, &response);
        let classifier = SalesforceClassifier::new();
        let whole = classifier.classify_body(&head, &body, Extent::Whole);
        assert!(whole.is_some());
        let beginning = &body[..at.index(body.len() + 1)];
        let verdict = classifier.classify_body(&head, beginning, Extent::Beginning);
        assert!(verdict.is_none() || verdict == whole, "{verdict:?} {whole:?}");
    }
}

// === Another classifier ===

struct Teapot;

impl Classify for Teapot {
    fn classify_head(&self, head: &ResponseHead<'_>) -> Option<Verdict> {
        match head.status().as_u16() {
            418 => Some(Verdict::Expired),
            419 if head.headers().contains_key("x-incurable") => Some(Verdict::Incurable),
            419 => None,
            _ => Some(Verdict::Pass),
        }
    }

    fn classify_body(&self, _: &ResponseHead<'_>, body: &[u8], _: Extent) -> Option<Verdict> {
        body.starts_with(b"dead").then_some(Verdict::Expired)
    }
}

#[tokio::test]
async fn a_custom_classifier_replaces_the_built_in_one() {
    let teapot = || {
        let (layer, refreshes) = refreshing_layer();
        (layer.classifier(Arc::new(Teapot)), refreshes)
    };
    for (status, body) in [(418, "x"), (419, "dead session")] {
        let report = ask_with(
            teapot(),
            post(REST, ""),
            [answer(status, Pieces::whole(body))],
        )
        .await;
        report.assert_replayed(body);
    }
    // A body without a verdict is no rejection.
    for (status, body) in [(401, EXPIRED), (419, "alive")] {
        let report = ask_with(
            teapot(),
            post(REST, ""),
            [answer(status, Pieces::whole(body))],
        )
        .await;
        report.assert_returned(body, None, body);
    }
    let mut refused = answer(419, Pieces::whole("x"));
    let yes = HeaderValue::from_static("yes");
    refused.headers_mut().insert("x-incurable", yes);
    let report = ask_with(teapot(), post(REST, ""), [refused]).await;
    report.assert_returned("by its head", Some(ReplaySkipped::Incurable), "x");
}

// === Requests ===

fn value<'a>(request: &'a Request<Bytes>, name: &str) -> Option<&'a str> {
    let mut values = request.headers().get_all(name).iter();
    let value = values.next()?;
    assert!(values.next().is_none(), "{name} is there twice");
    Some(value.to_str().unwrap())
}

#[tokio::test]
async fn r22_a_bulk_request_carries_x_sfdc_session() {
    let report = ask(BULK, [answer(400, Pieces::whole(BULK_XML))]).await;
    report.assert_replayed("Bulk");
    for (request, token) in report.sent.iter().zip(["T0", "T1"]) {
        assert_eq!(value(request, "x-sfdc-session"), Some(token));
        assert_eq!(value(request, "authorization"), None);
        assert!(request.headers()["x-sfdc-session"].is_sensitive());
    }
    let report = ask("/services/data/v66.0/jobs/ingest", []).await;
    assert_eq!(value(&report.sent[0], "authorization"), Some("Bearer T0"));
    assert_eq!(value(&report.sent[0], "x-sfdc-session"), None);
}

#[tokio::test]
async fn r22_a_callers_own_session_header_is_left_alone() {
    for (path, name, content_type, body) in [
        (BULK, "x-sfdc-session", "application/xml", BULK_XML),
        (BULK, "authorization", "application/xml", BULK_XML),
        (GRPC, "accesstoken", "application/grpc", ""),
    ] {
        let mut request = post(path, "");
        let headers = request.headers_mut();
        headers.insert(name, HeaderValue::from_static("own"));
        headers.insert("content-type", HeaderValue::from_static(content_type));
        let mut rejection = answer(400, Pieces::whole(body));
        let status = HeaderValue::from_static("16");
        rejection.headers_mut().insert("grpc-status", status);
        let report = ask_with(refreshing_layer(), request, [rejection]).await;
        report.assert_returned(name, None, body);
        assert_eq!(value(&report.sent[0], name), Some("own"));
        assert_eq!(report.sent[0].headers().len(), 2);
    }
}

#[tokio::test]
async fn r22_a_grpc_call_is_classified_by_its_grpc_status() {
    let pubsub = "https://api.pubsub.salesforce.com:7443";
    let unauthenticated = || {
        let mut response = answer(200, Pieces::default());
        let headers = response.headers_mut();
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from_static("16"));
        response
    };
    let call = || {
        let mut request = post(&format!("{pubsub}{GRPC}"), "\0\0\0\0\0");
        let grpc = HeaderValue::from_static("application/grpc+proto");
        request.headers_mut().insert("content-type", grpc);
        request
    };
    let (builder, refreshes) = refreshing();
    let handle = builder.allow_origin(pubsub.parse().unwrap()).build();
    let layer = SalesforceAuthLayer::from(handle);
    let report = ask_with(
        (layer.clone(), refreshes.clone()),
        call(),
        [unauthenticated()],
    )
    .await;
    report.assert_replayed("gRPC");
    for (request, token, tenant) in [
        (&report.sent[0], "T0", None),
        (&report.sent[1], "T1", Some("00Dxx0000001gEFEAY")),
    ] {
        assert_eq!(value(request, "accesstoken"), Some(token));
        assert_eq!(value(request, "instanceurl"), Some(INSTANCE));
        assert_eq!(value(request, "tenantid"), tenant);
        assert_eq!(value(request, "authorization"), None);
        assert!(request.headers()["accesstoken"].is_sensitive());
        assert!(request.headers()["instanceurl"].is_sensitive());
    }
    // Any other gRPC status is returned to the caller.
    let mut other = unauthenticated();
    let denied = HeaderValue::from_static("7");
    other.headers_mut().insert("grpc-status", denied);
    let refreshing = (layer, refreshes);
    let report = ask_with(refreshing, call(), [other]).await;
    assert_eq!(report.sent.len(), 1);
    assert!(report.outcome.is_none());
}

/// The tenant of the old session is not sent with the new one.
#[tokio::test]
async fn r22_a_replayed_grpc_call_keeps_its_callers_metadata() {
    for own in [None, Some("core/own")] {
        let mut call = post(GRPC, "\0\0\0\0\0");
        let grpc = HeaderValue::from_static("application/grpc");
        call.headers_mut().insert("content-type", grpc);
        if let Some(own) = own {
            let own = HeaderValue::from_static(own);
            call.headers_mut().insert("tenantid", own);
        }
        let mut unauthenticated = answer(200, Pieces::default());
        let status = HeaderValue::from_static("16");
        unauthenticated.headers_mut().insert("grpc-status", status);
        let (_, refreshes) = refreshing_layer();
        let layer = starting_with(
            session("T0").with_ids("00Dxx0000001gEFEAY", "005xx000001SwiUAAS"),
            |_: RefreshContext| async { Ok(session("T1")) },
        );
        let report = ask_with((layer, refreshes), call, [unauthenticated]).await;
        let tenants = report.sent.iter().map(|sent| value(sent, "tenantid"));
        let tenants: Vec<_> = tenants.collect();
        assert_eq!(tenants, [Some("00Dxx0000001gEFEAY"), own]);
    }
}

/// In every API and header.
#[tokio::test]
async fn r16_a_foreign_host_gets_the_session_in_no_form() {
    for (path, content_type) in [
        (REST, "application/json"),
        (BULK, "application/xml"),
        (SOAP, "text/xml"),
        (GRPC, "application/grpc"),
    ] {
        let mut request = post(&format!("https://example.com{path}"), envelope("own"));
        let content_type = HeaderValue::from_static(content_type);
        request.headers_mut().insert("content-type", content_type);
        let report = ask_with(
            refreshing_layer(),
            request,
            [answer(401, Pieces::whole(EXPIRED))],
        )
        .await;
        report.assert_returned(path, None, EXPIRED);
        assert_eq!(report.sent[0].headers().len(), 1, "{path}");
        assert_eq!(report.sent[0].body(), &envelope("own"));
    }
}

// === SOAP ===

fn envelope(session_id: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?><soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         xmlns:urn=\"urn:partner.soap.sforce.com\"><soapenv:Header><urn:SessionHeader><urn:sessionId>{session_id}\
         </urn:sessionId></urn:SessionHeader></soapenv:Header><soapenv:Body><urn:getUserInfo/></soapenv:Body>\
         </soapenv:Envelope>"
    )
}

fn rejected() -> Response<Pieces> {
    answer(
        500,
        Pieces::whole(fault("sf:INVALID_SESSION_ID", ILLEGAL_SESSION)),
    )
}

/// A SOAP request with a `Content-Length`.
fn measured<B>(body: B, length: usize) -> Request<B> {
    Request::post(SOAP)
        .header("content-type", "text/xml")
        .header("soapaction", "\"\"")
        .header("content-length", length)
        .body(body)
        .unwrap()
}

/// A layer that may refresh twice, and whose tokens differ in length.
fn growing() -> (SalesforceAuthLayer, Arc<AtomicUsize>) {
    let (layer, refreshes) =
        counting(|n| async move { Ok(session(&format!("T{}", "9".repeat(n * 3)))) });
    (layer.max_refreshes(2), refreshes)
}

#[tokio::test]
async fn r22_a_soap_replay_has_the_new_session_and_its_length() {
    let sent_with = ["T0", "T999", "T999999"];
    let body = envelope("T0");
    let request = measured(Full::new(Bytes::from(body.clone())), body.len());
    let report = ask_with(growing(), request, [rejected(), rejected()]).await;
    assert_eq!((report.sent.len(), report.refreshes), (3, 2));
    for (request, token) in report.sent.iter().zip(sent_with) {
        assert_eq!(request.body(), &envelope(token));
        let length = value(request, "content-length").unwrap();
        assert_eq!(length, request.body().len().to_string());
    }
}

#[tokio::test]
async fn r22_a_stale_session_in_an_envelope_is_replaced() {
    for stale in ["", "an old one", "<![CDATA[T&]]>"] {
        for layer in [
            growing(),
            {
                let (layer, refreshes) = growing();
                (layer.max_refreshes(0), refreshes)
            },
            (SalesforceAuthLayer::fixed(session("T0")), Arc::default()),
        ] {
            let body = envelope(stale);
            let request = measured(Full::new(Bytes::from(body.clone())), body.len());
            let report = ask_with(layer, request, []).await;
            assert_eq!((report.sent.len(), report.refreshes), (1, 0));
            assert_eq!(report.sent[0].body(), &envelope("T0"));
            let length = value(&report.sent[0], "content-length").unwrap();
            assert_eq!(length, report.sent[0].body().len().to_string());
        }
    }
    // `SkipAuth` sends an envelope unchanged.
    let mut request = measured(Full::new(Bytes::from(envelope("own"))), 1);
    request.extensions_mut().insert(SkipAuth);
    let report = ask_with(growing(), request, [rejected()]).await;
    assert_eq!((report.sent.len(), report.refreshes), (1, 0));
    assert_eq!(report.sent[0].body(), &envelope("own"));
}

#[tokio::test]
async fn r22_a_streamed_envelope_is_replayed_with_the_new_session() {
    let body = envelope("T0");
    let request = measured(Pieces::bytewise(body.as_bytes()), body.len());
    let report = ask_with(growing(), request, [rejected(), rejected()]).await;
    assert_eq!((report.sent.len(), report.refreshes), (3, 2));
    for (request, token) in report.sent.iter().zip(["T0", "T999", "T999999"]) {
        assert_eq!(request.body(), &envelope(token));
        let length = value(request, "content-length").unwrap();
        assert_eq!(length, request.body().len().to_string());
    }
}

/// Rejects the first attempt after `bytes` bytes. Returns the outcome and the bytes read of each attempt.
async fn answered_after(bytes: usize) -> (Option<AuthOutcome>, Vec<Bytes>) {
    let (layer, _) = growing();
    let sent = Arc::new(Mutex::new(Vec::new()));
    let log = sent.clone();
    let api = service_fn(
        move |request: Request<tower_salesforce_auth::ReplayBody<Pieces>>| {
            let log = log.clone();
            async move {
                let mut body = request.into_body();
                let mut read = Vec::new();
                let is_first = log.lock().unwrap().is_empty();
                while !is_first || read.len() < bytes {
                    let Some(frame) = body.frame().await else {
                        break;
                    };
                    read.extend_from_slice(&frame?.into_data().unwrap_or_default());
                }
                log.lock().unwrap().push(Bytes::from(read));
                let answer = if is_first {
                    rejected()
                } else {
                    answer(200, Pieces::default())
                };
                Ok::<_, BoxError>(answer)
            }
        },
    );
    let request = measured(
        Pieces::bytewise(envelope("T0").as_bytes()),
        envelope("T0").len(),
    );
    let response = layer.layer(api).oneshot(request).await.unwrap();
    let sent = std::mem::take(&mut *sent.lock().unwrap());
    (response.extensions().get().cloned(), sent)
}

#[tokio::test]
async fn r22_a_half_read_envelope_is_replayed_after_its_header() {
    let header = envelope("T0").find("</urn:SessionHeader>").unwrap();
    let (outcome, sent) = answered_after(header).await;
    assert_eq!(outcome.unwrap().replay_skipped(), None);
    assert_eq!(sent[1], envelope("T999"));

    let (outcome, sent) = answered_after(header / 2).await;
    let skipped = outcome.unwrap().replay_skipped();
    assert_eq!(skipped, Some(ReplaySkipped::BodyNotReplayable));
    assert_eq!(sent.len(), 1);
}

#[tokio::test]
async fn r22_an_envelope_without_session_is_replayed_unchanged() {
    for body in [
        "",
        "not XML",
        "<Envelope><Header>",
        "<Envelope><Body/></Envelope>",
    ] {
        let request = measured(Full::new(Bytes::from(body)), body.len());
        let report = ask_with(refreshing_layer(), request, [rejected()]).await;
        report.assert_replayed(body);
        assert_eq!(report.sent[1].body(), body);
        let length = value(&report.sent[1], "content-length").unwrap();
        assert_eq!(length, body.len().to_string());
    }
}
