//! SOAP 1.1 envelopes. The writer escapes every text; the reader takes what it can understand.

use quick_xml::escape;
use zeroize::Zeroizing;

use crate::text::{json::is_blank, xml};

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

/// The elements of an answer by their local names, in document order.
pub(super) struct Elements(Vec<(String, Zeroizing<String>)>);

impl Elements {
    /// Reads an answer as far as it can be understood. `None` if it has no elements.
    pub(super) fn read(answer: &str) -> Option<Self> {
        let elements = xml::elements(answer);
        (!elements.is_empty()).then_some(Self(elements))
    }

    /// The trimmed text of the first element of this name that is not empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let texts = self.0.iter().filter(|(known, _)| known == name);
        texts
            .map(|(_, text)| text.trim_matches(is_blank))
            .find(|text| !text.is_empty())
    }
}
