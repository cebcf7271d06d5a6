//! Finds one element in an XML document whose end may be missing.

use quick_xml::{Reader, escape, events::Event};

/// The result of a search for an element.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Element {
    /// The text of the element.
    Text(String),
    /// The document has another root element, or does not contain the element.
    Absent,
    /// The document ended before the search was decided.
    Unfinished,
}

/// Finds the first element with the local name `name`, in a document whose root element has the local name `root`.
///
/// Once the result is not [`Unfinished`](Element::Unfinished), it is the same for every longer beginning of the document.
pub(crate) fn first(beginning: &[u8], root: &str, name: &str) -> Element {
    let beginning = match str::from_utf8(beginning) {
        Ok(beginning) => beginning,
        // The beginning may end inside a character.
        Err(error) => {
            let (valid, _) = beginning.split_at(error.valid_up_to());
            str::from_utf8(valid).unwrap_or_default()
        }
    };
    let beginning = beginning.strip_prefix('\u{feff}').unwrap_or(beginning);
    let first = beginning.trim_start().chars().next();
    if first.is_some_and(|first| first != '<') {
        return Element::Absent;
    }
    let mut reader = Reader::from_str(beginning);
    let mut depth = 0_usize;
    // The text of the element so far, and its depth.
    let mut inside: Option<(String, usize)> = None;
    loop {
        let Ok(event) = reader.read_event() else {
            return Element::Unfinished;
        };
        let text = match event {
            Event::Start(start) => {
                let is_it = local(start.name().into_inner()) == name;
                if depth == 0 && local(start.name().into_inner()) != root {
                    return Element::Absent;
                }
                depth += 1;
                if is_it && inside.is_none() {
                    inside = Some((String::new(), depth));
                }
                continue;
            }
            Event::Empty(empty) => {
                if depth == 0 {
                    return Element::Absent;
                }
                if inside.is_none() && local(empty.name().into_inner()) == name {
                    return Element::Text(String::new());
                }
                continue;
            }
            Event::End(_) => {
                if let Some((text, _)) = inside.take_if(|(_, start)| *start == depth) {
                    return Element::Text(text.trim().to_owned());
                }
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Element::Absent;
                }
                continue;
            }
            Event::Text(text) => text.xml10_content().into_owned(),
            Event::CData(text) => text.xml10_content().into_owned(),
            Event::GeneralRef(reference) => match reference.resolve_char_ref() {
                Ok(Some(character)) => character.to_string(),
                Ok(None) => escape::resolve_predefined_entity(&reference.into_inner())
                    .unwrap_or_default()
                    .to_owned(),
                Err(_) => return Element::Absent,
            },
            // A document type may declare entities that expand without limit.
            Event::DocType(_) => return Element::Absent,
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) => continue,
            Event::Eof => return Element::Unfinished,
        };
        if let Some((content, _)) = &mut inside {
            content.push_str(&text);
        }
    }
}

/// A name without its prefix.
pub(crate) fn local(name: &str) -> &str {
    name.rsplit_once(':').map_or(name, |(_, local)| local)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_is_found_with_any_prefix_and_notation() {
        for document in [
            "<e><code>A&amp;B</code></e>",
            "<e><code>  A&#38;B\n</code><code>C</code></e>",
            "<?xml version=\"1.0\"?>\n<!-- <code>no</code> --><x:e xmlns:x=\"urn:x\"><d><y:code xmlns:y='u'>\
             <![CDATA[A&B]]></y:code></d>",
            "\u{feff}<e a='é'><code>A<!-- -->&amp;<b>B</b></code>",
        ] {
            let found = Element::Text("A&B".to_owned());
            assert_eq!(first(document.as_bytes(), "e", "code"), found, "{document}");
            // The element is found from some length on, and the search is undecided before.
            let mut is_found = false;
            for length in 0..document.len() {
                match first(&document.as_bytes()[..length], "e", "code") {
                    Element::Unfinished => assert!(!is_found, "{document} {length}"),
                    element => {
                        assert_eq!(element, found, "{document} {length}");
                        is_found = true;
                    }
                }
            }
        }
    }

    #[test]
    fn another_document_is_recognised_by_its_start() {
        for document in [
            "<html><head>",
            "<html",
            "[{\"m",
            " Bad",
            "<e/>",
            "<!DOCTYPE e [",
            "<!DOCTYPE e>",
            "<e></e>",
            "<e><code>&#xD800;",
            "é",
        ] {
            let element = first(document.as_bytes(), "e", "code");
            if document == "<html" || document == "<!DOCTYPE e [" {
                assert_eq!(element, Element::Unfinished, "{document}");
            } else {
                assert_eq!(element, Element::Absent, "{document}");
            }
        }
        for document in ["", " ", "<", "<e", "<e>", "<e><code>A", "<e><code>A</cod"] {
            let element = first(document.as_bytes(), "e", "code");
            assert_eq!(element, Element::Unfinished, "{document}");
        }
    }
}
