//! The Salesforce APIs, distinguished by how they carry and reject a session.

use http::{
    HeaderMap, Method,
    header::{CONTENT_TYPE, HeaderName},
    request::Parts,
};

/// The API of a request. It determines how the request carries the session, and how the server rejects it.
///
/// | variant | recognised by | carries the session in |
/// |---|---|---|
/// | `Rest` | no other variant | `Authorization` |
/// | `Bulk` | path `/services/async/` | `X-SFDC-Session` |
/// | `Soap` | path `/services/Soap/`, or header `SOAPAction` | `<sessionId>` in the envelope, and `Authorization` |
/// | `Identity` | path `/id/` or `/services/oauth2/`, also below the path of a site | `Authorization` |
/// | `Grpc` | content type `application/grpc` | metadata `accesstoken`, `instanceurl`, `tenantid` |
///
/// A session that is bound to a key (DPoP) is carried with a proof beside it: see the [guide](crate::docs::dpop#apis).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Api {
    /// REST, Tooling, Composite, Connect, UI, GraphQL, Apex REST and Bulk API 2.0, and any unknown API.
    Rest,
    /// Bulk API 1.0.
    Bulk,
    /// SOAP: the partner, enterprise, Metadata, Tooling and Apex APIs, and web services in Apex.
    Soap,
    /// The identity URL, userinfo, and the other endpoints beside the token endpoint.
    Identity,
    /// gRPC: the Pub/Sub API.
    Grpc,
}

const SOAP_ACTION: HeaderName = HeaderName::from_static("soapaction");

impl Api {
    #[inline]
    pub(crate) fn of(request: &Parts) -> Self {
        let path = request.uri.path();
        // Fast path: nearly every request is recognised by its path alone.
        if path.starts_with("/services/data/") {
            return Self::Rest;
        }
        if let Some(service) = after(path, "/services/") {
            return Self::of_service(service);
        }
        if after(path, "/id/").is_some() {
            return Self::Identity;
        }
        if request.method == Method::POST && is_grpc(&request.headers) {
            return Self::Grpc;
        }
        if request.headers.contains_key(SOAP_ACTION) {
            return Self::Soap;
        }
        // An Experience Cloud site has a path prefix before `/services/` and `/id/`.
        match (behind(path, "/services/"), behind(path, "/id/")) {
            (Some(service), _) => Self::of_service(service),
            (None, Some(ids)) if is_ids(ids) => Self::Identity,
            (None, _) => Self::Rest,
        }
    }

    fn of_service(service: &str) -> Self {
        if after(service, "data/").is_some() {
            Self::Rest
        } else if after(service, "async/").is_some() {
            Self::Bulk
        } else if after(service, "Soap/").is_some() {
            Self::Soap
        } else if after(service, "oauth2/").is_some() {
            Self::Identity
        } else {
            Self::Rest
        }
    }
}

/// The part of `path` after `prefix`. Salesforce ignores case in paths.
fn after<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = path.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// The part of `path` behind the first `middle`.
fn behind<'a>(path: &'a str, middle: &str) -> Option<&'a str> {
    let mut starts = path.match_indices('/').map(|(start, _)| start);
    starts.find_map(|start| after(path.get(start..)?, middle))
}

/// Whether this is the rest of an identity URL: the ids of an org and a user, of 15 or 18 characters.
fn is_ids(rest: &str) -> bool {
    let mut ids = rest.trim_end_matches('/').split('/');
    let mut is_next = |prefix: &str| {
        ids.next().is_some_and(|id| {
            matches!(id.len(), 15 | 18)
                && id.starts_with(prefix)
                && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
    };
    is_next("00D") && is_next("005") && ids.next().is_none()
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|content_type| content_type.as_bytes().starts_with(b"application/grpc"))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn an_api_is_recognised_by_path_then_by_header() {
        let grpc = [("content-type", "application/grpc+proto")];
        let action = [("soapaction", "\"\"")];
        for (path, headers, api) in [
            ("/services/data/v66.0/limits", &[][..], Api::Rest),
            ("/services/data/v66.0/jobs/query", &[], Api::Rest),
            ("/services/apexrest/x", &[], Api::Rest),
            ("/services/data/v66.0/x", &grpc, Api::Rest),
            ("/services/async/66.0/job", &[], Api::Bulk),
            ("/services/async", &[], Api::Rest),
            ("/services/Soap/u/64.0", &[], Api::Soap),
            ("/services/soap/class/Mine", &[], Api::Soap),
            ("/partners/services/Soap/u/64.0", &[], Api::Soap),
            ("/partners/services/async/64.0/job", &[], Api::Bulk),
            ("/gateway", &action, Api::Soap),
            ("/services/oauth2/userinfo", &[], Api::Identity),
            (
                "/id/00Dxx0000001gEFEAY/005xx000001SwiUAAS",
                &[],
                Api::Identity,
            ),
            ("/eventbus.v1.PubSub/Publish", &grpc, Api::Grpc),
            ("/eventbus.v1.PubSub/Publish", &[], Api::Rest),
            (
                "/partners/id/00Dxx0000001gEFEAY/005xx000001SwiUAAS",
                &[],
                Api::Identity,
            ),
            (
                "/a/b/ID/00Dxx0000001gEF/005xx000001SwiU/",
                &[],
                Api::Identity,
            ),
            ("/partners/id/00Dxx0000001gEFEAY", &[], Api::Rest),
            ("/partners/id/1/2", &[], Api::Rest),
            ("/partners/Services/OAuth2/userinfo", &[], Api::Identity),
            (
                "/partners/services/data/v66.0/id/00Dxx0000001gEFEAY/005xx000001SwiUAAS",
                &[],
                Api::Rest,
            ),
            ("/partners/idé/services", &[], Api::Rest),
            ("/idé", &[], Api::Rest),
            ("/", &[], Api::Rest),
        ] {
            let mut request = Request::post(path);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let (head, ()) = request.body(()).unwrap().into_parts();
            assert_eq!(Api::of(&head), api, "{path}");
        }
    }
}
