//! What Salesforce answers to a session that has ended, and to one that is of no use.

use http::{
    HeaderMap,
    header::{CONTENT_ENCODING, CONTENT_LENGTH},
};
use serde::Deserialize;

use super::classify::{Classify, Extent, ResponseHead, Verdict};
use crate::{
    text::xml::{self, Element},
    verdict::Api,
};

/// Knows what Salesforce's APIs answer: the table of the [module](crate::verdict). This is what a layer goes by if nothing else is set.
#[derive(Clone, Debug, Default)]
pub struct SalesforceClassifier {
    texts: Vec<String>,
}

impl SalesforceClassifier {
    /// A classifier that knows these texts of 401s and SOAP faults that no refresh cures:
    ///
    /// | text | reason |
    /// |---|---|
    /// | `This session is not valid for use with the REST API`, or `with the API` | API Access Control, a High Assurance requirement, an IP policy, a user without API access |
    /// | `Connected app is not attached to Agent` | the Agent API is not set up |
    /// | `BlackTab` | a session of Salesforce's support |
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a text by which a 401 or a SOAP fault is known as one that no refresh cures.
    ///
    /// It is looked for as it is, in the body as it is: JSON and XML may escape some characters, quotes for one. An empty
    /// text is ignored.
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

/// The one word of a 403 that is not about permissions, and how long a body may be that is nothing but this word, white
/// space included.
const BAD_TOKEN: &[u8] = b"Bad_OAuth_Token";
const BAD_TOKEN_ROOM: usize = 64;

/// The errors of Bulk API 1.0 and SOAP are much shorter.
const ERROR_ROOM: usize = 64 * 1024;

#[inline]
pub(super) fn classify_head(head: &ResponseHead<'_>) -> Option<Verdict> {
    match (head.status().as_u16(), head.api()) {
        (401, _) => None,
        (400, Api::Bulk) | (500, Api::Soap) => {
            unless_unreadable(head.headers(), "InvalidSessionId".len(), ERROR_ROOM)
        }
        (403, Api::Identity) => unless_unreadable(head.headers(), BAD_TOKEN.len(), BAD_TOKEN_ROOM),
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
    let is_incurable = || {
        let added = texts.iter().map(String::as_str);
        let mut texts = INCURABLE.into_iter().chain(added);
        texts.any(|text| contains(body, text.as_bytes()))
    };
    let unless_incurable = |wrong: Option<Verdict>| match wrong {
        None | Some(Verdict::Expired) if is_incurable() => Some(Verdict::Incurable),
        wrong => wrong,
    };
    match (head.status().as_u16(), head.api()) {
        (401, _) => unless_incurable(at_the_end(extent, Verdict::Expired)),
        (400, Api::Bulk) => bulk_error(body, extent),
        (500, Api::Soap) => match fault_code(body) {
            Element::Text(code) if xml::local(&code) == "INVALID_SESSION_ID" => {
                // SOAP takes no JWT, and a refresh brings another one.
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

/// The status of a call that was answered without a message, with the headers (gRPC over HTTP/2, "Trailers-Only").
fn is_unauthenticated(headers: &HeaderMap) -> bool {
    headers
        .get("grpc-status")
        .is_some_and(|status| status.as_bytes() == b"16")
}

/// None, unless the body is too short, too long or too packed to be read.
fn unless_unreadable(headers: &HeaderMap, at_least: usize, at_most: usize) -> Option<Verdict> {
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let fits = length.is_none_or(|length| (at_least..=at_most).contains(&length));
    let is_plain = headers
        .get(CONTENT_ENCODING)
        .is_none_or(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    (!fits || !is_plain).then_some(Verdict::Pass)
}

fn at_the_end(extent: Extent, verdict: Verdict) -> Option<Verdict> {
    (extent != Extent::Beginning).then_some(verdict)
}

/// `<error><exceptionCode>InvalidSessionId</exceptionCode>…`, or the same as a JSON object.
fn bulk_error(body: &[u8], extent: Extent) -> Option<Verdict> {
    const CODE: &str = "InvalidSessionId";

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct BulkError {
        exception_code: String,
    }

    if body.trim_ascii_start().starts_with(b"{") {
        let is_expired = || {
            serde_json::from_slice(body)
                .is_ok_and(|BulkError { exception_code }| exception_code == CODE)
        };
        return match extent {
            Extent::Beginning => None,
            Extent::Whole if is_expired() => Some(Verdict::Expired),
            Extent::Whole | Extent::CutOff => Some(Verdict::Pass),
        };
    }
    match xml::first(body, "error", "exceptionCode") {
        Element::Text(code) if code == CODE => at_the_end(extent, Verdict::Expired),
        Element::Text(_) | Element::Absent => Some(Verdict::Pass),
        Element::Unfinished => at_the_end(extent, Verdict::Pass),
    }
}

fn fault_code(body: &[u8]) -> Element {
    xml::first(body, "Envelope", "faultcode")
}

fn bad_token(body: &[u8], extent: Extent) -> Option<Verdict> {
    let word = body.trim_ascii();
    // What may follow the word, or precede it, is white space.
    let may_be = body.len() <= BAD_TOKEN_ROOM
        && BAD_TOKEN.starts_with(word)
        && (word.len() == BAD_TOKEN.len() || body.trim_ascii_start() == word);
    match extent {
        _ if !may_be => Some(Verdict::Pass),
        Extent::Beginning => None,
        Extent::Whole if word == BAD_TOKEN => Some(Verdict::Expired),
        Extent::Whole | Extent::CutOff => Some(Verdict::Pass),
    }
}

fn contains(body: &[u8], text: &[u8]) -> bool {
    // Hardly any window begins alike, and a call to compare the rest costs more than all else that is done here.
    body.windows(text.len())
        .any(|window| window.first() == text.first() && window == text)
}
