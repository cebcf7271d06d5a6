//! Odd rejections of APIs, and requests with a session in an unusual place.

use std::{
    io::{Read, Write},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use flate2::{
    Compression,
    read::GzDecoder,
    write::{GzEncoder, ZlibEncoder},
};
use futures_util::stream;
use http::{HeaderMap, Request, Response, header::HOST};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use tower::{Layer, ServiceExt, service_fn};
use tower_salesforce_auth::{
    BoxError, LoginUrl, RefreshContext, RefreshError, ReplayBody, SalesforceAuthLayer, Session,
    SessionHandle,
    flow::{SoapLogin, UsernamePassword},
    handle::SessionHandleBuilder,
    oauth::App,
    verdict::{Api, Classify, Extent, ResponseHead, SalesforceClassifier, Verdict},
};

use crate::support::{INSTANCE, get, post, starting_with};

const SOAP: &str = "/services/Soap/u/64.0";
const BULK: &str = "/services/async/66.0/job";
const LIMITS: &str = "/services/data/v66.0/limits";

const FAULT: &str = "<soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\"><soapenv:Body><soapenv:Fault><faultcode>sf:INVALID_SESSION_ID</faultcode><faultstring>Illegal Session</faultstring></soapenv:Fault></soapenv:Body></soapenv:Envelope>";
const BULK_XML: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><error xmlns=\"http://www.force.com/2009/06/asyncapi/dataload\"><exceptionCode>InvalidSessionId</exceptionCode><exceptionMessage>Invalid session id</exceptionMessage></error>";
const BULK_JSON: &str =
    r#"{"exceptionCode":"InvalidSessionId","exceptionMessage":"Invalid session id"}"#;
const NOT_FOR_REST: &str = "This session is not valid for use with the REST API";

/// A layer that begins with `00Dxx!T0` and refreshes to `00Dxx!T1`, with the number of refreshes.
fn refreshing() -> (SalesforceAuthLayer, Arc<AtomicUsize>) {
    let refreshes = Arc::new(AtomicUsize::new(0));
    let count = refreshes.clone();
    let session = Session::new("00Dxx!T0", INSTANCE).unwrap();
    let layer = starting_with(session, move |_: RefreshContext| {
        let n = count.fetch_add(1, Ordering::SeqCst) + 1;
        let session = Session::new(format!("00Dxx!T{n}"), INSTANCE);
        async move { session.map_err(RefreshError::terminal) }
    });
    (layer, refreshes)
}

fn is_stale(headers: &HeaderMap) -> bool {
    let session = ["authorization", "x-sfdc-session", "accesstoken"];
    let mut session = session.iter().filter_map(|name| headers.get(*name));
    session.any(|token| token.to_str().unwrap().ends_with("T0"))
}

type Headers = Vec<(&'static str, &'static str)>;

/// Sends a request whose first answer is this one. Returns the status, the number of refreshes, and what was sent.
async fn after(
    request: Request<Full<Bytes>>,
    status: u16,
    headers: Headers,
    body: impl Into<Bytes>,
) -> (u16, usize, Vec<Request<Bytes>>) {
    let (layer, refreshes) = refreshing();
    let sent = Arc::new(Mutex::new(Vec::new()));
    let (log, body) = (sent.clone(), body.into());
    let api = service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
        let (log, headers, body) = (log.clone(), headers.clone(), body.clone());
        async move {
            let (head, content) = request.into_parts();
            let content = content.collect().await?.to_bytes();
            let is_stale = is_stale(&head.headers);
            log.lock().unwrap().push(Request::from_parts(head, content));
            let mut response = Response::new(Full::new(if is_stale { body } else { "ok".into() }));
            if is_stale {
                *response.status_mut() = status.try_into()?;
                for (name, value) in headers {
                    response.headers_mut().insert(name, value.parse()?);
                }
            }
            Ok::<_, BoxError>(response)
        }
    });
    let response = layer.layer(api).oneshot(request).await.unwrap();
    let sent = std::mem::take(&mut *sent.lock().unwrap());
    (
        response.status().as_u16(),
        refreshes.load(Ordering::SeqCst),
        sent,
    )
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn zlib(text: &str) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn utf_16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn dressed(text: &str) -> Vec<(Headers, Vec<u8>)> {
    let latin_1 = [text.as_bytes(), b"<!-- \xeb -->"].concat();
    vec![
        (vec![], text.as_bytes().to_vec()),
        (vec![], format!("\u{feff}{text}").into_bytes()),
        (vec![], format!("\r\n\0{text}\0\0").into_bytes()),
        (vec![], format!("{text}\n<!-- node 7 -->").into_bytes()),
        (vec![], latin_1.clone()),
        (
            vec![("content-type", "text/xml; charset=ISO-8859-1")],
            latin_1,
        ),
        (vec![], utf_16(text)),
        (vec![], utf_16(&format!("\u{feff}{text}"))),
        (vec![("content-encoding", "gzip")], gzip(text)),
        (vec![("content-encoding", "deflate")], zlib(text)),
        (vec![], gzip(text)),
    ]
}

