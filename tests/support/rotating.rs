//! A server with strict refresh-token rotation (RFC 9700 §4.14.2), and the token calls of its clients.
//!
//! Each refresh token is valid for one use. A second use ends the grant: that is a *reuse*. The server records which client
//! received which token, so that a test can tell a reuse that the client could have avoided from one that no client could.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    collections::{HashMap, HashSet, VecDeque},
    future::pending,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::time::sleep;
use tower::Service;
use tower_salesforce_auth::{BoxError, LoginUrl, Secret, Session, flow::RefreshToken, oauth::App};

pub(crate) const INSTANCE: &str = "https://example.my.salesforce.com";

/// A login, and all tokens that descend from it.
pub(crate) type Family = usize;

/// How the server answers a token call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    /// Exchanges the token after the first delay, and answers after the second.
    Exchange(Duration, Duration),
    /// 503, with `Retry-After` in seconds.
    Busy(Option<u64>),
    /// Exchanges the token, and after a delay sends a response that cannot be used: a failure with a rotated token.
    Unusable(Flaw, Duration),
    /// Exchanges the token after this delay, and the answer is lost.
    Lost(Duration),
    /// Never receives the call.
    Silent,
}

/// Why a response cannot be used.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Flaw {
    /// It names an instance that is not Salesforce's.
    ForeignInstance,
    NoAccessToken,
    /// The access token is bound to a key (RFC 9449).
    Dpop,
    /// Another secret has signed it.
    Signature,
}

impl Flaw {
    pub(crate) const ALL: [Self; 4] = [
        Self::ForeignInstance,
        Self::NoAccessToken,
        Self::Dpop,
        Self::Signature,
    ];
}

impl Answer {
    pub(crate) const AT_ONCE: Self = Self::Exchange(Duration::ZERO, Duration::ZERO);

    /// Milliseconds before and after the exchange.
    pub(crate) fn slow(before: u64, after: u64) -> Self {
        Self::Exchange(Duration::from_millis(before), Duration::from_millis(after))
    }
}

#[derive(Clone, Default)]
pub(crate) struct Server(Arc<Mutex<State>>);

/// A token call that runs.
struct Call {
    id: u64,
    family: Family,
    client: u32,
    /// Whether the lease of its client has ended.
    is_overtaken: bool,
}

type HasLock = Arc<dyn Fn(u32) -> bool + Send + Sync>;

