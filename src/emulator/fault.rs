//! Faults an org can be told to have.

use std::io;
use std::time::Duration;

use http::StatusCode;
use tokio::sync::watch;

use super::wire::answer::{self, HttpAnswer};
use crate::error::BoxError;

/// What goes wrong with calls to one part of an [`Org`](super::Org).
///
/// Set with [`Org::on_token`](super::Org::on_token), [`Org::on_revoke`](super::Org::on_revoke),
/// [`Org::on_data`](super::Org::on_data) and [`Org::on_soap_login`](super::Org::on_soap_login). The
/// fault in force when a call arrives is that call's fault, however long it takes. What the org
/// decides on arrival (is this session good, is this refresh token already in use, is this the
/// password) is decided before the fault makes the call wait: an authorization code is spent by
/// then, a refresh token is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing goes wrong: the default. Setting it also releases the calls that [hang](Fault::Hang).
    #[default]
    None,
    /// Every answer takes this long, a refusal too, on tokio's clock. A refresh token is being
    /// processed from the arrival on, and is spent at the end of the delay.
    Delay(Duration),
    /// The call is not answered until the fault is set to [`Fault::None`]; then it goes on as if
    /// nothing had been wrong. A caller that gives up leaves its refresh token unspent.
    Hang,
    /// The call is refused, and neither spends a refresh token nor uses a session.
    #[non_exhaustive]
    Refuse {
        /// The status of the answer.
        status: StatusCode,
        /// `error` of a token answer, `errorCode` of a data answer, `exceptionCode` of a SOAP fault.
        error: String,
        /// `error_description` of a token answer, `message` of a data answer, `exceptionMessage` of a
        /// SOAP fault.
        description: String,
    },
    /// The call is refused with the maintenance page: status 503 and an HTML body. It neither spends
    /// a refresh token nor uses a session.
    Maintenance,
    /// The call is carried out and its answer is lost: the refresh token is spent, the record is
    /// created, and the caller gets an error. Over a connection that is the end of the connection
    /// (HTTP/1.1) or of the stream (HTTP/2).
    LoseAnswer,
}

impl Fault {
    /// A [`Fault::Refuse`].
    ///
    /// ```
    /// use http::StatusCode;
    /// use tower_salesforce_auth::emulator::{Fault, Org};
    ///
    /// let org = Org::new();
    /// org.on_data(Fault::refuse(
    ///     StatusCode::FORBIDDEN,
    ///     "REQUEST_LIMIT_EXCEEDED",
    ///     "TotalRequests Limit exceeded.",
    /// ));
    /// ```
    pub fn refuse(
        status: StatusCode,
        error: impl Into<String>,
        description: impl Into<String>,
    ) -> Self {
        Self::Refuse {
            status,
            error: error.into(),
            description: description.into(),
        }
    }
}

/// Holds the fault of one part of the org.
pub(super) struct FaultSwitch {
    setting: watch::Sender<FaultSetting>,
}

struct FaultSetting {
    fault: Fault,
    /// How often hanging calls were released. Counted, because a watch keeps only the newest value:
    /// `None` followed at once by `Hang` must still release the calls that hang.
    releases: u64,
}

impl FaultSwitch {
    pub(super) fn new() -> Self {
        Self {
            setting: watch::Sender::new(FaultSetting {
                fault: Fault::None,
                releases: 0,
            }),
        }
    }

    pub(super) fn set(&self, fault: Fault) {
        self.setting.send_modify(|setting| {
            if fault == Fault::None {
                setting.releases += 1;
            }
            setting.fault = fault;
        });
    }

    /// The fault that a call arriving now meets.
    pub(super) fn meet(&self) -> MetFault {
        let setting = self.setting.borrow();
        MetFault {
            fault: setting.fault.clone(),
            releases: setting.releases,
        }
    }
}

/// The fault one call has met.
pub(super) struct MetFault {
    pub(super) fault: Fault,
    /// The count at the arrival.
    releases: u64,
}

impl MetFault {
    /// The answer to a call that the fault refuses without looking at it. `write` gives a refusal the form that the
    /// endpoint has for them.
    pub(super) fn refusal(
        &self,
        write: impl FnOnce(StatusCode, &str, &str) -> HttpAnswer,
    ) -> Option<HttpAnswer> {
        match &self.fault {
            Fault::Refuse {
                status,
                error,
                description,
            } => Some(write(*status, error, description)),
            Fault::Maintenance => Some(answer::maintenance()),
            _ => None,
        }
    }

    /// Waits as long as the fault asks for.
    pub(super) async fn wait(&self, switch: &FaultSwitch) {
        match self.fault {
            Fault::Delay(delay) => tokio::time::sleep(delay).await,
            Fault::Hang => {
                let mut setting = switch.setting.subscribe();
                let released = setting.wait_for(|setting| setting.releases != self.releases);
                // It fails only when the switch is gone, and the caller keeps the org alive.
                let _ = released.await;
            }
            _ => {}
        }
    }

    /// `answer`, unless it gets lost on its way back.
    pub(super) fn deliver(&self, answer: HttpAnswer) -> Result<HttpAnswer, BoxError> {
        if self.fault == Fault::LoseAnswer {
            let lost = io::Error::new(io::ErrorKind::ConnectionReset, "the answer was lost");
            return Err(lost.into());
        }
        Ok(answer)
    }
}
