//! Jobs of Bulk API 1.0, without HTTP. They get no content.

/// The jobs of one org, in the order of their creation.
#[derive(Default)]
pub(crate) struct BulkJobs(Vec<BulkJob>);

pub(crate) struct BulkJob {
    pub(crate) id: String,
    pub(crate) operation: String,
    pub(crate) object: String,
    pub(crate) state: BulkJobState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum BulkJobState {
    Open,
    Closed,
    Aborted,
}

impl BulkJobState {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Open => "Open",
            Self::Closed => "Closed",
            Self::Aborted => "Aborted",
        }
    }

    /// The state that a client may set. `None` for any other word.
    pub(crate) fn to_set(name: &str) -> Option<Self> {
        [Self::Closed, Self::Aborted]
            .into_iter()
            .find(|state| state.name() == name)
    }
}

impl BulkJobs {
    pub(crate) fn create(&mut self, operation: String, object: String) -> &BulkJob {
        // Record ids end with `AAA` too.
        let id = format!("750xx{:0>10}AAA", self.0.len() + 1);
        self.0.push(BulkJob {
            id,
            operation,
            object,
            state: BulkJobState::Open,
        });
        &self.0[self.0.len() - 1]
    }

    pub(crate) fn get(&self, id: &str) -> Option<&BulkJob> {
        self.0.iter().find(|job| job.id == id)
    }

    /// Changes the state of an open job. `None` if there is no such job, or it is not open.
    pub(crate) fn set(&mut self, id: &str, state: BulkJobState) -> Option<&BulkJob> {
        let job = self.0.iter_mut().find(|job| job.id == id)?;
        if job.state != BulkJobState::Open {
            return None;
        }
        job.state = state;
        Some(job)
    }
}
