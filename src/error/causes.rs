//! The causes of an error, to look for a type among them.

use std::{error::Error as StdError, io, iter::successors};

use super::{error::Error, message::MOST_CAUSES, refresh::RefreshError, store::StoreError};

/// The errors from this one on, each followed by its cause.
pub(super) fn chain<'a>(
    first: Option<&'a (dyn StdError + 'static)>,
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    successors(first, |error| next(*error)).take(MOST_CAUSES)
}

/// The cause of an error, whether or not the error says it.
fn next<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    if let Some(error) = error.downcast_ref::<Error>() {
        return error.message.cause();
    }
    if let Some(error) = error.downcast_ref::<RefreshError>() {
        return error.message().cause();
    }
    if let Some(error) = error.downcast_ref::<StoreError>() {
        return error.message.cause();
    }
    // The source of an `io::Error` is that of the error in it.
    if let Some(inner) = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
    {
        return Some(inner);
    }
    error.source()
}

impl Error {
    /// The causes of the error, the direct one first. The error's own text says them already.
    ///
    /// Use it to look for an error by its type. [`source`](StdError::source) leaves out what the text says, so that a report
    /// of the whole chain says nothing twice.
    ///
    /// ```
    /// use std::io;
    /// use tower_salesforce_auth::Error;
    ///
    /// fn is_refused(error: &Error) -> bool {
    ///     let mut causes = error.causes().filter_map(|cause| cause.downcast_ref::<io::Error>());
    ///     causes.any(|cause| cause.kind() == io::ErrorKind::ConnectionRefused)
    /// }
    /// # let error = tower_salesforce_auth::Session::new("", "https://example.com").unwrap_err();
    /// # assert!(!is_refused(&error));
    /// ```
    pub fn causes(&self) -> impl Iterator<Item = &(dyn StdError + 'static)> {
        chain(self.message.cause())
    }

    /// The error of the session store. `None` if no store failed.
    pub fn store_error(&self) -> Option<&StoreError> {
        self.causes().find_map(|cause| cause.downcast_ref())
    }
}

impl RefreshError {
    /// The causes of the error, the direct one first: see [`Error::causes`].
    ///
    /// ```
    /// use tower_salesforce_auth::RefreshError;
    ///
    /// let error = RefreshError::transient(std::io::Error::other("the vault is sealed"));
    /// assert!(error.causes().any(|cause| cause.is::<std::io::Error>()));
    /// assert_eq!(error.to_string(), "the refresh function failed: the vault is sealed");
    /// ```
    pub fn causes(&self) -> impl Iterator<Item = &(dyn StdError + 'static)> {
        chain(self.message().cause())
    }

    /// The error of the session store. `None` if no store failed.
    pub fn store_error(&self) -> Option<&StoreError> {
        self.causes().find_map(|cause| cause.downcast_ref())
    }
}

impl StoreError {
    /// The causes of the error, the direct one first: see [`Error::causes`].
    pub fn causes(&self) -> impl Iterator<Item = &(dyn StdError + 'static)> {
        chain(self.message.cause())
    }
}
