//! A server process that ends with the test, however the test ends.

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, channel},
    },
    thread,
    time::Duration,
};

/// The server is the child of a shell that signals it, and kills it when the test's end of the pipe closes. The shell gives
/// its standard error to the server: the pipe ends when all processes of the server have ended.
const WATCH: &str = r#"
last=$1
shift
"$@" >&2 </dev/null &
server=$!
# A signal to the whole group, as of Ctrl-C, must not end the watch before the server.
trap '' HUP INT TERM
exec 2>/dev/null
echo "$server"
while read -r signal; do
    kill -s "$signal" "$server"
    echo done
done
kill -s CONT "$server"
kill -s "$last" "$server"
wait
"#;

/// How long a server may take to start, or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server. Dropping it ends the server.
#[derive(Debug)]
pub(crate) struct Process {
    shell: Child,
    /// What the shell reads signals from. `None` once it was told to end.
    signals: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    lines: Receiver<String>,
    log: Arc<Mutex<String>>,
}

impl Process {
    /// Starts a server, whose log goes to its standard output or error, and waits for this part of a line of the log. The
    /// signal `last` ends it, when the test has not ended it before.
    pub(crate) fn start(server: &[String], last: &str, ready: &str) -> Self {
        let mut shell = Command::new("sh")
            .args(["-c", WATCH, "watch", last])
            .args(server)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a shell");
        let (sender, lines) = channel();
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = BufReader::new(shell.stderr.take().unwrap());
        thread::spawn({
            let log = Arc::clone(&log);
            move || {
                for line in stderr.lines().map_while(Result::ok) {
                    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                    log.push_str(&line);
                    log.push('\n');
                    // A test may wait for no line.
                    drop(sender.send(line));
                }
            }
        });
        let mut process = Self {
            signals: shell.stdin.take(),
            answers: BufReader::new(shell.stdout.take().unwrap()),
            shell,
            lines,
            log,
        };
        process.answer();
        process.wait_for(ready);
        process
    }

    /// Waits for this part of a line of the log, after what was waited for before.
    pub(crate) fn wait_for(&mut self, part: &str) {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|error| {
                panic!("the server did not say {part:?}: {error}\n{}", self.log())
            });
            if line.contains(part) {
                return;
            }
        }
    }

    /// What the server has logged.
    pub(crate) fn log(&self) -> String {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Sends a signal, such as `STOP` or `CONT`.
    pub(crate) fn signal(&mut self, signal: &str) {
        writeln!(self.signals.as_mut().unwrap(), "{signal}").unwrap();
        assert_eq!(self.answer(), "done", "{}", self.log());
    }

    /// Sends a signal that ends the server, and waits until all of its processes have ended.
    pub(crate) fn end(&mut self, signal: &str) {
        self.signal(signal);
        while self.lines.recv_timeout(PATIENCE).is_ok() {}
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.signals.take());
        let mut rest = String::new();
        drop(self.answers.read_to_string(&mut rest));
        drop(self.shell.wait());
    }
}
