//! What went wrong at the server, and what to do. Never with what the server says of single values.

use std::{borrow::Cow, fmt::Display, io, time::Duration};

use tokio_postgres::{Error, error::DbError};

use super::table::Table;
use crate::{
    error::{StoreError, StoreErrorKind},
    secret::Secret,
    text::redact::redact,
};

/// A failure of a statement.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: StoreError,
    /// The SQLSTATE. `None` if the server did not answer.
    pub(super) code: Option<String>,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self { error, code: None }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

/// A failure to connect to the server at `place`.
pub(super) fn of_connection(error: Error, place: &str, password: Option<&Secret>) -> StoreError {
    if let Some(answer) = error.as_db_error() {
        let said = said(answer, password);
        return unavailable(format!(
            "PostgreSQL at {place} refused the connection: {said}: {}",
            remedy(answer.code().code(), None)
        ));
    }
    let what = error.to_string();
    let source = error.into_source();
    let why = source.as_ref().map(ToString::to_string).unwrap_or_default();
    let is_io = source
        .as_ref()
        .is_some_and(|source| source.is::<io::Error>());
    let remedy = remedy_of_text(&what, &why);
    let error = unavailable(format!("PostgreSQL at {place} cannot be reached: {what}"));
    let error = match source {
        Some(source) if is_io => error.with_source(source),
        // It may repeat what the server has said, and the server what it was sent.
        Some(_) | None => error.with_source(redact(
            &why,
            &password
                .iter()
                .map(|password| password.expose())
                .collect::<Vec<_>>(),
        )),
    };
    error.with_remedy(remedy)
}

/// What to do if the server gave no answer, by the texts of the driver.
fn remedy_of_text(what: &str, why: &str) -> &'static str {
    let has = |part: &str| what.contains(part) || why.contains(part);
    match () {
        () if has("does not allow writes") => remedy_of("25006"),
        () if has("server does not support TLS") => {
            "turn on TLS at the server (`ssl = on`), or add `sslmode=disable` to the URL if you trust the network"
        }
        () if has("certificate") => {
            "check the name of the host, and pass the root certificates of the database to `root_certificates`"
        }
        () if has("TLS") => "check that a PostgreSQL server with TLS listens there",
        () if has("password missing") => {
            "the server wants a password, so add one to the URL: postgres://user:password@host/database"
        }
        () if has("channel binding") => {
            "the server offers none: use TLS and scram-sha-256, or take `channel_binding` out of the URL"
        }
        () if has("authentication") => {
            "check the user and the password of the URL, and that the server asks for scram-sha-256, md5 or a plain password"
        }
        () if has("failed to lookup") || has("resolve") => {
            "check the name of the host, and that this machine can look it up"
        }
        () if has("unexpected message") || has("parsing response") || has("on stream") => {
            "check that PostgreSQL listens at this host and port"
        }
        () if has("closed") => "check that PostgreSQL listens there, and has not just been stopped",
        () => "check the host and the port, that the server runs, and that no firewall is between",
    }
}

/// A failure of a statement on the table.
pub(super) fn of_statement(error: &Error, table: &Table, password: Option<&Secret>) -> Failure {
    let name = &table.name;
    let Some(answer) = error.as_db_error() else {
        let message = format!(
            "the connection to PostgreSQL broke during a statement on the table {name}: {error}"
        );
        return unavailable(message)
            .with_remedy("check that the server runs; the next call connects again")
            .into();
    };
    let code = answer.code().code();
    Failure {
        error: unavailable(format!(
            "PostgreSQL refused a statement on the table {name} of the sessions: {}: {}",
            said(answer, password),
            remedy(code, Some(table))
        )),
        code: Some(code.to_owned()),
    }
}

/// A table whose columns have other types.
pub(super) fn of_shape(table: &Table, why: &impl Display) -> StoreError {
    unavailable(format!(
        "the table {} has another shape than a table of sessions: {why}: {}",
        table.name,
        shape(table)
    ))
}

/// A server that did not answer in time.
pub(super) fn late(what: impl Display, limit: Duration) -> StoreError {
    let limit =
        Duration::from_millis(u64::try_from(limit.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX));
    unavailable(format!("{what} within {limit:?}")).with_remedy(
        "check that the server runs, that it is not overloaded, and that no firewall is between",
    )
}

pub(super) fn unavailable(message: impl Into<Cow<'static, str>>) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, message)
}

/// What the server says. The detail and the hint are left out: they may quote a row.
fn said(answer: &DbError, password: Option<&Secret>) -> String {
    let secrets: Vec<_> = password.iter().map(|password| password.expose()).collect();
    format!(
        "{} (SQLSTATE {})",
        redact(answer.message(), &secrets),
        answer.code().code()
    )
}

/// What to do. `table` is `None` before there is a connection.
fn remedy(code: &str, table: Option<&Table>) -> Cow<'static, str> {
    match (code, table) {
        ("42P01", Some(table)) => format!(
            "create it with `PostgresStore::migrate`, or as an administrator: {}",
            table.ddl
        )
        .into(),
        ("3F000", Some(_)) => "create the schema, or choose another name with `PostgresStore::table`".into(),
        // A column is missing, or has another type; no primary key; a column of another program must not be null.
        ("42703" | "42804" | "42883" | "42846" | "42P10" | "23502" | "23514", Some(table)) => {
            shape(table).into()
        }
        ("42501", Some(table)) => format!(
            "let an administrator run: {}; GRANT SELECT, INSERT, UPDATE, DELETE ON {} TO the user of the URL",
            table.ddl, table.quoted
        )
        .into(),
        _ => remedy_of(code).into(),
    }
}

fn shape(table: &Table) -> String {
    format!(
        "choose another name with `PostgresStore::table`, or move the table away and create it again: {}",
        table.ddl
    )
}

fn remedy_of(code: &str) -> &'static str {
    match code {
        "28P01" => "check the user and the password of the URL",
        "28000" => {
            "check that the user exists, and that pg_hba.conf of the server lets it in from here, with TLS (`sslmode=require`) if it \
             says so"
        }
        "3D000" => "check the name of the database at the end of the URL, or create it",
        "42501" => "let an administrator grant the permission to this user",
        "25006" => {
            "the server is a standby, or read-only: name the primary in the URL, or all servers, or make the server writable again"
        }
        "57P01" | "57P02" | "57P03" => {
            "the server is starting, stopping or recovering: wait for it"
        }
        "53100" => "free space on the disk of the server",
        "53200" => "give the server more memory",
        "53300" => {
            "raise `max_connections` at the server, use a pooler, or let each process have fewer `connections`"
        }
        "57014" | "55P03" => {
            "raise `statement_timeout` and `lock_timeout` of this user, and look for sessions that lock the table"
        }
        "40001" | "40P01" => "set `default_transaction_isolation` of this user to `read committed`",
        _ => "look for the cause in the log of the server",
    }
}
