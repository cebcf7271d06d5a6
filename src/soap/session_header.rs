//! The `SessionHeader` of an envelope, which carries the session of a SOAP call (SOAP API Developer Guide).

use std::ops::Range;

use quick_xml::{Reader, escape, events::Event};

use crate::text::{inflate, xml::local};

/// The longest envelope that is decompressed.
const INFLATED_LIMIT: usize = 64 * 1024 * 1024;

/// The result of writing a session id into an envelope.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderRewrite {
    /// The envelope with the session id.
    Envelope(Vec<u8>),
    /// The envelope already has this session id, or has no `SessionHeader`.
    Unchanged,
    /// The envelope ends before its `SessionHeader` is complete.
    Incomplete,
}

/// Replaces the text of `sessionId` in the `SessionHeader`, and leaves all other bytes unchanged. `proof` is that of a bound
/// session: it is written into a `DpopProofHeader`, which is added before the `SessionHeader` if there is none (SOAP API
/// Developer Guide, "`DpopProofHeader`").
///
/// Elements match by their local names. The bytes after the header are not parsed and may be missing. An envelope that is
/// compressed with gzip is compressed again.
pub(crate) fn write(envelope: &[u8], session_id: &str, proof: Option<&str>) -> HeaderRewrite {
    inflated(envelope, |envelope| write_all(envelope, session_id, proof))
}

/// Removes the `DpopProofHeader`, for a session that is not bound.
pub(crate) fn remove_proof(envelope: &[u8]) -> HeaderRewrite {
    inflated(envelope, |envelope| {
        let (document, mark) = readable(envelope);
        match proof_header(document) {
            Some(span) => {
                let (before, rest) = envelope.split_at(mark + span.start);
                let (_, after) = rest.split_at(span.len());
                HeaderRewrite::Envelope([before, after].concat())
            }
            None => HeaderRewrite::Unchanged,
        }
    })
}

/// Changes an envelope, which is compressed again if it is compressed.
fn inflated(envelope: &[u8], change: impl FnOnce(&[u8]) -> HeaderRewrite) -> HeaderRewrite {
    if !envelope.starts_with(&inflate::GZIP) {
        return change(envelope);
    }
    let Some(inflated) = inflate::whole(envelope, INFLATED_LIMIT) else {
        return HeaderRewrite::Incomplete;
    };
    match change(&inflated) {
        HeaderRewrite::Envelope(envelope) => HeaderRewrite::Envelope(inflate::gzip(&envelope)),
        unchanged => unchanged,
    }
}

fn write_all(envelope: &[u8], session_id: &str, proof: Option<&str>) -> HeaderRewrite {
    let written = write_plain(envelope, &SESSION_ID, session_id);
    let Some(proof) = proof else {
        return written;
    };
    let written = match written {
        HeaderRewrite::Envelope(written) => written,
        HeaderRewrite::Unchanged => envelope.to_vec(),
        HeaderRewrite::Incomplete => return HeaderRewrite::Incomplete,
    };
    match write_plain(&written, &PROOF, proof) {
        // There is none.
        HeaderRewrite::Unchanged | HeaderRewrite::Incomplete => add_proof(&written, proof),
        rewritten @ HeaderRewrite::Envelope(_) => rewritten,
    }
}

/// Adds a `DpopProofHeader` before the `SessionHeader`, with the same namespace.
fn add_proof(envelope: &[u8], proof: &str) -> HeaderRewrite {
    let (document, mark) = readable(envelope);
    let Some((at, tag, prefix)) = session_header_tag(document) else {
        return HeaderRewrite::Unchanged;
    };
    let (before, after) = envelope.split_at(mark + at);
    let added = format!(
        "<{prefix}DpopProofHeader{tag}><{prefix}proof>{proof}</{prefix}proof></{prefix}DpopProofHeader>"
    );
    HeaderRewrite::Envelope([before, added.as_bytes(), after].concat())
}

/// The beginning of an envelope that is UTF-8, and the length of the byte order mark before it, which the parser's positions do
/// not count.
fn readable(envelope: &[u8]) -> (&str, usize) {
    let readable = match str::from_utf8(envelope) {
        Ok(readable) => readable,
        Err(error) => {
            let (valid, _) = envelope.split_at(error.valid_up_to());
            str::from_utf8(valid).unwrap_or_default()
        }
    };
    let document = readable.strip_prefix('\u{feff}').unwrap_or(readable);
    (document, readable.len() - document.len())
}

/// Where the `DpopProofHeader` is, with its tags. `None` if the header has none.
fn proof_header(document: &str) -> Option<Range<usize>> {
    let mut reader = Reader::from_str(document);
    let mut path: Vec<String> = Vec::new();
    let mut start = None;
    loop {
        let before = position(&reader);
        match reader.read_event().ok()? {
            Event::Start(tag) => {
                path.push(local(tag.name().into_inner()).to_owned());
                if path == PROOF[..3] {
                    start = Some(before);
                }
            }
            Event::End(_) => {
                if path == PROOF[..3] {
                    return Some(start?..position(&reader));
                }
                path.pop();
            }
            Event::Eof | Event::DocType(_) => return None,
            _ => {}
        }
    }
}

