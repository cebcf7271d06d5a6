//! Bulk API 2.0: the jobs that take data in.

mod endpoint;
mod job;
mod upload;

pub(super) use endpoint::answer;
pub(super) use job::Jobs;
pub use upload::Upload;
