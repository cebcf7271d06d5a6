//! Token revocation (RFC 7009).

use super::error_response;
use crate::{
    error::RefreshError,
    http::transport::{HttpClient, HttpRequest},
    secret::Secret,
    session::url::LoginUrl,
};

/// Ends a token at the server (RFC 7009; Salesforce Help, "Revoke OAuth Tokens Programmatically"), by a POST with the
/// token in its body.
///
/// A refresh token ends with every access token that came of it; an access token, or a session id, ends alone. A token
/// that is not good any more counts as revoked. No client authentication is needed.
///
/// ```no_run
/// # use bytes::Bytes;
/// # use http_body_util::Full;
/// # use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower_salesforce_auth::{LoginUrl, Secret, oauth};
///
/// # async fn example() -> Result<(), tower_salesforce_auth::RefreshError> {
/// # let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
/// oauth::revoke(client, &LoginUrl::production(), &Secret::from("5Aep861…")).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`RefreshErrorKind::Refused`](crate::RefreshErrorKind::Refused) if the server knows better, and
/// [`Transport`](crate::RefreshErrorKind::Transport) if nobody knows: the token may still be good then.
pub async fn revoke(
    client: impl HttpClient,
    login_url: &LoginUrl,
    token: &Secret,
) -> Result<(), RefreshError> {
    let endpoint = login_url
        .revocation_endpoint()
        .map_err(RefreshError::configuration)?;
    let answer = HttpRequest::post_form(endpoint, &[("token", token.expose())])
        .send(client)
        .await?;
    if answer.status.is_success() {
        return Ok(());
    }
    let refusal = error_response::refusal("token revocation", &answer, &[token.expose()]);
    match refusal.error_code() {
        Some("invalid_token") if answer.status.is_client_error() => Ok(()),
        _ => Err(refusal),
    }
}
