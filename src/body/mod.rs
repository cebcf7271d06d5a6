//! Request bodies that can be sent again, and response bodies whose beginning was read.
//!
//! # What is kept of a request body
//!
//! | body | kept for a replay |
//! |---|---|
//! | in memory: it ends with its first frame, or with trailers after that frame | up to 1 KiB: a copy, in the buffer of the head; above: its own [`Bytes`](bytes::Bytes), of any size |
//! | a stream | a copy of the bytes it has yielded, up to the replay limit |
//! | a body with a [`BodyFactory`] | the factory |
//!
//! When a stream exceeds the limit, the layer drops the recording and goes on sending. A recording is a copy because that
//! makes the limit hold: a frame may be a slice of a much larger buffer, or so small that its overhead exceeds its bytes.
//!
//! # Who owns a stream
//!
//! Attempts share nothing. The body that is being sent owns the stream and its recording. It hands both back when it
//! ends, when it is dropped, or at the first poll after it was asked to. The next attempt replays the recording and
//! continues the stream where the last attempt stopped. So an early answer, to a body that was half read or not read at
//! all, neither loses nor repeats a byte.

mod beginning;
mod factory;
mod kept;
mod peek;
mod sent;
mod stream;

pub use factory::BodyFactory;
pub(crate) use kept::{InMemory, Replayable};
pub(crate) use peek::Peeked;
pub use peek::ResponseBody;
pub(crate) use sent::KeptBody;
pub use sent::ReplayBody;
