//! A database in memory for a `LeaseStore`, whose statements fail, or are done after their caller has given up.

use std::{
    collections::{HashMap, VecDeque},
    future::pending,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tower_salesforce_auth::{
    Secret,
    store::{
        Acquired, BoxFuture, LeaseBackend, Put, Record, StoreError, StoreErrorKind, Stored, Version,
    },
};

use crate::{faulty::Fault, rotating::Client};

/// A method of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Statement {
    Get,
    Acquire,
    Renew,
    Put,
    Delete,
    Release,
}

/// How the database is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    Nowhere,
    /// A save replaces any record.
    ComparesNothing,
    /// A lock can be taken that is held.
    LocksNothing,
    /// A late holder releases the lock of another one.
    ReleasesAnyLock,
}

/// The database, as one process sees it.
#[derive(Clone)]
pub(crate) struct Leased {
    table: Arc<Table>,
    client: Client,
}

struct Table {
    row: Mutex<Row>,
    changes: Notify,
    loses_notices: AtomicBool,
    faults: Mutex<HashMap<Statement, VecDeque<Fault>>>,
    wrong: Wrong,
}

#[derive(Default)]
struct Row {
    record: Option<Stored>,
    lease: Option<Lease>,
}

#[derive(Clone)]
struct Lease {
    owner: String,
    client: u32,
    until: Instant,
}

impl Row {
    /// The lease that lasts.
    fn lasting(&self) -> Option<&Lease> {
        self.lease
            .as_ref()
            .filter(|lease| lease.until > Instant::now())
    }

    fn is_owned_by(&self, owner: &str) -> bool {
        self.lasting().is_some_and(|lease| lease.owner == owner)
    }

    fn version(&self) -> Option<Version> {
        self.record.as_ref().map(|record| record.version)
    }
}

impl Leased {
    pub(crate) fn new(client: &Client, wrong: Wrong) -> Self {
        let table = Arc::new(Table {
            row: Mutex::default(),
            changes: Notify::new(),
            loses_notices: AtomicBool::new(false),
            faults: Mutex::default(),
            wrong,
        });
        let of_locks = Arc::downgrade(&table);
        client.server.check_locks(move |client| {
            let table = of_locks.upgrade();
            table.is_some_and(|table| {
                let row = table.row();
                row.lasting().is_some_and(|lease| lease.client == client)
            })
        });
        Self {
            table,
            client: client.clone(),
        }
    }

    /// The same database, for another process.
    pub(crate) fn of(&self, client: &Client) -> Self {
        Self {
            table: Arc::clone(&self.table),
            client: client.clone(),
        }
    }

    pub(crate) fn fault(&self, statement: Statement, faults: impl IntoIterator<Item = Fault>) {
        self.faults().entry(statement).or_default().extend(faults);
    }

    /// The database loses its leases, as after it has failed over.
    pub(crate) fn lose_leases(&self) {
        let lost = self.table.row().lease.take();
        if let Some(lease) = lost {
            self.client.server.overtaken(lease.client);
        }
    }

    pub(crate) fn lose_notices(&self, loses: bool) {
        self.table.loses_notices.store(loses, Ordering::SeqCst);
    }

    /// Forgets all faults that were to come.
    pub(crate) fn heal(&self) {
        self.faults().clear();
        self.lose_notices(false);
    }

    /// How many leases last.
    pub(crate) fn held(&self) -> usize {
        usize::from(self.table.row().lasting().is_some())
    }

    fn faults(&self) -> MutexGuard<'_, HashMap<Statement, VecDeque<Fault>>> {
        self.table.faults.lock().unwrap()
    }

    /// Does a statement with the fault that is its turn. `done` gets whether its caller may think that it has failed.
    fn call<T: Send + 'static>(
        &self,
        statement: Statement,
        done: impl FnOnce(&Table, &Client, bool) -> T + Send + 'static,
    ) -> BoxFuture<'_, Result<T, StoreError>> {
        Box::pin(async move {
            self.client.alive().await;
            let fault = self
                .faults()
                .get_mut(&statement)
                .and_then(VecDeque::pop_front);
            let (table, client) = (Arc::clone(&self.table), self.client.clone());
            client
                .server
                .log(|| format!("{}: {statement:?} with {fault:?}", client.id));
            let done = move |may_be_doubted| done(&table, &client, may_be_doubted);
            let answer = match fault {
                None => done(false),
                Some(Fault::Fails) => return Err(failed()),
                Some(Fault::FailsAfterwards) => {
                    done(true);
                    return Err(failed());
                }
                Some(Fault::FailsAndIsDoneAfter(delay)) => {
                    drop(done_after(delay, done));
                    return Err(failed());
                }
                Some(Fault::Takes(delay)) => done_after(delay, done).await.unwrap(),
                Some(Fault::AnswersAfter(delay)) => {
                    let answer = done(true);
                    sleep(delay).await;
                    answer
                }
                Some(Fault::Hangs) => pending().await,
            };
            self.client.alive().await;
            Ok(answer)
        })
    }
}

