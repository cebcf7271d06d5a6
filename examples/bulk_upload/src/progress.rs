//! The progress of an upload, on a bar that starts again with each attempt.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use indicatif::{ProgressBar, ProgressStyle};
use tower_salesforce_auth::BoxError;

#[derive(Clone)]
pub(crate) struct Progress {
    bar: ProgressBar,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    attempts: AtomicU64,
    sent: AtomicU64,
}

impl Progress {
    pub(crate) fn new(length: u64) -> Result<Self, BoxError> {
        let style = ProgressStyle::with_template(
            "  {prefix} {bar:40} {bytes} of {total_bytes}, {bytes_per_sec}",
        )?;
        Ok(Self {
            bar: ProgressBar::new(length).with_style(style),
            counts: Arc::default(),
        })
    }

    /// Starts an attempt: the layer has asked for a body.
    pub(crate) fn begin(&self) {
        let attempt = self.counts.attempts.fetch_add(1, Ordering::Relaxed) + 1;
        if attempt > 1 {
            let reached = self.bar.position();
            self.bar.suspend(|| {
                println!("  Rejected after {reached} bytes. The session is refreshed, and the file is sent again.");
            });
        }
        self.bar.set_prefix(format!("attempt {attempt}"));
        self.bar.reset();
    }

    /// Adds bytes that the transport has taken.
    pub(crate) fn sent(&self, bytes: usize) {
        self.counts.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.bar.inc(bytes as u64);
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// The number of bodies made.
    pub(crate) fn attempts(&self) -> u64 {
        self.counts.attempts.load(Ordering::Relaxed)
    }

    /// The bytes sent by all attempts.
    pub(crate) fn bytes(&self) -> u64 {
        self.counts.sent.load(Ordering::Relaxed)
    }
}
