//! The device flow (RFC 8628, with Salesforce's own names).

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer};
use tokio::time::sleep;

use super::refresh_token;
use crate::{
    error::{RefreshError, RefreshErrorKind},
    http::transport::HttpClient,
    oauth::{App, TokenRequest},
    refresh::hook::{RefreshContext, RefreshFn},
    report::reason::RefreshDescription,
    secret::Secret,
    session::session::Session,
};

/// How often to ask, if the server does not say (RFC 8628 §3.2).
const INTERVAL: Duration = Duration::from_secs(5);

/// How much less often, each time that the server asks for it (RFC 8628 §3.5), or cannot be reached.
const SLOW_DOWN: Duration = Duration::from_secs(5);

/// How long Salesforce's codes live.
const LIFETIME: Duration = Duration::from_secs(600);

/// Has a user log in and consent on another device (Salesforce Help, "OAuth 2.0 Device Flow for IoT Integration"; RFC 8628
/// with other parameter names).
///
/// 1. [`begin`](Self::begin), and show the user the code and where to enter it.
/// 2. [`wait`](Self::wait) until the user has done so, for ten minutes at most.
/// 3. Give the session to a layer or handle that is made with the flow: the flow renews it with its refresh token.
///
/// Salesforce is said to block this flow, since September 2025, for apps that are not installed in the org.
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower_salesforce_auth::{BoxError, LoginUrl, SalesforceAuthLayer, flow::DeviceFlow, oauth::App};
///
/// # async fn example() -> Result<(), BoxError> {
/// # let https = hyper_util::client::legacy::connect::HttpConnector::new();
/// let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(https);
/// let app = App::new(LoginUrl::production(), "3MVG9…");
/// let flow = DeviceFlow::new(client, app).scope("api refresh_token");
///
/// let code = flow.begin().await?;
/// println!("Go to {} and enter {}", code.verification_uri(), code.user_code());
/// let session = flow.wait(&code).await?;
///
/// let layer = SalesforceAuthLayer::new(flow).session(session);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a flow does nothing until it is begun"]
pub struct DeviceFlow<C> {
    client: C,
    app: App,
    scope: Option<String>,
}

/// What the user has to enter, and where (RFC 8628 §3.2).
#[derive(Clone, Deserialize)]
pub struct DeviceCode {
    device_code: Secret,
    user_code: String,
    verification_uri: String,
    #[serde(default, deserialize_with = "seconds")]
    interval: Option<Duration>,
    #[serde(default, deserialize_with = "seconds")]
    expires_in: Option<Duration>,
}

/// A number of seconds, in a string or not. Anything else counts as not said.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    let seconds = value
        .as_u64()
        .or_else(|| value.as_str().and_then(|text| text.parse().ok()));
    Ok(seconds.map(Duration::from_secs))
}

impl DeviceCode {
    /// The code that the user enters.
    pub fn user_code(&self) -> &str {
        &self.user_code
    }

    /// Where the user enters it.
    pub fn verification_uri(&self) -> &str {
        &self.verification_uri
    }

    /// The same with the code filled in, for a link or a QR code.
    pub fn verification_uri_complete(&self) -> String {
        let separator = if self.verification_uri.contains('?') {
            '&'
        } else {
            '?'
        };
        let code = form_urlencoded::byte_serialize(self.user_code.as_bytes());
        format!(
            "{}{separator}user_code={}",
            self.verification_uri,
            code.collect::<String>()
        )
    }

    /// How often the server wants to be asked at most. 5 s, unless it said otherwise.
    pub fn interval(&self) -> Duration {
        self.interval
            .filter(|interval| !interval.is_zero())
            .unwrap_or(INTERVAL)
    }

    /// How long the code is good for. 10 minutes, unless the server said otherwise.
    pub fn expires_in(&self) -> Duration {
        self.expires_in.unwrap_or(LIFETIME)
    }
}

impl fmt::Debug for DeviceCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceCode")
            .field("device_code", &self.device_code)
            .field("verification_uri", &self.verification_uri)
            .finish_non_exhaustive()
    }
}

impl<C: HttpClient> DeviceFlow<C> {
    /// Authorizations of this app.
    pub fn new(client: C, app: App) -> Self {
        Self {
            client,
            app,
            scope: None,
        }
    }

    /// The scopes to ask for, space-separated. All that the app has, by default.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// Asks for a code.
    ///
    /// # Errors
    ///
    /// If the server refuses, cannot be reached, or answers something else.
    pub async fn begin(&self) -> Result<DeviceCode, RefreshError> {
        let mut grant = TokenRequest::without_grant_type(
            &self.app,
            "device authorization",
            ("response_type", "device_code"),
        );
        if let Some(scope) = &self.scope {
            grant = grant.parameter("scope", scope);
        }
        grant
            .send_raw(self.client.clone())
            .await?
            .json("a device code in JSON, with `user_code` and `verification_uri`")
    }

    /// Asks again and again until the user has decided (RFC 8628 §3.4, §3.5).
    ///
    /// It keeps to the interval of the code, asks less often when told to or when the server cannot be reached, and ends
    /// with the code. Can be dropped at any time, and called again with the same code.
    ///
    /// # Errors
    ///
    /// [`RefreshErrorKind::Refused`] if the user said no (`access_denied`), and [`RefreshErrorKind::TimedOut`] if the code
    /// was over before the user decided.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with a time driver.
    pub async fn wait(&self, code: &DeviceCode) -> Result<Session, RefreshError> {
        let mut interval = code.interval();
        let asking = async {
            loop {
                sleep(interval).await;
                let asked = TokenRequest::new(&self.app, "device")
                    .secret("code", &code.device_code)
                    .send(self.client.clone())
                    .await;
                match asked {
                    Ok(response) => return response.into_session(self.app.login_url()),
                    Err(error) if error.error_code() == Some("authorization_pending") => {}
                    Err(error) if error.error_code() == Some("slow_down") => {
                        interval = interval.saturating_add(SLOW_DOWN);
                    }
                    Err(error) if !error.is_terminal() => {
                        interval = interval
                            .max(error.retry_after().unwrap_or_default())
                            .saturating_add(SLOW_DOWN);
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        tokio::time::timeout(code.expires_in(), asking)
            .await
            .unwrap_or_else(|_elapsed| {
                Err(RefreshError::new(
                    RefreshErrorKind::TimedOut,
                    true,
                    "the code was over before the user decided: begin again",
                ))
            })
    }
}

/// Renews the session with its refresh token.
impl<C: HttpClient> RefreshFn for DeviceFlow<C> {
    async fn refresh(&self, context: RefreshContext) -> Result<Session, RefreshError> {
        refresh_token::renew(self.client.clone(), &self.app, &context).await
    }

    fn describe(&self, _context: &RefreshContext) -> Option<RefreshDescription> {
        let host = self.app.login_url().host().to_owned();
        Some(RefreshDescription::new("refresh_token", host))
    }
}

impl<C> fmt::Debug for DeviceFlow<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceFlow")
            .field("app", &self.app)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}
