//! Token revocation (RFC 7009).

use super::{error_response, token::Call};
use crate::{
    app::App,
    error::RefreshError,
    http::{
        server_error::{is_overloaded, unrecognized},
        transport::HttpClient,
    },
    secret::Secret,
    text::pasted,
};

/// Revokes a token (RFC 7009; Salesforce Help, "Revoke OAuth Tokens Programmatically"). The token is in the body of a
/// POST.
///
/// Revoking a refresh token also revokes every access token that was issued for it. Revoking an access token or session
/// id ends only that session. A token that is already invalid counts as revoked.
///
/// The app authenticates itself as at the token endpoint (RFC 7009 §2.1), and a public client sends its id. Salesforce
/// accepts the token alone too: for a token of an unknown app, give the app an empty client id. An app with a DPoP key proves
/// the call.
///
/// ```no_run
/// # use bytes::Bytes;
/// # use http_body_util::Full;
/// # use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower_salesforce_auth::{LoginUrl, Secret, oauth::{self, App}};
///
/// # async fn example() -> Result<(), tower_salesforce_auth::RefreshError> {
/// # let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
/// let app = App::new(LoginUrl::production(), "3MVG9…").client_secret("1955…");
/// oauth::revoke(client, &app, &Secret::from("5Aep861…")).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// - [`RefreshErrorKind::Refused`](crate::RefreshErrorKind::Refused) if the server refuses the token, or the app:
///   `invalid_client`.
/// - [`RefreshErrorKind::Transport`](crate::RefreshErrorKind::Transport) if no response arrived: the token may still be
///   valid.
pub async fn revoke(
    client: impl HttpClient,
    app: &App,
    token: &Secret,
) -> Result<(), RefreshError> {
    let endpoint = app
        .login_url()
        .revocation_endpoint()
        .map_err(RefreshError::configuration)?;
    let token = pasted::credential(token.expose());
    let parameters = [("token", token)];
    let dpop_key = app.key_of(None);
    let call = Call {
        app: (!app.client_id().is_empty()).then_some(app),
        endpoint,
        parameters: &parameters,
        secrets: &[token],
        dpop_key: dpop_key.as_ref(),
    };
    let (response, credentials) = call.post(client).await?;
    let mut secrets = vec![token];
    secrets.extend(credentials.iter().map(Secret::expose));
    let request = "token revocation";
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
