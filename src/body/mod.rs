//! Bodies: one that can be sent again, what makes it anew, and one that was looked into.

mod factory;
mod peek;
mod replay;

pub use factory::BodyFactory;
pub(crate) use peek::Peeked;
pub use peek::ResponseBody;
pub use replay::ReplayBody;
pub(crate) use replay::{KeptBody, Reclaim, Replayable};
