//! What a process of a fleet does: sends requests, and halts at a step of its refresh when it is told to.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, sleep},
};
use tower::{Layer, ServiceExt};
use tower_salesforce_auth::{
    BoxError, RefreshContext, RefreshError, RefreshFn, ReplayBody, SalesforceAuth,
    SalesforceAuthLayer, Session, SessionHandle,
    flow::RefreshToken,
    oauth::App,
    observer::{Observer, SessionAdopted, StoreFailed, StoreOperation},
    store::{BoxFuture, Lease, Record, Save, SessionStore, StoreError, StoreLock, Version},
};

use crate::{
    database::open_store,
    part::{Counts, KEY, Order, Part, Sent, Step, Told},
};

/// Pause between two looks at whether a session is saved, and between two tries of a request.
const PAUSE: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a process of another test"]
async fn worker() {
    let Some(part) = Part::of_this_process() else {
        return;
    };
    let watch = Arc::new(Watch::default());
    let handle = handle(&part, &watch);
    let http = Client::builder(TokioExecutor::new()).build_http();
    let client = SalesforceAuthLayer::from(handle.clone()).layer(http);
    tokio::spawn(tell_of_saves(handle, Arc::clone(&watch)));
    say(&Told::Ready);
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    while let Some(order) = orders.next_line().await.unwrap() {
        match serde_json::from_str(&order).unwrap() {
            Order::Send(requests) => {
                tokio::spawn(send(client.clone(), requests, false));
            }
            Order::SendUntilGood(tasks) => {
                tokio::spawn(send(client.clone(), tasks, true));
            }
            Order::Halt(step) => *watch.halt.lock().unwrap() = step,
            Order::Go => watch.go.send_modify(|gone| *gone += 1),
            Order::Count => say(&Told::Counted(watch.counts.lock().unwrap().clone())),
        }
    }
}

fn say(what: &Told) {
    println!("@@ {}", serde_json::to_string(what).unwrap());
}

fn handle(part: &Part, watch: &Arc<Watch>) -> SessionHandle {
    let http: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let app = App::new(part.login_url.parse().unwrap(), &*part.client_id)
        .client_secret(&*part.client_secret);
    let flow = Watched {
        inner: RefreshToken::new(http, app, &*part.refresh_token),
        watch: Arc::clone(watch),
    };
    let store = Watched {
        inner: open_store(part),
        watch: Arc::clone(watch),
    };
    let builder = SessionHandle::builder(flow)
        .store(store, KEY)
        .refresh_timeout(Duration::from_millis(part.refresh_timeout_ms))
        .observer(Telling(Arc::clone(watch)));
    if part.follows {
        builder.follow_store().build()
    } else {
        builder.build()
    }
}

/// Tells when a session that could not be saved is saved: the layer saves it by itself, once the store is back.
async fn tell_of_saves(handle: SessionHandle, watch: Arc<Watch>) {
    loop {
        watch.is_unsaved.notified().await;
        sleep(PAUSE).await;
        while handle.has_unsaved_refresh_token() {
            sleep(PAUSE).await;
        }
        say(&Told::Saved);
    }
}

// === Requests ===

/// A client of the org. Its body is that of either client over sockets.
type Org = SalesforceAuth<Client<HttpConnector, ReplayBody<Full<Bytes>>>>;

/// How long a task tries until it says why it has not succeeded.
const GIVE_UP: Duration = Duration::from_secs(40);

async fn send(client: Org, tasks: usize, until_good: bool) {
    let mut sending = JoinSet::new();
    for _ in 0..tasks {
        let client = client.clone();
        sending.spawn(async move { send_one(&client, until_good).await });
    }
    let mut sent = Sent::default();
    for one in sending.join_all().await {
        sent.succeeded += one.succeeded;
        sent.failed += one.failed;
        sent.slowest_ms = sent.slowest_ms.max(one.slowest_ms);
        sent.failure = sent.failure.or(one.failure);
    }
    say(&Told::Sent(sent));
}

async fn send_one(client: &Org, until_good: bool) -> Sent {
    let mut sent = Sent::default();
    let begun = Instant::now();
    loop {
        let since = Instant::now();
        let answer = get_limits(client).await;
        let elapsed = u64::try_from(since.elapsed().as_millis()).unwrap();
        sent.slowest_ms = sent.slowest_ms.max(elapsed);
        match answer {
            Ok(StatusCode::OK) => {
                sent.succeeded += 1;
                return sent;
            }
            Ok(status) => sent.failure = Some(status.to_string()),
            Err(error) => sent.failure = Some(error.to_string()),
        }
        sent.failed += 1;
        if !until_good || begun.elapsed() > GIVE_UP {
            return sent;
        }
        sleep(PAUSE).await;
    }
}

