//! Leases and records in the table, each call one statement.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{runtime::Handle, sync::oneshot};
use tokio_postgres::{Row, types::FromSql};
use zeroize::Zeroizing;

use super::{
    failure::{of_shape, unavailable},
    listener::Listener,
    pool::{Pool, shut_down},
    statement::Parameter,
    table::Table,
};
use crate::{
    error::{StoreError, StoreErrorKind},
    store::{
        lease::backend::{Acquired, LeaseBackend, Put, Stored},
        session_store::BoxFuture,
        version::Version,
    },
};

/// The database.
#[derive(Clone)]
pub(super) struct Backend {
    pub(super) pool: Arc<Pool>,
    pub(super) table: Arc<Table>,
    pub(super) listener: Arc<Listener>,
}

impl Backend {
    async fn query(&self, sql: &str, parameters: &[Parameter]) -> Result<Vec<Row>, StoreError> {
        Ok(self.pool.query(sql, parameters).await?)
    }

    fn column<'a, T: FromSql<'a>>(&self, row: &'a Row, index: usize) -> Result<T, StoreError> {
        row.try_get(index)
            .map_err(|error| of_shape(&self.table, &error))
    }

    async fn version(&self, key_hash: Parameter) -> Result<Option<Version>, StoreError> {
        let rows = self.query(&self.table.version, &[key_hash]).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let version: Option<&str> = self.column(row, 0)?;
        version.map(str::parse).transpose()
    }

    fn stored(&self, row: &Row) -> Result<Option<Stored>, StoreError> {
        let record: Option<&[u8]> = self.column(row, 0)?;
        let version: Option<&str> = self.column(row, 1)?;
        let (record, version) = match (record, version) {
            (None, None) => return Ok(None),
            (Some(record), Some(version)) => (record, version),
            (Some(_), None) => return Err(corrupt("has no version beside it")),
            (None, Some(_)) => return Err(corrupt("is missing beside its version")),
        };
        let text = str::from_utf8(record).map_err(|_| corrupt("is not text"))?;
        let text = Zeroizing::new(text.to_owned());
        Ok(Some(Stored::new(text, version.parse()?)))
    }

    async fn try_acquire(
        &self,
        key: &str,
        owner: &str,
        lease: Duration,
    ) -> Result<Acquired, StoreError> {
        let parameters = [
            Parameter::key_hash(key),
            Parameter::readable(key),
            Parameter::text(owner),
            Parameter::millis(lease),
        ];
        let rows = self.query(&self.table.acquire, &parameters).await?;
        let Some(row) = rows.first() else {
            return Err(of_shape(&self.table, &"a query has no answer"));
        };
        if self.column(row, 0)? {
            return Ok(Acquired::Taken);
        }
        let left: Option<i64> = self.column(row, 1)?;
        // It was taken during the statement, or is over just now.
        let left = left.map_or(lease, |left| {
            Duration::from_millis(u64::try_from(left).unwrap_or_default())
        });
        Ok(Acquired::HeldFor(left))
    }

    async fn try_release(&self, key: &str, owner: &str) -> Result<(), StoreError> {
        let parameters = [Parameter::key_hash(key), Parameter::text(owner)];
        self.query(&self.table.release, &parameters).await?;
        Ok(())
    }
}

impl LeaseBackend for Backend {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Stored>, StoreError>> {
        let (backend, key_hash) = (self.clone(), Parameter::key_hash(key));
        detached(async move {
            let rows = backend.query(&backend.table.get, &[key_hash]).await?;
            rows.first().map_or(Ok(None), |row| backend.stored(row))
        })
    }

    fn acquire<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<Acquired, StoreError>> {
        let (backend, key, owner) = (self.clone(), key.to_owned(), owner.to_owned());
        let (sender, answer) = oneshot::channel();
        let acquiring = detached(async move {
            let acquired = backend.try_acquire(&key, &owner, lease).await;
            // The caller was dropped, and has released a lease that was not there yet.
            if let Err(Ok(Acquired::Taken)) = sender.send(acquired) {
                backend.try_release(&key, &owner).await?;
            }
            Ok(())
        });
        Box::pin(async move {
            acquiring.await?;
            answer.await.unwrap_or_else(|_| Err(shut_down()))
        })
    }

    fn renew<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let backend = self.clone();
        let parameters = [
            Parameter::key_hash(key),
            Parameter::text(owner),
            Parameter::millis(lease),
        ];
        detached(async move {
            let rows = backend.query(&backend.table.renew, &parameters).await?;
            Ok(!rows.is_empty())
        })
    }

    fn put<'a>(
        &'a self,
        key: &'a str,
        put: Put<'a>,
    ) -> BoxFuture<'a, Result<Option<Version>, StoreError>> {
        let backend = self.clone();
        let second = match put.replaces {
            Some(replaces) => Parameter::text(&replaces),
            None => Parameter::readable(key),
        };
        let (version, key_hash) = (put.version, Parameter::key_hash(key));
        let parameters = [
            Parameter::key_hash(key),
            second,
            Parameter::Secret(put.text.clone()),
            Parameter::text(&version),
            Parameter::millis(put.lifetime),
        ];
        let is_first = put.replaces.is_none();
        detached(async move {
            let table = &backend.table;
            let sql = if is_first {
                &table.insert
            } else {
                &table.update
            };
            if !backend.query(sql, &parameters).await?.is_empty() {
                return Ok(Some(version));
            }
            backend.version(key_hash).await
        })
    }

    fn delete<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let backend = self.clone();
        let parameters = [Parameter::key_hash(key), Parameter::text(owner)];
        detached(async move {
            let rows = backend.query(&backend.table.delete, &parameters).await?;
            Ok(!rows.is_empty())
        })
    }

    fn release<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let (backend, key, owner) = (self.clone(), key.to_owned(), owner.to_owned());
        detached(async move { backend.try_release(&key, &owner).await })
    }

    fn changed<'a>(&'a self, key: &'a str, since: Option<Version>) -> BoxFuture<'a, ()> {
        Box::pin(self.listener.changed(key, since))
    }
}

/// Runs a step in a task of its own. If its caller is dropped, the step ends all the same, and its connection stays usable.
fn detached<T: Send + 'static>(
    step: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> BoxFuture<'static, Result<T, StoreError>> {
    Box::pin(async move {
        let runtime = Handle::try_current().map_err(|error| {
            unavailable("PostgreSQL can be reached inside of a tokio runtime only")
                .with_source(error)
        })?;
        runtime
            .spawn(step)
            .await
            .unwrap_or_else(|_| Err(shut_down()))
    })
}

fn corrupt(what: &str) -> StoreError {
    StoreError::new(
        StoreErrorKind::Corrupt,
        format!("the session record {what}: restore the row, or delete it to log in again"),
    )
}
