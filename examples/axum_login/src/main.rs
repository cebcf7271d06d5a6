//! A web application with "Log in with Salesforce": axum, cookies, and a session for each user.
//!
//! ```sh
//! cargo run -p axum_login
//! ```
//!
//! Open the URL that it prints; use two browsers for two users. By default the org is emulated, and the program prints a
//! user to try. For a real org, set `SF_LOGIN_URL`, `SF_CLIENT_ID`, `SF_CLIENT_SECRET` if the app requires it, and
//! `SF_REDIRECT_URI`, the app's callback URL, if it is not `http://localhost:PORT/callback`.
//!
//! A `LoginCookie` binds a callback to the browser that began the login, and [`logins`] lets each callback through once.
//! [`cookies`] has the cookie of the session. [`salesforce`] has the sessions and the tower stack towards Salesforce, [`app`]
//! the stack towards the browsers, and [`pages`] the HTML.

mod app;
mod cookies;
mod failure;
mod logins;
mod pages;
mod salesforce;
#[cfg(test)]
mod tests;

use std::{env, future::Future, io, net::Ipv4Addr, process::ExitCode, sync::Arc, time::Duration};

use axum_extra::extract::cookie::Key;
use base64::{Engine, engine::general_purpose::STANDARD};
use tokio::net::TcpListener;
use tower_salesforce_auth::{
    BoxError,
    emulator::{Org, Served},
    oauth,
    store::{FileStore, MemoryStore, SessionStore},
};
use tracing::Level;

use app::Settings;

/// The wait for another process that refreshes the same session, at most.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

const USAGE: &str = "\
A web application with \"Log in with Salesforce\", on 127.0.0.1.

Usage: axum_login [--port PORT]

  --port PORT  where to listen; 0 picks a free port; the default is $PORT, or else 3000

Environment:
  SF_LOGIN_URL      where to log in; without it, the org is an emulated one
  SF_CLIENT_ID      the consumer key of the app
  SF_CLIENT_SECRET  its consumer secret, if the app requires it
  SF_REDIRECT_URI   its callback URL, which ends in /callback; by default http://localhost:PORT/callback
  COOKIE_KEY        64 random bytes in Base64, which sign and encrypt the cookies: openssl rand -base64 64
  SESSION_DIR       a directory that keeps the sessions; with COOKIE_KEY, users stay logged in over a restart";

#[tokio::main]
async fn main() -> ExitCode {
    let port = match port(env::args().skip(1)) {
        Ok(port) => port,
        Err(problem) => {
            eprintln!("{problem}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    // To stderr, so that what is printed below can be read by a program.
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_max_level(Level::INFO)
        .init();
    match serve(port).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(port: u16) -> Result<(), BoxError> {
    // Listen for the signals first: the reader of the URL below may send one at once.
    let stop = stop_signal()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(|error| format!("Cannot listen on port {port} of 127.0.0.1: {error}."))?;
    let url = format!("http://localhost:{}", listener.local_addr()?.port());
    let redirect_uri = env::var("SF_REDIRECT_URI").unwrap_or_else(|_| format!("{url}/callback"));

    let (app, served) = registration(&redirect_uri).await?;
    let router = app::router(Settings {
        app,
        redirect_uri,
        cookie_key: cookie_key()?,
        store: store()?,
    })?;
    println!("Open {url}");

    axum::serve(listener, router)
        .with_graceful_shutdown(stop)
        .await?;
    if let Some(served) = served {
        served.shutdown().await;
    }
    Ok(())
}

fn port(mut arguments: impl Iterator<Item = String>) -> Result<u16, String> {
    let mut port = env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--port" => port = arguments.next().ok_or("--port needs a number.")?,
            _ => return Err(format!("{argument} is not an option.")),
        }
    }
    port.parse()
        .map_err(|_| format!("{port} is not a port, which is 0 to 65535."))
}

/// The app to log in with. The emulated org serves until the returned [`Served`] is dropped.
async fn registration(redirect_uri: &str) -> Result<(oauth::App, Option<Served>), BoxError> {
    if let Ok(login_url) = env::var("SF_LOGIN_URL") {
        let client_id = env::var("SF_CLIENT_ID").map_err(|_| "SF_CLIENT_ID is not set")?;
        let mut app = oauth::App::new(login_url.parse()?, client_id);
        if let Ok(client_secret) = env::var("SF_CLIENT_SECRET") {
            app = app.client_secret(client_secret);
        }
        return Ok((app, None));
    }
    let org = Org::new();
    org.set_redirect_uri(redirect_uri);
    let served = org.serve().await?;
    println!(
        "This org is emulated. Its user is {}, with the password {}.",
        org.username(),
        org.password()
    );
    let app = oauth::App::new(org.login_url().parse()?, org.client_id())
        .client_secret(org.client_secret());
    Ok((app, Some(served)))
}

/// The key of the cookies. Without `COOKIE_KEY` each start makes another key, and all users are logged out.
fn cookie_key() -> Result<Key, BoxError> {
    let Ok(encoded) = env::var("COOKIE_KEY") else {
        println!("COOKIE_KEY is not set: the cookies are valid until this program ends.");
        return Key::try_generate().ok_or_else(|| "there is no randomness for a cookie key".into());
    };
    // `openssl rand` breaks its lines.
    let encoded: String = encoded.split_whitespace().collect();
    let expected = "COOKIE_KEY is not 64 bytes in Base64: make one with `openssl rand -base64 64`";
    let bytes = STANDARD.decode(encoded).map_err(|_| expected)?;
    Ok(Key::try_from(&*bytes).map_err(|_| expected)?)
}

/// The store of the sessions. Several processes need a store that all of them reach, and the same `COOKIE_KEY`.
///
/// A closed browser loses its cookie, and its session is never logged out. Delete records that are older than the app's
/// refresh token policy allows. The files have refresh tokens in plain text, and only their owner can read them:
/// `FileStore::encryption` hides the tokens from readers of a backup.
fn store() -> Result<Arc<dyn SessionStore>, BoxError> {
    Ok(match env::var_os("SESSION_DIR") {
        // Shorter than a refresh may take.
        Some(directory) => Arc::new(FileStore::open(directory)?.lock_timeout(LOCK_PATIENCE)),
        None => Arc::new(MemoryStore::new()),
    })
}

/// Ctrl-C, or SIGTERM on Unix.
fn stop_signal() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    #[cfg(unix)]
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    Ok(async move {
        let interrupt = tokio::signal::ctrl_c();
        #[cfg(unix)]
        tokio::select! {
            _ = interrupt => {}
            _ = terminate.recv() => {}
        }
        #[cfg(not(unix))]
        let _ = interrupt.await;
    })
}
