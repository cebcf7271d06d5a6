//! Bodies: one that can be sent again, and one that was looked into.

mod peek;
mod replay;

pub(crate) use peek::Peeked;
pub use peek::ResponseBody;
pub use replay::ReplayBody;
pub(crate) use replay::{KeptBody, Reclaim, Replayable};
