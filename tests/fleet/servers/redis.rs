//! A Redis or Valkey server.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::Path,
    time::Duration,
};

use tempfile::TempDir;

use super::{find, free_port, is_missing, server::Server, text};

const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];

/// What each server has, unless a test says otherwise: it keeps every write over a crash.
const SETTINGS: [&str; 10] = [
    "--bind",
    "127.0.0.1",
    "--save",
    "",
    "--appendonly",
    "yes",
    "--appendfsync",
    "always",
    "--maxmemory-policy",
    "noeviction",
];

/// A server of a test. Dropping it ends the server and deletes its data.
#[derive(Debug)]
pub(crate) struct Redis {
    port: u16,
    server: Server,
    directory: TempDir,
}

impl Redis {
    /// Starts a server. `None` if none is installed.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// Starts a server with more settings, such as `["--requirepass", "password"]`. `None` if none is installed.
    pub(crate) fn start_with(settings: &[&str]) -> Option<Self> {
        let Some(program) = find(&PROGRAMS) else {
            is_missing("Redis", "with Redis", "redis-server");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let port_text = port.to_string();
        let own = ["--port", &port_text, "--dir", text(directory.path())];
        let command: Vec<_> = [text(&program)]
            .iter()
            .chain(&own)
            .chain(&SETTINGS)
            .chain(settings)
            .map(ToString::to_string)
            .collect();
        Some(Self {
            port,
            server: Server::start(command, "KILL", "eady to accept connections"),
            directory,
        })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The URL of its database 0, without a user.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Where its data is.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Starts the server after it was ended, with its data.
    pub(crate) fn start_again(&self) {
        self.server.start_again();
    }

    /// Kills the server, as a crash does.
    pub(crate) fn kill(&self) {
        self.server.kill();
    }

    /// Kills the server and starts it again.
    pub(crate) fn restart(&self) {
        self.server.restart();
    }

    /// Stops the process from running: connections stay open, and nothing answers.
    pub(crate) fn pause(&self) {
        self.server.signal("STOP");
    }

    /// Lets a paused process run.
    pub(crate) fn resume(&self) {
        self.server.signal("CONT");
    }

    /// Runs a command on a connection of its own, and returns the answer's text: `+` or `-` and a line, a bulk string, or the
    /// elements of an array, one a line.
    pub(crate) fn command(&self, command: &[&str]) -> String {
        self.commands(&[command])
    }

    /// Runs commands on one connection, for example `AUTH` before another. Returns the last answer.
    pub(crate) fn commands(&self, commands: &[&[&str]]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("a running server");
        let limit = Some(Duration::from_secs(30));
        stream.set_read_timeout(limit).unwrap();
        let mut answers = BufReader::new(stream.try_clone().unwrap());
        let mut last = String::new();
        for command in commands {
            let mut sent = format!("*{}\r\n", command.len()).into_bytes();
            for part in *command {
                write!(sent, "${}\r\n{part}\r\n", part.len()).unwrap();
            }
            stream.write_all(&sent).unwrap();
            last = answer(&mut answers);
        }
        last
    }

    /// Runs a command that must succeed.
    pub(crate) fn run(&self, command: &[&str]) -> String {
        let answer = self.command(command);
        let is_error = answer.starts_with('-') && answer.parse::<i64>().is_err();
        assert!(!is_error, "{command:?}: {answer}");
        answer
    }
}

/// Reads an answer (RESP2).
fn answer(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    let line = line.trim_end();
    let rest = line.get(1..).unwrap_or_default();
    match line.as_bytes().first() {
        Some(b'$') => {
            let Ok(length) = rest.parse::<usize>() else {
                return "(nil)".to_owned();
            };
            let mut text = vec![0; length + 2];
            from.read_exact(&mut text).unwrap();
            String::from_utf8_lossy(&text[..length]).into_owned()
        }
        Some(b'*') => {
            let elements = rest.parse().unwrap_or(0);
            let elements: Vec<_> = (0..elements).map(|_| answer(from)).collect();
            elements.join("\n")
        }
        Some(b':') => rest.to_owned(),
        _ => line.to_owned(),
    }
}
