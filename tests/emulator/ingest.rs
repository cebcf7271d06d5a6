//! Bulk API 2.0: ingest jobs.

use std::io;

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::{Value, json};
use tower::ServiceExt;
use tower_salesforce_auth::emulator::{Fault, Grant, Org};

use crate::support::bytes_of;

const JOBS: &str = "/services/data/v66.0/jobs/ingest";

type AnyBody = UnsyncBoxBody<Bytes, io::Error>;

fn whole(body: impl Into<Bytes>) -> AnyBody {
    UnsyncBoxBody::new(Full::new(body.into()).map_err(|never| match never {}))
}

/// A body of `pieces` times `piece`, which ends with an error if `breaks_off`.
fn streamed(piece: &'static [u8], pieces: usize, breaks_off: bool) -> AnyBody {
    let pieces = (0..pieces).map(move |_| Ok(Frame::data(Bytes::from_static(piece))));
    let end = breaks_off.then(|| Err(io::Error::other("broken off")));
    UnsyncBoxBody::new(StreamBody::new(stream::iter(pieces.chain(end))))
}

fn request(grant: &Grant, method: Method, uri: &str, body: AnyBody) -> Request<AnyBody> {
    Request::builder()
        .method(method)
        .uri(uri)
        .header("authorization", format!("Bearer {}", grant.access_token()))
        .body(body)
        .unwrap()
}

struct Client {
    org: Org,
    grant: Grant,
}

impl Client {
    fn new() -> Self {
        let org = Org::new();
        let grant = org.authorize();
        Self { org, grant }
    }

    async fn send(&self, method: Method, uri: &str, body: AnyBody) -> (StatusCode, Value) {
        let request = request(&self.grant, method, uri, body);
        let response = self.org.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = bytes_of(response).await;
        let body = match &body[..] {
            b"" => Value::Null,
            body => serde_json::from_slice(body).unwrap(),
        };
        (status, body)
    }

    async fn create(&self, job: Value) -> (StatusCode, Value) {
        self.send(Method::POST, JOBS, whole(job.to_string())).await
    }

    /// The URI of a new job, and its id.
    async fn job(&self) -> (String, String) {
        self.job_of(json!({ "object": "Account", "operation": "insert" }))
            .await
    }

    async fn job_of(&self, job: Value) -> (String, String) {
        let (status, job) = self.create(job).await;
        assert_eq!(status, StatusCode::OK, "{job}");
        let id = job["id"].as_str().unwrap();
        (format!("{JOBS}/{id}"), id.to_owned())
    }

    async fn put(&self, job: &str, body: AnyBody) -> (StatusCode, Value) {
        self.send(Method::PUT, &format!("{job}/batches"), body)
            .await
    }

    async fn set_state(&self, job: &str, state: &str) -> (StatusCode, Value) {
        let change = json!({ "state": state });
        self.send(Method::PATCH, job, whole(change.to_string()))
            .await
    }

    async fn look_at(&self, job: &str) -> Value {
        let (status, job) = self.send(Method::GET, job, whole("")).await;
        assert_eq!(status, StatusCode::OK, "{job}");
        job
    }
}

fn assert_refused(answer: &(StatusCode, Value), status: StatusCode, code: &str) {
    assert_eq!(answer.0, status, "{}", answer.1);
    assert_eq!(answer.1[0]["errorCode"], code, "{}", answer.1);
}

