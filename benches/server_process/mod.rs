//! A server in another process: this program again, so that its instructions are not those of the client.

use std::{
    env,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

/// The argument with which this program serves.
pub(crate) const SERVE: &str = "--serve";

/// The server in another process, which ends with this value.
pub(crate) struct ServerProcess {
    child: Child,
    pub(crate) origin: String,
}

impl ServerProcess {
    pub(crate) fn start() -> Self {
        let program = env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .arg(SERVE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a server");
        let mut origin = String::new();
        let output = child.stdout.take().expect("its output");
        BufReader::new(output)
            .read_line(&mut origin)
            .expect("its origin");
        Self {
            child,
            origin: origin.trim().to_string(),
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Its input ends.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// In the other process: tells the origin of the server that runs, and waits until the standard input ends.
pub(crate) fn serve_until_input_ends(origin: &str) {
    println!("{origin}");
    let mut line = String::new();
    let _ = std::io::stdin().read_line(&mut line);
}