async fn get_limits(client: &Org) -> Result<StatusCode, BoxError> {
    let request = Request::get("/services/data/v66.0/limits").body(Full::<Bytes>::default())?;
    let response = client.clone().oneshot(request).await?;
    let status = response.status();
    response.into_body().collect().await?;
    Ok(status)
}

// === What the parent sees ===

#[derive(Default)]
struct Watch {
    /// Where to halt. `None`: nowhere.
    halt: Mutex<Option<Step>>,
    /// How often a halt was ended. One that nothing halted at any longer does not end the next halt.
    go: watch::Sender<u64>,
    is_locked: AtomicBool,
    is_unsaved: Notify,
    counts: Mutex<Counts>,
}

impl Watch {
    async fn at(&self, step: Step) {
        let is_here = self.halt.lock().unwrap().take_if(|halt| *halt == step);
        if is_here.is_some() {
            let mut go = self.go.subscribe();
            say(&Told::At(step));
            go.changed().await.unwrap();
        }
    }

    fn count(&self, count: impl FnOnce(&mut Counts)) {
        count(&mut self.counts.lock().unwrap());
    }
}

struct Telling(Arc<Watch>);

impl Observer for Telling {
    fn session_adopted(&self, event: &SessionAdopted) {
        self.0.count(|counts| counts.adoptions += 1);
        say(&Told::Adopted(format!("{:?}", event.reason())));
    }

    fn store_failed(&self, event: &StoreFailed) {
        let (operation, kind) = (event.operation(), event.error().kind());
        if operation == StoreOperation::Save {
            self.0.is_unsaved.notify_one();
        }
        say(&Told::StoreFailed(
            format!("{operation:?}"),
            format!("{kind:?}"),
            event.attempts(),
        ));
    }
}

struct Watched<T> {
    inner: T,
    watch: Arc<Watch>,
}

impl<F: RefreshFn> RefreshFn for Watched<F> {
    async fn refresh(&self, context: RefreshContext) -> Result<Session, RefreshError> {
        let is_locked = self.watch.is_locked.load(Ordering::SeqCst);
        self.watch.count(|counts| {
            counts.calls += 1;
            counts.unlocked_calls += u64::from(!is_locked);
        });
        say(&Told::Calls);
        let answer = self.inner.refresh(context).await;
        self.watch.at(Step::Called).await;
        answer
    }
}

impl SessionStore for Watched<Arc<dyn SessionStore>> {
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        self.watch.count(|counts| counts.loads += 1);
        self.inner.load(key)
    }

    fn lock<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Box<dyn StoreLock>, StoreError>> {
        Box::pin(async move {
            self.watch.at(Step::Lock).await;
            let inner = self.inner.lock(key).await?;
            self.watch.count(|counts| counts.locks += 1);
            self.watch.is_locked.store(true, Ordering::SeqCst);
            let lock: Box<dyn StoreLock> = Box::new(WatchedLock {
                inner: Some(inner),
                watch: Arc::clone(&self.watch),
            });
            self.watch.at(Step::Locked).await;
            Ok(lock)
        })
    }

    fn changed<'a>(&'a self, key: &'a str, since: Option<Version>) -> BoxFuture<'a, ()> {
        self.inner.changed(key, since)
    }
}

struct WatchedLock {
    /// The lock. `None` once it is released.
    inner: Option<Box<dyn StoreLock>>,
    watch: Arc<Watch>,
}

impl WatchedLock {
    fn inner(&mut self) -> &mut dyn StoreLock {
        &mut **self.inner.as_mut().unwrap()
    }
}

impl Drop for WatchedLock {
    fn drop(&mut self) {
        self.watch.is_locked.store(false, Ordering::SeqCst);
    }
}

impl StoreLock for WatchedLock {
    fn load(&mut self) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        self.inner().load()
    }

    fn save<'a>(&'a mut self, save: Save<'a>) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.watch.at(Step::Save).await;
            self.inner().save(save).await?;
            self.watch.count(|counts| counts.saves += 1);
            say(&Told::Saved);
            Ok(())
        })
    }

    fn delete(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner().delete()
    }

    fn lease(&self) -> Option<Lease> {
        self.inner.as_ref().unwrap().lease()
    }

    fn renew(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.inner().renew().await?;
            self.watch.count(|counts| counts.renewed += 1);
            Ok(())
        })
    }

    fn unlock(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.watch.at(Step::Release).await;
            let inner = self.inner.take().unwrap();
            inner.unlock().await;
        })
    }
}
