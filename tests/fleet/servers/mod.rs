//! Servers that the tests start on loopback ports, with their data in a temporary directory.
//!
//! A test begins with `let Some(redis) = Redis::start() else { return };`. Where the server is not installed, one line on the
//! standard error says so, and the test passes. With `FLEET_SERVERS=required`, as `.ci/run` sets it, the test fails.

pub(crate) mod pgbouncer;
pub(crate) mod postgres;
mod process;
pub(crate) mod redis;
mod server;

use std::{
    collections::HashSet,
    env,
    io::{self, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    sync::{LazyLock, Mutex, PoisonError},
};

pub(crate) use process::Process;

/// Where packages put servers that are not on every user's `PATH`.
const DIRECTORIES: [&str; 5] = [
    "/usr/bin",
    "/usr/sbin",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/opt/homebrew/bin",
];

/// The first of these programs that is installed, on the `PATH` or where packages put it.
pub(crate) fn find(programs: &[&str]) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories: Vec<_> = env::split_paths(&path)
        .chain(DIRECTORIES.map(PathBuf::from))
        .collect();
    programs.iter().find_map(|program| {
        let paths = directories.iter().map(|directory| directory.join(program));
        paths.into_iter().find(|path| path.is_file())
    })
}

/// Says once in this process that the tests of a server do not run.
///
/// # Panics
///
/// If the environment requires the servers.
pub(crate) fn is_missing(server: &str, tests: &str, package: &str) {
    static TOLD: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);
    let line = format!(
        "tests/fleet: {server} is not installed, so the tests {tests} did not run: `apt-get install {package}`"
    );
    let is_required = env::var_os("FLEET_SERVERS").is_some_and(|value| value == "required");
    assert!(!is_required, "{line}");
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if told.insert(server.to_owned()) {
        // Unlike `eprintln`, it is not captured.
        drop(writeln!(io::stderr(), "{line}"));
    }
}

/// A port that no program listens at, and that no other call of this process has returned.
pub(crate) fn free_port() -> u16 {
    static TAKEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);
    loop {
        // The system's own choice is a port that any connection may take while the server restarts.
        let random = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = 10_000 + random.local_addr().unwrap().port() % 20_000;
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && taken.insert(port) {
            return port;
        }
    }
}

/// The text of a path that these tests have made.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