#[tokio::test]
async fn a_job_goes_from_open_to_complete() {
    let client = Client::new();
    let (status, job) = client
        .create(json!({
            "object": "Account",
            "operation": "upsert",
            "externalIdFieldName": "Website",
            "contentType": "CSV",
            "lineEnding": "CRLF",
            "columnDelimiter": "SEMICOLON",
        }))
        .await;
    assert_eq!(status, StatusCode::OK);
    let id = job["id"].as_str().unwrap();
    let expected = json!({
        "id": id,
        "operation": "upsert",
        "object": "Account",
        "createdById": "005xx000001SwiUAAS",
        "createdDate": "2025-06-15T15:06:40.000+0000",
        "systemModstamp": "2025-06-15T15:06:40.000+0000",
        "state": "Open",
        "externalIdFieldName": "Website",
        "concurrencyMode": "Parallel",
        "contentType": "CSV",
        "apiVersion": 66.0,
        "contentUrl": format!("services/data/v66.0/jobs/ingest/{id}/batches"),
        "lineEnding": "CRLF",
        "columnDelimiter": "SEMICOLON",
    });
    assert_eq!(job, expected);
    assert!(id.starts_with("750") && id.len() == 18, "{id}");
    assert_eq!(client.org.upload(id), None);

    let uri = format!("{JOBS}/{id}");
    let content = "Name;Website\r\nAcme;a.example.com\r\nGlobex;g.example.com\r\n";
    let put = client.put(&uri, whole(content)).await;
    assert_eq!(put, (StatusCode::CREATED, Value::Null));
    let (status, job) = client.set_state(&uri, "UploadComplete").await;
    assert_eq!(
        (status, &job["state"]),
        (StatusCode::OK, &json!("UploadComplete"))
    );
    assert_eq!(job.get("contentUrl"), None, "the job is closed");

    let job = client.look_at(&uri).await;
    assert_eq!(
        (&job["state"], &job["numberRecordsProcessed"]),
        (&json!("InProgress"), &json!(0))
    );
    for _ in 0..2 {
        let job = client.look_at(&uri).await;
        assert_eq!(job["state"], "JobComplete");
        assert_eq!(job["jobType"], "V2Ingest");
        assert_eq!(job["numberRecordsProcessed"], 2);
        assert_eq!(job["numberRecordsFailed"], 0);
    }
    let deleted = client.send(Method::DELETE, &uri, whole("")).await;
    assert_eq!(deleted, (StatusCode::NO_CONTENT, Value::Null));
    let gone = client.send(Method::GET, &uri, whole("")).await;
    assert_refused(&gone, StatusCode::NOT_FOUND, "NOT_FOUND");
    assert_eq!(client.org.upload(id), None);
}

