//! The org that all clients talk to: what it answers is a [`Scene`].

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::{sync::Semaphore, time::sleep};
use tower::{BoxError, service_fn};

use crate::{contenders::token, loopback::Loopback};

/// What callers read.
pub(crate) const PATH: &str = "/services/data/v66.0/sobjects/Account/001xx000003DGb2AAG";

/// The same, but its rejection is held until [`Org::release`].
pub(crate) const LATE_PATH: &str = "/services/data/v66.0/sobjects/Account/001xx000003DGb2AAH";

/// Needs no token. A request to it opens a connection.
pub(crate) const WARM_UP_PATH: &str = "/services/data/warm-up";

pub(crate) const TOKEN_PATH: &str = "/services/oauth2/token";

/// How the org behaves. By default it rejects the first access token, its token calls take 50 ms, and refresh tokens
/// rotate.
#[derive(Clone, Copy)]
pub(crate) struct Scene {
    /// The org answers no request before so many have arrived.
    pub(crate) callers: usize,
    pub(crate) accepts: Accepts,
    /// How long a token call takes. `None` if it is never answered.
    pub(crate) token_call: Option<Duration>,
    /// Whether a refresh token works once, and a token call returns the next one.
    pub(crate) rotates: bool,
}

impl Default for Scene {
    fn default() -> Self {
        Self {
            callers: 0,
            accepts: Accepts::Refreshed,
            token_call: Some(Duration::from_millis(50)),
            rotates: true,
        }
    }
}

/// Which access tokens the org accepts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepts {
    All,
    /// All but the first.
    Refreshed,
    None,
}

/// An org that serves on loopback until it is dropped.
pub(crate) struct Org {
    state: Arc<State>,
    served: Loopback,
}

struct State {
    scene: Scene,
    origin: OnceLock<String>,
    requests: AtomicUsize,
    /// Closed when so many requests have arrived as the scene waits for. It never has a permit.
    all_arrived: Semaphore,
    /// Has a permit for each request that has arrived at [`LATE_PATH`].
    late_arrived: Semaphore,
    /// Closed when late rejections are sent. It never has a permit.
    released: Semaphore,
    token_calls: AtomicUsize,
    logins: AtomicUsize,
    /// The number of access tokens issued after the first. If refresh tokens rotate, theirs too, and only the last one works.
    issued: Mutex<usize>,
}

impl Org {
    pub(crate) fn serve(scene: Scene) -> Self {
        let state = Arc::new(State {
            scene,
            origin: OnceLock::new(),
            requests: AtomicUsize::new(0),
            all_arrived: Semaphore::new(0),
            late_arrived: Semaphore::new(0),
            released: Semaphore::new(0),
            token_calls: AtomicUsize::new(0),
            logins: AtomicUsize::new(0),
            issued: Mutex::new(0),
        });
        if scene.callers == 0 {
            state.all_arrived.close();
        }
        let served = Arc::clone(&state);
        let served = Loopback::serve(service_fn(move |request| {
            let state = Arc::clone(&served);
            async move { state.answer(request).await }
        }));
        state.origin.get_or_init(|| served.origin());
        Self { state, served }
    }

    pub(crate) fn origin(&self) -> String {
        self.served.origin()
    }

    /// Requests that were not token calls.
    pub(crate) fn requests(&self) -> usize {
        self.state.requests.load(Ordering::Relaxed)
    }

    /// Token calls, less the one that force begins with.
    pub(crate) fn token_calls(&self) -> usize {
        self.state.token_calls.load(Ordering::Relaxed)
    }

    /// Waits for a request to [`LATE_PATH`].
    pub(crate) async fn late_arrival(&self) {
        let arrived = self.state.late_arrived.acquire().await;
        arrived.expect("it stays open").forget();
    }

    /// Sends the rejections that were held.
    pub(crate) fn release(&self) {
        self.state.released.close();
    }
}

impl State {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, BoxError> {
        let path = request.uri().path();
        if path == WARM_UP_PATH {
            return Ok(answer(StatusCode::OK, "[]"));
        }
        if path == TOKEN_PATH {
            let form = request.into_body().collect().await?.to_bytes();
            return Ok(self.exchange(&form).await);
        }
        let arrived = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        if arrived == self.scene.callers {
            self.all_arrived.close();
        }
        let is_late = path == LATE_PATH;
        let authorization = request.headers().get(AUTHORIZATION);
        let is_accepted = self.accepts(authorization);
        // The gates never have a permit: these return when the gate is closed.
        let _ = self.all_arrived.acquire().await;
        if is_accepted {
            return Ok(answer(StatusCode::OK, r#"{"Id":"001xx000003DGb2AAG"}"#));
        }
        if is_late {
            self.late_arrived.add_permits(1);
            let _ = self.released.acquire().await;
        }
        Ok(answer(
            StatusCode::UNAUTHORIZED,
            r#"[{"message":"Session expired or invalid","errorCode":"INVALID_SESSION_ID"}]"#,
        ))
    }

    fn accepts(&self, authorization: Option<&HeaderValue>) -> bool {
        let token = authorization.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let Some(token) = token else {
            return false;
        };
        match self.scene.accepts {
            Accepts::All => true,
            Accepts::Refreshed => token != access_token(0).as_bytes(),
            Accepts::None => false,
        }
    }

    async fn exchange(&self, form: &[u8]) -> Response<Full<Bytes>> {
        let form = String::from_utf8_lossy(form);
        // The login of force, which cannot begin with a session. A code works once (RFC 6749 §4.1.2), but an org that accepts all
        // tokens serves many clients, one after the other.
        if form.contains("grant_type=authorization_code") {
            let is_first = self.logins.fetch_add(1, Ordering::Relaxed) == 0;
            if is_first || self.scene.accepts == Accepts::All {
                return self.tokens(0);
            }
        }
        self.token_calls.fetch_add(1, Ordering::Relaxed);
        let issued = self.issue(&form);
        match self.scene.token_call {
            Some(takes) => sleep(takes).await,
            None => std::future::pending().await,
        }
        match issued {
            Some(number) => self.tokens(number),
            None => refused(),
        }
    }

    /// The number of the new tokens, if the refresh token is valid.
    fn issue(&self, form: &str) -> Option<usize> {
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        let valid = if self.scene.rotates { *issued } else { 0 };
        let presented = format!("refresh_token={}", refresh_token(valid));
        if !form.split('&').any(|field| field == presented) {
            return None;
        }
        *issued += 1;
        Some(*issued)
    }

    fn tokens(&self, number: usize) -> Response<Full<Bytes>> {
        let refresh_number = if self.scene.rotates { number } else { 0 };
        let tokens = serde_json::json!({
            "access_token": access_token(number),
            "refresh_token": refresh_token(refresh_number),
            "instance_url": self.origin.get(),
            "token_type": "Bearer",
        });
        answer(StatusCode::OK, tokens.to_string())
    }
}

/// The access token of this number. 0 is the first.
pub(crate) fn access_token(number: usize) -> String {
    format!("{}.{number}", token())
}

/// The refresh token of this number. 0 is the first.
pub(crate) fn refresh_token(number: usize) -> String {
    format!("5Aep861.{number}")
}

fn refused() -> Response<Full<Bytes>> {
    answer(
        StatusCode::BAD_REQUEST,
        r#"{"error":"invalid_grant","error_description":"expired access/refresh token"}"#,
    )
}

fn answer(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, json);
    answer
}