/// The start of the `SessionHeader`, its declarations of namespaces, and the prefix of its name with the colon. `None` if the
/// envelope has none in its header.
fn session_header_tag(document: &str) -> Option<(usize, String, String)> {
    let mut reader = Reader::from_str(document);
    let mut path: Vec<String> = Vec::new();
    loop {
        let at = position(&reader);
        match reader.read_event().ok()? {
            Event::Start(tag)
                if path == SESSION_ID[..2] && local(tag.name().into_inner()) == SESSION_ID[2] =>
            {
                let name = tag.name().into_inner();
                let prefix = name.strip_suffix(SESSION_ID[2])?.to_owned();
                let declarations = tag.attributes().flatten().filter_map(|attribute| {
                    let name = attribute.key.into_inner();
                    let value = attribute.value;
                    let is_declaration = name == "xmlns" || name.starts_with("xmlns:");
                    is_declaration.then(|| format!(" {name}=\"{}\"", value.replace('"', "&quot;")))
                });
                return Some((at, declarations.collect(), prefix));
            }
            Event::Start(tag) => path.push(local(tag.name().into_inner()).to_owned()),
            Event::End(_) => drop(path.pop()),
            Event::Eof | Event::DocType(_) => return None,
            _ => {}
        }
    }
}

fn write_plain(envelope: &[u8], path: &[&str; 4], session_id: &str) -> HeaderRewrite {
    let is_utf8 =
        || str::from_utf8(envelope).map_or_else(|error| error.error_len().is_none(), |_| true);
    let (document, mark) = readable(envelope);
    let span = match find(document, path) {
        Search::Found(span) => span,
        Search::Absent => return HeaderRewrite::Unchanged,
        // The envelope has another encoding than UTF-8, so more bytes would not help.
        Search::Incomplete if !is_utf8() => return HeaderRewrite::Unchanged,
        Search::Incomplete => return HeaderRewrite::Incomplete,
    };
    let session_id = escape::escape(session_id);
    let (before, rest) = envelope.split_at(mark + span.start);
    let (text, after) = rest.split_at(span.end - span.start);
    if text.trim_ascii() == session_id.as_bytes() {
        return HeaderRewrite::Unchanged;
    }
    let (open, close) = match &span.empty {
        // `<sessionId/>` becomes `<sessionId>` and `</sessionId>`.
        Some(name) => {
            let tag = text.strip_suffix(b"/>").unwrap_or(text);
            ([tag, b">"].concat(), format!("</{name}>"))
        }
        None => (Vec::new(), String::new()),
    };
    HeaderRewrite::Envelope(
        [
            before,
            &open,
            session_id.as_bytes(),
            close.as_bytes(),
            after,
        ]
        .concat(),
    )
}

/// The range of bytes that the session id replaces.
struct SessionIdSpan {
    start: usize,
    end: usize,
    /// The name of an empty element, all of which is replaced. `None` if the text between two tags is replaced.
    empty: Option<String>,
}

enum Search {
    Found(SessionIdSpan),
    Absent,
    Incomplete,
}

const SESSION_ID: [&str; 4] = ["Envelope", "Header", "SessionHeader", "sessionId"];
const PROOF: [&str; 4] = ["Envelope", "Header", "DpopProofHeader", "proof"];

fn find(envelope: &str, wanted: &[&str; 4]) -> Search {
    let mut reader = Reader::from_str(envelope);
    // The number of open elements, and how many of the outermost ones match `wanted`.
    let (mut depth, mut matched) = (0_usize, 0_usize);
    let mut start = 0;
    loop {
        let before = position(&reader);
        let Ok(event) = reader.read_event() else {
            return Search::Incomplete;
        };
        match event {
            Event::Start(tag) => {
                let name = tag.name().into_inner();
                let is_next = depth == matched && wanted.get(depth) == Some(&local(name));
                // The header precedes every other element (SOAP 1.1 §4).
                if !is_next && depth == matched && matched < 2 {
                    return Search::Absent;
                }
                depth += 1;
                if is_next {
                    matched = depth;
                    start = position(&reader);
                }
            }
            Event::Empty(tag) => {
                let name = tag.name().into_inner();
                if depth == matched && depth + 1 == wanted.len() && wanted[depth] == local(name) {
                    return Search::Found(SessionIdSpan {
                        start: before,
                        end: position(&reader),
                        empty: Some(name.to_owned()),
                    });
                }
            }
            Event::End(_) => {
                if depth == matched {
                    if matched == wanted.len() {
                        return Search::Found(SessionIdSpan {
                            start,
                            end: before,
                            empty: None,
                        });
                    }
                    // The envelope has no second root element and no second header.
                    if matched <= 2 {
                        return Search::Absent;
                    }
                    matched -= 1;
                }
                depth = depth.saturating_sub(1);
            }
            Event::DocType(_) => return Search::Absent,
            Event::Eof => return Search::Incomplete,
            _ => {}
        }
    }
}

