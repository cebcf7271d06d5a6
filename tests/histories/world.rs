//! Two processes, a server and a store, and what must hold of them.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::Full;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_salesforce_auth::{
    ErrorKind, SalesforceAuthLayer, SessionHandle, handle::SessionState, observer::StoreOperation,
    store::LeaseStore,
};

use crate::{
    faulty::{Fault, Faulty},
    history::{History, Kind},
    leased::{Leased, Statement},
    rotating::{Client, INSTANCE, Server},
    step::Step,
};

const KEY: &str = "user";

/// Longer than any caller may wait: for the steps of a refresh before, and for its own refresh.
const NEVER: Duration = Duration::from_secs(400);

/// Shorter than a token call may take, so that leases are renewed, and lost.
const LEASE: Duration = Duration::from_secs(6);

/// The store of one process.
#[derive(Clone)]
enum Store {
    Locks(Faulty),
    Leases(Leased),
}

impl Store {
    fn new(history: &History, client: &Client) -> Option<Self> {
        match history.store {
            Kind::None => None,
            Kind::Locks => Some(Self::Locks(Faulty::new(client))),
            Kind::Leases(wrong) => Some(Self::Leases(Leased::new(client, wrong))),
        }
    }

    fn of(&self, client: &Client) -> Self {
        match self {
            Self::Locks(store) => Self::Locks(store.of(client)),
            Self::Leases(store) => Self::Leases(store.of(client)),
        }
    }

    fn fault(&self, operation: StoreOperation, faults: impl IntoIterator<Item = Fault>) {
        match self {
            Self::Locks(store) => store.fault(operation, faults),
            Self::Leases(store) => {
                let statement = match operation {
                    StoreOperation::Load => Statement::Get,
                    StoreOperation::Lock => Statement::Acquire,
                    StoreOperation::Renew => Statement::Renew,
                    StoreOperation::Save => Statement::Put,
                    StoreOperation::Delete => Statement::Delete,
                    other => panic!("{other:?}"),
                };
                store.fault(statement, faults);
            }
        }
    }

    fn heal(&self) {
        match self {
            Self::Locks(store) => store.heal(),
            Self::Leases(store) => store.heal(),
        }
    }

    /// The process ends. The system releases its locks, and not its leases.
    fn end(&self) {
        if let Self::Locks(store) = self {
            store.end();
        }
    }

    /// How many locks are held.
    fn held(&self) -> usize {
        match self {
            Self::Locks(store) => store.held(),
            Self::Leases(store) => store.held(),
        }
    }

    fn leased(&self) -> Option<&Leased> {
        match self {
            Self::Leases(store) => Some(store),
            Self::Locks(_) => None,
        }
    }
}

pub(crate) struct World<'a> {
    history: &'a History,
    server: Server,
    store: Option<Store>,
    processes: Vec<Process>,
    clients: u32,
    has_logout: bool,
}

/// One process, until it ends.
struct Process {
    client: Client,
    store: Option<Store>,
    handle: SessionHandle,
    callers: VecDeque<JoinHandle<Result<(), String>>>,
    is_logged_out: bool,
    had_session: bool,
}

impl Process {
    fn new(history: &History, client: Client, store: Option<Store>) -> Self {
        let mut builder = SessionHandle::builder(client.flow());
        builder = match &store {
            None => builder,
            Some(Store::Locks(store)) => builder.store(store.clone(), KEY),
            Some(Store::Leases(store)) => {
                let store = LeaseStore::new(store.clone()).lease(LEASE);
                let builder = builder.store(store, KEY);
                if history.follows {
                    builder.follow_store()
                } else {
                    builder
                }
            }
        };
        Self {
            client,
            store,
            handle: builder.on_save_failure(history.on_save_failure).build(),
            callers: VecDeque::new(),
            is_logged_out: false,
            had_session: false,
        }
    }

    fn set(&mut self, session: tower_salesforce_auth::Session) {
        self.client.server.given(self.client.id, &session);
        self.handle.set(session);
        self.is_logged_out = false;
        self.had_session = true;
    }

    fn reset(&mut self) {
        self.client.server.resets(self.client.id);
        self.handle.reset();
        self.is_logged_out = false;
    }

    /// Starts a caller that must come to an end.
    fn call<T>(&mut self, name: &'static str, caller: impl Future<Output = T> + Send + 'static) {
        self.callers.push_back(tokio::spawn(async move {
            match timeout(NEVER, caller).await {
                Ok(_) => Ok(()),
                Err(_) => Err(format!("{name} waits without end")),
            }
        }));
    }

    fn token(&self) -> Option<String> {
        let token = self.handle.refresh_token()?;
        Some(token.expose().to_owned())
    }

