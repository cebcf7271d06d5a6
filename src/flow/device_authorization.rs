//! The device authorization flow (RFC 8628), with Salesforce's parameter names.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, de::Error as _};
use tokio::time::sleep;

use super::refresh_token;
use crate::{
    error::{RefreshError, RefreshErrorKind},
    http::{server_error::unrecognized, transport::HttpClient},
    oauth::{App, TokenRequest},
    refresh::hook::{RefreshContext, RefreshFn},
    report::reason::RefreshDescription,
    secret::Secret,
    session::session::Session,
    text::{fields::Fields, pasted},
};

/// The polling interval if the server sends none (RFC 8628 §3.2).
const INTERVAL: Duration = Duration::from_secs(5);

/// The increase of the polling interval after `slow_down` (RFC 8628 §3.5), or after a failed request.
const SLOW_DOWN: Duration = Duration::from_secs(5);

/// The lifetime of a code if the server sends none: that of Salesforce's codes.
const LIFETIME: Duration = Duration::from_secs(600);

/// Logs a user in on another device (RFC 8628; Salesforce Help, "OAuth 2.0 Device Flow for IoT Integration").
/// Salesforce uses other parameter names than the RFC.
///
/// 1. [`begin`](Self::begin), and show the user the code and the URL to enter it at.
/// 2. [`wait`](Self::wait) until the user has consented, for at most ten minutes.
/// 3. Give the session to a layer or handle with this flow. The flow then refreshes the session with its refresh token.
///
/// Since September 2025, Salesforce is reported to block this flow for apps that are not installed in the org.
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower_salesforce_auth::{
///     BoxError, LoginUrl, SalesforceAuthLayer, SessionHandle, flow::DeviceAuthorization,
///     oauth::App,
/// };
///
/// # async fn example() -> Result<(), BoxError> {
/// # let https = hyper_util::client::legacy::connect::HttpConnector::new();
/// let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(https);
/// let app = App::new(LoginUrl::production(), "3MVG9…");
/// let flow = DeviceAuthorization::new(client, app).scope("api refresh_token");
///
/// let code = flow.begin().await?;
/// println!("Go to {} and enter {}", code.verification_uri(), code.user_code());
/// let session = flow.wait(&code).await?;
///
/// let handle = SessionHandle::builder(flow).initial_session(session).build();
/// let layer = SalesforceAuthLayer::from(handle);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a flow does nothing until you call `begin`"]
pub struct DeviceAuthorization<C> {
    client: C,
    app: App,
    scope: Option<String>,
}

/// The code that the user enters, and where (RFC 8628 §3.2).
#[derive(Clone)]
pub struct DeviceCode {
    device_code: Secret,
    user_code: String,
    verification_uri: String,
    interval: Option<Duration>,
    expires_in: Option<Duration>,
}

/// Reads a number of seconds, as a number or a string. Any other value counts as missing.
impl TryFrom<Fields> for DeviceCode {
    /// The name of a field that is missing.
    type Error = &'static str;

    fn try_from(fields: Fields) -> Result<Self, &'static str> {
        Ok(Self {
            device_code: fields.token("device_code").ok_or("device_code")?.into(),
            user_code: fields.text("user_code").ok_or("user_code")?,
            verification_uri: fields
                .string("verification_uri")
                // An older draft of RFC 8628 had this name.
                .or_else(|| fields.string("verification_url"))
                .ok_or("verification_uri")?,
            interval: fields.seconds("interval"),
            expires_in: fields.seconds("expires_in"),
        })
    }
}

impl<'de> Deserialize<'de> for DeviceCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Fields::deserialize(deserializer)?;
        Self::try_from(fields).map_err(D::Error::missing_field)
    }
}

impl DeviceCode {
    /// The code for the user to enter.
    pub fn user_code(&self) -> &str {
        &self.user_code
    }

    /// The URL where the user enters the code.
    pub fn verification_uri(&self) -> &str {
        &self.verification_uri
    }

    /// The URL with the code filled in, for a link or a QR code.
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

    /// The shortest polling interval that the server allows. Default: 5 s.
    pub fn interval(&self) -> Duration {
        self.interval
            .filter(|interval| !interval.is_zero())
            .unwrap_or(INTERVAL)
    }

    /// The lifetime of the code. Default: 10 min.
    pub fn expires_in(&self) -> Duration {
        self.expires_in
            .filter(|lifetime| !lifetime.is_zero())
            .unwrap_or(LIFETIME)
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

impl<C: HttpClient> DeviceAuthorization<C> {
    /// Makes a flow for this app.
    pub fn new(client: C, app: App) -> Self {
        Self {
            client,
            app,
            scope: None,
        }
    }

    /// Sets the scopes to request, separated by spaces. Default: all scopes of the app.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(pasted::text(scope));
        self
    }

    /// Requests a code.
    ///
    /// # Errors
    ///
    /// Any error of a server that refuses, cannot be reached, or sends another response.
    pub async fn begin(&self) -> Result<DeviceCode, RefreshError> {
        let mut request = TokenRequest::without_grant_type(
            &self.app,
            "device authorization",
            ("response_type", "device_code"),
        );
        if let Some(scope) = &self.scope {
            request = request.parameter("scope", scope);
        }
        let response = request.send_raw(self.client.clone()).await?;
        let fields = response.fields(&["device_code"]).unwrap_or_default();
        fields.try_into().map_err(|missing| {
            let expected = format!("a device code in JSON, with `{missing}`");
            unrecognized("device authorization", response, &expected, &[])
        })
    }

    /// Polls the server until the user has decided (RFC 8628 §3.4, §3.5).
    ///
    /// This method keeps to the code's interval. It polls less often after `slow_down` or a failed request, and stops
    /// when the code expires. Dropping the future is safe: call the method again with the same code.
    ///
    /// # Errors
    ///
    /// - [`RefreshErrorKind::Refused`] if the user refused (`access_denied`).
    /// - [`RefreshErrorKind::TimedOut`] if the code expired before the user decided.
    ///
    /// # Panics
    ///
    /// This method panics outside a tokio runtime with a time driver.
    pub async fn wait(&self, code: &DeviceCode) -> Result<Session, RefreshError> {
        let mut interval = code.interval();
        let key = self.app.key_of_exchange(None)?;
        let polling = async {
            loop {
                sleep(interval).await;
                let result = TokenRequest::new(&self.app, "device")
                    .secret("code", &code.device_code)
                    .proven_with(key.clone())
                    .send(self.client.clone())
                    .await;
                match result {
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
        tokio::time::timeout(code.expires_in(), polling)
            .await
            .unwrap_or_else(|_elapsed| {
                Err(RefreshError::new(
                    RefreshErrorKind::TimedOut,
                    true,
                    "the code expired before the user decided: begin again",
                ))
            })
    }
}

/// Refreshes the session with its refresh token.
impl<C: HttpClient> RefreshFn for DeviceAuthorization<C> {
    async fn refresh(&self, context: RefreshContext) -> Result<Session, RefreshError> {
        refresh_token::refresh_session(self.client.clone(), &self.app, &context).await
    }

    fn describe(&self, _context: &RefreshContext) -> Option<RefreshDescription> {
        Some(refresh_token::description(&self.app))
    }

    fn app(&self) -> Option<&App> {
        Some(&self.app)
    }
}

impl<C> fmt::Debug for DeviceAuthorization<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceAuthorization")
            .field("app", &self.app)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}
