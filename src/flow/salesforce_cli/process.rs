//! One call of the CLI: a child process that is bounded, and that does not outlive its call (R45).

use std::{ffi::OsStr, io, process::Stdio};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
};

/// The longest output that is read, in bytes, for each of the two streams. The CLI prints some thousand.
const LONGEST: u64 = 1 << 20;

/// What a call printed, and how it ended.
pub(super) struct Output {
    pub(super) stdout: String,
    pub(super) stderr: String,
    /// The exit code. `None` if a signal ended the process.
    pub(super) code: Option<i32>,
}

/// Why there is no output.
#[derive(Debug)]
pub(super) enum Failure {
    /// The program could not be started.
    Start(io::Error),
    /// There was more output than the CLI prints.
    TooLong,
    /// The output could not be read.
    Read(io::Error),
}

/// Runs the program to its end. Dropping the future kills it, with all that it started.
pub(super) async fn run(program: &OsStr, arguments: &[&str]) -> Result<Output, Failure> {
    let mut child = command(program, arguments)
        .spawn()
        .map_err(Failure::Start)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let group = Group::of(&child);
    let end = async {
        let status = child.wait().await.map_err(Failure::Read)?;
        // What it left behind might keep the streams open.
        group.end();
        Ok(status.code())
    };
    let (stdout, stderr, code) = tokio::try_join!(read(stdout), read(stderr), end)?;
    Ok(Output {
        stdout,
        stderr,
        code,
    })
}

fn command(program: &OsStr, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env("NO_COLOR", "1")
        .env_remove("FORCE_COLOR")
        // Each of these would start a process in the background, which outlives the call.
        .env("SF_AUTOUPDATE_DISABLE", "true")
        .env("SF_DISABLE_TELEMETRY", "true")
        .env("SF_SKIP_NEW_VERSION_CHECK", "true")
        .kill_on_drop(true);
    // The program is often a script that starts another.
    #[cfg(unix)]
    command.process_group(0);
    command
}

/// Reads a stream to its end.
async fn read(stream: Option<impl AsyncRead + Unpin>) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        let mut bounded = stream.take(LONGEST + 1);
        bounded
            .read_to_end(&mut bytes)
            .await
            .map_err(Failure::Read)?;
    }
    if bytes.len() as u64 > LONGEST {
        return Err(Failure::TooLong);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The process and all that it started. Dropping it kills them.
struct Group {
    /// The id of the process, which is that of its group, too. `None` if it has ended.
    id: Option<u32>,
}

impl Group {
    fn of(child: &Child) -> Self {
        Self { id: child.id() }
    }

    /// Kills what the process left behind when it ended.
    fn end(mut self) {
        // Elsewhere the rest cannot be found any longer.
        if cfg!(not(unix)) {
            self.id = None;
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            kill(id);
        }
    }
}

/// Kills a process group. It may be empty.
///
/// Its id belongs to no other group: it is in use until the process has been waited for, or a moment ago.
#[cfg(unix)]
fn kill(id: u32) {
    use rustix::process::{Pid, Signal, kill_process_group};

    if let Some(group) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        // An error says that none is left.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// Kills a process that still runs, and its descendants.
#[cfg(windows)]
fn kill(id: u32) {
    // `sf.cmd` runs in a shell, whose end would leave its child.
    let id = id.to_string();
    let _ = std::process::Command::new("taskkill")
        .args(["/F", "/T", "/PID", &id])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

#[cfg(not(any(unix, windows)))]
fn kill(_id: u32) {}
