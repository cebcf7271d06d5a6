//! Token revocation (RFC 7009).

use super::error_response;
use crate::{
    error::RefreshError,
    http::{
        server_error::{is_overloaded, unrecognized},
        transport::{HttpClient, HttpRequest},
    },
    secret::Secret,
    session::url::LoginUrl,
    text::pasted,
};

/// Revokes a token (RFC 7009; Salesforce Help, "Revoke OAuth Tokens Programmatically"). The token is in the body of a
/// POST.
///
/// Revoking a refresh token also revokes every access token that was issued for it. Revoking an access token or session
/// id ends only that session. A token that is already invalid counts as revoked. The call needs no client
/// authentication.
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
/// - [`RefreshErrorKind::Refused`](crate::RefreshErrorKind::Refused) if the server refuses.
/// - [`RefreshErrorKind::Transport`](crate::RefreshErrorKind::Transport) if no response arrived: the token may still be
///   valid.
pub async fn revoke(
    client: impl HttpClient,
    login_url: &LoginUrl,
    token: &Secret,
) -> Result<(), RefreshError> {
    let endpoint = login_url
        .revocation_endpoint()
        .map_err(RefreshError::configuration)?;
    let token = pasted::credential(token.expose());
    let response = HttpRequest::post_form(endpoint, &[("token", token)])?
        .send(client, &[token])
        .await?;
    let (request, secrets) = ("token revocation", [token]);
    let status = response.status;
    if status.is_success() && response.is_html() {
        let expected = "an empty body: a gateway or a captive portal may be in the way";
        return Err(unrecognized(request, response, expected, &secrets));
    }
    match error_response::check(request, response, &secrets) {
        // The token was invalid already (RFC 7009 §2.2).
        Err(error) if error.error_code() == Some("invalid_token") && !is_overloaded(status) => {
            Ok(())
        }
        result => result.map(drop),
    }
}
