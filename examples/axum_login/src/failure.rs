//! The failures that a user sees.

use http::StatusCode;
use tower_salesforce_auth::{BoxError, Error, ErrorKind, RefreshError, RefreshErrorKind};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The user has not allowed the access.
    Denied,
    /// This browser has not begun the login of the callback, or too long ago.
    Forged,
    /// The code was used before, or is too old for Salesforce.
    Reused,
    /// Salesforce refuses the login, for a reason that the user cannot change.
    LoginRefused,
    /// The session can no longer be refreshed.
    SessionOver,
    /// Salesforce refuses to refresh the session, for a reason other than the session.
    NotRefreshed,
    /// Salesforce answers without the requested data.
    NoData(StatusCode),
    Unreachable,
    /// The session has ended here, but perhaps not at Salesforce.
    NotRevoked,
    /// The session is still in the store.
    NotLoggedOut,
    /// There is no room for another session.
    Crowded,
    /// Another site made the browser send this.
    CrossSite,
    NotFound,
    /// A fault that only the programmer can fix.
    Internal,
}

impl Failure {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Denied | Self::CrossSite => StatusCode::FORBIDDEN,
            Self::Forged | Self::Reused => StatusCode::BAD_REQUEST,
            Self::SessionOver => StatusCode::UNAUTHORIZED,
            Self::LoginRefused
            | Self::NotRefreshed
            | Self::NoData(_)
            | Self::Unreachable
            | Self::NotRevoked => StatusCode::BAD_GATEWAY,
            Self::Crowded | Self::NotLoggedOut => StatusCode::SERVICE_UNAVAILABLE,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The failure of a code exchange.
    pub(crate) fn of_login(error: &RefreshError) -> Self {
        match (error.kind(), error.error_code()) {
            (RefreshErrorKind::InvalidCallback, _) => Self::Forged,
            (RefreshErrorKind::Refused, Some("access_denied")) => Self::Denied,
            (RefreshErrorKind::Refused, Some("invalid_grant")) => Self::Reused,
            _ if error.is_terminal() => Self::LoginRefused,
            _ => Self::Unreachable,
        }
    }

    /// The failure of a request with the session of a user.
    pub(crate) fn of_request(error: &BoxError) -> Self {
        let Some(error) = error.downcast_ref::<Error>() else {
            return Self::Unreachable;
        };
        match (error.kind(), error.refresh_error()) {
            (ErrorKind::LoggedOut | ErrorKind::NoSession | ErrorKind::OtherOrg, _) => {
                Self::SessionOver
            }
            (ErrorKind::Refresh, Some(error)) => Self::of_refresh(error),
            // An error of the client of the requests, not of the login.
            (ErrorKind::Connect, _) => Self::Unreachable,
            (ErrorKind::SessionsFull, _) => Self::Crowded,
            _ => Self::Internal,
        }
    }

    /// The failure of a refresh. A session ends permanently only if Salesforce says so: a changed consumer secret or an
    /// unreadable store can be fixed, and then all sessions continue.
    fn of_refresh(error: &RefreshError) -> Self {
        match (error.kind(), error.error_code()) {
            (RefreshErrorKind::Store, _) => Self::Internal,
            _ if !error.is_terminal() => Self::Unreachable,
            // The grant was revoked, has expired, or never existed. Only the user can log in again.
            (RefreshErrorKind::Refused, Some("invalid_grant"))
            | (RefreshErrorKind::NoRefreshToken, _) => Self::SessionOver,
            _ => Self::NotRefreshed,
        }
    }
}