#[tokio::test]
async fn r39_an_expired_session_is_found_in_any_dress() {
    for (path, status, text) in [
        (SOAP, 500, FAULT),
        (BULK, 400, BULK_XML),
        (BULK, 400, BULK_JSON),
        (
            BULK,
            400,
            "{\"exceptionCode\":null,\"exceptionCode\":\"InvalidSessionId\",\"exceptionMessage\":\"a\nb\"}",
        ),
    ] {
        for (headers, body) in dressed(text) {
            let shown = format!("{headers:?} {}", body.escape_ascii());
            let (answered, refreshes, _) = after(post(path, ""), status, headers, body).await;
            assert_eq!((answered, refreshes), (200, 1), "{path} {shown}");
        }
    }
    for body in [
        "\u{feff}Bad_OAuth_Token",
        "\"Bad_OAuth_Token\"",
        "\0Bad_OAuth_Token\0\r\n",
    ] {
        let path = "/services/oauth2/userinfo";
        let (answered, refreshes, _) = after(get(path), 403, vec![], body).await;
        assert_eq!((answered, refreshes), (200, 1), "{body}");
    }
}

/// Frames end anywhere, for example after the header of gzip, which servers send at once.
#[test]
fn r39_no_beginning_of_a_rejection_passes() {
    let utf_16: Vec<u8> = format!("\u{feff}{BULK_XML}")
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    for (api, status, encoding, body) in [
        (Api::Bulk, 400, "gzip", gzip(BULK_XML)),
        (Api::Bulk, 400, "gzip", gzip(BULK_JSON)),
        (Api::Bulk, 400, "deflate", zlib(BULK_XML)),
        (Api::Soap, 500, "gzip", gzip(FAULT)),
        (Api::Soap, 500, "identity", gzip(FAULT)),
        (Api::Bulk, 400, "identity", utf_16),
        (
            Api::Bulk,
            400,
            "identity",
            format!("\u{feff}{BULK_XML}").into_bytes(),
        ),
    ] {
        let response = Response::builder()
            .status(status)
            .header("content-encoding", encoding);
        let response = response.body(()).unwrap();
        let head = ResponseHead::new(api, &response);
        let classifier = SalesforceClassifier::default();
        for length in 0..body.len() {
            let verdict = classifier.classify_body(&head, &body[..length], Extent::Beginning);
            assert_eq!(verdict, None, "{api:?} {encoding} {length}");
        }
        let verdict = classifier.classify_body(&head, &body, Extent::Whole);
        assert_eq!(verdict, Some(Verdict::Expired), "{api:?} {encoding}");
    }
}

#[tokio::test]
async fn r39_other_errors_and_unknown_compressions_cost_nothing() {
    for (path, status, text) in [
        (SOAP, 500, FAULT.replace("SESSION_ID", "FIELD")),
        (BULK, 400, BULK_XML.replace("SessionId", "Batch")),
        (BULK, 400, BULK_JSON.replace("SessionId", "Batch")),
        (
            BULK,
            400,
            "{\"exceptionMessage\":\"InvalidSessionId\"}".to_owned(),
        ),
        (LIMITS, 401, NOT_FOR_REST.to_owned()),
    ] {
        for (headers, body) in dressed(&text) {
            let shown = format!("{headers:?} {}", body.escape_ascii());
            let (answered, refreshes, _) = after(post(path, ""), status, headers, body).await;
            assert_eq!((answered, refreshes), (status, 0), "{path} {shown}");
        }
    }
    for encoding in ["br", "zstd", "gzip, br"] {
        let headers = vec![("content-encoding", encoding)];
        let (answered, refreshes, _) = after(post(SOAP, ""), 500, headers, FAULT).await;
        assert_eq!((answered, refreshes), (500, 0), "{encoding}");
    }
}

/// Salesforce's own connector compresses its envelopes.
#[tokio::test]
async fn r22_a_compressed_envelope_gets_the_session_of_each_attempt() {
    let envelope = |token: &str| {
        format!(
            "<e:Envelope><e:Header><SessionHeader><sessionId>{token}</sessionId></SessionHeader></e:Header><e:Body>{}\
             </e:Body></e:Envelope>",
            "<query/>".repeat(200)
        )
    };
    let compressed = gzip(&envelope("stale"));
    let length = compressed.len();
    let mut request = post(SOAP, compressed);
    request
        .headers_mut()
        .insert("content-encoding", "gzip".parse().unwrap());
    request
        .headers_mut()
        .insert("content-length", length.into());
    let (answered, refreshes, sent) = after(request, 500, vec![], FAULT).await;
    assert_eq!((answered, refreshes, sent.len()), (200, 1, 2));
    for (request, token) in sent.iter().zip(["00Dxx!T0", "00Dxx!T1"]) {
        let mut text = String::new();
        GzDecoder::new(&request.body()[..])
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, envelope(token));
        assert_eq!(request.headers()["content-encoding"], "gzip");
        let length = request.headers()["content-length"].to_str().unwrap();
        assert_eq!(length, request.body().len().to_string());
    }
}

