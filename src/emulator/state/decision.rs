//! The user's decision on a page that asks for access.

use crate::emulator::wire::form::Form;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum UserDecision {
    Allow,
    Deny,
}

impl UserDecision {
    /// Reads the button that was pressed. Anything but Allow denies.
    pub(crate) fn read(form: &Form) -> Self {
        match form.get("decision") {
            Some("allow") => Self::Allow,
            _ => Self::Deny,
        }
    }
}
