//! The content of a SOAP request.

use quick_xml::NsReader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::name::ResolveResult;

/// The call in an envelope.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SoapCall {
    /// The namespace of the operation, which belongs to one API.
    pub(super) namespace: String,
    pub(super) operation: String,
    /// The children of the operation: local name and text.
    arguments: Vec<(String, String)>,
    /// The content of `sessionId` in the `SessionHeader`. `None` without one.
    pub(super) session_id: Option<String>,
    /// The content of `proof` in the `DpopProofHeader`. `None` without one.
    pub(super) proof: Option<String>,
}

impl SoapCall {
    /// Reads an envelope (SOAP 1.1 §4). `Err` holds the reason why it cannot be read.
    ///
    /// Local names identify all elements except the operation, which Salesforce identifies by its
    /// namespace too. A SOAP message has no DTD (SOAP 1.1 §3), and so no entities but the five of
    /// XML.
    pub(super) fn read(body: &[u8]) -> Result<Self, String> {
        let text = str::from_utf8(body).map_err(|error| error.to_string())?;
        let mut reader = NsReader::from_str(text);
        reader.config_mut().expand_empty_elements = true;
        let mut reading = EnvelopeReader::default();
        loop {
            let event = reader.read_event().map_err(|error| error.to_string())?;
            match event {
                Event::Start(start) => {
                    let (namespace, _) = reader.resolver().resolve_element(start.name());
                    reading.open(&start, &namespace);
                }
                Event::End(_) => reading.close(),
                Event::Text(text) => reading.text.push_str(&text.xml10_content()),
                Event::CData(text) => reading.text.push_str(&text.xml10_content()),
                Event::GeneralRef(reference) => reading.text.push_str(&resolve(&reference)?),
                Event::DocType(_) => return Err("A DTD is not allowed.".to_owned()),
                Event::Eof => break,
                // `expand_empty_elements` leaves no `Empty`. The other events carry no content.
                Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            }
        }
        reading.finish()
    }

    /// The argument of this name, or the empty string.
    pub(super) fn argument(&self, name: &str) -> &str {
        let mut arguments = self.arguments.iter();
        arguments
            .find_map(|(key, value)| (key == name).then_some(value.as_str()))
            .unwrap_or_default()
    }
}

/// The state of reading an envelope.
#[derive(Default)]
struct EnvelopeReader {
    /// The local names of the open elements.
    path: Vec<String>,
    /// The text since the last tag.
    text: String,
    /// Namespace and local name.
    operation: Option<(String, String)>,
    arguments: Vec<(String, String)>,
    session_id: Option<String>,
    proof: Option<String>,
}

impl EnvelopeReader {
    fn open(&mut self, start: &BytesStart<'_>, namespace: &ResolveResult<'_>) {
        let name = start.local_name();
        let name: &str = name.as_ref();
        if self.operation.is_none() && self.path == ["Envelope", "Body"] {
            let namespace = match namespace {
                ResolveResult::Bound(namespace) => namespace.as_ref(),
                _ => "",
            };
            self.operation = Some((namespace.to_owned(), name.to_owned()));
        }
        self.path.push(name.to_owned());
        self.text.clear();
    }

    fn close(&mut self) {
        let text = std::mem::take(&mut self.text);
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        match path[..] {
            ["Envelope", "Header", "SessionHeader", "sessionId"] => self.session_id = Some(text),
            ["Envelope", "Header", "DpopProofHeader", "proof"] => self.proof = Some(text),
            ["Envelope", "Body", _, name] => self.arguments.push((name.to_owned(), text)),
            _ => {}
        }
        self.path.pop();
    }

    fn finish(self) -> Result<SoapCall, String> {
        if let Some(name) = self.path.last() {
            return Err(format!("The element \"{name}\" is not closed."));
        }
        let Some((namespace, operation)) = self.operation else {
            return Err("There is no operation in the body of the envelope.".to_owned());
        };
        Ok(SoapCall {
            namespace,
            operation,
            arguments: self.arguments,
            session_id: self.session_id,
            proof: self.proof,
        })
    }
}

/// The text of an entity or character reference.
fn resolve(reference: &BytesRef<'_>) -> Result<String, String> {
    if let Some(character) = reference
        .resolve_char_ref()
        .map_err(|error| error.to_string())?
    {
        return Ok(character.to_string());
    }
    let name = reference.xml10_content();
    resolve_predefined_entity(&name)
        .map(str::to_owned)
        .ok_or_else(|| format!("The entity \"{name}\" was referenced, but not declared."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_is_read_with_any_prefixes() {
        let call = SoapCall::read(
            br#"<?xml version="1.0" encoding="utf-8"?>
            <e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/" xmlns:u="urn:u">
              <e:Header>
                <SessionHeader xmlns="urn:u"><sessionId>00D!x</sessionId></SessionHeader>
                <u:LoginScopeHeader><u:organizationId>00D</u:organizationId></u:LoginScopeHeader>
              </e:Header>
              <e:Body><n:login xmlns:n="urn:u">
                <n:username>a&amp;b&#64;c</n:username><password><![CDATA[<d>]]> </password><empty/>
              </n:login></e:Body>
            </e:Envelope>"#,
        )
        .unwrap();
        assert_eq!(call.namespace, "urn:u");
        assert_eq!(call.operation, "login");
        assert_eq!(call.session_id.as_deref(), Some("00D!x"));
        assert_eq!(call.argument("username"), "a&b@c");
        assert_eq!(call.argument("password"), "<d> ");
        assert_eq!(call.argument("empty"), "");
        assert_eq!(call.argument("missing"), "");
    }

    #[test]
    fn text_without_a_call_in_an_envelope_is_refused() {
        for text in [
            "",
            "login",
            "<Envelope>",
            "<Envelope><Body></Envelope></Body>",
            "<Envelope><Body/></Envelope>",
            "<Body><login/></Body>",
            "<Envelope><Body><login>&nbsp;</login></Body></Envelope>",
            "<Envelope><Body><login>&#xD800;</login></Body></Envelope>",
            "<Envelope><Body><login>&</login></Body></Envelope>",
            "<!DOCTYPE e [<!ENTITY a 'b'>]><Envelope><Body><login/></Body></Envelope>",
            "<!DOCTYPE e SYSTEM 'http://example.com/e.dtd'><Envelope><Body><login/></Body></Envelope>",
        ] {
            assert!(SoapCall::read(text.as_bytes()).is_err(), "{text}");
        }
        assert!(SoapCall::read(b"<Envelope><Body><login>\xff</login></Body></Envelope>").is_err());
    }
}
