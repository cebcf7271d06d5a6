//! Layers that start with a session.

use tower_salesforce_auth::{RefreshFn, SalesforceAuthLayer, Session, SessionHandle};

/// A layer that starts with this session, and refreshes it with `refresh_fn`.
pub(crate) fn starting_with(session: Session, refresh_fn: impl RefreshFn) -> SalesforceAuthLayer {
    SessionHandle::builder(refresh_fn)
        .initial_session(session)
        .build()
        .into()
}