fn position(reader: &Reader<&[u8]>) -> usize {
    usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(envelope: &str) -> String {
        match write(envelope.as_bytes(), "N<1>", None) {
            HeaderRewrite::Envelope(envelope) => String::from_utf8(envelope).unwrap(),
            other => panic!("{other:?}: {envelope}"),
        }
    }

    #[test]
    fn only_the_text_of_the_session_id_is_replaced() {
        for (before, text, after) in [
            (
                "<Envelope><Header><SessionHeader><sessionId>",
                "T0",
                "</sessionId></SessionHeader></Header><Body/></Envelope>",
            ),
            (
                "<?xml version=\"1.0\"?>\n<!-- a --><s:Envelope xmlns:s='urn:s'>\n <s:Header>\n  <u:CallOptions><u:sessionId>no\
              </u:sessionId></u:CallOptions><u:SessionHeader a='1'>\n<u:sessionId b=\"</\">",
                "\n T0 \n",
                "</u:sessionId></u:SessionHeader></s:Header><s:Body><sessionId>no</sessionId>",
            ),
            (
                "<Envelope><Header><SessionHeader xmlns='u'><sessionId>",
                "<![CDATA[T0]]>",
                "</sessionId >",
            ),
            (
                "<Envelope><Header><SessionHeader><sessionId>",
                "T<!-- c -->0&amp;<x>1</x>",
                "</sessionId>",
            ),
            (
                "<Envelope><Header><Other/><SessionHeader><x/><y>é</y><sessionId>",
                "",
                "</sessionId>",
            ),
            (
                "\u{feff}<Envelope><Header><SessionHeader><sessionId>",
                "T0",
                "</sessionId>",
            ),
        ] {
            let envelope = format!("{before}{text}{after}");
            assert_eq!(rewritten(&envelope), format!("{before}N&lt;1&gt;{after}"));
        }
    }

    #[test]
    fn a_compressed_envelope_is_compressed_again() {
        let envelope = |token| {
            let session = format!("<SessionHeader><sessionId>{token}</sessionId></SessionHeader>");
            format!(
                "<Envelope><Header>{session}</Header><Body>{}</Body></Envelope>",
                "x".repeat(5_000)
            )
        };
        let compressed = inflate::gzip(envelope("T0").as_bytes());
        let HeaderRewrite::Envelope(written) = write(&compressed, "T1", None) else {
            panic!("not written");
        };
        assert_eq!(
            inflate::whole(&written, 10_000).unwrap(),
            envelope("T1").as_bytes()
        );
        assert_eq!(write(&written, "T1", None), HeaderRewrite::Unchanged);
        assert_eq!(
            write(&compressed[..20], "T1", None),
            HeaderRewrite::Incomplete
        );
        assert_eq!(
            write(&inflate::gzip(b"{}"), "T1", None),
            write(b"{}", "T1", None)
        );
    }

    #[test]
    fn an_empty_session_id_element_gets_the_text() {
        let envelope =
            "<Envelope><Header><SessionHeader><u:sessionId xmlns:u='u' /></SessionHeader>";
        assert_eq!(
            rewritten(envelope),
            "<Envelope><Header><SessionHeader><u:sessionId xmlns:u='u' >N&lt;1&gt;</u:sessionId></SessionHeader>"
        );
    }

    #[test]
    fn bytes_after_the_header_are_not_parsed() {
        let envelope = b"<Envelope><Header><SessionHeader><sessionId>T0</sessionId>\xff\xfe<";
        let expected = b"<Envelope><Header><SessionHeader><sessionId>N</sessionId>\xff\xfe<";
        assert_eq!(
            write(envelope, "N", None),
            HeaderRewrite::Envelope(expected.to_vec())
        );
    }

    #[test]
    fn an_envelope_without_a_session_header_is_unchanged() {
        for envelope in [
            "<Envelope><Header><SessionHeader><sessionId> N </sessionId></SessionHeader></Header></Envelope>",
            "<Envelope><Body><SessionHeader><sessionId>T0</sessionId></SessionHeader></Body></Envelope>",
            "<Envelope><Header/><Body><login/></Body></Envelope>",
            "<Envelope><Header></Header><Header><SessionHeader><sessionId>T0</sessionId></SessionHeader></Header>",
            "<other><Header><SessionHeader><sessionId>T0</sessionId></SessionHeader></Header></other>",
            "<!DOCTYPE e><Envelope><Header><SessionHeader><sessionId>T0</sessionId></SessionHeader></Header>",
        ] {
            assert_eq!(
                write(envelope.as_bytes(), "N", None),
                HeaderRewrite::Unchanged,
                "{envelope}"
            );
        }
        assert_eq!(
            write(b"<Envelope>\xff", "N", None),
            HeaderRewrite::Unchanged
        );
    }

    #[test]
    fn a_truncated_envelope_is_incomplete() {
        let envelope = "<Envelope><Header><SessionHeader><sessionId>Té</sessionId>";
        for length in 0..envelope.len() {
            let truncated = &envelope.as_bytes()[..length];
            assert_eq!(
                write(truncated, "N", None),
                HeaderRewrite::Incomplete,
                "{length}"
            );
        }
    }
}