// === Where a request goes ===

/// A request that came to a server and is handed on has that server's name in its `Host`.
#[tokio::test]
async fn a_request_that_the_layer_addresses_names_its_instance() {
    for host in [
        "localhost:3000",
        "gateway.example.com",
        "example.my.salesforce.com",
        "",
        "a b",
    ] {
        for path in [LIMITS, SOAP, BULK, "/id/00Dxx/005xx", "/"] {
            let mut request = get(path);
            request.headers_mut().append(HOST, host.parse().unwrap());
            let status = if path == BULK { 400 } else { 401 };
            let (_, _, sent) = after(request, status, vec![], BULK_XML).await;
            assert_eq!(sent.len(), 2, "{host} {path}");
            for sent in sent {
                let hosts: Vec<_> = sent.headers().get_all(HOST).iter().collect();
                assert_eq!(hosts, ["example.my.salesforce.com"], "{host} {path}");
                assert_eq!(sent.uri().host(), Some("example.my.salesforce.com"));
            }
        }
    }
    // Without the header there is none, and a caller that names a place has chosen its `Host` too.
    let (_, _, sent) = after(get(LIMITS), 401, vec![], "").await;
    assert!(sent.iter().all(|sent| !sent.headers().contains_key(HOST)));
    let mut request = get(&format!("{INSTANCE}{LIMITS}"));
    request
        .headers_mut()
        .insert(HOST, "virtual.example.com".parse().unwrap());
    let (_, _, sent) = after(request, 401, vec![], "").await;
    assert!(
        sent.iter()
            .all(|sent| sent.headers()[HOST] == "virtual.example.com")
    );
}

#[tokio::test]
async fn an_identity_request_of_a_site_is_refreshed() {
    for path in [
        "/partners/id/00Dxx0000001gEFEAY/005xx000001SwiUAAS",
        "/partners/services/oauth2/userinfo",
        "/a/b/id/00Dxx0000001gEF/005xx000001SwiU",
        "/ID/00Dxx0000001gEFEAY/005xx000001SwiUAAS",
        "/partners/Services/OAuth2/userinfo",
    ] {
        let (answered, refreshes, _) = after(get(path), 403, vec![], "Bad_OAuth_Token").await;
        assert_eq!((answered, refreshes), (200, 1), "{path}");
    }
    for path in [
        "/partners/id",
        "/partners/id/1/2",
        "/services/apexrest/id/00Dxx0000001gEFEAY/005xx000001SwiUAAS",
    ] {
        let (answered, refreshes, _) = after(get(path), 403, vec![], "Bad_OAuth_Token").await;
        assert_eq!((answered, refreshes), (403, 0), "{path}");
    }
}

/// A session made by hand has no ids, and the Pub/Sub API wants the org's, which is in the token.
#[tokio::test]
async fn a_call_of_pubsub_names_the_tenant_of_the_token() {
    const IDENTITY: &str = "https://login.salesforce.com/id/00Dyy0000002gEFEAY/005xx000001SwiUAAS";
    const SITE: &str = "https://acme.my.site.com/id/id/00Dyy0000002gEFEAY/005xx000001SwiUAAS?a=b";
    let session = |token: &str| Session::new(token, INSTANCE).unwrap();
    for (session, tenant) in [
        (session("00Dxx0000001gEF!AQEAQ"), Some("00Dxx0000001gEFEAY")),
        (
            session("00Dxx0000001gEFEAY!AQEAQ"),
            Some("00Dxx0000001gEFEAY"),
        ),
        (
            session("00Dxx0000001gEF!AQEAQ").with_identity_url(IDENTITY),
            Some("00Dyy0000002gEFEAY"),
        ),
        (
            session("00Dxx0000001gEF!AQEAQ").with_identity_url(SITE),
            Some("00Dyy0000002gEFEAY"),
        ),
        (
            session("00Dxx0000001gEF!AQEAQ").with_ids("00Dyy", "005"),
            Some("00Dyy"),
        ),
        (session("00Dxx!AQEAQ"), None),
        (session("00Xxx0000001gEF!AQEAQ"), None),
        (session("eyJhbGciOiJFUzI1NiJ9.e30.c2ln"), None),
        (session("00Dxx0000001gEF"), None),
    ] {
        let handle = SessionHandleBuilder::fixed(session.clone());
        let origin = "https://api.pubsub.salesforce.com:7443";
        let layer = SalesforceAuthLayer::from(handle.allow_origin(origin.parse().unwrap()).build());
        let sent = Arc::new(Mutex::new(HeaderMap::new()));
        let log = sent.clone();
        let api = service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
            *log.lock().unwrap() = request.headers().clone();
            async { Ok::<_, BoxError>(Response::new(Full::<Bytes>::default())) }
        });
        let mut request = post(&format!("{origin}/eventbus.v1.PubSub/GetTopic"), "");
        let grpc = "application/grpc".parse().unwrap();
        request.headers_mut().insert("content-type", grpc);
        layer.layer(api).oneshot(request).await.unwrap();
        let sent = sent.lock().unwrap();
        let found = sent.get("tenantid").map(|id| id.to_str().unwrap());
        assert_eq!(found, tenant, "{session:?}");
    }
}

