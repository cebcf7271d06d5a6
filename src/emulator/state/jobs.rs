//! Ingest jobs and their states, without HTTP.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ids::USER_ID;
use super::upload::Upload;

/// The time of creation and of the last change of every job.
const CREATED_DATE: &str = "2025-06-15T15:06:40.000+0000";

/// The properties of a job that its creator sets.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobOrder {
    pub(crate) object: String,
    pub(crate) operation: JobOperation,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) external_id_field_name: Option<String>,
    #[serde(default)]
    content_type: ContentType,
    #[serde(default)]
    line_ending: LineEnding,
    #[serde(default)]
    column_delimiter: ColumnDelimiter,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum JobOperation {
    Insert,
    Update,
    Upsert,
    Delete,
    HardDelete,
}

#[derive(Clone, Copy, Default, Deserialize, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum ContentType {
    #[default]
    Csv,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum LineEnding {
    #[default]
    Lf,
    CrLf,
}

#[derive(Clone, Copy, Default, Deserialize, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum ColumnDelimiter {
    Backquote,
    Caret,
    #[default]
    Comma,
    Pipe,
    Semicolon,
    Tab,
}

/// The state of a job.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) enum JobState {
    Open,
    UploadComplete,
    InProgress,
    JobComplete,
    Aborted,
    Failed,
}

/// The reason why a request for a job fails.
pub(crate) enum JobRefusal {
    NoSuchJob,
    /// The request does not fit the state of the job.
    InvalidState(JobState),
    /// The job has its content already.
    HasContent,
}

/// The jobs of one org, by id.
#[derive(Default)]
pub(crate) struct Jobs {
    by_id: BTreeMap<String, Job>,
    created: u64,
}

struct Job {
    id: String,
    /// The API version, for example `66.0`.
    version: f64,
    order: JobOrder,
    state: JobState,
    content: Option<Upload>,
}

impl Jobs {
    /// Creates a job and returns its summary.
    pub(crate) fn create(&mut self, version: f64, order: JobOrder) -> Value {
        self.created += 1;
        // Record ids end with `AAA` too.
        let id = format!("750xx{:0>10}AAA", self.created);
        let job = Job {
            id: id.clone(),
            version,
            order,
            state: JobState::Open,
            content: None,
        };
        let summary = job.summary();
        self.by_id.insert(id, job);
        summary
    }

    /// Whether the job waits for its content.
    pub(crate) fn expects_content(&self, id: &str) -> Result<(), JobRefusal> {
        let job = self.by_id.get(id).ok_or(JobRefusal::NoSuchJob)?;
        match (job.state, &job.content) {
            (JobState::Open, None) => Ok(()),
            (JobState::Open, Some(_)) => Err(JobRefusal::HasContent),
            (state, _) => Err(JobRefusal::InvalidState(state)),
        }
    }

    /// Stores the content of the job.
    pub(crate) fn fill(&mut self, id: &str, content: Upload) -> Result<(), JobRefusal> {
        // Another upload may have ended first.
        self.expects_content(id)?;
        self.get_mut(id)?.content = Some(content);
        Ok(())
    }

    /// Closes or aborts the job.
    pub(crate) fn change(&mut self, id: &str, to: JobState) -> Result<Value, JobRefusal> {
        let job = self.get_mut(id)?;
        let is_possible = match to {
            JobState::UploadComplete => job.state == JobState::Open,
            JobState::Aborted => !job.state.is_final(),
            _ => false,
        };
        if !is_possible {
            return Err(JobRefusal::InvalidState(job.state));
        }
        job.state = to;
        Ok(job.summary())
    }

    /// Returns the details of the job, and moves the job one state further.
    pub(crate) fn look_at(&mut self, id: &str) -> Result<Value, JobRefusal> {
        let job = self.get_mut(id)?;
        job.state = match job.state {
            JobState::UploadComplete => JobState::InProgress,
            JobState::InProgress if job.has_other_line_ending() => JobState::Failed,
            JobState::InProgress => JobState::JobComplete,
            state => state,
        };
        Ok(job.details())
    }

    pub(crate) fn delete(&mut self, id: &str) -> Result<(), JobRefusal> {
        match self.get_mut(id)?.state {
            state @ (JobState::Open | JobState::InProgress) => Err(JobRefusal::InvalidState(state)),
            _ => {
                self.by_id.remove(id);
                Ok(())
            }
        }
    }

    pub(crate) fn upload(&self, id: &str) -> Option<&Upload> {
        self.by_id.get(id)?.content.as_ref()
    }

    fn get_mut(&mut self, id: &str) -> Result<&mut Job, JobRefusal> {
        self.by_id.get_mut(id).ok_or(JobRefusal::NoSuchJob)
    }
}

impl JobState {
    fn is_final(self) -> bool {
        matches!(self, Self::JobComplete | Self::Aborted | Self::Failed)
    }
}

impl Job {
    fn has_other_line_ending(&self) -> bool {
        let ends_with_crlf = self.content.as_ref().and_then(|it| it.ends_with_crlf);
        let expected = self.order.line_ending == LineEnding::CrLf;
        ends_with_crlf.is_some_and(|ends_with_crlf| ends_with_crlf != expected)
    }

    /// The answer to the creation or change of a job.
    fn summary(&self) -> Value {
        let mut summary = json!({
            "id": self.id,
            "createdById": USER_ID,
            "createdDate": CREATED_DATE,
            "systemModstamp": CREATED_DATE,
            "state": self.state,
            "concurrencyMode": "Parallel",
            "apiVersion": self.version,
        });
        if let JobState::Open = self.state {
            let (version, id) = (self.version, &self.id);
            let url = format!("services/data/v{version:.1}/jobs/ingest/{id}/batches");
            summary["contentUrl"] = url.into();
        }
        if let (Some(summary), Ok(Value::Object(order))) =
            (summary.as_object_mut(), serde_json::to_value(&self.order))
        {
            summary.extend(order);
        }
        summary
    }

    /// The answer to a request for the job.
    fn details(&self) -> Value {
        let mut details = self.summary();
        let processed = match (self.state, &self.content) {
            (JobState::JobComplete, Some(content)) => content.records,
            _ => 0,
        };
        details["jobType"] = "V2Ingest".into();
        details["numberRecordsProcessed"] = processed.into();
        for count in [
            "numberRecordsFailed",
            "retries",
            "totalProcessingTime",
            "apiActiveProcessingTime",
            "apexProcessingTime",
        ] {
            details[count] = 0.into();
        }
        if let JobState::Failed = self.state {
            let setting = match self.order.line_ending {
                LineEnding::Lf => "LF",
                LineEnding::CrLf => "CRLF",
            };
            let message = format!(
                "ClientInputError : LineEnding is invalid on user data. \
                 Current LineEnding setting is {setting}"
            );
            details["errorMessage"] = message.into();
        }
        details
    }
}
