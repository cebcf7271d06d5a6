//! A server that is killed and started again.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Process;

/// A server with the command that starts it. Dropping it ends the server.
#[derive(Debug)]
pub(super) struct Server {
    /// The command that starts it, each time.
    command: Vec<String>,
    /// The signal that ends it with the test.
    last: &'static str,
    /// What its log has once it answers.
    ready: &'static str,
    /// The process. `None` while it is ended.
    process: Mutex<Option<Process>>,
}

impl Server {
    pub(super) fn start(command: Vec<String>, last: &'static str, ready: &'static str) -> Self {
        let server = Self {
            command,
            last,
            ready,
            process: Mutex::new(None),
        };
        server.start_again();
        server
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_running(&self) -> bool {
        self.process().is_some()
    }

    /// Starts the server after it was ended, with its data.
    pub(super) fn start_again(&self) {
        let started = Process::start(&self.command, self.last, self.ready);
        *self.process() = Some(started);
    }

    /// Kills the server, as a crash does.
    pub(super) fn kill(&self) {
        if let Some(mut process) = self.process().take() {
            process.end("KILL");
        }
    }

    /// Kills the server and starts it again.
    pub(super) fn restart(&self) {
        self.kill();
        self.start_again();
    }

    pub(super) fn signal(&self, signal: &str) {
        let mut process = self.process();
        process.as_mut().expect("a running server").signal(signal);
    }

    /// Waits for this part of a line of the log, after what was waited for before.
    pub(super) fn wait_for(&self, part: &str) {
        let mut process = self.process();
        process.as_mut().expect("a running server").wait_for(part);
    }

    /// What the server has logged since it was started.
    pub(super) fn log(&self) -> String {
        let process = self.process();
        process.as_ref().map(Process::log).unwrap_or_default()
    }
}
