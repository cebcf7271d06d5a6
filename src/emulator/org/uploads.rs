//! The content of ingest jobs.

use super::Org;
use crate::emulator::state::upload::Upload;

impl Org {
    /// The content that the ingest job with this id received. `None` if there is no such job, or no
    /// upload has finished.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http::{Request, StatusCode};
    /// use http_body_util::{BodyExt, Full};
    /// use tower::ServiceExt;
    /// use tower_salesforce_auth::emulator::Org;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    /// let org = Org::new();
    /// let authorization = format!("Bearer {}", org.authorize().access_token());
    ///
    /// let request = Request::post("/services/data/v66.0/jobs/ingest")
    ///     .header("authorization", &authorization)
    ///     .body(Full::<Bytes>::from(r#"{"object":"Account","operation":"insert"}"#))?;
    /// let response = org.clone().oneshot(request).await?;
    /// let body = response.into_body().collect().await?.to_bytes();
    /// let job: serde_json::Value = serde_json::from_slice(&body)?;
    /// let id = job["id"].as_str().unwrap_or_default();
    ///
    /// let request = Request::put(format!("/services/data/v66.0/jobs/ingest/{id}/batches"))
    ///     .header("authorization", &authorization)
    ///     .body(Full::<Bytes>::from("Name\nAcme\nGlobex\n"))?;
    /// assert_eq!(org.clone().oneshot(request).await?.status(), StatusCode::CREATED);
    /// assert_eq!(org.upload(id).map(|upload| upload.records), Some(2));
    /// # Ok(())
    /// # }
    /// ```
    pub fn upload(&self, job_id: &str) -> Option<Upload> {
        self.state().jobs.upload(job_id).cloned()
    }
}
