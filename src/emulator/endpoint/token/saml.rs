//! The two SAML grants. They read an assertion and do not verify its signature.

use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine as _, alphabet};
use quick_xml::Reader;
use quick_xml::events::Event;

use super::approved::Approved;
use super::assertion::admit;
use super::refusal::TokenRefusal;
use super::success::GrantKind;
use crate::emulator::state::backend::Backend;
use crate::emulator::wire::form::Form;

/// The entity id that Salesforce has for orgs without one.
const ENTITY_ID: &str = "https://saml.salesforce.com";

/// The SAML bearer assertion flow (RFC 7522 §2.1).
pub(super) fn bearer(org: &Backend, form: &Form) -> Result<Approved, TokenRefusal> {
    approve(org, form)
}

/// The SAML assertion flow, which knows no app.
pub(super) fn web_single_sign_on(org: &Backend, form: &Form) -> Result<Approved, TokenRefusal> {
    let kind = "urn:oasis:names:tc:SAML:2.0:profiles:SSO:browser";
    if form.get("assertion_type") != Some(kind) {
        return Err(TokenRefusal::new(
            "invalid_assertion_type",
            "assertion_type not supported",
        ));
    }
    approve(org, form)
}

fn approve(org: &Backend, form: &Form) -> Result<Approved, TokenRefusal> {
    let encoded = form
        .get("assertion")
        .ok_or_else(|| TokenRefusal::missing("assertion"))?;
    let invalid = || TokenRefusal::invalid_grant("invalid assertion");
    let document = decode(encoded).ok_or_else(invalid)?;
    let assertion = SamlAssertion::read(&document).ok_or_else(invalid)?;
    let mut state = org.state();
    if let Some(audience) = &assertion.audience
        && audience != ENTITY_ID
        && *audience != state.login_url
    {
        return Err(TokenRefusal::invalid_grant("Audience validation failed"));
    }
    admit(&mut state, Some(&assertion.name_id))?;
    Ok(Approved::new(GrantKind::Assertion, "web openid api id"))
}

/// Decodes Base64 of either alphabet, padded or not, because the two flows differ in it.
fn decode(encoded: &str) -> Option<String> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let url_safe = GeneralPurpose::new(&alphabet::URL_SAFE, config);
    let encoded = encoded.replace('+', "-").replace('/', "_");
    String::from_utf8(url_safe.decode(encoded).ok()?).ok()
}

/// The subject and the audience of an assertion.
#[derive(Debug, PartialEq, Eq)]
struct SamlAssertion {
    name_id: String,
    audience: Option<String>,
}

impl SamlAssertion {
    /// Reads the first `NameID` and `Audience` within an `Assertion` element.
    fn read(document: &str) -> Option<Self> {
        let mut reader = Reader::from_str(document);
        let mut path: Vec<String> = Vec::new();
        let (mut name_id, mut audience) = (String::new(), String::new());
        loop {
            match reader.read_event().ok()? {
                Event::Start(start) => path.push(start.local_name().as_ref().to_owned()),
                Event::End(_) => drop(path.pop()),
                Event::Text(text) if path.iter().any(|name| name == "Assertion") => {
                    let found = match path.last().map(String::as_str) {
                        Some("NameID") => &mut name_id,
                        Some("Audience") => &mut audience,
                        _ => continue,
                    };
                    found.push_str(text.trim());
                }
                Event::Eof => break,
                _ => {}
            }
        }
        let complete = path.is_empty() && !name_id.is_empty();
        complete.then_some(Self {
            name_id,
            audience: Some(audience).filter(|audience| !audience.is_empty()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assertion_names_its_subject() {
        let document = "<?xml version=\"1.0\"?><saml:Assertion xmlns:saml=\"urn:a\"><saml:Subject>\
             <saml:NameID>user@example.com</saml:NameID></saml:Subject><saml:Conditions>\
             <saml:AudienceRestriction><saml:Audience>https://saml.salesforce.com</saml:Audience>\
             </saml:AudienceRestriction></saml:Conditions></saml:Assertion>";
        let assertion = SamlAssertion {
            name_id: "user@example.com".to_owned(),
            audience: Some(ENTITY_ID.to_owned()),
        };
        assert_eq!(SamlAssertion::read(document), Some(assertion));
        for broken in [
            "",
            "user@example.com",
            "<NameID>user@example.com</NameID>",
            "<Assertion></Assertion>",
            "<Assertion><NameID>user@example.com</NameID>",
            "<Assertion><NameID>user@example.com</Assertion>",
        ] {
            assert_eq!(SamlAssertion::read(broken), None, "{broken}");
        }
    }
}