#[derive(Default)]
struct State {
    last: u64,
    /// The newest refresh token of each family. `None` if the family was revoked.
    newest: Vec<Option<u64>>,
    access: HashMap<String, Option<Family>>,
    answers: VecDeque<Answer>,
    /// How calls are answered that have no answer of their own.
    otherwise: Option<Answer>,
    exchanges: usize,
    /// How long a revocation takes.
    revoking: Duration,
    calls: Vec<Call>,
    faults: Vec<String>,
    reuses: usize,
    revocations: Vec<String>,
    /// Which clients received which refresh token.
    received: HashSet<(u32, String)>,
    /// Refresh tokens that the user has.
    given: HashSet<String>,
    /// Refresh tokens that a store has had.
    saved: HashSet<String>,
    /// Refresh tokens that a logout has deleted from a store.
    deleted: HashSet<String>,
    /// Deleted refresh tokens in whose place the user saved an older one: no client can know them.
    forgotten: HashSet<String>,
    /// Refresh tokens that a store has, although it told this client that the save had failed.
    doubtful: HashSet<(u32, String)>,
    /// Refresh tokens of those that another client has saved with another session, or has replaced by another login: no client
    /// can tell that they were used.
    masked: HashSet<String>,
    /// Clients that the user has reset: they go on with what they have, although the record is gone.
    resets: HashSet<u32>,
    /// Families of which a client has ever received a token.
    families: HashSet<(u32, Family)>,
    /// Families that a client has logged out of.
    logged_out: HashSet<(u32, Family)>,
    /// Clients whose lease ended before they released their lock, until they take it again. They may not have noticed.
    overtaken: HashSet<u32>,
    /// Refresh tokens that another client may have presented at the same time, because of a lease that ended.
    overlapping: HashSet<String>,
    /// Whether a client has the store lock. `None`: that is not checked.
    has_lock: Option<HasLock>,
    /// Whether a reuse happened that no client could avoid.
    has_loss: bool,
    /// What happened. `None` unless a test asks for it.
    log: Option<Vec<String>>,
}

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Writes down what happens from now on.
    pub(crate) fn keep_log(&self) {
        self.state().log = Some(Vec::new());
    }

    pub(crate) fn log(&self, what: impl FnOnce() -> String) {
        if let Some(log) = &mut self.state().log {
            log.push(what());
        }
    }

    pub(crate) fn take_log(&self) -> Vec<String> {
        self.state().log.take().unwrap_or_default()
    }

    /// A new login of the user.
    pub(crate) fn login(&self) -> Session {
        let mut state = self.state();
        state.last += 1;
        let n = state.last;
        let family = state.newest.len();
        state.newest.push(Some(n));
        let access = format!("A{family}.{n}");
        state.access.insert(access.clone(), Some(family));
        session(&access).with_refresh_token(format!("R{family}.{n}"))
    }

    /// A session of the user without a refresh token, as of another flow.
    pub(crate) fn access_token(&self) -> Session {
        let mut state = self.state();
        state.last += 1;
        let access = format!("S{}", state.last);
        state.access.insert(access.clone(), None);
        session(&access)
    }

    /// Ends all sessions. The refresh tokens stay valid.
    pub(crate) fn expire(&self) {
        self.state().access.clear();
    }

    /// Whether a request with this access token is accepted.
    pub(crate) fn accepts(&self, access: &str) -> bool {
        let state = self.state();
        match state.access.get(access) {
            Some(Some(family)) => state.newest[*family].is_some(),
            Some(None) => true,
            None => false,
        }
    }

    /// Ends all grants.
    pub(crate) fn revoke_all(&self) {
        self.state().newest.fill(None);
    }

    /// Answers the next token calls in this way, one each.
    pub(crate) fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        self.state().answers.extend(answers);
    }

    /// Answers all token calls in this way that have no answer of their own.
    pub(crate) fn always(&self, answer: Answer) {
        self.state().otherwise = Some(answer);
    }

    /// How long each revocation takes.
    pub(crate) fn revoking_takes(&self, delay: Duration) {
        self.state().revoking = delay;
    }

    /// Forgets all answers that were to come.
    pub(crate) fn heal(&self) {
        let mut state = self.state();
        state.answers.clear();
        state.otherwise = None;
    }

    pub(crate) fn exchanges(&self) -> usize {
        self.state().exchanges
    }

    /// All tokens that were revoked, in order.
    pub(crate) fn revocations(&self) -> Vec<String> {
        self.state().revocations.clone()
    }

    /// How often a spent refresh token was presented.
    pub(crate) fn reuses(&self) -> usize {
        self.state().reuses
    }

    /// What a client did that it could have avoided.
    pub(crate) fn faults(&self) -> Vec<String> {
        self.state().faults.clone()
    }

    /// Whether a grant was lost in a way that no client could avoid.
    pub(crate) fn has_loss(&self) -> bool {
        self.state().has_loss
    }

    /// The newest refresh token of the family of this one. `None` if it was revoked.
    pub(crate) fn newest(&self, refresh_token: &str) -> Option<String> {
        let (family, _) = parse(refresh_token)?;
        let newest = self.state().newest[family]?;
        Some(format!("R{family}.{newest}"))
    }

    // === What clients know ===

    /// A store has this session. A client other than `by` that logged out of its family may have it again.
    pub(crate) fn saved(&self, session: &Session, by: u32) {
        let mut state = self.state();
        let access_token = parse(session.access_token().expose());
        state.logged_out.retain(|(client, ended)| {
            *client == by || access_token.is_none_or(|(family, _)| *ended != family)
        });
        let Some(refresh_token) = session.refresh_token().map(Secret::expose) else {
            return;
        };
        state.saved.insert(refresh_token.to_owned());
        let is_masked = |(client, token): &(u32, String)| *client != by && token == refresh_token;
        if state.doubtful.iter().any(is_masked) {
            state.masked.insert(refresh_token.to_owned());
        }
        if let Some((family, _)) = parse(refresh_token) {
            let is_hidden = |(client, token): &&(u32, String)| {
                *client != by && parse(token).is_some_and(|(other, _)| other != family)
            };
            let hidden: Vec<_> = state.doubtful.iter().filter(is_hidden).cloned().collect();
            state
                .masked
                .extend(hidden.into_iter().map(|(_, token)| token));
            if let Some(newest) = state.newest[family].map(|newest| format!("R{family}.{newest}"))
                && newest != refresh_token
                && state.deleted.contains(&newest)
            {
                state.forgotten.insert(newest);
            }
            state
                .logged_out
                .retain(|(client, ended)| *client == by || *ended != family);
        }
    }

    /// Whether the user gave this token to a client.
    pub(crate) fn was_given(&self, refresh_token: &str) -> bool {
        self.state().given.contains(refresh_token)
    }

    /// A store has this refresh token, and told the client that the save had failed.
    pub(crate) fn doubts(&self, refresh_token: &str, client: u32) {
        let doubtful = (client, refresh_token.to_owned());
        self.state().doubtful.insert(doubtful);
    }

    /// A store is empty, and nothing in it tells what it had.
    pub(crate) fn deleted(&self) {
        let mut state = self.state();
        let saved = state.saved.clone();
        state.deleted.extend(saved);
    }

    /// The user resets a client.
    pub(crate) fn resets(&self, client: u32) {
        self.state().resets.insert(client);
    }

    /// From now on, a token call of a client without the store lock is a fault.
    pub(crate) fn check_locks(&self, has_lock: impl Fn(u32) -> bool + Send + Sync + 'static) {
        self.state().has_lock = Some(Arc::new(has_lock));
    }

    /// The lease of a client has ended. A call that it makes or begins may be beside that of another one.
    pub(crate) fn overtaken(&self, client: u32) {
        let mut state = self.state();
        state.overtaken.insert(client);
        let of_client = state.calls.iter_mut().filter(|call| call.client == client);
        of_client.for_each(|call| call.is_overtaken = true);
    }

    pub(crate) fn has_lock_again(&self, client: u32) {
        self.state().overtaken.remove(&client);
    }

    /// A store has this refresh token since after another client loaded the record under its lock.
    pub(crate) fn is_unseen(&self, refresh_token: &str) {
        self.state().forgotten.insert(refresh_token.to_owned());
    }

    pub(crate) fn was_saved(&self, refresh_token: &str) -> bool {
        self.state().saved.contains(refresh_token)
    }

    /// The user gives this session to a client.
    pub(crate) fn given(&self, client: u32, session: &Session) {
        let mut state = self.state();
        if let Some(token) = session.refresh_token().map(Secret::expose) {
            if let Some((family, _)) = parse(token) {
                state.families.insert((client, family));
                // It replaces the logins before, and a token that only this client had.
                state.received.retain(|(by, known)| {
                    *by != client || parse(known).is_some_and(|(known, _)| known == family)
                });
            }
            state.received.insert((client, token.to_owned()));
            state.given.insert(token.to_owned());
            if let Some((family, _)) = parse(token) {
                state.logged_out.remove(&(client, family));
            }
        }
    }

    /// A client logs out of all families of which it has received a token, and of that of `newest`.
    pub(crate) fn logs_out(&self, client: u32, newest: Option<&str>) {
        let mut state = self.state();
        let newest = newest.and_then(parse).map(|(family, _)| (client, family));
        state.families.extend(newest);
        let ended: Vec<_> = state
            .families
            .iter()
            .copied()
            .filter(|(by, _)| *by == client)
            .collect();
        state.logged_out.extend(ended);
        state.received.retain(|(by, _)| *by != client);
    }

    /// A client sends a request with this access token.
    pub(crate) fn requested(&self, client: u32, access: &str) {
        let mut state = self.state();
        if let Some((family, _)) = parse(access)
            && access.starts_with('A')
            && state.logged_out.contains(&(client, family))
        {
            state
                .faults
                .push(format!("{access} was sent by {client} after its logout"));
        }
    }
}

