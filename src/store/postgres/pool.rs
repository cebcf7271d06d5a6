//! A few connections that all calls of a store share.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};
use tokio_postgres::{
    Row,
    error::{DbError, Severity, SqlState},
};

use super::{
    connection::Connection,
    failure::{Failure, late, of_statement, unavailable},
    server::Server,
    statement::Parameter,
    table::Table,
};
use crate::error::StoreError;

/// How long a connection that is not used stays open: a process at rest has none.
const LONGEST_IDLE: Duration = Duration::from_secs(60);

/// The connections. Each is taken for one statement.
pub(super) struct Pool {
    server: Server,
    table: Arc<Table>,
    /// For the wait for a connection, for connecting, and for the answer together.
    timeout: Duration,
    permits: Semaphore,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    /// Each connection with the time of its last use, the last one at the end.
    connections: Vec<(Connection, Instant)>,
    /// Closes them. `None` if there never were any.
    closer: Option<JoinHandle<()>>,
}

impl Pool {
    pub(super) fn new(
        server: Server,
        table: Arc<Table>,
        connections: usize,
        timeout: Duration,
    ) -> Self {
        Self {
            server,
            table,
            timeout,
            permits: Semaphore::new(connections.clamp(1, Semaphore::MAX_PERMITS)),
            idle: Mutex::default(),
        }
    }

    /// Runs one statement. The connection is free again when it has been answered.
    pub(super) async fn query(
        self: &Arc<Self>,
        sql: &str,
        parameters: &[Parameter],
    ) -> Result<Vec<Row>, Failure> {
        let deadline = Instant::now() + self.timeout;
        let permit = timeout_at(deadline, self.permits.acquire()).await;
        let Ok(Ok(_permit)) = permit else {
            return Err(late(
                "all connections to PostgreSQL are in use: no other call of this store ended",
                self.timeout,
            )
            .into());
        };
        let connection = match self.take() {
            Some(connection) => connection,
            None => Connection::open(&self.server, deadline).await?,
        };
        match timeout_at(deadline, connection.query(sql, parameters)).await {
            Ok(Ok(rows)) => {
                self.put_back(connection);
                Ok(rows)
            }
            Ok(Err(error)) => {
                let failure = of_statement(&error, &self.table, self.server.password.as_ref());
                // After a graver one the server ends the connection.
                let severity = error.as_db_error().and_then(DbError::parsed_severity);
                if error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION) {
                    // Another server may be the primary now. The other connections lead to the same one.
                    self.close_all_idle();
                } else if severity == Some(Severity::Error) {
                    self.put_back(connection);
                }
                Err(failure)
            }
            Err(_) => {
                // The others may be as dead as this one, which is closed: its answer may still come.
                self.close_all_idle();
                Err(late("PostgreSQL did not answer a statement", self.timeout).into())
            }
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close_all_idle(&self) {
        drop(mem::take(&mut self.idle().connections));
    }

    fn take(&self) -> Option<Connection> {
        let mut idle = self.idle();
        loop {
            let (connection, _) = idle.connections.pop()?;
            if !connection.is_closed() {
                return Some(connection);
            }
        }
    }

    fn put_back(self: &Arc<Self>, connection: Connection) {
        let mut idle = self.idle();
        idle.connections.push((connection, Instant::now()));
        // It is over too if its runtime is.
        if idle.closer.as_ref().is_none_or(JoinHandle::is_finished) {
            idle.closer = Some(tokio::spawn(close_idle(Arc::downgrade(self))));
        }
    }
}

/// Closes connections that are not used, until there are none.
async fn close_idle(pool: Weak<Pool>) {
    loop {
        sleep(LONGEST_IDLE).await;
        let Some(pool) = pool.upgrade() else {
            return;
        };
        let mut idle = pool.idle();
        idle.connections.retain(|(connection, since)| {
            since.elapsed() < LONGEST_IDLE && !connection.is_closed()
        });
        if idle.connections.is_empty() {
            idle.closer = None;
            return;
        }
    }
}

/// The error of a call whose runtime ended.
pub(super) fn shut_down() -> StoreError {
    unavailable("the runtime of the session store was shut down")
}
