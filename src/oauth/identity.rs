//! The user behind a session: the identity URL and the userinfo endpoint.

use std::collections::BTreeMap;

use http::{Uri, header::AUTHORIZATION, uri::PathAndQuery};
use serde::{Deserialize, Serialize};

use super::error_response;
use crate::{
    error::{RefreshError, RefreshErrorKind},
    http::transport::{HttpClient, HttpRequest, HttpResponse},
    session::session::Session,
};

// === Identity ===

/// The user, as the identity URL describes them (Salesforce Help, "Identity URLs").
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(default)]
pub struct Identity {
    /// The identity URL.
    pub id: String,
    /// The user's 18-character id.
    pub user_id: String,
    /// The org's 18-character id.
    pub organization_id: String,
    /// The user name, with which the user logs in.
    pub username: Option<String>,
    /// The display name.
    pub display_name: Option<String>,
    /// The nickname.
    pub nick_name: Option<String>,
    /// The given name.
    pub first_name: Option<String>,
    /// The family name.
    pub last_name: Option<String>,
    /// The e-mail address.
    pub email: Option<String>,
    /// Whether the e-mail address is verified.
    pub email_verified: Option<bool>,
    /// The type of user, for example `STANDARD`.
    pub user_type: Option<String>,
    /// The language of the user interface, for example `en_US`.
    pub language: Option<String>,
    /// The format of numbers and dates, for example `en_US`.
    pub locale: Option<String>,
    /// The time zone, for example `America/Los_Angeles`.
    pub timezone: Option<String>,
    /// Whether the user is active.
    pub active: Option<bool>,
    /// The URLs of the APIs by name (`rest`, `partner`, …). Each contains `{version}`, to be replaced by an API
    /// version.
    pub urls: BTreeMap<String, serde_json::Value>,
}

/// Fetches the identity of a session's user (Salesforce Help, "Identity URLs").
///
/// This function asks the session's instance, which serves the identity at the same path. The token goes to no other
/// host.
///
/// ```no_run
/// # use bytes::Bytes;
/// # use http_body_util::Full;
/// # use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower_salesforce_auth::{SessionHandle, oauth};
///
/// # async fn example(handle: SessionHandle) -> Result<(), tower_salesforce_auth::BoxError> {
/// # let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
/// let session = handle.session().await?;
/// let identity = oauth::identity(client, &session).await?;
/// println!("{:?} of {}", identity.username, identity.organization_id);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// - [`RefreshErrorKind::Configuration`] if the session has no identity URL.
/// - [`RefreshErrorKind::Refused`] if the server refuses the token: with the code `Bad_OAuth_Token` if the session
///   expired.
/// - Any error of a server that cannot be reached or sends another response.
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
                "the session has no identity URL: SOAP sessions never have one, and sessions made by hand only with \
                 `with_identity_url` (call `userinfo` instead)",
            )
        })?;
    get_from_instance(client, session, path, "identity request")
        .await?
        .json("an identity in JSON")
}

// === UserInfo ===

/// The user, as the userinfo endpoint describes them (OpenID Connect Core 1.0 §5.3).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(default)]
pub struct UserInfo {
    /// The user's identity URL.
    pub sub: String,
    /// The user's 18-character id.
    pub user_id: String,
    /// The org's 18-character id.
    pub organization_id: String,
    /// The user name, with which the user logs in.
    pub preferred_username: Option<String>,
    /// The nickname.
    pub nickname: Option<String>,
    /// The display name.
    pub name: Option<String>,
    /// The given name.
    pub given_name: Option<String>,
    /// The family name.
    pub family_name: Option<String>,
    /// The e-mail address.
    pub email: Option<String>,
    /// Whether the e-mail address is verified.
    pub email_verified: Option<bool>,
    /// The time zone, for example `America/Los_Angeles`.
    pub zoneinfo: Option<String>,
    /// The URL of the profile page.
    pub profile: Option<String>,
    /// The URL of a picture of the user.
    pub picture: Option<String>,
    /// The type of user, for example `STANDARD`.
    pub user_type: Option<String>,
    /// The language of the user interface, for example `en_US`.
    pub language: Option<String>,
    /// The format of numbers and dates, for example `en_US`.
    pub locale: Option<String>,
    /// Whether the user is active.
    pub active: Option<bool>,
    /// The URLs of the APIs by name (`rest`, `partner`, …). Each contains `{version}`, to be replaced by an API
    /// version.
    pub urls: BTreeMap<String, serde_json::Value>,
}

/// Fetches the user of a session from the instance's userinfo endpoint (OpenID Connect Core 1.0 §5.3; Salesforce Help,
/// "Query for User Information").
///
/// This function works for every kind of session, including SOAP sessions.
///
/// ```no_run
/// # use bytes::Bytes;
/// # use http_body_util::Full;
/// # use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower_salesforce_auth::{SessionHandle, oauth};
///
/// # async fn example(handle: SessionHandle) -> Result<(), tower_salesforce_auth::BoxError> {
/// # let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
/// let session = handle.session().await?;
/// let user = oauth::userinfo(client, &session).await?;
/// println!("{:?} of {}", user.preferred_username, user.organization_id);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// - [`RefreshErrorKind::Refused`] if the server refuses the token: with the code `Bad_OAuth_Token` if the session
///   expired.
/// - Any error of a server that cannot be reached or sends another response.
pub async fn userinfo(
    client: impl HttpClient,
    session: &Session,
) -> Result<UserInfo, RefreshError> {
    let path = PathAndQuery::from_static("/services/oauth2/userinfo");
    get_from_instance(client, session, path, "userinfo request")
        .await?
        .json("user information in JSON")
}

/// Sends a GET with the session's token to the session's instance. A refusal is an error.
async fn get_from_instance(
    client: impl HttpClient,
    session: &Session,
    path: PathAndQuery,
    request: &str,
) -> Result<HttpResponse, RefreshError> {
    let endpoint = session
        .instance_url()
        .origin()
        .join(path)
        .map_err(RefreshError::configuration)?;
    let response = HttpRequest::get(endpoint)
        .with_header(AUTHORIZATION, session.authorization().clone())
        .send(client)
        .await?;
    if response.status.is_success() {
        return Ok(response);
    }
    let secrets = [session.access_token().expose()];
    Err(error_response::plain_refusal(request, &response, &secrets))
}