#[tokio::test]
async fn rows_are_counted_wherever_the_pieces_are_cut() {
    let cases: [(&'static str, u64); 8] = [
        ("", 0),
        ("Name", 0),
        ("Name\n", 0),
        ("Name\nAcme", 1),
        ("Name\nAcme\n\n\nGlobex\n\n", 2),
        ("Name\n\"two\nlines\"\n\"\"\n", 2),
        ("Name\n\"a \"\"quoted\"\" \n word\"\nb\n", 2),
        ("Name\r\nAcme\r\n\r\nGlobex\r\n", 2),
    ];
    for (text, records) in cases {
        for size in 1..=text.len().max(1) {
            let client = Client::new();
            let (uri, id) = client.job().await;
            let pieces = text.as_bytes().chunks(size);
            let frames = pieces.map(|piece| Ok(Frame::data(Bytes::from_static(piece))));
            let body = UnsyncBoxBody::new(StreamBody::new(stream::iter(frames)));
            assert_eq!(client.put(&uri, body).await.0, StatusCode::CREATED);
            let upload = client.org.upload(&id).unwrap();
            assert_eq!(upload.records, records, "{text:?} in pieces of {size}");
            assert_eq!(upload.length, text.len() as u64);
        }
    }
    // `printf 'Name\nAcme\n' | sha256sum`
    let client = Client::new();
    let (uri, id) = client.job().await;
    client.put(&uri, whole("Name\nAcme\n")).await;
    let expected = "96a5625d32de2333cb4f80a55c8c81cd8aad1929cf343449943cf3f2bd6c6ef9";
    assert_eq!(client.org.upload(&id).unwrap().sha256, expected);
}

#[tokio::test]
async fn a_job_takes_its_content_once() {
    let client = Client::new();
    let (uri, id) = client.job().await;
    client.put(&uri, whole("Name\nAcme\n")).await;
    let first = client.org.upload(&id);
    let again = client.put(&uri, whole("Name\nGlobex\nInitech\n")).await;
    assert_refused(&again, StatusCode::BAD_REQUEST, "INVALIDJOB");
    assert_eq!(client.org.upload(&id), first);

    client.set_state(&uri, "UploadComplete").await;
    let late = client.put(&uri, whole("Name\nGlobex\n")).await;
    assert_refused(&late, StatusCode::BAD_REQUEST, "INVALIDJOBSTATE");

    // Of two uploads at once the job takes one.
    let (uri, id) = client.job().await;
    client.org.on_data(Fault::Hang);
    let two = ["Name\nAcme\n", "Name\nAcme\nGlobex\n"].map(|content| {
        let request = request(
            &client.grant,
            Method::PUT,
            &format!("{uri}/batches"),
            whole(content),
        );
        tokio::spawn(client.org.clone().oneshot(request))
    });
    while client.org.counters().data_requests < 8 {
        tokio::task::yield_now().await;
    }
    client.org.on_data(Fault::None);
    let mut statuses = Vec::new();
    for answer in two {
        statuses.push(answer.await.unwrap().unwrap().status().as_u16());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 400]);
    assert!(client.org.upload(&id).is_some());
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_the_job_open() {
    let client = Client::new();
    let (uri, id) = client.job().await;
    let broken = streamed(b"Name\nAcme\n", 3, true);
    let request = request(
        &client.grant,
        Method::PUT,
        &format!("{uri}/batches"),
        broken,
    );
    client.org.clone().oneshot(request).await.unwrap_err();
    assert_eq!(client.org.upload(&id), None);
    let (status, _) = client.put(&uri, whole("Name\nAcme\n")).await;
    assert_eq!(status, StatusCode::CREATED);
}

#[tokio::test]
async fn content_beyond_150_megabytes_in_base64_is_refused() {
    static MEGABYTE: [u8; 1_000_000] = [b'x'; 1_000_000];
    let client = Client::new();
    let (uri, id) = client.job().await;
    // The org stops at the piece that exceeds the limit: the body's error after it is not read.
    let large = client.put(&uri, streamed(&MEGABYTE, 113, true)).await;
    assert_refused(&large, StatusCode::BAD_REQUEST, "CLIENTINPUTERROR");

    // A body that declares too large a size is not read.
    let mut request = request(
        &client.grant,
        Method::PUT,
        &format!("{uri}/batches"),
        streamed(b"x", 0, true),
    );
    let headers = request.headers_mut();
    headers.insert("content-length", 112_500_001.into());
    let response = client.org.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(client.org.upload(&id), None);

    let (status, _) = client
        .put(&uri, streamed(&MEGABYTE[..500_000], 225, false))
        .await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(client.org.upload(&id).unwrap().length, 112_500_000);
}

#[tokio::test]
async fn wrong_line_endings_fail_the_job() {
    for (line_ending, content) in [("LF", "Name\r\nAcme\r\n"), ("CRLF", "Name\nAcme\n")] {
        let client = Client::new();
        let job = json!({ "object": "Contact", "operation": "insert", "lineEnding": line_ending });
        let (uri, _) = client.job_of(job).await;
        client.put(&uri, whole(content)).await;
        client.set_state(&uri, "UploadComplete").await;
        client.look_at(&uri).await;
        let job = client.look_at(&uri).await;
        assert_eq!(job["state"], "Failed", "{line_ending}");
        let message = format!(
            "ClientInputError : LineEnding is invalid on user data. Current LineEnding setting is {line_ending}"
        );
        assert_eq!(job["errorMessage"], message);
        assert_eq!(job["numberRecordsProcessed"], 0);
    }
}

#[tokio::test]
async fn job_states_change_in_one_direction() {
    let client = Client::new();
    let (uri, _) = client.job().await;
    let deleted = client.send(Method::DELETE, &uri, whole("")).await;
    assert_refused(&deleted, StatusCode::BAD_REQUEST, "API_ERROR");
    for state in ["Open", "JobComplete"] {
        let refused = client.set_state(&uri, state).await;
        assert_refused(&refused, StatusCode::BAD_REQUEST, "INVALIDJOBSTATE");
    }
    let refused = client.set_state(&uri, "Done").await;
    assert_refused(&refused, StatusCode::BAD_REQUEST, "JSON_PARSER_ERROR");
    let (status, job) = client.set_state(&uri, "Aborted").await;
    assert_eq!((status, &job["state"]), (StatusCode::OK, &json!("Aborted")));
    for state in ["UploadComplete", "Aborted"] {
        let refused = client.set_state(&uri, state).await;
        assert_refused(&refused, StatusCode::BAD_REQUEST, "INVALIDJOBSTATE");
    }
    assert_eq!(client.look_at(&uri).await["state"], "Aborted");
    let (status, _) = client.send(Method::DELETE, &uri, whole("")).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn an_invalid_job_or_path_is_refused() {
    let client = Client::new();
    let bad_request = StatusCode::BAD_REQUEST;
    for (job, code) in [
        (json!({ "object": "Account" }), "JSON_PARSER_ERROR"),
        (
            json!({ "object": "Account", "operation": "merge" }),
            "JSON_PARSER_ERROR",
        ),
        (
            json!({ "object": "Account", "operation": "insert", "contentType": "XML" }),
            "JSON_PARSER_ERROR",
        ),
        (
            json!({ "object": "Nothing", "operation": "insert" }),
            "INVALIDENTITY",
        ),
        (
            json!({ "object": "Account", "operation": "upsert" }),
            "INVALIDJOB",
        ),
    ] {
        assert_refused(&client.create(job).await, bad_request, code);
    }
    let nowhere = format!("{JOBS}/750xx0000000099AAA");
    for (method, uri) in [
        (Method::GET, nowhere.clone()),
        (Method::DELETE, nowhere.clone()),
        (Method::PUT, format!("{nowhere}/batches")),
        (Method::GET, format!("{nowhere}/results")),
        (Method::GET, format!("{nowhere}/batches/1")),
        (Method::GET, format!("{JOBS}ion")),
    ] {
        let answer = client.send(method, &uri, whole("")).await;
        assert_refused(&answer, StatusCode::NOT_FOUND, "NOT_FOUND");
    }
    let change = client.set_state(&nowhere, "Aborted").await;
    assert_refused(&change, StatusCode::NOT_FOUND, "NOT_FOUND");
    for (method, uri) in [
        (Method::GET, JOBS.to_owned()),
        (Method::POST, nowhere.clone()),
        (Method::POST, format!("{nowhere}/batches")),
    ] {
        let answer = client.send(method, &uri, whole("")).await;
        assert_refused(
            &answer,
            StatusCode::METHOD_NOT_ALLOWED,
            "METHOD_NOT_ALLOWED",
        );
    }
}

#[tokio::test]
async fn an_expired_session_is_rejected_before_or_after_content() {
    let client = Client::new();
    let (uri, id) = client.job().await;
    client.org.expire_sessions();
    // The rejection comes after the whole content.
    let (status, error) = client.put(&uri, streamed(b"Name\nAcme\n", 3, false)).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert_eq!(error[0]["errorCode"], "INVALID_SESSION_ID");
    let broken = request(
        &client.grant,
        Method::PUT,
        &format!("{uri}/batches"),
        streamed(b"Name\nAcme\n", 3, true),
    );
    client.org.clone().oneshot(broken).await.unwrap_err();
    // The rejection comes before or within the content, so the error at its end is not read.
    for bytes in [0, 15] {
        client.org.answer_early(bytes);
        let broken = streamed(b"Name\nAcme\n", 3, true);
        let (status, _) = client.put(&uri, broken).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "after {bytes} bytes");
    }
    assert_eq!(client.org.upload(&id), None);
    // The job is still open.
    let client = Client {
        grant: client.org.authorize(),
        org: client.org,
    };
    assert_eq!(client.look_at(&uri).await["state"], "Open");
    let (status, _) = client.put(&uri, whole("Name\nAcme\n")).await;
    assert_eq!(status, StatusCode::CREATED);
}
