//! The application: its routes, and the tower stack between them and the browsers.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    extract::{FromRef, Request, State},
    response::{AppendHeaders, IntoResponse, Redirect, Response},
    routing::get,
};
use axum_extra::extract::{SignedCookieJar, cookie::Key};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode, Uri,
    header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, SET_COOKIE,
        STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
    },
};
use maud::Markup;
use tokio::time::Instant;
use tower::ServiceBuilder;
use tower_http::{
    csrf::CsrfLayer,
    set_header::SetResponseHeaderLayer,
    timeout::TimeoutLayer,
    trace::{DefaultOnResponse, TraceLayer},
};
use tower_salesforce_auth::{
    BoxError,
    oauth::{self, LoginCookie, PendingAuthorization},
    store::{EncryptionKey, SessionStore},
};
use tracing::{Level, Span};

use super::{cookies::Cookies, failure::Failure, logins::Logins, pages, salesforce::Salesforce};

/// The wait of a browser for any answer, at most.
const PATIENCE: Duration = Duration::from_secs(60);

/// Forbids scripts, content of other origins, and frames; forms go to this origin only.
const CONTENT_POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; \
                              form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The settings of the application.
pub(crate) struct Settings {
    /// The registration at Salesforce.
    pub(crate) app: oauth::App,
    /// The URL of the callback: the origin of this application, and `/callback`.
    pub(crate) redirect_uri: String,
    /// Signs the cookies of sessions with its first half, and encrypts those of logins with the second one.
    pub(crate) cookie_key: Key,
    /// The store of the sessions.
    pub(crate) store: Arc<dyn SessionStore>,
}

#[derive(Clone)]
struct Shared {
    salesforce: Arc<Salesforce>,
    logins: Arc<Logins>,
    login_cookie: LoginCookie,
    cookies: Cookies,
    cookie_key: Key,
}

impl FromRef<Shared> for Key {
    fn from_ref(shared: &Shared) -> Self {
        shared.cookie_key.clone()
    }
}

/// The application as a service.
///
/// # Errors
///
/// If the redirect URI is not an origin followed by `/callback`, or if there are no root certificates.
pub(crate) fn router(settings: Settings) -> Result<Router, BoxError> {
    let Settings {
        app,
        redirect_uri,
        cookie_key,
        store,
    } = settings;
    let origin = redirect_uri.strip_suffix("/callback").ok_or_else(|| {
        format!("the redirect URI {redirect_uri} does not end in /callback, the path that this application answers")
    })?;

    let (_, half) = cookie_key
        .master()
        .split_last_chunk()
        .ok_or("the cookie key is too short")?;
    let login_cookie = LoginCookie::new(EncryptionKey::new(*half), &*redirect_uri);

    let stack = ServiceBuilder::new()
        // Outermost: it logs every answer, those of the layers below too. Of the request it logs only the path, since the
        // query of the callback has a code.
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(span)
                .on_response(DefaultOnResponse::new().level(Level::INFO)),
        )
        // Then headers for every answer, those of the layers below too. `no-store`: the browser keeps no page for a later
        // user. `strict-origin`: browsers send no URL of a page to other sites, since it may have a code. With `no-referrer`
        // they would not send the origin of a form either, which the last layer checks.
        .layer(header(CACHE_CONTROL, "no-store"))
        .layer(header(CONTENT_SECURITY_POLICY, CONTENT_POLICY))
        .layer(header(REFERRER_POLICY, "strict-origin"))
        .layer(header(X_CONTENT_TYPE_OPTIONS, "nosniff"))
        // Browsers use https from then on. They accept this header over https only.
        .layer(header(STRICT_TRANSPORT_SECURITY, "max-age=31536000"))
        // Then the timeout, for every route.
        .layer(TimeoutLayer::with_status_code(
            StatusCode::GATEWAY_TIMEOUT,
            PATIENCE,
        ))
        // Innermost, next to the handlers: no form on another site logs a user out. `SameSite` stops other sites; this layer
        // also stops other hosts of the same site.
        .layer(
            CsrfLayer::new()
                .add_trusted_origin(origin)?
                .with_rejection_response(|_| Failure::CrossSite.into_response()),
        );

    Ok(Router::new()
        .route("/", get(home))
        .route("/login", get(login))
        .route("/callback", get(callback))
        .route("/contacts", get(contacts))
        .route("/logout", get(ask_to_log_out).post(logout))
        .route("/logged-out", get(logged_out))
        .route("/style.css", get(style))
        .route("/icon.svg", get(icon))
        .fallback(async || Failure::NotFound)
        .layer(stack)
        .with_state(Shared {
            login_cookie,
            cookies: Cookies::of(&redirect_uri),
            salesforce: Arc::new(Salesforce::new(app, &redirect_uri, store)?),
            logins: Arc::default(),
            cookie_key,
        }))
}

// === The handlers ===

/// A page or a redirect, or a failure; and the cookies that come with either.
type Answer<T> = Result<(SignedCookieJar, T), (SignedCookieJar, Failure)>;

async fn home(State(shared): State<Shared>, jar: SignedCookieJar) -> Response {
    match shared.cookies.session_id(&jar) {
        Some(_) => Redirect::to("/contacts").into_response(),
        None => pages::home().into_response(),
    }
}

