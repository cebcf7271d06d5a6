//! One connection.

use std::future::poll_fn;

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_postgres::{AsyncMessage, Client, Error, Row, types::ToSql};

use super::{
    failure::{late, of_connection, unavailable},
    server::{Host, Server},
    statement::Parameter,
    tls::Connector,
};
use crate::error::StoreError;

/// A connection, and the task that drives it. Dropping it closes the connection, also if the server owes an answer.
pub(super) struct Connection {
    client: Client,
    /// The notices that have come, if it listens: each is the payload.
    pub(super) notices: mpsc::UnboundedReceiver<String>,
    driver: JoinHandle<()>,
}

impl Connection {
    /// Connects to the first server of the URL that takes writes.
    pub(super) async fn open(server: &Server, deadline: Instant) -> Result<Self, StoreError> {
        let connector = server.connector()?;
        let mut failures = Vec::new();
        for (index, host) in server.hosts.iter().enumerate() {
            // A server that hangs leaves time for the others.
            let left = deadline.saturating_duration_since(Instant::now());
            let hosts = u32::try_from(server.hosts.len() - index).unwrap_or(u32::MAX);
            let opening = Self::open_at(host, connector.clone(), server);
            match timeout(left / hosts, opening).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => failures.push(error),
                Err(_) => failures.push(late(
                    format!("PostgreSQL at {} did not accept a connection", host.place),
                    left / hosts,
                )),
            }
        }
        if failures.len() > 1 {
            let all: Vec<_> = failures.iter().map(ToString::to_string).collect();
            let all = all.join("; ");
            return Err(unavailable(format!(
                "no server of the URL takes writes: {all}"
            )));
        }
        let failure = failures.pop();
        Err(failure.unwrap_or_else(|| unavailable("the URL of the database names no host")))
    }

    async fn open_at(
        host: &Host,
        connector: Connector,
        server: &Server,
    ) -> Result<Self, StoreError> {
        match host.config.connect(connector).await {
            Ok((client, connection)) => Ok(Self::drive(client, connection)),
            Err(error) => Err(of_connection(error, &host.place, server.password.as_ref())),
        }
    }

    fn drive<S, T>(client: Client, mut connection: tokio_postgres::Connection<S, T>) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, notices) = mpsc::unbounded_channel();
        let driver = tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notification(notice) = message {
                    // A connection that does not listen gets none.
                    drop(sender.send(notice.payload().to_owned()));
                }
            }
        });
        Self {
            client,
            notices,
            driver,
        }
    }

    /// Runs one statement, without a name: a pooler may give each statement to another server connection.
    pub(super) async fn query(
        &self,
        sql: &str,
        parameters: &[Parameter],
    ) -> Result<Vec<Row>, Error> {
        let typed: Vec<_> = parameters
            .iter()
            .map(|parameter| (parameter as &(dyn ToSql + Sync), parameter.kind()))
            .collect();
        self.client.query_typed(sql, &typed).await
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
