//! Reads XML documents whose end may be missing: one element, or all.

use quick_xml::{
    Reader, escape,
    events::{BytesRef, BytesStart, Event},
};
use zeroize::Zeroizing;

use crate::text::json::is_blank;

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
pub(crate) fn first(beginning: &str, root: &str, name: &str) -> Element {
    let beginning = beginning.trim_start_matches(is_blank);
    if !beginning.is_empty() && !beginning.starts_with('<') {
        return Element::Absent;
    }
    let mut reader = tolerant(beginning);
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
            Event::GeneralRef(reference) => resolved(reference),
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

/// The elements of a document by their local names, with their own texts, in document order. Namespaces are ignored,
/// because servers use different prefixes.
///
/// Reads as far as it can. An element that is not closed is left out. A document type ends the reading, because its entities
/// could expand without limit.
pub(crate) fn elements(document: &str) -> Vec<(String, Zeroizing<String>)> {
    let document = document.trim_start_matches(is_blank);
    let mut reader = tolerant(document);
    let mut elements: Vec<(String, Zeroizing<String>)> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    while let Ok(event) = reader.read_event() {
        let text = match event {
            Event::Start(tag) => {
                open.push(elements.len());
                elements.push(element_without_text(&tag));
                continue;
            }
            Event::Empty(tag) => {
                elements.push(element_without_text(&tag));
                continue;
            }
            Event::End(_) => {
                open.pop();
                continue;
            }
            Event::Text(text) => text.xml10_content().into_owned(),
            Event::CData(text) => text.xml10_content().into_owned(),
            Event::GeneralRef(reference) => resolved(reference),
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) => continue,
            Event::DocType(_) | Event::Eof => break,
        };
        if let Some((_, content)) = open.last().and_then(|open| elements.get_mut(*open)) {
            content.push_str(&text);
        }
    }
    // The text of an open element may be a part of it.
    let mut is_open = vec![false; elements.len()];
    for open in open {
        is_open[open] = true;
    }
    let closed = elements.into_iter().zip(is_open);
    closed
        .filter(|(_, is_open)| !is_open)
        .map(|(element, _)| element)
        .collect()
}

fn element_without_text(tag: &BytesStart<'_>) -> (String, Zeroizing<String>) {
    let name = local(tag.name().into_inner()).to_owned();
    (name, Zeroizing::default())
}

/// A reader that accepts tags and ampersands that match nothing.
fn tolerant(document: &str) -> Reader<&[u8]> {
    let mut reader = Reader::from_str(document);
    let config = reader.config_mut();
    config.check_end_names = false;
    config.allow_unmatched_ends = true;
    config.allow_dangling_amp = true;
    reader
}

/// The character of a reference. Empty for an entity that XML does not define.
fn resolved(reference: BytesRef<'_>) -> String {
    match reference.resolve_char_ref() {
        Ok(Some(character)) => character.to_string(),
        Ok(None) => escape::resolve_predefined_entity(&reference.into_inner())
            .unwrap_or_default()
            .to_owned(),
        Err(_) => char::REPLACEMENT_CHARACTER.to_string(),
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
            assert_eq!(first(document, "e", "code"), found, "{document}");
            // The element is found from some length on, and the search is undecided before.
            let mut is_found = false;
            for length in (0..document.len()).filter(|length| document.is_char_boundary(*length)) {
                match first(&document[..length], "e", "code") {
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
            "é",
        ] {
            let element = first(document, "e", "code");
            if document == "<html" || document == "<!DOCTYPE e [" {
                assert_eq!(element, Element::Unfinished, "{document}");
            } else {
                assert_eq!(element, Element::Absent, "{document}");
            }
        }
        for document in ["", " ", "<", "<e", "<e>", "<e><code>A", "<e><code>A</cod"] {
            let element = first(document, "e", "code");
            assert_eq!(element, Element::Unfinished, "{document}");
        }
    }
}
