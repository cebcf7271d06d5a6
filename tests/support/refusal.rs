//! Refusals of a login or a token call.

use tower_salesforce_auth::{RefreshError, RefreshErrorKind};

/// Checks that a refusal has this code, and says who refused what and why.
#[track_caller]
pub(crate) fn assert_refused(
    refused: &RefreshError,
    code: &str,
    is_terminal: bool,
    refusal: &str,
    reason: &str,
) {
    assert_eq!(refused.kind(), RefreshErrorKind::Refused, "{code}");
    assert_eq!(refused.error_code(), Some(code));
    assert_eq!(refused.is_terminal(), is_terminal, "{code}: {refused}");
    let message = refused.to_string();
    assert!(message.starts_with(refusal), "{message}");
    assert!(message.contains(reason), "{message}");
}