/// Does a statement that is on its way: its caller cannot take it back.
fn done_after<T: Send + 'static>(
    delay: Duration,
    done: impl FnOnce(bool) -> T + Send + 'static,
) -> JoinHandle<T> {
    tokio::spawn(async move {
        sleep(delay).await;
        done(true)
    })
}

fn failed() -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, "the database is down")
}

impl Table {
    fn row(&self) -> MutexGuard<'_, Row> {
        self.row.lock().unwrap()
    }

    fn tell(&self) {
        if !self.loses_notices.load(Ordering::SeqCst) {
            self.changes.notify_waiters();
        }
    }

    fn acquire(&self, owner: String, lease: Duration, client: &Client) -> Acquired {
        let before = {
            let mut row = self.row();
            if let Some(held) = row.lasting()
                && self.wrong != Wrong::LocksNothing
            {
                return Acquired::HeldFor(held.until.duration_since(Instant::now()));
            }
            row.lease.replace(Lease {
                owner,
                client: client.id,
                until: Instant::now() + lease,
            })
        };
        if let Some(before) = before
            && self.wrong == Wrong::Nowhere
        {
            client.server.overtaken(before.client);
        }
        client.server.has_lock_again(client.id);
        Acquired::Taken
    }

    fn put(&self, put: &OwnedPut, client: &Client, may_be_doubted: bool) -> Option<Version> {
        let (stored, is_late) = {
            let mut row = self.row();
            let stored = row.version();
            let is_permitted = stored == put.replaces || self.wrong == Wrong::ComparesNothing;
            if is_permitted && stored != Some(put.version) {
                row.record = Some(Stored::new(put.text.clone(), put.version));
                self.tell();
            }
            let is_late = row.lasting().is_some_and(|lease| lease.client != client.id);
            (row.version(), is_late)
        };
        if stored == Some(put.version) {
            let record = Record::decode(put.text.expose()).unwrap();
            let server = &client.server;
            server.log(|| format!("{}: has saved {:?}", client.id, record.session()));
            server.saved(record.session(), client.id);
            if let Some(token) = record.session().refresh_token() {
                if may_be_doubted {
                    server.doubts(token.expose(), client.id);
                }
                if is_late && self.wrong == Wrong::Nowhere {
                    // The holder of the lock has loaded the record before.
                    server.is_unseen(token.expose());
                }
            }
        }
        stored
    }

    fn delete(&self, owner: &str, client: &Client) -> bool {
        let is_owned = {
            let mut row = self.row();
            let is_owned = row.is_owned_by(owner);
            if is_owned {
                row.record = None;
                self.tell();
            }
            is_owned
        };
        if is_owned {
            client.server.deleted();
        }
        is_owned
    }
}

struct OwnedPut {
    text: Secret,
    version: Version,
    replaces: Option<Version>,
}

impl LeaseBackend for Leased {
    fn get<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<Stored>, StoreError>> {
        self.call(Statement::Get, |table, _, _| table.row().record.clone())
    }

    fn acquire<'a>(
        &'a self,
        _: &'a str,
        owner: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<Acquired, StoreError>> {
        let owner = owner.to_owned();
        self.call(Statement::Acquire, move |table, client, _| {
            table.acquire(owner, lease, client)
        })
    }

    fn renew<'a>(
        &'a self,
        _: &'a str,
        owner: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let owner = owner.to_owned();
        self.call(Statement::Renew, move |table, _, _| {
            let mut row = table.row();
            let is_owned = row.is_owned_by(&owner);
            if let Some(held) = row.lease.as_mut().filter(|_| is_owned) {
                held.until = Instant::now() + lease;
            }
            is_owned
        })
    }

    fn put<'a>(
        &'a self,
        _: &'a str,
        put: Put<'a>,
    ) -> BoxFuture<'a, Result<Option<Version>, StoreError>> {
        let put = OwnedPut {
            text: put.text.clone(),
            version: put.version,
            replaces: put.replaces,
        };
        self.call(Statement::Put, move |table, client, may_be_doubted| {
            table.put(&put, client, may_be_doubted)
        })
    }

    fn delete<'a>(&'a self, _: &'a str, owner: &'a str) -> BoxFuture<'a, Result<bool, StoreError>> {
        let owner = owner.to_owned();
        self.call(Statement::Delete, move |table, client, _| {
            table.delete(&owner, client)
        })
    }

    fn release<'a>(&'a self, _: &'a str, owner: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        let owner = owner.to_owned();
        self.call(Statement::Release, move |table, _, _| {
            let mut row = table.row();
            if row.is_owned_by(&owner) || table.wrong == Wrong::ReleasesAnyLock {
                row.lease = None;
            }
        })
    }

    fn changed<'a>(&'a self, _: &'a str, since: Option<Version>) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            loop {
                let mut changed = pin!(self.table.changes.notified());
                changed.as_mut().enable();
                if self.table.row().version() != since {
                    return;
                }
                changed.await;
            }
        })
    }
}
