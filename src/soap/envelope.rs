//! SOAP 1.1 envelopes: written with everything escaped, and read by a parser that knows no entities of a document's own.

use quick_xml::{Reader, escape, events::Event};
use zeroize::Zeroizing;

use crate::text::xml::local;

/// The namespace of the partner API, which serves every org alike.
const NAMESPACE: &str = "urn:partner.soap.sforce.com";

/// Writes an envelope. What goes into it is `<name>`s and texts; texts are escaped.
pub(super) struct Envelope(Zeroizing<String>);

impl Envelope {
    /// `text_size` is how long all texts are together, so that no copy of a password is left behind by growing.
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

    /// An element around whatever `content` writes.
    pub(super) fn element(mut self, name: &str, content: impl FnOnce(Self) -> Self) -> Self {
        self.tag("<", name);
        self = content(self);
        self.tag("</", name);
        self
    }

    /// An element with a text in it.
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

/// The elements of a document, in the order in which they begin, by their local names. What namespaces they are in makes
/// no difference: servers disagree about the prefix of a fault code alone.
pub(super) struct Elements(Vec<(String, Zeroizing<String>)>);

impl Elements {
    /// None if it is not well-formed, is not UTF-8, or has a document type, and with it entities that could grow.
    pub(super) fn parse(xml: &[u8]) -> Option<Self> {
        let mut reader = Reader::from_str(str::from_utf8(xml).ok()?);
        let mut elements: Vec<(String, Zeroizing<String>)> = Vec::new();
        let mut open: Vec<usize> = Vec::new();
        loop {
            let text = match reader.read_event().ok()? {
                Event::Start(start) => {
                    open.push(elements.len());
                    elements.push((
                        local(start.name().into_inner()).to_owned(),
                        Zeroizing::default(),
                    ));
                    continue;
                }
                Event::Empty(start) => {
                    elements.push((
                        local(start.name().into_inner()).to_owned(),
                        Zeroizing::default(),
                    ));
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

    /// The text of the first element of this name.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let (_, text) = self.0.iter().find(|(known, _)| known == name)?;
        Some(text.trim())
    }
}
