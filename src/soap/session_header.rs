//! The `SessionHeader` of an envelope (SOAP API Developer Guide, the header of this name): where a SOAP call carries its session.

use quick_xml::{Reader, escape, events::Event};

use crate::text::xml::local;

/// What comes of writing a session id into an envelope.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// The envelope with it.
    Envelope(Vec<u8>),
    /// It is there already, or there is no place for it.
    AsItIs,
    /// The envelope breaks off before that can be told.
    Unfinished,
}

/// Writes a session id in the place of the text of `sessionId` in the `SessionHeader`, and touches nothing else.
///
/// Elements are known by their local names. What follows the header is not looked at, and need not be there.
pub(crate) fn write(envelope: &[u8], session_id: &str) -> Written {
    let (readable, is_utf8) = match str::from_utf8(envelope) {
        Ok(readable) => (readable, true),
        Err(error) => {
            let (valid, _) = envelope.split_at(error.valid_up_to());
            let readable = str::from_utf8(valid).unwrap_or_default();
            (readable, error.error_len().is_none())
        }
    };
    // The parser's positions do not count a byte order mark.
    let document = readable.strip_prefix('\u{feff}').unwrap_or(readable);
    let mark = readable.len() - document.len();
    let place = match find(document) {
        Search::Place(place) => place,
        Search::None => return Written::AsItIs,
        // In another encoding, more of it says no more.
        Search::Unfinished if !is_utf8 => return Written::AsItIs,
        Search::Unfinished => return Written::Unfinished,
    };
    let session_id = escape::escape(session_id);
    let (before, rest) = envelope.split_at(mark + place.start);
    let (text, after) = rest.split_at(place.end - place.start);
    if text.trim_ascii() == session_id.as_bytes() {
        return Written::AsItIs;
    }
    let (open, close) = match &place.empty {
        // `<sessionId/>` becomes `<sessionId>` and `</sessionId>`.
        Some(name) => {
            let tag = text.strip_suffix(b"/>").unwrap_or(text);
            ([tag, b">"].concat(), format!("</{name}>"))
        }
        None => (Vec::new(), String::new()),
    };
    Written::Envelope(
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

/// A range of bytes.
struct Place {
    start: usize,
    end: usize,
    /// Some: it is all of an empty element of this name. None: it is what is between two tags.
    empty: Option<String>,
}

enum Search {
    Place(Place),
    None,
    Unfinished,
}

const PATH: [&str; 4] = ["Envelope", "Header", "SessionHeader", "sessionId"];

fn find(envelope: &str) -> Search {
    let mut reader = Reader::from_str(envelope);
    // How many elements are open, and how many of them, from the outermost on, are those of the path.
    let (mut depth, mut matched) = (0_usize, 0_usize);
    let mut start = 0;
    loop {
        let before = position(&reader);
        let Ok(event) = reader.read_event() else {
            return Search::Unfinished;
        };
        match event {
            Event::Start(tag) => {
                let name = tag.name().into_inner();
                let is_next = depth == matched && PATH.get(depth) == Some(&local(name));
                // The header comes before everything else (SOAP 1.1 §4).
                if !is_next && depth == matched && matched < 2 {
                    return Search::None;
                }
                depth += 1;
                if is_next {
                    matched = depth;
                    start = position(&reader);
                }
            }
            Event::Empty(tag) => {
                let name = tag.name().into_inner();
                if depth == matched && depth + 1 == PATH.len() && PATH[depth] == local(name) {
                    return Search::Place(Place {
                        start: before,
                        end: position(&reader),
                        empty: Some(name.to_owned()),
                    });
                }
            }
            Event::End(_) => {
                if depth == matched {
                    if matched == PATH.len() {
                        return Search::Place(Place {
                            start,
                            end: before,
                            empty: None,
                        });
                    }
                    // Neither a second envelope nor a second header follows.
                    if matched <= 2 {
                        return Search::None;
                    }
                    matched -= 1;
                }
                depth = depth.saturating_sub(1);
            }
            Event::DocType(_) => return Search::None,
            Event::Eof => return Search::Unfinished,
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

    fn written(envelope: &str) -> String {
        match write(envelope.as_bytes(), "N<1>") {
            Written::Envelope(envelope) => String::from_utf8(envelope).unwrap(),
            other => panic!("{other:?}: {envelope}"),
        }
    }

    #[test]
    fn the_text_alone_is_replaced_however_it_is_written() {
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
            assert_eq!(written(&envelope), format!("{before}N&lt;1&gt;{after}"));
        }
    }

    #[test]
    fn an_empty_element_is_opened() {
        let envelope =
            "<Envelope><Header><SessionHeader><u:sessionId xmlns:u='u' /></SessionHeader>";
        assert_eq!(
            written(envelope),
            "<Envelope><Header><SessionHeader><u:sessionId xmlns:u='u' >N&lt;1&gt;</u:sessionId></SessionHeader>"
        );
    }

    #[test]
    fn bytes_behind_the_header_may_be_anything() {
        let envelope = b"<Envelope><Header><SessionHeader><sessionId>T0</sessionId>\xff\xfe<";
        let expected = b"<Envelope><Header><SessionHeader><sessionId>N</sessionId>\xff\xfe<";
        assert_eq!(write(envelope, "N"), Written::Envelope(expected.to_vec()));
    }

    #[test]
    fn what_has_no_place_for_it_stays() {
        for envelope in [
            "<Envelope><Header><SessionHeader><sessionId> N </sessionId></SessionHeader></Header></Envelope>",
            "<Envelope><Body><SessionHeader><sessionId>T0</sessionId></SessionHeader></Body></Envelope>",
            "<Envelope><Header/><Body><login/></Body></Envelope>",
            "<Envelope><Header></Header><Header><SessionHeader><sessionId>T0</sessionId></SessionHeader></Header>",
            "<other><Header><SessionHeader><sessionId>T0</sessionId></SessionHeader></Header></other>",
            "<!DOCTYPE e><Envelope><Header><SessionHeader><sessionId>T0</sessionId></SessionHeader></Header>",
        ] {
            assert_eq!(
                write(envelope.as_bytes(), "N"),
                Written::AsItIs,
                "{envelope}"
            );
        }
        assert_eq!(write(b"<Envelope>\xff", "N"), Written::AsItIs);
    }

    #[test]
    fn a_beginning_says_that_it_is_one() {
        let envelope = "<Envelope><Header><SessionHeader><sessionId>Té</sessionId>";
        for length in 0..envelope.len() {
            let beginning = &envelope.as_bytes()[..length];
            assert_eq!(write(beginning, "N"), Written::Unfinished, "{length}");
        }
    }
}