fn parse(token: &str) -> Option<(Family, u64)> {
    let (family, n) = token.get(1..)?.split_once('.')?;
    Some((family.parse().ok()?, n.parse().ok()?))
}

pub(crate) fn session(access: &str) -> Session {
    Session::new(access, INSTANCE).unwrap()
}

impl State {
    /// Uses up the refresh token, and returns the next access and refresh token.
    fn exchange(&mut self, presented: &str, client: u32) -> Option<(String, String)> {
        self.exchanges += 1;
        let (family, n) = parse(presented)?;
        let current = (*self.newest.get(family)?)?;
        if current == n {
            self.last += 1;
            let n = self.last;
            self.newest[family] = Some(n);
            let access = format!("A{family}.{n}");
            self.access.insert(access.clone(), Some(family));
            return Some((access, format!("R{family}.{n}")));
        }
        self.reuses += 1;
        let current = format!("R{family}.{current}");
        let is_forgotten = self.forgotten.contains(&current)
            || self.masked.contains(presented)
            || self.overlapping.contains(presented)
            || (self.deleted.contains(&current) && self.resets.contains(&client));
        let is_known =
            self.saved.contains(&current) || self.received.contains(&(client, current.clone()));
        if is_known && !is_forgotten {
            self.faults.push(format!(
                "{client} presented {presented}, and {current} is the newest"
            ));
        } else {
            self.has_loss = true;
        }
        self.newest[family] = None;
        None
    }

