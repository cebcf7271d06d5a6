//! The authorization code grant (RFC 6749 §4.1.3, RFC 7636 §4.5).

use http::request::Parts;
use sha2::{Digest, Sha256};

use super::approved::Approved;
use super::client::{SecretRule, authenticate};
use super::refusal::TokenRefusal;
use super::success::GrantKind;
use crate::emulator::state::backend::Backend;
use crate::emulator::state::codes::CodeRefusal;
use crate::emulator::wire::form::Form;
use crate::emulator::wire::jwt;

pub(super) fn exchange(
    org: &Backend,
    parts: &Parts,
    form: &Form,
    key: Option<&str>,
) -> Result<Approved, TokenRefusal> {
    authenticate(org, parts, form, SecretRule::AsSetUp)?;
    let required = |name: &str| form.get(name).ok_or_else(|| TokenRefusal::missing(name));
    let (code, redirect_uri) = (required("code")?, required("redirect_uri")?);
    let now = org.now();
    let mut state = org.state();
    state.user.check_active()?;
    let grant = state.codes.take(code, now).map_err(|refusal| {
        TokenRefusal::invalid_grant(match refusal {
            CodeRefusal::Unknown => "invalid authorization code",
            CodeRefusal::Expired => "expired authorization code",
        })
    })?;
    if grant.redirect_uri != redirect_uri {
        return Err(TokenRefusal::new(
            "redirect_uri_mismatch",
            "redirect_uri must match configuration",
        ));
    }
    let verified = match (&grant.code_challenge, form.get("code_verifier")) {
        (Some(challenge), Some(verifier)) => verifies(challenge, verifier),
        (None, None) => true,
        // RFC 9700 §2.1.1: a verifier without a challenge is a downgrade.
        _ => false,
    };
    if !verified {
        return Err(TokenRefusal::invalid_grant("invalid code verifier"));
    }
    if grant.key.is_some() && grant.key.as_deref() != key {
        return Err(TokenRefusal::new(
            "invalid_dpop_proof",
            "the code is bound to another key",
        ));
    }
    Ok(Approved {
        nonce: grant.nonce,
        ..Approved::new(GrantKind::Consent, grant.scope)
    })
}

/// Whether `verifier` matches `challenge`. Salesforce refuses the `~` that RFC 7636 §4.1 allows,
/// and accepts up to 171 characters instead of 128.
fn verifies(challenge: &str, verifier: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (43..=171).contains(&verifier.len())
        && verifier.bytes().all(allowed)
        && jwt::encode(Sha256::digest(verifier)) == challenge
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_7636_verifies() {
        // Appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        assert!(verifies(challenge, verifier));
        assert!(!verifies(challenge, &verifier.replace('d', "e")));
        assert!(!verifies(verifier, verifier));
    }

    #[test]
    fn a_verifier_has_43_to_171_characters() {
        for (verifier, valid) in [
            ("v".repeat(42), false),
            ("v".repeat(43), true),
            ("v".repeat(171), true),
            ("v".repeat(172), false),
            (format!("{}~", "v".repeat(43)), false),
        ] {
            let challenge = jwt::encode(Sha256::digest(&verifier));
            assert_eq!(verifies(&challenge, &verifier), valid, "{verifier}");
        }
    }
}
