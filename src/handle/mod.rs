//! The session in the user's hands: one handle with its settings, its state, or a registry of many.
//!
//! [`SessionHandle`](crate::SessionHandle) and [`Sessions`](crate::Sessions) are at the root of the crate.

pub(crate) mod builder;
pub(crate) mod handle;
pub(crate) mod logout;
pub(crate) mod registry;
pub(crate) mod save;

pub use self::builder::SessionHandleBuilder;
pub use crate::{
    report::subscription::{SessionState, Subscription},
    session::{lifetime::ProactiveRefresh, live::Generation, url::Origin},
};