    fn check(&self) -> Result<(), String> {
        let is_ready = matches!(self.handle.subscribe().state(), SessionState::Ready(_));
        let has_session = self.handle.try_session().is_some();
        if is_ready != has_session {
            return Err(format!(
                "{:?}, and there is a session: {has_session}",
                self.handle
            ));
        }
        if self.is_logged_out && has_session {
            return Err("a logged-out session is back".to_owned());
        }
        Ok(())
    }
}

impl<'a> World<'a> {
    pub(crate) async fn run(history: &'a History) -> Result<(), String> {
        let server = Server::default();
        Self::run_at(history, &server).await
    }

    /// Runs a history, and returns what happened in it.
    pub(crate) async fn log(history: &'a History) -> Vec<String> {
        let server = Server::default();
        server.keep_log();
        let result = Self::run_at(history, &server).await;
        let mut log = server.take_log();
        log.extend(result.err());
        log
    }

    async fn run_at(history: &'a History, server: &Server) -> Result<(), String> {
        let server = server.clone();
        let first = Client::new(&server, 0);
        let store = Store::new(history, &first);
        let mut world = Self {
            history,
            server,
            store,
            processes: Vec::new(),
            clients: 0,
            has_logout: false,
        };
        for _ in 0..2 {
            let process = world.process();
            world.processes.push(process);
        }
        // Without a store each process has a login of its own.
        let login = world.server.login();
        world.processes[0].set(login);
        if history.store == Kind::None {
            let login = world.server.login();
            world.processes[1].set(login);
        } else {
            let saved = world.processes[0].handle.save().await;
            saved.map_err(|error| error.to_string())?;
        }
        for step in &history.steps {
            world.server.log(|| format!("--- {step:?}"));
            world.step(step).await?;
            world.check()?;
        }
        world.end().await
    }

    fn process(&mut self) -> Process {
        self.clients += 1;
        let client = Client::new(&self.server, self.clients);
        let store = self.store.as_ref().map(|store| store.of(&client));
        Process::new(self.history, client, store)
    }

    fn check(&self) -> Result<(), String> {
        for process in &self.processes {
            process.check()?;
        }
        match self.server.faults().first() {
            Some(fault) => Err(fault.clone()),
            None => Ok(()),
        }
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match *step {
            Step::Request(process) => {
                let process = &mut self.processes[process];
                process.call("a request", request(&process.handle, &process.client));
            }
            Step::Session(process) => {
                let process = &mut self.processes[process];
                let (handle, client) = (process.handle.clone(), process.client.clone());
                process.call("a caller", async move {
                    let live = handle.session().await?;
                    let access = live.access_token().expose();
                    client.server.requested(client.id, access);
                    if !client.server.accepts(access) {
                        handle.invalidate(live.generation());
                        handle.session().await?;
                    }
                    Ok::<_, tower_salesforce_auth::Error>(())
                });
            }
            Step::Refresh(process) | Step::AwaitRefresh(process) => {
                let process = &mut self.processes[process];
                let handle = process.handle.clone();
                process.call("a manual refresh", async move { handle.refresh().await });
                if matches!(step, Step::AwaitRefresh(_)) {
                    last(process).await?;
                }
            }
            Step::Save(process) | Step::AwaitSave(process) => {
                let process = &mut self.processes[process];
                let handle = process.handle.clone();
                process.call("a save", async move { handle.save().await });
                if matches!(step, Step::AwaitSave(_)) {
                    last(process).await?;
                }
            }
            Step::SetAgain(process) => {
                let process = &mut self.processes[process];
                if let Some(live) = process.handle.try_session() {
                    process.set((*live).clone());
                }
            }
            Step::SetLogin(process) => self.processes[process].set(self.server.login()),
            Step::SetAccessToken(process) => {
                self.processes[process].set(self.server.access_token());
            }
            Step::Reset(process) => {
                self.processes[process].reset();
            }
            Step::Logout(process, revokes) => self.log_out(process, revokes).await,
            Step::Quiesce(process) => {
                let process = &mut self.processes[process];
                let handle = process.handle.clone();
                process.call("a quiesce", async move { handle.quiesce().await });
            }
            Step::GiveUp(process) => {
                if let Some(caller) = self.processes[process].callers.pop_front() {
                    caller.abort();
                }
            }
            Step::Kill(process) => {
                let next = self.process();
                let killed = std::mem::replace(&mut self.processes[process], next);
                killed.client.end();
                if let Some(store) = &killed.store {
                    store.end();
                }
                killed.callers.iter().for_each(JoinHandle::abort);
                if self.store.is_none() {
                    // It kept nothing: the user logs in again.
                    self.processes[process].set(self.server.login());
                }
            }
            Step::Expire => self.server.expire(),
            Step::Store(operation, fault, times) => {
                if let Some(store) = &self.store {
                    store.fault(operation, std::iter::repeat_n(fault, times as usize));
                }
            }
            Step::Lease(statement, fault, times) => {
                if let Some(store) = self.leased() {
                    store.fault(statement, std::iter::repeat_n(fault, times as usize));
                }
            }
            Step::LoseLeases => {
                if let Some(store) = self.leased() {
                    store.lose_leases();
                }
            }
            Step::LoseNotices(loses) => {
                if let Some(store) = self.leased() {
                    store.lose_notices(loses);
                }
            }
            Step::Token(answer) => self.server.answer([answer]),
            Step::Wait(delay) => sleep(delay).await,
        }
        Ok(())
    }

