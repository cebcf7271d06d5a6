//! A database in memory for a `LeaseStore`, whose time is tokio's.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    collections::HashMap,
    future::ready,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use tower_salesforce_auth::{
    Secret,
    store::{Acquired, BoxFuture, LeaseBackend, Put, StoreError, Stored, Version},
};

#[derive(Default)]
struct Row {
    record: Option<Stored>,
    lease: Option<(String, Instant)>,
}

impl Row {
    fn is_owned_by(&self, owner: &str) -> bool {
        let lease = self.lease.as_ref();
        lease.is_some_and(|(held, until)| held == owner && *until > Instant::now())
    }
}

/// How a database is wrong: the mistakes that comparable software makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    None,
    RenewsNothing,
    ReleasesAnyLock,
    SavesTooLate,
    GoesOnWithoutTheLock,
}

#[derive(Clone)]
pub(crate) struct LeaseTable {
    rows: Arc<Mutex<HashMap<String, Row>>>,
    changes: Arc<Notify>,
    mistake: Mistake,
    /// How long each read takes before it is done.
    reads: Arc<Mutex<Duration>>,
}

impl LeaseTable {
    pub(crate) fn new() -> Self {
        Self::with(Mistake::None)
    }

    pub(crate) fn with(mistake: Mistake) -> Self {
        Self {
            rows: Arc::default(),
            changes: Arc::default(),
            mistake,
            reads: Arc::default(),
        }
    }

    pub(crate) fn reads_take(&self, delay: Duration) {
        *self.reads.lock().unwrap() = delay;
    }

    /// Replaces a text, and not the version beside it.
    pub(crate) fn write(&self, key: &str, text: Secret) {
        let mut rows = self.rows.lock().unwrap();
        let row = rows.get_mut(key).and_then(|row| row.record.as_mut());
        row.unwrap().text = text;
    }

    /// How many leases last.
    pub(crate) fn leases(&self) -> usize {
        let rows = self.rows.lock().unwrap();
        let lasts = |row: &&Row| {
            row.lease
                .as_ref()
                .is_some_and(|(_, until)| *until > Instant::now())
        };
        rows.values().filter(lasts).count()
    }

    /// Ends every lease, as if the database had lost them.
    pub(crate) fn lose_leases(&self) {
        for row in self.rows.lock().unwrap().values_mut() {
            row.lease = None;
        }
    }

    fn step<T: Send + 'static>(
        &self,
        key: &str,
        step: impl FnOnce(&mut Row) -> T,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let mut rows = self.rows.lock().unwrap();
        Box::pin(ready(Ok(step(rows.entry(key.to_owned()).or_default()))))
    }
}

impl LeaseBackend for LeaseTable {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Stored>, StoreError>> {
        Box::pin(async move {
            let delay = *self.reads.lock().unwrap();
            sleep(delay).await;
            self.step(key, |row| row.record.clone()).await
        })
    }

    fn acquire<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<Acquired, StoreError>> {
        let ignores = self.mistake == Mistake::GoesOnWithoutTheLock;
        self.step(key, |row| match &row.lease {
            Some((_, until)) if *until > Instant::now() && !ignores => {
                Acquired::HeldFor(until.duration_since(Instant::now()))
            }
            _ => {
                row.lease = Some((owner.to_owned(), Instant::now() + lease));
                Acquired::Taken
            }
        })
    }

    fn renew<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let does_nothing = self.mistake == Mistake::RenewsNothing;
        self.step(key, |row| {
            let is_owned = row.is_owned_by(owner);
            if is_owned && !does_nothing {
                row.lease = Some((owner.to_owned(), Instant::now() + lease));
            }
            is_owned
        })
    }

    fn put<'a>(
        &'a self,
        key: &'a str,
        put: Put<'a>,
    ) -> BoxFuture<'a, Result<Option<Version>, StoreError>> {
        let always = self.mistake == Mistake::SavesTooLate;
        let changes = Arc::clone(&self.changes);
        self.step(key, |row| {
            let stored = row.record.as_ref().map(|record| record.version);
            if stored != put.replaces && !always {
                return stored;
            }
            row.record = Some(Stored::new(put.text.clone(), put.version));
            changes.notify_waiters();
            Some(put.version)
        })
    }

    fn delete<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let changes = Arc::clone(&self.changes);
        self.step(key, |row| {
            let is_owned = row.is_owned_by(owner);
            if is_owned {
                row.record = None;
                changes.notify_waiters();
            }
            is_owned
        })
    }

    fn release<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let any = self.mistake == Mistake::ReleasesAnyLock;
        self.step(key, |row| {
            if any || row.is_owned_by(owner) {
                row.lease = None;
            }
        })
    }

    fn changed<'a>(&'a self, key: &'a str, since: Option<Version>) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            loop {
                let mut changed = pin!(self.changes.notified());
                changed.as_mut().enable();
                let stored = self.step(key, |row| row.record.as_ref().map(|record| record.version));
                if stored.await.is_ok_and(|stored| stored != since) {
                    return;
                }
                changed.await;
            }
        })
    }
}
