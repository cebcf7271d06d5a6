//! Faults that a test can give an org.

use std::io;
use std::time::Duration;

use http::StatusCode;
use tokio::sync::watch;

use super::wire::answer::{self, HttpAnswer};
use crate::error::BoxError;

/// The fault of one part of an [`Org`](super::Org).
///
/// Set with [`Org::on_token`](super::Org::on_token), [`Org::on_revoke`](super::Org::on_revoke),
/// [`Org::on_data`](super::Org::on_data) and [`Org::on_soap_login`](super::Org::on_soap_login).
///
/// A call keeps the fault that was set when it arrived, however long it takes. The org checks
/// sessions, refresh tokens and passwords on arrival, before the fault makes the call wait. By then
/// an authorization code is spent, and a refresh token is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing goes wrong. This is the default. Setting it also releases the calls that
    /// [hang](Fault::Hang).
    #[default]
    None,
    /// Every answer takes this long, refusals included, on tokio's clock. The org processes a
    /// refresh token from the arrival of the call and spends it after the delay.
    Delay(Duration),
    /// The call gets no answer until the fault is set to [`Fault::None`]. Then it continues as
    /// usual. A caller that gives up leaves its refresh token unspent.
    Hang,
    /// The org refuses the call. It spends no refresh token and uses no session.
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
    /// The org answers with the maintenance page: status 503 and an HTML body. It spends no refresh
    /// token and uses no session.
    Maintenance,
    /// The org carries out the call and loses the answer. The refresh token is spent, or the record
    /// created, and the caller gets an error. That error ends the connection (HTTP/1.1) or the
    /// stream (HTTP/2).
    LoseAnswer,
}

impl Fault {
    /// Makes a [`Fault::Refuse`].
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

/// The fault of one part of the org.
pub(super) struct FaultSwitch {
    setting: watch::Sender<FaultSetting>,
}

struct FaultSetting {
    fault: Fault,
    /// How often hanging calls were released. A counter, because a watch keeps only its newest
    /// value: `None` followed at once by `Hang` must still release the hanging calls.
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

    /// The fault for a call that arrives now.
    pub(super) fn meet(&self) -> MetFault {
        let setting = self.setting.borrow();
        MetFault {
            fault: setting.fault.clone(),
            releases: setting.releases,
        }
    }
}

/// The fault of one call.
pub(super) struct MetFault {
    pub(super) fault: Fault,
    /// `FaultSetting::releases` when the call arrived.
    releases: u64,
}

impl MetFault {
    /// The answer to a call that the fault refuses without looking at it. `write` gives the refusal
    /// the form of the endpoint.
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

    /// Waits as long as the fault demands.
    pub(super) async fn wait(&self, switch: &FaultSwitch) {
        match self.fault {
            Fault::Delay(delay) => tokio::time::sleep(delay).await,
            Fault::Hang => {
                let mut setting = switch.setting.subscribe();
                let released = setting.wait_for(|setting| setting.releases != self.releases);
                // An error would mean that the switch is gone, but the caller keeps the org alive.
                let _ = released.await;
            }
            _ => {}
        }
    }

    /// Returns `answer`, or an error if the fault loses it.
    pub(super) fn deliver(&self, answer: HttpAnswer) -> Result<HttpAnswer, BoxError> {
        if self.fault == Fault::LoseAnswer {
            let lost = io::Error::new(io::ErrorKind::ConnectionReset, "the answer was lost");
            return Err(lost.into());
        }
        Ok(answer)
    }
}
