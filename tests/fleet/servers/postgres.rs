//! A PostgreSQL server.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use tempfile::TempDir;

use super::{find, free_port, is_missing, server::Server, text};

/// What each server has, unless a test says otherwise. The tests kill processes and no machines, so nothing is flushed.
const SETTINGS: [&str; 8] = [
    "listen_addresses=127.0.0.1",
    "fsync=off",
    "full_page_writes=off",
    "logging_collector=off",
    "log_destination=stderr",
    "lc_messages=C",
    "max_connections=50",
    "shared_buffers=16MB",
];

const READY: &str = "database system is ready to accept connections";

/// A server of a test, with a superuser `postgres` who needs no password. Dropping it ends the server and deletes its data.
#[derive(Debug)]
pub(crate) struct Postgres {
    port: u16,
    programs: PathBuf,
    server: Server,
    directory: TempDir,
}

impl Postgres {
    /// Starts a server. `None` if none is installed.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// Starts a server with more settings, such as `["max_connections=5"]`. `None` if none is installed.
    pub(crate) fn start_with(settings: &[&str]) -> Option<Self> {
        let Some(programs) = programs() else {
            is_missing("PostgreSQL", "with PostgreSQL", "postgresql");
            return None;
        };
        let user = User::of_servers();
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        copy(&template(&programs, &user), &data, &user);
        user.own(directory.path());
        let port = free_port();
        let mut command = user.command(&programs.join("postgres"));
        command.extend(["-D", text(&data), "-p", &port.to_string()].map(ToOwned::to_owned));
        let sockets = format!("unix_socket_directories={}", text(directory.path()));
        for setting in SETTINGS.iter().chain([&&*sockets]).chain(settings) {
            command.extend(["-c".to_owned(), (*setting).to_owned()]);
        }
        Some(Self {
            port,
            programs,
            // Its processes end at once.
            server: Server::start(command, "QUIT", READY),
            directory,
        })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The URL of its database `postgres`, for its superuser.
    pub(crate) fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// The URL of its database `postgres`, for this user, to which a password may be added: `user:password`.
    pub(crate) fn url_of(&self, user: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/postgres", self.port)
    }

    /// Where its socket is, and its data below `data`.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What the server has logged since it was started.
    pub(crate) fn log(&self) -> String {
        self.server.log()
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

    /// Stops all of its processes from running: connections stay open, and nothing answers.
    pub(crate) fn pause(&self) {
        // No other process starts when the first has stopped.
        self.server.signal("STOP");
        self.signal_children("STOP");
    }

    /// Lets paused processes run.
    pub(crate) fn resume(&self) {
        self.signal_children("CONT");
        self.server.signal("CONT");
    }

    /// Each process of the server is a group of its own.
    fn signal_children(&self, signal: &str) {
        let pid = fs::read_to_string(self.directory().join("data/postmaster.pid")).unwrap();
        let pid = pid.lines().next().unwrap();
        let processes = output(Command::new("ps").args(["-A", "-o", "pid=,ppid="]));
        let children = processes.lines().filter_map(|line| {
            let (child, parent) = line.trim().split_once(' ')?;
            (parent.trim() == pid).then_some(child)
        });
        // One may have ended meanwhile.
        for child in children {
            let mut kill = Command::new("sh");
            kill.args([
                "-c",
                "kill -s \"$1\" \"$2\" 2>/dev/null",
                "kill",
                signal,
                child,
            ]);
            drop(kill.status());
        }
    }

    /// Replaces the rules by which clients are let in, for example `host all all 127.0.0.1/32 scram-sha-256`. The tests come in by
    /// the socket all the same.
    pub(crate) fn let_in(&self, rules: &str) {
        let path = self.directory().join("data/pg_hba.conf");
        fs::write(path, format!("local all all trust\n{rules}\n")).unwrap();
        self.sql("SELECT pg_reload_conf()");
        // A new connection has the new rules once the server has read them.
        self.server.wait_for("received SIGHUP");
    }

    /// Lets the server use TLS, with a new certificate for `localhost`, which is returned in PEM.
    pub(crate) fn use_tls(&self) -> String {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let data = self.directory().join("data");
        let key = certified.signing_key.serialize_pem();
        for (name, text) in [("server.crt", certified.cert.pem()), ("server.key", key)] {
            let path = data.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            User::of_servers().own(&path);
        }
        self.sql("ALTER SYSTEM SET ssl = on");
        self.sql("SELECT pg_reload_conf()");
        self.server.wait_for("parameter \"ssl\" changed to \"on\"");
        certified.cert.pem()
    }

    /// Runs statements as the superuser, in one transaction each, and returns the rows, one a line, with `|` between the columns.
    pub(crate) fn sql(&self, statements: &str) -> String {
        let port = self.port.to_string();
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1"])
            .args(["-h", text(self.directory()), "-p", &port])
            .args(["-U", "postgres", "-d", "postgres", "-c", statements]);
        output(&mut psql).trim_end().to_owned()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.server.is_running() {
            self.signal_children("CONT");
        }
    }
}

/// Where the programs of the newest PostgreSQL are. `None` if none is installed.
fn programs() -> Option<PathBuf> {
    let is_whole = |programs: &PathBuf| {
        let mut needed = ["postgres", "initdb", "psql"].iter();
        needed.all(|program| programs.join(program).is_file())
    };
    let on_path = find(&["postgres"]).and_then(|program| {
        let program = program.canonicalize().ok()?;
        program.parent().map(Path::to_owned)
    });
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut packaged: Vec<_> = versions
        .filter_map(|version| Some(version.ok()?.path().join("bin")))
        .collect();
    packaged.sort();
    on_path
        .into_iter()
        .chain(packaged.into_iter().rev())
        .find(is_whole)
}

/// Who runs the servers.
pub(super) struct User {
    /// The ids of the user and of its group, if it is another one than that of the tests. PostgreSQL refuses to run as root.
    ids: Option<(u32, u32)>,
}

impl User {
    pub(super) fn of_servers() -> Self {
        let is_root = fs::metadata("/proc/self").map_or_else(
            |_| output(Command::new("id").arg("-u")).trim() == "0",
            |own| own.uid() == 0,
        );
        let ids = is_root.then(|| {
            let name = ["postgres", "daemon"]
                .into_iter()
                .find(|name| id("-u", name).is_some())
                .expect("a user who is not root");
            (id("-u", name).unwrap(), id("-g", name).unwrap())
        });
        Self { ids }
    }

    /// A command line that runs this program as the user.
    pub(super) fn command(&self, program: &Path) -> Vec<String> {
        let mut command = Vec::new();
        if let Some((user, group)) = self.ids {
            let (user, group) = (format!("--reuid={user}"), format!("--regid={group}"));
            command.extend([
                "setpriv".to_owned(),
                user,
                group,
                "--clear-groups".to_owned(),
            ]);
        }
        command.push(text(program).to_owned());
        command
    }

    pub(super) fn own(&self, path: &Path) {
        if let Some((user, group)) = self.ids {
            chown(path, Some(user), Some(group)).unwrap();
        }
    }
}

/// The id of a user or of its group.
fn id(which: &str, name: &str) -> Option<u32> {
    let found = Command::new("id").args([which, name]).output().ok()?;
    String::from_utf8(found.stdout).ok()?.trim().parse().ok()
}

/// The directory of a server that was never started. Making one takes seconds, so it is kept among the artifacts of the tests.
fn template(programs: &Path, user: &User) -> PathBuf {
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let version = output(Command::new(programs.join("postgres")).arg("--version"));
    let version: String = version
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fleet-{version}"));
    if path.is_dir() {
        return path;
    }
    let made = tempfile::tempdir().unwrap();
    user.own(made.path());
    let data = made.path().join("data");
    let command = user.command(&programs.join("initdb"));
    let mut initdb = Command::new(&command[0]);
    initdb
        .args(&command[1..])
        .args([
            "-D",
            text(&data),
            "-U",
            "postgres",
            "--auth=trust",
            "--no-sync",
        ])
        .args(["--encoding=UTF8", "--locale=C", "--wal-segsize=1"])
        .current_dir(made.path());
    output(&mut initdb);
    // Another process may make one at the same time: the first one counts.
    let copied = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    copy(&data, &copied.path().join("data"), &User { ids: None });
    drop(fs::rename(copied.path().join("data"), &path));
    path
}

/// Copies a directory, for this user alone.
fn copy(from: &Path, to: &Path, user: &User) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
    user.own(to);
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to, user);
        } else {
            fs::copy(entry.path(), &to).unwrap();
            user.own(&to);
        }
    }
}

/// What a program prints.
///
/// # Panics
///
/// If it fails.
fn output(command: &mut Command) -> String {
    let ended = command.output().unwrap();
    let error = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{command:?}: {error}");
    String::from_utf8(ended.stdout).unwrap()
}
