//! Many orgs on one client: a request carries the handle of its session (R27).

use std::{
    convert::Infallible,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::Full;
use tokio::{sync::Notify, task::JoinSet, time::Instant};
use tower::{Layer, service_fn};
use tower_salesforce_auth::{
    BoxError, Error, ErrorKind, RefreshContext, RefreshError, ReplayBody, SalesforceAuthLayer,
    Session, SessionHandle, request::SkipAuth,
};

use crate::support::{Answering, Api, Refresher, expired, get, send, session, text};

type Inner = Request<ReplayBody<Full<Bytes>>>;

fn in_org(mut request: Request<Full<Bytes>>, handle: &SessionHandle) -> Request<Full<Bytes>> {
    request.extensions_mut().insert(handle.clone());
    request
}

// === Which session ===

#[tokio::test]
async fn a_request_is_sent_with_the_session_of_its_handle() {
    let api = Api::accepting("U1");
    let refresher = Refresher::of(&api);
    let service = refresher.layer().layer(api.clone());
    let refreshes = Arc::new(AtomicUsize::new(0));
    let other = {
        let refreshes = refreshes.clone();
        SessionHandle::new(move |_: RefreshContext| {
            let n = refreshes.fetch_add(1, Ordering::SeqCst) + 1;
            std::future::ready(Ok(other_session(&format!("U{n}"))))
        })
    };
    other.set(other_session("U0"));

    let response = send(&service, in_org(get("/x"), &other)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(api.tokens(), ["U0", "U1"], "the replay too");
    let hosts: Vec<_> = api
        .seen()
        .iter()
        .map(|seen| seen.uri.host().unwrap().to_owned())
        .collect();
    assert_eq!(hosts, ["other.my.salesforce.com"; 2]);
    assert_eq!(
        (refresher.count(), refreshes.load(Ordering::SeqCst)),
        (0, 1)
    );

    // The next request has no handle.
    api.accept("T0");
    send(&service, get("/x")).await.unwrap();
    assert_eq!(api.tokens().last().unwrap(), "T0");
}

fn other_session(token: &str) -> Session {
    Session::new(token, "https://other.my.salesforce.com").unwrap()
}

#[tokio::test]
async fn a_first_login_uses_the_flow_of_the_requests_handle() {
    let api = Api::accepting("U1");
    let refresher = Refresher::of(&api);
    for layer in [refresher.layer(), refresher.layer_without_session()] {
        let service = layer.layer(api.clone());
        let other = SessionHandle::new(|_: RefreshContext| async { Ok(other_session("U1")) });
        for _ in 0..2 {
            let response = send(&service, in_org(get("/x"), &other)).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
        }
    }
    assert_eq!(api.tokens(), ["U1"; 4]);
    assert_eq!(refresher.count(), 0);
}

#[tokio::test]
async fn the_instance_of_one_session_is_foreign_to_another() {
    let api = Api::accepting("T0");
    let service = Refresher::of(&api).layer().layer(api.clone());
    let other = SessionHandle::fixed(other_session("U0"));
    let to_the_layers = in_org(get("https://example.my.salesforce.com/x"), &other);
    send(&service, to_the_layers).await.unwrap();
    send(&service, get("https://other.my.salesforce.com/x"))
        .await
        .unwrap();
    let skipped = {
        let mut request = in_org(get("/x"), &other);
        request.extensions_mut().insert(SkipAuth);
        request
    };
    send(&service, skipped).await.unwrap();
    assert_eq!(api.tokens(), ["", "", ""]);
    let last = api.seen().pop().unwrap();
    assert_eq!(last.uri.host(), Some("other.my.salesforce.com"));
}

#[tokio::test]
async fn the_wrapped_service_does_not_get_the_handle() {
    let seen = Arc::new(AtomicUsize::new(0));
    let inner = {
        let seen = seen.clone();
        Answering(move |request: Inner| {
            assert!(request.extensions().get::<SessionHandle>().is_none());
            if request.headers().contains_key(AUTHORIZATION) {
                assert!(
                    request.extensions().get::<Marker>().is_some(),
                    "another is left"
                );
            }
            seen.fetch_add(1, Ordering::SeqCst);
            expired()
        })
    };
    let api = Api::accepting("T0");
    let service = Refresher::of(&api).layer().layer(inner);
    let other = SessionHandle::new(|_: RefreshContext| async { Ok(other_session("secret-U1")) });
    other.set(other_session("secret-U0"));
    let mut request = in_org(get("/x"), &other);
    request.extensions_mut().insert(Marker);
    assert!(!format!("{:?} {other:?}", request.extensions()).contains("secret"));
    send(&service, request).await.unwrap();
    let foreign = in_org(get("https://example.com/x"), &other);
    send(&service, foreign).await.unwrap();
    assert_eq!(
        seen.load(Ordering::SeqCst),
        3,
        "an attempt, its replay, and another"
    );
}

#[derive(Clone)]
struct Marker;

// === R27 ===

/// Orgs behind one client. Each accepts one token, and tokens of other orgs are counted.
struct Orgs {
    accepted: Vec<AtomicUsize>,
    foreign_tokens: AtomicUsize,
}

impl Orgs {
    fn new(count: usize) -> Arc<Self> {
        Arc::new(Self {
            accepted: (0..count).map(|_| AtomicUsize::new(0)).collect(),
            foreign_tokens: AtomicUsize::new(0),
        })
    }

    fn session(&self, org: usize) -> Result<Session, RefreshError> {
        let n = self.accepted[org].load(Ordering::SeqCst);
        Session::new(
            format!("{org}!{n}"),
            &format!("https://org{org}.my.salesforce.com"),
        )
        .map_err(RefreshError::terminal)
    }

    fn handle(self: &Arc<Self>, org: usize) -> SessionHandle {
        let orgs = self.clone();
        let handle =
            SessionHandle::new(move |_: RefreshContext| std::future::ready(orgs.session(org)));
        handle.set(self.session(org).unwrap());
        handle
    }

    fn expire(&self, org: usize) {
        self.accepted[org].fetch_add(1, Ordering::SeqCst);
    }

    /// Answers with the number of the org that was asked.
    fn answer(&self, request: &Inner) -> Response<Full<Bytes>> {
        let host = request.uri().host().unwrap();
        let org = host
            .strip_prefix("org")
            .unwrap()
            .strip_suffix(".my.salesforce.com")
            .unwrap();
        let Some(authorization) = request.headers().get(AUTHORIZATION) else {
            return Response::new(Full::from("none"));
        };
        let token = authorization
            .to_str()
            .unwrap()
            .strip_prefix("Bearer ")
            .unwrap();
        let (tokens_org, n) = token.split_once('!').unwrap();
        if tokens_org != org {
            self.foreign_tokens.fetch_add(1, Ordering::SeqCst);
        }
        let accepted = self.accepted[org.parse::<usize>().unwrap()].load(Ordering::SeqCst);
        if n.parse() == Ok(accepted) {
            Response::new(Full::from(org.to_owned()))
        } else {
            expired()
        }
    }
}

/// Pseudo-random numbers, the same in each run (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r27_no_request_carries_another_orgs_token() {
    const ORGS: usize = 50;
    let orgs = Orgs::new(ORGS);
    let handles: Arc<Vec<_>> = Arc::new((0..ORGS).map(|org| orgs.handle(org)).collect());
    let inner = {
        let orgs = orgs.clone();
        service_fn(move |request: Inner| {
            let orgs = orgs.clone();
            async move {
                // Other requests run in between.
                tokio::task::yield_now().await;
                Ok::<_, Infallible>(orgs.answer(&request))
            }
        })
    };
    let service = SalesforceAuthLayer::from(handles[0].clone()).layer(inner);
    let mut clients = JoinSet::new();
    for client in 0..20_u64 {
        let (service, orgs, handles) = (service.clone(), orgs.clone(), handles.clone());
        clients.spawn(async move {
            let mut random = Random(0x9E37_79B9_7F4A_7C15 ^ (client + 1));
            let mut answered = 0;
            for _ in 0..500 {
                let (org, other) = (random.below(ORGS), random.below(ORGS));
                if random.below(50) == 0 {
                    orgs.expire(org);
                }
                let (uri, answer) = match random.below(10) {
                    0 if other != org => (
                        format!("https://org{other}.my.salesforce.com/x"),
                        "none".to_owned(),
                    ),
                    1 => (
                        format!("https://org{org}.my.salesforce.com/x"),
                        org.to_string(),
                    ),
                    _ => ("/x".to_owned(), org.to_string()),
                };
                let request = in_org(get(&uri), &handles[org]);
                let response = send(&service, request).await.unwrap();
                if response.status() == StatusCode::OK {
                    assert_eq!(text(response).await, answer);
                    answered += 1;
                } else {
                    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
                }
            }
            answered
        });
    }
    let answered: usize = clients.join_all().await.into_iter().sum();
    assert_eq!(orgs.foreign_tokens.load(Ordering::SeqCst), 0);
    // A request whose new session expires at once is rejected, and then the breaker also rejects others of its org. The
    // number depends on the scheduler.
    assert!(answered > 5_000, "{answered} of 10000");
}

#[tokio::test(start_paused = true)]
async fn r27_a_hung_or_dead_org_delays_no_other_org() {
    const ORGS: usize = 1_000;
    let orgs = Orgs::new(ORGS);
    let hangs = Arc::new(Notify::new());
    let a = {
        let hangs = hangs.clone();
        SessionHandle::new(move |_: RefreshContext| {
            hangs.notify_one();
            pending::<Result<Session, RefreshError>>()
        })
    };
    let b = SessionHandle::new(|_: RefreshContext| async {
        Err::<Session, _>(RefreshError::terminal("the grant is dead"))
    });
    for (org, handle) in [(0, &a), (1, &b)] {
        handle.set(orgs.session(org).unwrap());
        orgs.expire(org);
    }
    let others: Vec<_> = (2..ORGS).map(|org| orgs.handle(org)).collect();
    // Half of the others need a refresh.
    (2..ORGS)
        .filter(|org| org % 2 == 0)
        .for_each(|org| orgs.expire(org));
    let inner = {
        let orgs = orgs.clone();
        Answering(move |request: Inner| orgs.answer(&request))
    };
    let service = SalesforceAuthLayer::fixed(session("T0")).layer(inner);

    let begin = Instant::now();
    let hanging = tokio::spawn(send_in(&service, &a));
    hangs.notified().await;
    let dead = send_in(&service, &b).await;
    let dead = dead.unwrap_err().downcast::<Error>().unwrap();
    assert_eq!(dead.kind(), ErrorKind::Refresh);
    let mut requests = JoinSet::new();
    for handle in &others {
        requests.spawn(send_in(&service, handle));
    }
    for answer in requests.join_all().await {
        assert_eq!(answer.unwrap(), StatusCode::OK);
    }
    assert_eq!(begin.elapsed(), Duration::ZERO, "a request waited");
    assert!(!hanging.is_finished());
    let hung = hanging
        .await
        .unwrap()
        .unwrap_err()
        .downcast::<Error>()
        .unwrap();
    assert_eq!(hung.kind(), ErrorKind::Refresh);
    assert_eq!(begin.elapsed(), Duration::from_secs(30));
    assert_eq!(orgs.foreign_tokens.load(Ordering::SeqCst), 0);
}

/// Sends a request with the handle of an org.
fn send_in<S, T>(
    service: &S,
    handle: &SessionHandle,
) -> impl Future<Output = Result<StatusCode, BoxError>> + use<S, T>
where
    S: tower::Service<Request<Full<Bytes>>, Response = Response<T>, Error = BoxError> + Clone,
{
    let service = service.clone();
    let request = in_org(get("/x"), handle);
    async move { Ok(send(&service, request).await?.status()) }
}

#[tokio::test]
async fn a_rejection_of_one_handle_leaves_the_layers_session() {
    // The generations of two handles are equal numbers, and must not be confused.
    let seen = Arc::new(Mutex::new(Vec::new()));
    let inner = {
        let seen = seen.clone();
        Answering(move |request: Inner| {
            let token = request.headers()[AUTHORIZATION]
                .to_str()
                .unwrap()
                .to_owned();
            seen.lock().unwrap().push(token);
            expired()
        })
    };
    let api = Api::accepting("T0");
    let service = Refresher::of(&api).layer().layer(inner);
    let other = SessionHandle::fixed(other_session("U0"));
    let response = send(&service, in_org(get("/x"), &other)).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        *seen.lock().unwrap(),
        ["Bearer U0"],
        "a fixed session is not refreshed"
    );
    assert!(
        service.handle().try_session().is_some(),
        "the layer's was not turned down"
    );
}
