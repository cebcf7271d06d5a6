//! The classifier of Salesforce's responses.

use http::{
    HeaderMap, HeaderName, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE},
};

use super::{
    api::Api,
    classify::{Classify, Extent, ResponseHead, Verdict},
};
use crate::text::{
    charset,
    fields::Fields,
    inflate,
    json::{self, is_blank},
    xml::{self, Element},
};

/// Classifies the responses of Salesforce's APIs, by the table of the [module](crate::verdict).
///
/// It is the default classifier of a layer.
#[derive(Clone, Debug, Default)]
pub struct SalesforceClassifier {
    texts: Vec<String>,
}

impl SalesforceClassifier {
    /// Creates a classifier that knows these texts of 401s and SOAP faults that no refresh cures:
    ///
    /// | text | reason |
    /// |---|---|
    /// | `This session is not valid for use with the REST API`, or `with the API` | API Access Control, a High Assurance requirement, an IP policy, a user without API access |
    /// | `Connected app is not attached to Agent` | the Agent API is not set up |
    /// | `BlackTab` | a session of Salesforce's support |
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the text of a 401 or SOAP fault that no refresh cures.
    ///
    /// The classifier searches the body for the exact text. JSON and XML may escape some characters, for example quotes.
    /// An empty text is ignored.
    #[must_use]
    pub fn incurable(mut self, text: impl Into<String>) -> Self {
        let text = text.into();
        if !text.is_empty() {
            self.texts.push(text);
        }
        self
    }
}

impl Classify for SalesforceClassifier {
    fn classify_head(&self, head: &ResponseHead<'_>) -> Option<Verdict> {
        classify_head(head)
    }

    fn classify_body(
        &self,
        head: &ResponseHead<'_>,
        body: &[u8],
        extent: Extent,
    ) -> Option<Verdict> {
        classify_body(head, body, extent, &self.texts)
    }
}

const INCURABLE: [&str; 4] = [
    "This session is not valid for use with the REST API",
    "This session is not valid for use with the API",
    "Connected app is not attached to Agent",
    "BlackTab",
];

/// The body of nearly every 401. It has none of the [`INCURABLE`] texts.
const USUAL: &[u8] =
    br#"[{"message":"Session expired or invalid","errorCode":"INVALID_SESSION_ID"}]"#;

/// The body of a 403 that rejects the session. Any other 403 is about permissions.
const BAD_TOKEN: &str = "Bad_OAuth_Token";

/// Longest body that can be [`BAD_TOKEN`] with white space around it.
const BAD_TOKEN_LIMIT: usize = 64;

/// Longest body that is read. The errors of Bulk API 1.0 and SOAP are much shorter.
const ERROR_LIMIT: usize = 64 * 1024;

#[inline]
pub(super) fn classify_head(head: &ResponseHead<'_>) -> Option<Verdict> {
    match (head.status().as_u16(), head.api()) {
        (401, _) => None,
        (400, Api::Bulk) | (500, Api::Soap) => {
            unless_unreadable(head.headers(), "InvalidSessionId".len(), ERROR_LIMIT)
        }
        (403, Api::Identity) => unless_unreadable(head.headers(), BAD_TOKEN.len(), BAD_TOKEN_LIMIT),
        (200, Api::Grpc) if is_unauthenticated(head.headers()) => Some(Verdict::Expired),
        _ => Some(Verdict::Pass),
    }
}

pub(super) fn classify_body(
    head: &ResponseHead<'_>,
    body: &[u8],
    extent: Extent,
    texts: &[String],
) -> Option<Verdict> {
    if head.status() == StatusCode::UNAUTHORIZED && texts.is_empty() && body == USUAL {
        return at_the_end(extent, Verdict::Expired);
    }
    if extent == Extent::Beginning && !is_decisive(head, body) {
        return None;
    }
    let inflated = inflate::inflate(body, header(head.headers(), CONTENT_ENCODING), ERROR_LIMIT);
    let body = &*charset::decode(&inflated, header(head.headers(), CONTENT_TYPE));
    let is_incurable = || has_incurable_text(body) || texts.iter().any(|text| body.contains(text));
    let unless_incurable = |wrong: Option<Verdict>| match wrong {
        None | Some(Verdict::Expired) if is_incurable() => Some(Verdict::Incurable),
        wrong => wrong,
    };
    match (head.status().as_u16(), head.api()) {
        (401, _) => unless_incurable(at_the_end(extent, Verdict::Expired)),
        (400, Api::Bulk) => bulk_error(body, extent),
        (500, Api::Soap) => match fault_code(body) {
            Element::Text(code) if xml::local(&code) == "INVALID_SESSION_ID" => {
                // SOAP does not accept JWTs, and a refresh would return another JWT.
                if head.has_jwt() {
                    Some(Verdict::Incurable)
                } else {
                    unless_incurable(at_the_end(extent, Verdict::Expired))
                }
            }
            Element::Text(_) | Element::Absent => Some(Verdict::Pass),
            Element::Unfinished => at_the_end(extent, Verdict::Pass),
        },
        (403, Api::Identity) => bad_token(body, extent),
        _ => Some(Verdict::Pass),
    }
}

