//! The proof of a request with a bound session (RFC 9449 §7.1).

use http::{Extensions, HeaderMap, HeaderName, Method, Uri};

use crate::{
    error::{Error, ErrorKind},
    request::extensions::UndocumentedDpop,
    session::live::Published,
    verdict::Api,
};

/// The header of a proof.
const DPOP: HeaderName = HeaderName::from_static("dpop");

/// Writes a new proof into the headers of a request that has the session. Does nothing for a bearer token.
pub(super) fn write(
    headers: &mut HeaderMap,
    (method, uri, extensions): (&Method, &Uri, &Extensions),
    api: Api,
    published: &Published,
) -> Result<(), Error> {
    let Some(key) = published.session.bound_key() else {
        return Ok(());
    };
    let undocumented = match api {
        Api::Rest | Api::Soap | Api::Identity => None,
        Api::Bulk => Some("Bulk API 1.0: use Bulk API 2.0"),
        Api::Grpc => Some("the Pub/Sub API"),
    };
    if let Some(api) = undocumented
        && extensions.get::<UndocumentedDpop>().is_none()
    {
        return Err(Error::new(
            ErrorKind::InvalidRequest,
            format!(
                "the request cannot be sent: its session is bound to a DPoP key, and Salesforce documents no proof for {api}, \
                 or try it with the extension request::UndocumentedDpop"
            ),
        ));
    }
    let access_token = published.session.access_token();
    let proof = key.header(method, uri, Some(access_token))?;
    headers.insert(DPOP, proof);
    Ok(())
}
