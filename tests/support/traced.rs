//! Captures `tracing` while a test runs.

use std::{
    io,
    sync::{Arc, LazyLock, Mutex},
};

use tracing::{Dispatch, Level, subscriber::DefaultGuard};
use tracing_subscriber::fmt::format::FmtSpan;

/// The events and spans of this thread, as text.
#[derive(Clone, Default)]
pub(crate) struct Traced(Arc<Mutex<Vec<u8>>>);

impl Traced {
    pub(crate) fn begin() -> (Self, DefaultGuard) {
        // With a single subscriber, `tracing` asks only the first thread at a callsite whether it is enabled, and caches
        // the answer for all threads. A second subscriber makes it ask each time.
        static ANOTHER: LazyLock<Dispatch> = LazyLock::new(|| {
            let all = tracing_subscriber::fmt().with_max_level(Level::TRACE);
            Dispatch::new(all.with_writer(io::sink).finish())
        });
        LazyLock::force(&ANOTHER);
        let traced = Self::default();
        let writer = traced.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::TRACE)
            .with_span_events(FmtSpan::FULL)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (traced, tracing::subscriber::set_default(subscriber))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Traced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
