//! What can go wrong in front of a user.

use http::StatusCode;
use tower_salesforce_auth::{BoxError, Error, ErrorKind, RefreshError, RefreshErrorKind};

use super::logins::Refused;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The user has not allowed it.
    Denied,
    /// The callback is not of a login that this browser began.
    Forged,
    /// The code was used before, or is too old for Salesforce.
    Reused,
    /// The login was begun too long ago.
    TooLate,
    /// Salesforce refuses the login, for a reason that the user cannot change.
    LoginRefused,
    /// The session cannot be renewed any more.
    SessionOver,
    /// Salesforce refuses to renew the session, for a reason that is not the session's.
    NotRenewed,
    /// Salesforce answers, and not with what was asked for.
    NoData(StatusCode),
    Unreachable,
    /// Logged out here, and perhaps not at Salesforce.
    NotRevoked,
    /// The session is still in the store.
    NotLoggedOut,
    /// There is no room for another session.
    Crowded,
    /// Another site made the browser send this.
    CrossSite,
    NotFound,
    /// Nothing that anybody but the programmer could mend.
    Internal,
}

impl Failure {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Denied | Self::CrossSite => StatusCode::FORBIDDEN,
            Self::Forged | Self::Reused | Self::TooLate => StatusCode::BAD_REQUEST,
            Self::SessionOver => StatusCode::UNAUTHORIZED,
            Self::LoginRefused
            | Self::NotRenewed
            | Self::NoData(_)
            | Self::Unreachable
            | Self::NotRevoked => StatusCode::BAD_GATEWAY,
            Self::Crowded | Self::NotLoggedOut => StatusCode::SERVICE_UNAVAILABLE,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Of a code that was to be exchanged.
    pub(crate) fn of_login(error: &RefreshError) -> Self {
        match (error.kind(), error.error_code()) {
            (RefreshErrorKind::InvalidCallback, _) => Self::Forged,
            (RefreshErrorKind::Refused, Some("access_denied")) => Self::Denied,
            (RefreshErrorKind::Refused, Some("invalid_grant")) => Self::Reused,
            _ if error.is_terminal() => Self::LoginRefused,
            _ => Self::Unreachable,
        }
    }

    /// Of a request with the session of a user.
    pub(crate) fn of_request(error: &BoxError) -> Self {
        let Some(error) = error.downcast_ref::<Error>() else {
            return Self::Unreachable;
        };
        match (error.kind(), error.refresh_error()) {
            (ErrorKind::LoggedOut | ErrorKind::NoSession | ErrorKind::OtherOrg, _) => {
                Self::SessionOver
            }
            (ErrorKind::Refresh, Some(error)) => Self::of_renewal(error),
            // Of the client that the requests are sent with.
            (ErrorKind::Connect, _) => Self::Unreachable,
            (ErrorKind::SessionsFull, _) => Self::Crowded,
            _ => Self::Internal,
        }
    }

    /// A session is ended for good only if that is what Salesforce said of it. A consumer secret that was changed, or a
    /// store that cannot be read, is mended, and then everybody goes on.
    fn of_renewal(error: &RefreshError) -> Self {
        match (error.kind(), error.error_code()) {
            (RefreshErrorKind::Store, _) => Self::Internal,
            _ if !error.is_terminal() => Self::Unreachable,
            // The grant was revoked, has expired, or there never was one. Only the user can begin another.
            (RefreshErrorKind::Refused, Some("invalid_grant"))
            | (RefreshErrorKind::NoRefreshToken, _) => Self::SessionOver,
            _ => Self::NotRenewed,
        }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Forged => Self::Forged,
            Refused::Used => Self::Reused,
            Refused::TooLate => Self::TooLate,
        }
    }
}
