//! The events that an [`Observer`] receives.

use std::{sync::Arc, time::Duration};

use crate::{
    error::{RefreshError, StoreError},
    report::reason::{RefreshDescription, RefreshReason},
    session::live::Generation,
};

/// A [`RefreshFn`](crate::RefreshFn) is about to be called.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RefreshStarted {
    /// Why a session is wanted.
    pub reason: RefreshReason,
    /// Which attempt since the last success this is, from 1.
    pub attempt: u32,
    /// The grant and the host, if the [`RefreshFn`](crate::RefreshFn) tells them.
    pub description: Option<RefreshDescription>,
}

/// A refresh brought a session.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RefreshSucceeded {
    /// Which attempt since the last success this was, from 1.
    pub attempt: u32,
    /// The grant and the host, if the [`RefreshFn`](crate::RefreshFn) tells them.
    pub description: Option<RefreshDescription>,
    /// How long this attempt took, by tokio's clock.
    pub duration: Duration,
    /// How many requests, and calls of [`SessionHandle`](crate::SessionHandle), waited for it when it landed. Whoever had
    /// given up does not count.
    pub waiters: usize,
    /// Of the session that it brought.
    pub generation: Generation,
}

/// A refresh failed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RefreshFailed {
    /// Which attempt since the last success this was, from 1.
    pub attempt: u32,
    /// The grant and the host, if the [`RefreshFn`](crate::RefreshFn) tells them.
    pub description: Option<RefreshDescription>,
    /// How long this attempt took, by tokio's clock.
    pub duration: Duration,
    /// Why: with the server's own [code](RefreshError::error_code), and whether it is for
    /// [good](RefreshError::is_terminal). [`Cancelled`](crate::RefreshErrorKind::Cancelled) if a session was set, or the
    /// session logged out, meanwhile.
    pub error: RefreshError,
    /// Whether there is another attempt for those who wait, without anybody asking for it.
    pub will_retry: bool,
}

/// A session that another process saved is used.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SessionAdopted {
    /// Why a session was wanted.
    pub reason: RefreshReason,
    /// How many requests, and calls of [`SessionHandle`](crate::SessionHandle), waited for it when it was there.
    pub waiters: usize,
    /// Of the session.
    pub generation: Generation,
}

/// The store of a session failed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoreFailed {
    /// What it was asked for.
    pub operation: StoreOperation,
    /// The key of the session.
    pub key: Arc<str>,
    /// How often it was tried.
    pub attempts: u32,
    /// How long that took, by tokio's clock.
    pub duration: Duration,
    /// Why the last try failed.
    pub error: StoreError,
}

/// What a store was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreOperation {
    /// To load what is stored.
    Load,
    /// For the lock.
    Lock,
    /// To save a session.
    Save,
    /// To delete what is stored, for a logout.
    Delete,
}

/// A request that was rejected is sent again.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Replayed {
    /// Which attempt at the request this is, from 2.
    pub attempt: u32,
    /// Of the session that it is sent with.
    pub generation: Generation,
}