// === Thousands of frames ===

/// Counts the bytes that it searches.
struct Counting(Arc<AtomicUsize>);

impl Classify for Counting {
    fn classify_head(&self, head: &ResponseHead<'_>) -> Option<Verdict> {
        SalesforceClassifier::new().classify_head(head)
    }

    fn classify_body(
        &self,
        head: &ResponseHead<'_>,
        body: &[u8],
        extent: Extent,
    ) -> Option<Verdict> {
        self.0.fetch_add(body.len(), Ordering::SeqCst);
        SalesforceClassifier::new().classify_body(head, body, extent)
    }
}

/// A 401 in very many small frames costs as much as in one, up to a factor.
#[tokio::test(start_paused = true)]
async fn r21_a_rejection_in_thousands_of_frames_is_searched_twice() {
    for (path, status) in [(LIMITS, 401), (SOAP, 500), (BULK, 400)] {
        let searched = Arc::new(AtomicUsize::new(0));
        let (layer, _) = refreshing();
        let layer = layer.classifier(Counting(searched.clone()));
        let api = service_fn(move |_: Request<ReplayBody<Full<Bytes>>>| async move {
            let frames = stream::unfold(0, |n| async move {
                // Each frame comes after a pause.
                tokio::task::yield_now().await;
                let frame = Frame::data(Bytes::from_static(b"<Envelope attri>"));
                (n < 4_000).then_some((Ok::<_, BoxError>(frame), n + 1))
            });
            let response = Response::builder()
                .status(status)
                .body(StreamBody::new(Box::pin(frames)));
            Ok::<_, BoxError>(response?)
        });
        let _ = layer.layer(api).oneshot(post(path, "")).await.unwrap();
        let searched = searched.load(Ordering::SeqCst);
        assert!(searched < 4 * 64 * 1024, "{path}: {searched} bytes");
    }
}

// === Passwords ===

/// An answer that cannot be understood, to requests that come without end for ten minutes.
#[tokio::test(start_paused = true)]
async fn r39_a_password_is_not_tried_over_and_over() {
    for (status, body, most) in [
        (400, "", 1),
        (400, "\u{feff}\0garbage", 1),
        (400, "<html><body>Access denied</body></html>", 1),
        (401, "{\"err", 1),
        (403, "[{\"errorCode\":\"SOMETHING\"}]", 1),
        (500, "\u{b}\u{2}compressed\0", 1),
        (200, "garbage", 1),
        (200, "<html>Log in to the Wi-Fi</html>", 3),
        (503, "<html>Down for maintenance</html>", 3),
        (502, "", 3),
    ] {
        for is_soap in [false, true] {
            let calls = Arc::new(AtomicUsize::new(0));
            let count = calls.clone();
            let client = service_fn(move |_: Request<Full<Bytes>>| {
                count.fetch_add(1, Ordering::SeqCst);
                let response = Response::builder()
                    .status(status)
                    .body(Full::<Bytes>::from(body));
                async { response.map_err(BoxError::from) }
            });
            let login_url: LoginUrl = INSTANCE.parse().unwrap();
            let handle = if is_soap {
                SessionHandle::new(SoapLogin::new(client, login_url, "user", "password"))
            } else {
                let app = App::new(login_url, "3MVG9key");
                SessionHandle::new(UsernamePassword::new(client, app, "user", "password"))
            };
            let began = tokio::time::Instant::now();
            while began.elapsed() < Duration::from_secs(600) {
                assert!(handle.session().await.is_err());
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let calls = calls.load(Ordering::SeqCst);
            assert!(
                (1..=most).contains(&calls),
                "{status} {body:?} {is_soap}: {calls} calls"
            );
        }
    }
}