    fn leased(&self) -> Option<&Leased> {
        self.store.as_ref().and_then(Store::leased)
    }

    async fn log_out(&mut self, process: usize, revokes: bool) {
        self.has_logout = true;
        let process = &mut self.processes[process];
        let (handle, client) = (process.handle.clone(), process.client.clone());
        let newest = process.token();
        process.call("a logout", async move {
            // The session is over when the logout is first polled.
            client.server.logs_out(client.id, newest.as_deref());
            if revokes {
                handle.logout_and_revoke(client.clone()).await
            } else {
                handle.logout(client.clone()).await
            }
        });
        tokio::task::yield_now().await;
        process.is_logged_out = true;
    }

    /// Mends everything, and checks that all can go on.
    async fn end(mut self) -> Result<(), String> {
        self.server.log(|| "--- the end".to_owned());
        self.server.heal();
        if let Some(store) = &self.store {
            store.heal();
        }
        for process in &mut self.processes {
            while !process.callers.is_empty() {
                last(process).await?;
            }
            let quiet = process.handle.quiesce().await;
            let error = quiet.err().map(|error| error.kind());
            if error == Some(ErrorKind::Refresh) {
                return Err("a refresh has not ended".to_owned());
            }
            let token = process.token();
            let is_kept = token
                .as_deref()
                .is_none_or(|token| self.server.was_saved(token) || self.server.was_given(token));
            if error.is_none() && !is_kept {
                return Err(format!("{token:?} is in one process only, and it is quiet"));
            }
        }
        self.check()?;
        // Logouts go on by themselves, and may hold the lock.
        sleep(NEVER).await;
        for index in 0..2 {
            self.server.expire();
            self.processes[index].reset();
            let answer = self.answer(index).await?;
            if answer == Some(StatusCode::OK) {
                continue;
            }
            // After a logout, or if the grant was lost where no client could help it, the user has to log in again.
            let must_go_on = !self.has_logout && !self.server.has_loss();
            let process = &mut self.processes[index];
            if must_go_on && (process.had_session || self.store.is_some()) {
                return Err(format!(
                    "process {index} gets {answer:?}: {:?}",
                    process.handle
                ));
            }
            process.set(self.server.login());
            if self.store.is_some()
                && let Err(error) = process.handle.save().await
            {
                return Err(format!("a login cannot be saved: {error:?}"));
            }
            self.server.expire();
            let answer = self.answer(index).await?;
            if answer != Some(StatusCode::OK) {
                return Err(format!(
                    "after a new login, process {index} gets {answer:?}"
                ));
            }
        }
        self.check()?;
        for process in &self.processes {
            let _ = process.handle.quiesce().await;
        }
        // A lock that was dropped is released in the background.
        sleep(Duration::from_millis(1)).await;
        match self.store.as_ref().map_or(0, Store::held) {
            0 => Ok(()),
            held => Err(format!("{held} locks are held")),
        }
    }

    async fn answer(&self, index: usize) -> Result<Option<StatusCode>, String> {
        let process = &self.processes[index];
        match timeout(NEVER, request(&process.handle, &process.client)).await {
            Ok(answer) => Ok(answer),
            Err(_) => Err("the last request waits without end".to_owned()),
        }
    }
}

async fn last(process: &mut Process) -> Result<(), String> {
    match process.callers.pop_back() {
        Some(caller) => caller.await.unwrap_or_else(|error| Err(error.to_string())),
        None => Ok(()),
    }
}

/// Sends a request through the layer. `None` if it was not answered.
fn request(
    handle: &SessionHandle,
    client: &Client,
) -> impl Future<Output = Option<StatusCode>> + Send + use<> {
    let client = client.clone();
    let api = service_fn(move |request: Request<_>| {
        let access = request.headers()[AUTHORIZATION].to_str().unwrap();
        let access = access.trim_start_matches("Bearer ");
        client.server.requested(client.id, access);
        let mut response = Response::new(Full::<Bytes>::default());
        if !client.server.accepts(access) {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        async { Ok::<_, Infallible>(response) }
    });
    let service = SalesforceAuthLayer::from(handle.clone()).layer(api);
    let request = Request::get(format!("{INSTANCE}/services/data"))
        .body(Full::<Bytes>::default())
        .unwrap();
    async move {
        let response = service.oneshot(request).await.ok()?;
        Some(response.status())
    }
}
