//! A call of the org without a socket: the org itself is a service.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use tower::{Layer, ServiceExt};
use tower_salesforce_auth::{BoxError, SalesforceAuthLayer, emulator::Org, request::AuthOutcome};

use super::rest::LIMITS;

/// Asks the org for something that needs a session.
pub(crate) async fn get_limits(
    layer: &SalesforceAuthLayer,
    org: &Org,
) -> Result<(StatusCode, Option<AuthOutcome>), BoxError> {
    let uri = format!("{}{LIMITS}", org.instance_url());
    let request = Request::get(uri).body(Full::<Bytes>::default())?;
    let response = layer.layer(org.clone()).oneshot(request).await?;
    let outcome = response.extensions().get::<AuthOutcome>().cloned();
    Ok((response.status(), outcome))
}
