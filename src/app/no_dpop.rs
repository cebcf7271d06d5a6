//! The DPoP settings of an app without the feature `dpop`: a type with no values.

use crate::{error::Error, session::dpop_key::DpopKey};

/// The field is private, so that the code elsewhere does not depend on the lack of values.
#[derive(Clone, Debug)]
pub(crate) struct Dpop(Never);

#[derive(Clone, Debug)]
enum Never {}

impl Dpop {
    pub(crate) fn with_key(key: DpopKey) -> Self {
        key.never()
    }

    pub(crate) fn configured(&self) -> Option<&DpopKey> {
        match self.0 {}
    }

    pub(crate) fn new_key(&self) -> Result<DpopKey, Error> {
        match self.0 {}
    }

    pub(crate) fn apply(&self, _key: DpopKey) -> DpopKey {
        match self.0 {}
    }
}
