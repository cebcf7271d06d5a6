//! Bulk API 2.0 over any client: an ingest job, from its creation to its end.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header::CONTENT_LENGTH};
use http_body_util::{BodyExt, Full};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use tokio::time::sleep;
use tower::{Service, ServiceExt};
use tower_salesforce_auth::{BoxError, request::AuthOutcome};

use super::source::{Body, Source};

/// The bytes that a job takes at most: 150 MB in Base64, which makes four bytes of three. Salesforce advises less than 100 MB.
pub(crate) const MAX_LENGTH: u64 = 112_500_000;

/// The ingest jobs of an org.
#[derive(Clone)]
pub(crate) struct Ingest<S> {
    client: S,
    /// `/services/data/vNN.0/jobs/ingest`
    path: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) number_records_processed: u64,
    #[serde(default)]
    pub(crate) number_records_failed: u64,
    error_message: Option<String>,
}

/// The result of an upload.
#[derive(Debug)]
pub(crate) enum Uploaded {
    /// The org has the content, after this many attempts.
    Taken { attempts: u32 },
    /// The session was rejected, and the content was not sent again. The outcome says why.
    Rejected(AuthOutcome),
}

/// The polls for the end of a job, with pauses that double.
pub(crate) struct Patience {
    pub(crate) first_pause: Duration,
    pub(crate) longest_pause: Duration,
    pub(crate) polls: u32,
}

impl<S, ResBody> Ingest<S>
where
    S: Service<Request<Body>, Response = Response<ResBody>, Error = BoxError> + Clone,
    ResBody: http_body::Body<Error: Into<BoxError>>,
{
    pub(crate) fn new(client: S, api_version: &str) -> Self {
        Self {
            client,
            path: format!("/services/data/v{api_version}/jobs/ingest"),
        }
    }

    /// Creates a job that inserts records of this object. Its rows end with a line feed.
    pub(crate) async fn create(&self, object: &str) -> Result<Job, BoxError> {
        let job = json!({
            "object": object,
            "operation": "insert",
            "contentType": "CSV",
            "lineEnding": "LF",
        });
        let answer = self.call(Method::POST, &self.path, job.to_string()).await?;
        answer.job("create a job")
    }

    /// Sends the source as the content of the job. `attach` adds the body to the request.
    pub(crate) async fn upload(
        &self,
        id: &str,
        source: &Source,
        attach: impl FnOnce(Request<()>) -> Request<Body>,
    ) -> Result<Uploaded, BoxError> {
        let length = source.length();
        if length > MAX_LENGTH {
            return Err(format!(
                "the file has {length} bytes, and a job takes {MAX_LENGTH} at most: split it"
            )
            .into());
        }
        let head = Request::put(format!("{}/{id}/batches", self.path))
            .header("content-type", "text/csv; charset=UTF-8")
            // A stream has no known length. Without this header HTTP/1.1 would send chunks, and a truncated file could pass.
            .header(CONTENT_LENGTH, length)
            .body(())?;
        let answer = self.send(attach(head)).await;
        if let Some(failure) = source.failure() {
            return Err(failure.clone().into());
        }
        match answer? {
            Answer {
                status: StatusCode::CREATED,
                outcome,
                ..
            } => Ok(Uploaded::Taken {
                // A request without a rejection has no outcome.
                attempts: outcome.map_or(1, |outcome| outcome.attempts()),
            }),
            Answer {
                outcome: Some(outcome),
                ..
            } if outcome.replay_skipped().is_some() => Ok(Uploaded::Rejected(outcome)),
            answer => Err(answer.refusal("take the content")),
        }
    }

    /// Marks the content as complete, so that the org starts the job.
    pub(crate) async fn complete(&self, id: &str) -> Result<Job, BoxError> {
        let answer = self.change(id, "UploadComplete").await?;
        answer.job("close the job")
    }

    /// Aborts the job. An open job would count against the limits of the org.
    pub(crate) async fn abort(&self, id: &str) -> Result<Job, BoxError> {
        let answer = self.change(id, "Aborted").await?;
        answer.job("abort the job")
    }

    /// Waits until the job is done.
    pub(crate) async fn wait(&self, id: &str, patience: &Patience) -> Result<Job, BoxError> {
        let path = format!("{}/{id}", self.path);
        let mut pause = patience.first_pause;
        let mut state = String::new();
        for poll in 0..patience.polls {
            if poll > 0 {
                sleep(pause).await;
                pause = (pause * 2).min(patience.longest_pause);
            }
            let answer = self.call(Method::GET, &path, String::new()).await?;
            let job = answer.job("show the job")?;
            match &*job.state {
                "JobComplete" => return Ok(job),
                "Failed" | "Aborted" => {
                    let why = job.error_message.as_deref().unwrap_or("no reason is given");
                    return Err(format!("job {id} ended as {}: {why}", job.state).into());
                }
                _ => state = job.state,
            }
        }
        let polls = patience.polls;
        Err(format!("job {id} is {state} after {polls} polls; it continues in the org").into())
    }

    async fn change(&self, id: &str, state: &str) -> Result<Answer, BoxError> {
        let path = format!("{}/{id}", self.path);
        let change = json!({ "state": state }).to_string();
        self.call(Method::PATCH, &path, change).await
    }

    async fn call(&self, method: Method, path: &str, json: String) -> Result<Answer, BoxError> {
        let body = Full::from(json).map_err(|never| match never {});
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(body.boxed_unsync())?;
        self.send(request).await
    }

    async fn send(&self, request: Request<Body>) -> Result<Answer, BoxError> {
        let (mut head, body) = self.client.clone().oneshot(request).await?.into_parts();
        let body = body.collect().await.map_err(Into::into)?.to_bytes();
        Ok(Answer {
            status: head.status,
            outcome: head.extensions.remove(),
            body,
        })
    }
}

struct Answer {
    status: StatusCode,
    outcome: Option<AuthOutcome>,
    body: Bytes,
}

impl Answer {
    fn job(&self, what: &str) -> Result<Job, BoxError> {
        if self.status != StatusCode::OK {
            return Err(self.refusal(what));
        }
        let job = self.read();
        job.map_err(|error| format!("the org did not {what}: its answer is no job: {error}").into())
    }

    fn refusal(&self, what: &str) -> BoxError {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Refusal {
            error_code: String,
            message: String,
        }
        let refusals: Vec<Refusal> = self.read().unwrap_or_default();
        let mut text = format!("the org did not {what}: {}", self.status);
        for Refusal {
            error_code,
            message,
        } in refusals
        {
            text = format!("{text}, {error_code}: {message}");
        }
        text.into()
    }

    fn read<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_slice(&self.body)
    }
}
