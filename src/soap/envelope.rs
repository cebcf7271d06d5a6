//! SOAP 1.1 envelopes. The writer escapes every text; the reader accepts no custom entities.

use quick_xml::{
    Reader, escape,
    events::{BytesStart, Event},
};
use zeroize::Zeroizing;

use crate::text::xml::local;

/// The namespace of the partner API, which is the same for every org.
const NAMESPACE: &str = "urn:partner.soap.sforce.com";

/// Writes an envelope of elements and texts. Texts are escaped, element names are not.
pub(super) struct Envelope(Zeroizing<String>);

impl Envelope {
    /// Starts an envelope. `text_size` is the length of all texts together: growing the string would leave copies of
    /// passwords in memory.
    pub(super) fn new(text_size: usize) -> Self {
        const FRAME: usize = 2048;
        // The longest escape is `&quot;`.
        let mut xml = Zeroizing::new(String::with_capacity(FRAME + 6 * text_size));
        xml.push_str(r#"<?xml version="1.0" encoding="UTF-8"?>"#);
        xml.push_str(r#"<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:urn=""#);
        xml.push_str(NAMESPACE);
        xml.push_str("\">");
        Self(xml)
    }

    /// Adds an element with the content that `content` writes.
    pub(super) fn element(mut self, name: &str, content: impl FnOnce(Self) -> Self) -> Self {
        self.tag("<", name);
        self = content(self);
        self.tag("</", name);
        self
    }

    /// Adds an element that contains a text.
    pub(super) fn text(self, name: &str, text: &str) -> Self {
        self.element(name, |mut envelope| {
            envelope
                .0
                .push_str(&Zeroizing::new(escape::escape(text).into_owned()));
            envelope
        })
    }

    fn tag(&mut self, open: &str, name: &str) {
        self.0.push_str(open);
        self.0.push_str(name);
        self.0.push('>');
    }

    pub(super) fn finish(mut self) -> String {
        self.tag("</", "soapenv:Envelope");
        std::mem::take(&mut *self.0)
    }
}

/// The elements of a document by their local names, in document order. Namespaces are ignored, because servers use
/// different prefixes.
pub(super) struct Elements(Vec<(String, Zeroizing<String>)>);

impl Elements {
    /// Parses a document. `None` if it is not well-formed or not UTF-8. Also `None` if it has a document type, whose
    /// entities could expand without limit.
    pub(super) fn parse(xml: &[u8]) -> Option<Self> {
        let mut reader = Reader::from_str(str::from_utf8(xml).ok()?);
        let mut elements: Vec<(String, Zeroizing<String>)> = Vec::new();
        let mut open: Vec<usize> = Vec::new();
        loop {
            let text = match reader.read_event().ok()? {
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
                Event::GeneralRef(reference) => match reference.resolve_char_ref().ok()? {
                    Some(character) => character.to_string(),
                    None => escape::resolve_predefined_entity(&reference.into_inner())?.to_owned(),
                },
                Event::DocType(_) => return None,
                Event::Decl(_) | Event::PI(_) | Event::Comment(_) => continue,
                Event::Eof => break,
            };
            if let Some((_, content)) = open.last().and_then(|open| elements.get_mut(*open)) {
                content.push_str(&text);
            }
        }
        (open.is_empty() && !elements.is_empty()).then_some(Self(elements))
    }

    /// The trimmed text of the first element of this name.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let (_, text) = self.0.iter().find(|(known, _)| known == name)?;
        Some(text.trim())
    }
}

fn element_without_text(tag: &BytesStart<'_>) -> (String, Zeroizing<String>) {
    let name = local(tag.name().into_inner()).to_owned();
    (name, Zeroizing::default())
}
