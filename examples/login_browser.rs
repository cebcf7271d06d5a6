//! The authorization code flow from a terminal: the browser logs in, and returns the code to a loopback address.
//!
//! ```sh
//! cargo run --example login_browser
//! ```
//!
//! By default the org is emulated, and its login page names a user to try. For a real org, set `SF_LOGIN_URL`,
//! `SF_CLIENT_ID`, `SF_CLIENT_SECRET` if the app requires it, and `SF_REDIRECT_URI` if the app's callback URL is not
//! `http://localhost:1717/OauthRedirect`.

use std::{convert::Infallible, env, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use tower::{Layer, ServiceExt};
use tower_salesforce_auth::{
    BoxError, RefreshErrorKind, SalesforceAuthLayer, SessionHandle,
    emulator::{Org, Served},
    flow::AuthorizationCode,
    https::HttpsClient,
    oauth::{self, App},
};

/// The time that the user has to log in and consent. Salesforce's codes are valid for 15 minutes.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

const REDIRECT_URI: &str = "http://localhost:1717/OauthRedirect";

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let login = Login::from_env().await?;
    let redirect_uri: Uri = login.redirect_uri.parse()?;
    let port = redirect_uri.port_u16().unwrap_or(80);
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;

    let https = HttpsClient::new()?;
    let flow = AuthorizationCode::new(https.clone(), login.app, &login.redirect_uri)
        .scope("api refresh_token");
    let (url, pending) = flow.authorization_url().build()?.into_parts();
    println!("Open this in a browser:\n\n{url}\n");
    println!(
        "Waiting until the browser comes back to {}, for {} minutes at most.",
        login.redirect_uri,
        PATIENCE.as_secs() / 60
    );

    let mut callbacks = callbacks(listener, redirect_uri.path());
    let logged_in = timeout(PATIENCE, async {
        while let Some(callback) = callbacks.recv().await {
            match flow.exchange(&pending, &callback).await {
                // Any page can send a browser here. The right callback may still come.
                Err(error) if error.kind() == RefreshErrorKind::InvalidCallback => {
                    println!("A callback was refused: {error}");
                }
                exchanged => return exchanged.map_err(BoxError::from),
            }
        }
        Err("no connection can be accepted any more".into())
    });
    let session = logged_in
        .await
        .map_err(|_| "the browser did not come back in time: run the example again")??;
    let user = oauth::userinfo(https.clone(), &session).await?;
    println!(
        "{} of org {} is logged in at {}.",
        user.preferred_username.as_deref().unwrap_or("A user"),
        user.organization_id,
        session.instance_url()
    );

    // The flow refreshes the session with the refresh token of the login: here at once, to show it.
    let handle = SessionHandle::builder(flow)
        .initial_session(session)
        .build();
    handle.refresh().await?;
    let client = SalesforceAuthLayer::from(handle.clone()).layer(HttpsClient::new()?);
    let request = Request::get("/services/data/v66.0/limits").body(Full::<Bytes>::default())?;
    println!("A request: {}", client.oneshot(request).await?.status());

    handle.logout_and_revoke(https).await?;
    println!("Logged out, and the grant is revoked.");
    Ok(())
}

/// The org, and the app to log in with.
struct Login {
    app: App,
    redirect_uri: String,
    /// The emulated org, which serves until this is dropped. `None` for a real org.
    _served: Option<Served>,
}

impl Login {
    async fn from_env() -> Result<Self, BoxError> {
        let redirect_uri = env::var("SF_REDIRECT_URI").unwrap_or_else(|_| REDIRECT_URI.to_owned());
        if let Ok(login_url) = env::var("SF_LOGIN_URL") {
            let client_id = env::var("SF_CLIENT_ID").map_err(|_| "SF_CLIENT_ID is not set")?;
            let mut app = App::new(login_url.parse()?, client_id);
            if let Ok(client_secret) = env::var("SF_CLIENT_SECRET") {
                app = app.client_secret(client_secret);
            }
            return Ok(Self {
                app,
                redirect_uri,
                _served: None,
            });
        }
        let org = Org::new();
        org.set_redirect_uri(&redirect_uri);
        let served = org.serve().await?;
        println!(
            "This org is emulated. Its user is {}, with the password {}.",
            org.username(),
            org.password()
        );
        let app =
            App::new(org.login_url().parse()?, org.client_id()).client_secret(org.client_secret());
        Ok(Self {
            app,
            redirect_uri,
            _served: Some(served),
        })
    }
}

/// Receives the URI of each request of the browser to `path`.
///
/// Browsers open connections without a request, and request other paths as well.
fn callbacks(listener: TcpListener, path: &str) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(1);
    let path = path.to_owned();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (sender, path) = (sender.clone(), path.clone());
            let answer = service_fn(move |request: Request<Incoming>| {
                let (sender, path) = (sender.clone(), path.clone());
                async move {
                    if request.uri().path() != path {
                        let mut nothing = Response::new(Full::<Bytes>::default());
                        *nothing.status_mut() = StatusCode::NOT_FOUND;
                        return Ok::<_, Infallible>(nothing);
                    }
                    let _ = sender.send(request.uri().to_string()).await;
                    let mut page = Response::new(Full::from(
                        "You can close this page, and continue in the terminal.",
                    ));
                    page.headers_mut()
                        .insert(CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
                    Ok(page)
                }
            });
            // If a connection breaks, the browser opens another.
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
    receiver
}
