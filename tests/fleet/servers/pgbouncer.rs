//! A `PgBouncer` in front of a PostgreSQL server, in transaction mode.

use std::fs;

use tempfile::TempDir;

use super::{
    Process, find, free_port, is_missing,
    postgres::{Postgres, User},
    text,
};

/// A pooler of a test, with two connections to the server. Dropping it ends the pooler.
#[derive(Debug)]
pub(crate) struct PgBouncer {
    port: u16,
    _process: Process,
    _directory: TempDir,
}

impl PgBouncer {
    /// Starts a pooler. `None` if none is installed.
    pub(crate) fn start(postgres: &Postgres) -> Option<Self> {
        let Some(program) = find(&["pgbouncer"]) else {
            is_missing("PgBouncer", "with PgBouncer", "pgbouncer");
            return None;
        };
        let user = User::of_servers();
        let directory = tempfile::tempdir().unwrap();
        user.own(directory.path());
        let port = free_port();
        let settings = directory.path().join("pgbouncer.ini");
        let server = postgres.port();
        fs::write(
            &settings,
            format!(
                "[databases]\npostgres = host=127.0.0.1 port={server} user=postgres\n\
                 [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\n\
                 unix_socket_dir =\npool_mode = transaction\ndefault_pool_size = 2\n"
            ),
        )
        .unwrap();
        user.own(&settings);
        let mut command = user.command(&program);
        command.push(text(&settings).to_owned());
        Some(Self {
            port,
            _process: Process::start(&command, "KILL", "process up"),
            _directory: directory,
        })
    }

    /// The URL of the database `postgres`, for its superuser.
    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }
}
