//! What the user makes of a page that asks for access.

use crate::emulator::wire::form::Form;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum UserDecision {
    Allow,
    Deny,
}

impl UserDecision {
    /// The button that was pressed. Whatever is not Allow does not allow.
    pub(crate) fn read(form: &Form) -> Self {
        match form.get("decision") {
            Some("allow") => Self::Allow,
            _ => Self::Deny,
        }
    }
}