    /// A client receives a refresh token. It forgets one of a family that it has logged out of.
    fn receives(&mut self, client: u32, refresh_token: &str) {
        let family = parse(refresh_token).map(|(family, _)| family);
        let Some(family) = family else {
            return;
        };
        self.families.insert((client, family));
        if !self.logged_out.contains(&(client, family)) {
            self.received.insert((client, refresh_token.to_owned()));
        }
    }

    fn revoke(&mut self, token: &str) {
        self.revocations.push(token.to_owned());
        if token.starts_with('R')
            && let Some((family, _)) = parse(token)
        {
            self.newest[family] = None;
        } else {
            self.access.remove(token);
        }
    }
}

// === Clients ===

/// A process that talks to the server. After its end nothing that it sends or waits for arrives.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) server: Server,
    pub(crate) id: u32,
    has_ended: Arc<AtomicBool>,
}

impl Client {
    pub(crate) fn new(server: &Server, id: u32) -> Self {
        Self {
            server: server.clone(),
            id,
            has_ended: Arc::default(),
        }
    }

    /// The flow of this process. Its own refresh token is unknown to the server.
    pub(crate) fn flow(&self) -> RefreshToken<Self> {
        let app = App::new(LoginUrl::production(), "3MVG9").client_secret("secret");
        RefreshToken::new(self.clone(), app, "none")
    }

