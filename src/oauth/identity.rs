//! Who the user of a session is.

use std::collections::BTreeMap;

use http::{HeaderValue, Uri, header::AUTHORIZATION};
use serde::{Deserialize, Serialize};

use super::error_response;
use crate::{
    error::{RefreshError, RefreshErrorKind},
    http::transport::{HttpClient, HttpRequest},
    session::session::Session,
};

// === Identity ===

/// What the identity URL tells of a user (Salesforce Help, "Identity URLs").
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(default)]
pub struct Identity {
    /// The identity URL itself.
    pub id: String,
    /// The 18-character id of the user.
    pub user_id: String,
    /// The 18-character id of the org.
    pub organization_id: String,
    /// The user name, which is what the user logs in with.
    pub username: Option<String>,
    /// The name as it is shown.
    pub display_name: Option<String>,
    /// The nickname.
    pub nick_name: Option<String>,
    /// The given name.
    pub first_name: Option<String>,
    /// The family name.
    pub last_name: Option<String>,
    /// The e-mail address.
    pub email: Option<String>,
    /// Whether the address was verified.
    pub email_verified: Option<bool>,
    /// `STANDARD` and the like.
    pub user_type: Option<String>,
    /// `en_US` and the like: the language of the user interface.
    pub language: Option<String>,
    /// `en_US` and the like: how numbers and dates are written.
    pub locale: Option<String>,
    /// `America/Los_Angeles` and the like.
    pub timezone: Option<String>,
    /// Whether the user is active.
    pub active: Option<bool>,
    /// The URLs of the APIs, by name (`rest`, `partner`, …), with `{version}` to be replaced.
    pub urls: BTreeMap<String, serde_json::Value>,
}

/// Asks for the identity behind a session (Salesforce Help, "Identity URLs").
///
/// The identity URL is asked at the session's instance, which answers at the same path, so that the token goes nowhere
/// else.
///
/// ```no_run
/// # use bytes::Bytes;
/// # use http_body_util::Full;
/// # use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower_salesforce_auth::{SessionHandle, oauth};
///
/// # async fn example(handle: SessionHandle) -> Result<(), tower_salesforce_auth::BoxError> {
/// # let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
/// let session = handle.token().await?;
/// let identity = oauth::identity(client, &session).await?;
/// println!("{:?} of {}", identity.username, identity.organization_id);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`RefreshErrorKind::Configuration`] if the session has no identity URL. Otherwise if the server refuses, cannot be
/// reached, or answers something else; the token may have expired, which it tells by `Bad_OAuth_Token`.
pub async fn identity(
    client: impl HttpClient,
    session: &Session,
) -> Result<Identity, RefreshError> {
    let path = session
        .identity_url()
        .and_then(|url| url.parse::<Uri>().ok())
        .and_then(|url| url.into_parts().path_and_query)
        .ok_or_else(|| {
            RefreshError::new(
                RefreshErrorKind::Configuration,
                true,
                "the session has no identity URL: a session that was made by hand has one only if it was given one, \
                 and a SOAP session has none (ask `userinfo` instead)",
            )
        })?;
    let endpoint = session
        .instance_url()
        .origin()
        .join(path)
        .map_err(RefreshError::configuration)?;
    ask(client, session, endpoint, "identity request")
        .await?
        .json("an identity in JSON")
}

// === UserInfo ===

/// What the userinfo endpoint tells of a user (OpenID Connect Core 1.0 §5.3).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(default)]
pub struct UserInfo {
    /// The identity URL of the user.
    pub sub: String,
    /// The 18-character id of the user.
    pub user_id: String,
    /// The 18-character id of the org.
    pub organization_id: String,
    /// The user name, which is what the user logs in with.
    pub preferred_username: Option<String>,
    /// The nickname.
    pub nickname: Option<String>,
    /// The name as it is shown.
    pub name: Option<String>,
    /// The given name.
    pub given_name: Option<String>,
    /// The family name.
    pub family_name: Option<String>,
    /// The e-mail address.
    pub email: Option<String>,
    /// Whether the address was verified.
    pub email_verified: Option<bool>,
    /// `America/Los_Angeles` and the like.
    pub zoneinfo: Option<String>,
    /// The profile page.
    pub profile: Option<String>,
    /// A picture of the user.
    pub picture: Option<String>,
    /// `STANDARD` and the like.
    pub user_type: Option<String>,
    /// `en_US` and the like: the language of the user interface.
    pub language: Option<String>,
    /// `en_US` and the like: how numbers and dates are written.
    pub locale: Option<String>,
    /// Whether the user is active.
    pub active: Option<bool>,
    /// The URLs of the APIs, by name (`rest`, `partner`, …), with `{version}` to be replaced.
    pub urls: BTreeMap<String, serde_json::Value>,
}

/// Asks the userinfo endpoint of the session's instance (OpenID Connect Core 1.0 §5.3; Salesforce Help, "Query for User
/// Information"). It works for every kind of session, SOAP ones included.
///
/// ```no_run
/// # use bytes::Bytes;
/// # use http_body_util::Full;
/// # use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower_salesforce_auth::{SessionHandle, oauth};
///
/// # async fn example(handle: SessionHandle) -> Result<(), tower_salesforce_auth::BoxError> {
/// # let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
/// let session = handle.token().await?;
/// let user = oauth::userinfo(client, &session).await?;
/// println!("{:?} of {}", user.preferred_username, user.organization_id);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// If the server refuses, cannot be reached, or answers something else; the token may have expired, which it tells by
/// `Bad_OAuth_Token`.
pub async fn userinfo(
    client: impl HttpClient,
    session: &Session,
) -> Result<UserInfo, RefreshError> {
    let path = http::uri::PathAndQuery::from_static("/services/oauth2/userinfo");
    let endpoint = session
        .instance_url()
        .origin()
        .join(path)
        .map_err(RefreshError::configuration)?;
    ask(client, session, endpoint, "userinfo request")
        .await?
        .json("user information in JSON")
}

async fn ask(
    client: impl HttpClient,
    session: &Session,
    endpoint: Uri,
    what: &str,
) -> Result<crate::http::transport::HttpResponse, RefreshError> {
    let authorization: HeaderValue = session.authorization().clone();
    let answer = HttpRequest::get(endpoint)
        .with_header(AUTHORIZATION, authorization)
        .send(client)
        .await?;
    if answer.status.is_success() {
        return Ok(answer);
    }
    Err(error_response::plain_refusal(
        what,
        &answer,
        &[session.access_token().expose()],
    ))
}
