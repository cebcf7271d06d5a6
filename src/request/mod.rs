//! One request from its first send to its last replay: where it goes, what it carries, what is kept for a replay.
//!
//! Public are the extensions that a caller puts on a request, and the one that the layer puts on a response.

pub(crate) mod authorize;
pub(crate) mod common;
pub(crate) mod extensions;
pub(crate) mod head;
mod names;
pub(crate) mod pending;
mod proof;
pub(crate) mod redirect;
pub(crate) mod replay;
pub(crate) mod target;
pub(crate) mod watch;

pub use self::extensions::{NoRefresh, NoReplay, SkipAuth, UndocumentedDpop};
pub use crate::{
    body::BodyFactory,
    report::outcome::{AuthOutcome, ReplaySkipped},
};