    pub(crate) fn end(&self) {
        self.has_ended.store(true, Ordering::SeqCst);
        let mut state = self.server.state();
        state.calls.retain(|call| call.client != self.id);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::SeqCst)
    }

    /// Waits without end if the process has ended.
    pub(crate) async fn alive(&self) {
        if self.has_ended() {
            pending::<()>().await;
        }
    }

    async fn token_call(self, presented: String) -> Response<Full<Bytes>> {
        let (answer, _call) = self.begin(&presented);
        let (before, after) = match answer {
            Answer::Exchange(before, after) => (before, Some(after)),
            Answer::Lost(before) => (before, None),
            Answer::Unusable(_, after) => (Duration::ZERO, Some(after)),
            _ => (Duration::ZERO, Some(Duration::ZERO)),
        };
        wait(before).await;
        self.alive().await;
        match answer {
            Answer::Silent => pending::<()>().await,
            Answer::Busy(retry_after) => return busy(retry_after),
            _ => {}
        }
        let exchanged = self.server.state().exchange(&presented, self.id);
        self.server
            .log(|| format!("{}: {presented} for {exchanged:?}", self.id));
        match after {
            Some(after) => wait(after).await,
            None => pending().await,
        }
        self.alive().await;
        let Some((access, refresh)) = exchanged else {
            return json(
                400,
                r#"{"error":"invalid_grant","error_description":"expired"}"#,
            );
        };
        self.server.state().receives(self.id, &refresh);
        let mut fields = vec![
            ("access_token", access.as_str()),
            ("refresh_token", refresh.as_str()),
            ("instance_url", INSTANCE),
            ("token_type", "Bearer"),
        ];
        match answer {
            Answer::Unusable(Flaw::ForeignInstance, _) => {
                fields[2].1 = "https://gateway.example.com";
            }
            Answer::Unusable(Flaw::NoAccessToken, _) => drop(fields.remove(0)),
            Answer::Unusable(Flaw::Dpop, _) => fields[3].1 = "DPoP",
            Answer::Unusable(Flaw::Signature, _) => fields.extend([
                ("id", "https://login.salesforce.com/id/00Dxx/005xx"),
                ("issued_at", "1278448832702"),
                ("signature", "c2lnbmVk"),
            ]),
            _ => {}
        }
        let fields: Vec<_> = fields
            .into_iter()
            .map(|(name, value)| format!(r#""{name}":"{value}""#))
            .collect();
        json(200, &format!("{{{}}}", fields.join(",")))
    }

    /// Begins a call, and checks that it may begin.
    fn begin(&self, presented: &str) -> (Answer, ActiveCall) {
        let has_lock = self.server.state().has_lock.clone();
        let has_lock = has_lock.is_none_or(|has_lock| has_lock(self.id));
        let mut state = self.server.state();
        let answer = state.answers.pop_front().or(state.otherwise);
        state.last += 1;
        let call = state.last;
        if let Some((family, _)) = parse(presented) {
            let is_overtaken = state.overtaken.contains(&self.id);
            let beside = state.calls.iter().find(|call| call.family == family);
            let beside = beside.map(|call| call.is_overtaken);
            if is_overtaken || beside == Some(true) {
                state.overlapping.insert(presented.to_owned());
            } else if beside.is_some() {
                let fault = format!("two calls of family {family} at a time");
                state.faults.push(fault);
            } else if !has_lock {
                let fault = format!("{} presented {presented} without the lock", self.id);
                state.faults.push(fault);
            }
            if state.logged_out.contains(&(self.id, family)) {
                let fault = format!("{presented} was presented by {} after its logout", self.id);
                state.faults.push(fault);
            }
            state.calls.push(Call {
                id: call,
                family,
                client: self.id,
                is_overtaken,
            });
        }
        let active = ActiveCall {
            server: self.server.clone(),
            call,
        };
        (answer.unwrap_or(Answer::AT_ONCE), active)
    }
}

struct ActiveCall {
    server: Server,
    call: u64,
}

impl Drop for ActiveCall {
    fn drop(&mut self) {
        let call = self.call;
        self.server
            .state()
            .calls
            .retain(|running| running.id != call);
    }
}

async fn wait(delay: Duration) {
    if delay > Duration::ZERO {
        sleep(delay).await;
    }
}

fn json(status: u16, body: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_owned()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
        .headers_mut()
        .insert("content-type", "application/json".parse().unwrap());
    response
}

fn busy(retry_after: Option<u64>) -> Response<Full<Bytes>> {
    let mut response = json(503, "{}");
    if let Some(seconds) = retry_after {
        response.headers_mut().insert("retry-after", seconds.into());
    }
    response
}

impl Service<Request<Full<Bytes>>> for Client {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let client = self.clone();
        Box::pin(async move {
            client.alive().await;
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await?.to_bytes();
            let form = String::from_utf8(body.to_vec())?;
            let field = |name: &str| {
                let mut fields = form.split('&').filter_map(|field| field.split_once('='));
                let found = fields.find(|(field, _)| *field == name);
                found.map(|(_, value)| value.to_owned()).unwrap_or_default()
            };
            if path.ends_with("revoke") {
                let delay = client.server.state().revoking;
                wait(delay).await;
                client.server.state().revoke(&field("token"));
                return Ok(json(200, ""));
            }
            let presented = field("refresh_token");
            Ok(client.token_call(presented).await)
        })
    }
}