/// Redirects the browser to Salesforce, and keeps the pending authorization in its cookie.
async fn login(State(shared): State<Shared>) -> Result<(SetCookie, Redirect), Failure> {
    let begun = shared.salesforce.authorization().and_then(|request| {
        let cookie = shared.login_cookie.set(request.pending(), now())?;
        Ok((set_cookie(cookie), Redirect::to(request.url())))
    });
    begun.map_err(|error| {
        tracing::error!("no login can begin: {error}");
        Failure::Internal
    })
}

/// Handles the callback: the browser is back from Salesforce, or the request is forged. A forged one uses up no login, and
/// removes no cookie, so that the right callback still works.
async fn callback(
    State(shared): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    jar: SignedCookieJar,
) -> Result<(SetCookie, Answer<Redirect>), Failure> {
    let query = uri.query().unwrap_or_default().as_bytes();
    let state = form_urlencoded::parse(query).find(|(name, _)| name == "state");
    if state.is_some_and(|(_, state)| shared.logins.is_used(&state)) {
        return Err(Failure::Reused);
    }
    let callback = uri.to_string();
    let pending = shared.login_cookie.read(&headers, now());
    let pending = pending.map_err(|error| {
        tracing::warn!("a callback was refused: {error}");
        Failure::Forged
    })?;
    shared.salesforce.check(&pending, &callback)?;
    if !shared
        .logins
        .use_up(pending.state().expose(), Instant::now())
    {
        return Err(Failure::Reused);
    }
    let entered = enter(&shared, jar, &pending, &callback).await;
    Ok((set_cookie(shared.login_cookie.removal()), entered))
}

/// Begins a session with the code of the callback.
async fn enter(
    shared: &Shared,
    jar: SignedCookieJar,
    pending: &PendingAuthorization,
    callback: &str,
) -> Answer<Redirect> {
    // A new id, so that no attacker can have planted it in this browser (session fixation).
    let Some(id) = random_id() else {
        return Err((jar, Failure::Internal));
    };
    if let Err(failure) = shared.salesforce.log_in(&id, pending, callback).await {
        return Err((jar, failure));
    }
    if let Some(former) = shared.cookies.session_id(&jar) {
        // The browser loses the former id here. If its grant cannot be revoked, the error is in the log.
        let _logged = shared.salesforce.log_out(&former).await;
    }
    let jar = shared.cookies.begin_session(jar, &id);
    Ok((jar, Redirect::to("/contacts")))
}

async fn contacts(State(shared): State<Shared>, jar: SignedCookieJar) -> Answer<Markup> {
    let Some(id) = shared.cookies.session_id(&jar) else {
        return Err((jar, Failure::SessionOver));
    };
    match shared.salesforce.contacts(&id).await {
        Ok((user, contacts)) => Ok((jar, pages::contacts(&user, &contacts))),
        Err(Failure::SessionOver) => {
            // The record in the store and the access token may still be valid.
            let _logged = shared.salesforce.log_out(&id).await;
            Err((shared.cookies.end_session(jar), Failure::SessionOver))
        }
        Err(failure) => Err((jar, failure)),
    }
}

/// A GET, from a bookmark or a link, logs no user out: the form is on the page.
async fn ask_to_log_out() -> Redirect {
    Redirect::to("/")
}

async fn logout(State(shared): State<Shared>, jar: SignedCookieJar) -> Answer<Redirect> {
    let ended = match shared.cookies.session_id(&jar) {
        Some(id) => shared.salesforce.log_out(&id).await,
        None => Ok(()),
    };
    if ended == Err(Failure::NotLoggedOut) {
        // Without its cookie, the browser could not try again.
        return Err((jar, Failure::NotLoggedOut));
    }
    // The cookie goes even if Salesforce did not revoke the grant.
    let jar = shared.cookies.end_session(jar);
    match ended {
        Ok(()) => Ok((jar, Redirect::to("/logged-out"))),
        Err(failure) => Err((jar, failure)),
    }
}

async fn logged_out() -> Markup {
    pages::logged_out()
}

async fn style() -> impl IntoResponse {
    file("text/css; charset=utf-8", include_str!("style.css"))
}

async fn icon() -> impl IntoResponse {
    file("image/svg+xml", include_str!("icon.svg"))
}

/// A public file, which caches may keep for a while.
fn file(content_type: &'static str, content: &'static str) -> impl IntoResponse {
    let headers = [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "public, max-age=600"),
    ];
    (headers, content)
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status(), pages::failure(self)).into_response()
    }
}

// === Helpers ===

/// A header beside those of the cookie jar.
type SetCookie = AppendHeaders<[(HeaderName, HeaderValue); 1]>;

#[expect(
    clippy::disallowed_methods,
    reason = "the clock of the program: the crate takes it as an argument"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

fn set_cookie(cookie: HeaderValue) -> SetCookie {
    AppendHeaders([(SET_COOKIE, cookie)])
}

fn header(name: HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
}

fn span(request: &Request) -> Span {
    tracing::info_span!("request", method = %request.method(), path = request.uri().path())
}

/// An id of 256 random bits.
fn random_id() -> Option<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).ok()?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
}