/// Whether the body has one of the [`INCURABLE`] texts. Looks for all of them in one pass, by their first letters.
fn has_incurable_text(body: &str) -> bool {
    let body = body.as_bytes();
    body.iter().enumerate().any(|(at, byte)| {
        matches!(byte, b'T' | b'C' | b'B')
            && body.get(at..).is_some_and(|rest| {
                INCURABLE
                    .iter()
                    .any(|text| rest.starts_with(text.as_bytes()))
            })
    })
}

/// How many bytes show the charset, with any byte order mark before them.
const SHORTEST: usize = 16;

/// Whether a beginning of a body says anything: more than a byte order mark, and not compressed.
///
/// Servers send the header of gzip before they compress anything.
fn is_decisive(head: &ResponseHead<'_>, body: &[u8]) -> bool {
    let encoding = header(head.headers(), CONTENT_ENCODING).unwrap_or("identity");
    let is_compressed =
        !encoding.eq_ignore_ascii_case("identity") || body.starts_with(&inflate::GZIP);
    let may_be_marked = !body.first().is_some_and(u8::is_ascii) || body.contains(&0);
    !is_compressed && (body.len() >= SHORTEST || !may_be_marked)
}

/// Whether the headers contain the status of a call without a message (gRPC over HTTP/2, "Trailers-Only").
fn is_unauthenticated(headers: &HeaderMap) -> bool {
    headers
        .get("grpc-status")
        .is_some_and(|status| status.as_bytes() == b"16")
}

fn header(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// `Pass` if the body is too short, too long, or compressed in a way that is not understood, and otherwise `None`.
fn unless_unreadable(headers: &HeaderMap, at_least: usize, at_most: usize) -> Option<Verdict> {
    let length = header(headers, CONTENT_LENGTH).and_then(|length| length.parse::<usize>().ok());
    let fits = length.is_none_or(|length| (at_least..=at_most).contains(&length));
    let encoding = headers.get(CONTENT_ENCODING);
    let is_readable =
        encoding.is_none_or(|encoding| encoding.to_str().is_ok_and(inflate::is_readable));
    (!fits || !is_readable).then_some(Verdict::Pass)
}

/// The verdict, once no more of the body will be read.
fn at_the_end(extent: Extent, verdict: Verdict) -> Option<Verdict> {
    (extent != Extent::Beginning).then_some(verdict)
}

/// Recognises `<error><exceptionCode>InvalidSessionId</exceptionCode>…`, or the same as a JSON object.
fn bulk_error(body: &str, extent: Extent) -> Option<Verdict> {
    const CODE: &str = "InvalidSessionId";
    const FIELD: &str = "exceptionCode";

    let object = body.trim_start_matches(is_blank);
    if object.starts_with('{') {
        let code = || Fields::read(body, &[FIELD])?.string(FIELD);
        return match extent {
            Extent::Beginning => None,
            // A whole body with half an object is not one that Salesforce sends.
            Extent::Whole if !json::is_closed(object) => Some(Verdict::Pass),
            Extent::Whole | Extent::CutOff if code().as_deref() == Some(CODE) => {
                Some(Verdict::Expired)
            }
            Extent::Whole | Extent::CutOff => Some(Verdict::Pass),
        };
    }
    match xml::first(body, "error", FIELD) {
        Element::Text(code) if code == CODE => at_the_end(extent, Verdict::Expired),
        Element::Text(_) | Element::Absent => Some(Verdict::Pass),
        Element::Unfinished => at_the_end(extent, Verdict::Pass),
    }
}

fn fault_code(body: &str) -> Element {
    xml::first(body, "Envelope", "faultcode")
}

fn bad_token(body: &str, extent: Extent) -> Option<Verdict> {
    let is_around = |c: char| is_blank(c) || c == '"';
    let word = body.trim_start_matches(is_around);
    let is_complete = word.trim_end_matches(is_around) == BAD_TOKEN;
    // Only blanks and quotes may precede or follow the word.
    let may_be = body.len() <= BAD_TOKEN_LIMIT && (is_complete || BAD_TOKEN.starts_with(word));
    match extent {
        _ if !may_be => Some(Verdict::Pass),
        Extent::Beginning => None,
        Extent::Whole if is_complete => Some(Verdict::Expired),
        Extent::Whole | Extent::CutOff => Some(Verdict::Pass),
    }
}
