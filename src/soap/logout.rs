//! The `logout()` call.

use http::Method;

use super::{envelope::Envelope, fault};
use crate::{
    error::RefreshError,
    http::transport::{HttpClient, HttpRequest},
    session::session::Session,
};

/// The path of the last API version with a `login()`. `logout()` has the same form in every version.
const PATH: &str = "/services/Soap/u/64.0";

/// Ends a session at its instance. A session that has already ended is not an error.
pub(crate) async fn logout(client: impl HttpClient, session: &Session) -> Result<(), RefreshError> {
    let session_id = session.access_token().expose();
    let endpoint = session
        .instance_url()
        .origin()
        .join(http::uri::PathAndQuery::from_static(PATH))
        .map_err(RefreshError::configuration)?;
    // Without it the server answers that the session has ended.
    let proof = session
        .bound_key()
        .map(|key| key.prove(&Method::POST, &endpoint, Some(session.access_token())))
        .transpose()
        .map_err(RefreshError::configuration)?;
    let size = session_id.len() + proof.as_ref().map_or(0, String::len);
    let envelope = Envelope::new(size)
        .element("soapenv:Header", |header| {
            let header = header.element("urn:SessionHeader", |session| {
                session.text("urn:sessionId", session_id)
            });
            match &proof {
                Some(proof) => header.element("urn:DpopProofHeader", |header| {
                    header.text("urn:proof", proof)
                }),
                None => header,
            }
        })
        .element("soapenv:Body", |body| {
            body.element("urn:logout", |call| call)
        })
        .finish();
    let secrets: Vec<&str> = std::iter::once(session_id)
        .chain(proof.as_deref())
        .collect();
    let response = HttpRequest::post_soap(endpoint, envelope)
        .send(client, &secrets)
        .await?;
    match fault::parse_response("SOAP logout", response, &secrets) {
        Err(error) if error.error_code() == Some("INVALID_SESSION_ID") => Ok(()),
        result => result.map(drop),
    }
}
