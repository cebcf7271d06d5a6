//! The user behind a session: the identity URL and the userinfo endpoint.

use std::collections::BTreeMap;

use http::{Uri, uri::PathAndQuery};
use serde::{Deserialize, Serialize};

use super::error_response;
use crate::{
    error::{RefreshError, RefreshErrorKind},
    http::{
        server_error::unrecognized,
        transport::{HttpClient, HttpRequest},
    },
    session::session::Session,
    text::fields::Fields,
};

// === Identity ===

/// The user, as the identity URL describes them (Salesforce Help, "Identity URLs").
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Fields")]
#[non_exhaustive]
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

impl From<Fields> for Identity {
    fn from(fields: Fields) -> Self {
        Self {
            id: fields.text("id").unwrap_or_default(),
            user_id: fields.text("user_id").unwrap_or_default(),
            organization_id: fields.text("organization_id").unwrap_or_default(),
            username: fields.text("username"),
            display_name: fields.text("display_name"),
            nick_name: fields.text("nick_name"),
            first_name: fields.text("first_name"),
            last_name: fields.text("last_name"),
            email: fields.text("email"),
            user_type: fields.text("user_type"),
            language: fields.text("language"),
            locale: fields.text("locale"),
            timezone: fields.text("timezone"),
            email_verified: fields.flag("email_verified"),
            active: fields.flag("active"),
            urls: fields.object("urls").collect(),
        }
    }
}

/// Fetches the identity of a session's user (Salesforce Help, "Identity URLs").
///
/// This function asks the session's instance, which serves the identity at the same path, without the path of a site. The
/// token goes to no other host.
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
        .and_then(|url| identity_path(session, url))
        .ok_or_else(|| {
            RefreshError::new(
                RefreshErrorKind::Configuration,
                true,
                "the session has no identity URL: SOAP sessions never have one, and sessions made by hand only with \
                 `with_identity_url` (call `userinfo` instead)",
            )
        })?;
    let wanted = ["id", "user_id", "organization_id", "username"];
    let expected = "an identity in JSON";
    let request = "identity request";
    get_from_instance(client, session, path, request, expected, &wanted)
        .await
        .map(Identity::from)
}

/// The path of the identity at the session's instance.
///
/// The identity URL of a site's user has the site's path, which another host does not have.
fn identity_path(session: &Session, url: &str) -> Option<PathAndQuery> {
    let url: Uri = url.trim().parse().ok()?;
    let is_at_instance = session.instance_url().origin().is_of(&url);
    let path = url.into_parts().path_and_query?;
    match path.as_str().rfind("/id/") {
        Some(start) if !is_at_instance => path.as_str().get(start..)?.parse().ok(),
        _ => Some(path),
    }
}

// === UserInfo ===

/// The user, as the userinfo endpoint describes them (OpenID Connect Core 1.0 §5.3).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Fields")]
#[non_exhaustive]
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

impl From<Fields> for UserInfo {
    fn from(fields: Fields) -> Self {
        Self {
            sub: fields.text("sub").unwrap_or_default(),
            user_id: fields.text("user_id").unwrap_or_default(),
            organization_id: fields.text("organization_id").unwrap_or_default(),
            preferred_username: fields.text("preferred_username"),
            nickname: fields.text("nickname"),
            name: fields.text("name"),
            given_name: fields.text("given_name"),
            family_name: fields.text("family_name"),
            email: fields.text("email"),
            zoneinfo: fields.text("zoneinfo"),
            profile: fields.text("profile"),
            picture: fields.text("picture"),
            user_type: fields.text("user_type"),
            language: fields.text("language"),
            locale: fields.text("locale"),
            email_verified: fields.flag("email_verified"),
            active: fields.flag("active"),
            urls: fields.object("urls").collect(),
        }
    }
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
    let wanted = ["sub", "user_id", "organization_id", "preferred_username"];
    let expected = "user information in JSON";
    let request = "userinfo request";
    get_from_instance(client, session, path, request, expected, &wanted)
        .await
        .map(UserInfo::from)
}

/// Sends a GET with the session's token to the session's instance, and reads the fields of the response. A refusal is an
/// error, and so is a response with none of the `wanted` fields.
async fn get_from_instance(
    client: impl HttpClient,
    session: &Session,
    path: PathAndQuery,
    request: &str,
    expected: &str,
    wanted: &[&str],
) -> Result<Fields, RefreshError> {
    let endpoint = session
        .instance_url()
        .origin()
        .join(path)
        .map_err(RefreshError::configuration)?;
    let secrets = [session.access_token().expose()];
    let get = || HttpRequest::get(endpoint.clone()).with_session(session);
    let mut response = get().send(client.clone(), &secrets).await?;
    if response.demands_nonce() {
        response = get().send(client, &secrets).await?;
    }
    if !response.status.is_success() {
        return Err(error_response::plain_refusal(request, response, &secrets));
    }
    match response.fields(wanted) {
        Some(fields) if wanted.iter().any(|name| fields.text(name).is_some()) => Ok(fields),
        _ => Err(unrecognized(request, response, expected, &secrets)),
    }
}
