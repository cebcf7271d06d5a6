//! Refusals of a server as [`RefreshError`]s, in the same form for OAuth and SOAP.

use std::time::{Duration, SystemTime};

use http::StatusCode;

use crate::{
    error::{RefreshError, RefreshErrorKind},
    http::{
        advice::{self, Outlook},
        response::{Ending, HttpResponse, PASSWORD_DELAY},
    },
    text::{
        fields::Fields,
        redact::{redact, redact_code},
    },
};

/// Salesforce limits the logins of a user per hour.
pub(crate) const LOGIN_RATE_DELAY: Duration = Duration::from_secs(60 * 60);

/// A refusal, with the code and description as the server sent them. They may contain secrets, so
/// [`into_error`](Self::into_error) redacts them.
pub(crate) struct ServerError<'a> {
    pub(crate) host: &'a str,
    /// The name of the refused request, for the message.
    pub(crate) request: &'a str,
    pub(crate) code: &'a str,
    pub(crate) description: &'a str,
    /// The delay that the server asked for. `None` if it asked for none.
    pub(crate) retry_after: Option<Duration>,
    /// Whether an unknown code is transient: the status says that the server is overloaded.
    pub(crate) is_overloaded: bool,
    /// Whether the request carried a password.
    pub(crate) has_password: bool,
    /// The proof of the refused request. `None` if it had none.
    pub(crate) proof: Option<RefusedProof<'a>>,
}

/// A proof (RFC 9449) whose request was refused.
pub(crate) struct RefusedProof<'a> {
    /// The time in the proof, by the clock of this machine.
    pub(crate) time: SystemTime,
    /// The `Date` of the answer. `None` if it has none.
    pub(crate) date: Option<&'a str>,
    /// Whether the answer has a nonce for the next proof that can be used.
    pub(crate) has_nonce: bool,
}

impl RefusedProof<'_> {
    /// What the refusal means, whether another attempt can help, and what to do. `None` if it is not about the proof.
    fn advice(&self, code: &str, secrets: &[&str]) -> Option<(Outlook, String)> {
        match code {
            "invalid_dpop_proof" => {
                let here = httpdate::fmt_http_date(self.time);
                let there = match self.date {
                    Some(date) => format!("the server's says {}", redact(date, secrets)),
                    None => "the server did not send its time".to_owned(),
                };
                Some((
                    Outlook::Terminal,
                    format!(
                        "the proof of App::dpop was not accepted. This machine's clock says {here}, and {there}: if they \
                         differ, correct the clock; else the server may know itself by another URL (Dpop::htu), or the token \
                         may be bound to another key"
                    ),
                ))
            }
            "use_dpop_nonce" if !self.has_nonce => Some((
                Outlook::Transient,
                "the server demands a nonce, and sent none that can be used in the header `DPoP-Nonce`: check that no proxy \
                 removes or changes it"
                    .to_owned(),
            )),
            // The request was repeated once with the nonce that the server had sent.
            "use_dpop_nonce" => Some((
                Outlook::Transient,
                "the server demands another nonce at every call, so that no proof can have it"
                    .to_owned(),
            )),
            _ => None,
        }
    }
}

impl ServerError<'_> {
    /// Makes the error, with advice. Neither its message nor its code contains any of `secrets`, which the server may have
    /// repeated.
    pub(crate) fn into_error(self, secrets: &[&str]) -> RefreshError {
        let Self { host, request, .. } = self;
        let of_proof = self
            .proof
            .and_then(|proof| proof.advice(self.code, secrets));
        let known = advice::find(self.code, self.description);
        let known = known.map(|known| (known.outlook, known.advice.to_owned()));
        let known = of_proof.or(known);
        let outlook = known.as_ref().map(|(outlook, _)| *outlook);
        let is_terminal = match outlook {
            Some(outlook) => outlook == Outlook::Terminal,
            None => !self.is_overloaded,
        };
        let code = redact_code(self.code, secrets);
        let description = redact(self.description, secrets);
        let mut message = format!("{host} refused the {request}: {code}");
        if !description.is_empty() {
            message += " (";
            message += &description;
            message += ")";
        }
        if let Some((_, advice)) = known {
            message += ": ";
            message += &advice;
        }
        let shortest = match outlook {
            // The user has logged in too often: the server's own time counts, if it names one.
            Some(Outlook::TooManyLogins)
                if self.retry_after.is_none_or(|delay| delay.is_zero()) =>
            {
                Some(LOGIN_RATE_DELAY)
            }
            // An unknown refusal may count towards a lockout.
            None if self.has_password && !is_terminal => Some(PASSWORD_DELAY),
            _ => None,
        };
        RefreshError::new(RefreshErrorKind::Refused, is_terminal, message)
            .with_error_code(&code)
            .with_delay(self.retry_after, shortest)
    }
}

/// The error for a response that is neither a success nor a refusal, or that cannot be understood.
///
/// It is transient: a maintenance page or a gateway's error page says nothing about the grant. After a password it is
/// terminal if the response may be a refusal, and otherwise minutes pass before the next attempt (R39): each attempt may
/// count towards a lockout.
pub(crate) fn unrecognized(
    request: &str,
    response: HttpResponse,
    expected: &str,
    secrets: &[&str],
) -> RefreshError {
    let HttpResponse { host, status, .. } = &response;
    let rest_error = RestError::read(&response);
    let content = match &rest_error {
        Some(error) => error.show(secrets),
        None => response.oddity(secrets),
    };
    let mut message =
        format!("{host} answered the {request} with {status} and {content}: expected {expected}");
    let may_be_a_refusal = response.has_password && may_refuse(&response);
    if may_be_a_refusal {
        message += "; the password is not sent again until a session is set or the handle is reset, since each attempt may \
                    count towards a lockout";
    }
    let kind = match &response.ending {
        Ending::BrokeOff(_) => RefreshErrorKind::Transport,
        Ending::Whole | Ending::TooLong => RefreshErrorKind::InvalidResponse,
    };
    let mut error = RefreshError::new(kind, may_be_a_refusal, message);
    if let Some(RestError { code, .. }) = &rest_error {
        error = error.with_error_code(&redact_code(code, secrets));
    }
    let shortest = (response.has_password && !may_be_a_refusal).then_some(PASSWORD_DELAY);
    let error = error.with_delay(response.retry_after, shortest);
    match response.ending {
        Ending::BrokeOff(cause) => error.with_source(cause).without_secrets(secrets),
        Ending::Whole | Ending::TooLong => error,
    }
}

/// Whether a response that cannot be understood may refuse a password.
///
/// Pages, and the statuses of gateways and of overload, do not come from the login itself.
fn may_refuse(response: &HttpResponse) -> bool {
    let is_readable = response.is_whole() && !response.is_html() && !response.body.is_empty();
    match response.status.as_u16() {
        407 | 408 | 421 | 425 | 429 | 502 | 503 | 504 | 511 => false,
        400..500 => true,
        _ => is_readable,
    }
}

/// Whether the status says that the server cannot answer now.
pub(crate) fn is_overloaded(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status.as_u16(), 408 | 421 | 425 | 429)
}

/// The error for a successful response whose content cannot be used. It is terminal.
pub(crate) fn unusable_response(message: String) -> RefreshError {
    RefreshError::new(RefreshErrorKind::InvalidResponse, true, message)
}

// === RestError ===

/// An error of the REST API, which answers where the login endpoint is not (REST API Developer Guide, "Status Codes and
/// Error Responses").
pub(crate) struct RestError {
    pub(crate) code: String,
    pub(crate) message: String,
}

impl RestError {
    /// Reads an error of the REST API in JSON or XML.
    pub(crate) fn read(response: &HttpResponse) -> Option<Self> {
        if response.is_html() {
            return None;
        }
        let fields: Fields = response.fields(&["errorCode"])?;
        Some(Self {
            code: fields.string("errorCode")?,
            message: fields.string("message").unwrap_or_default(),
        })
    }

    fn show(&self, secrets: &[&str]) -> String {
        let code = redact_code(&self.code, secrets);
        let message = redact(&self.message, secrets);
        let advice = "the login URL may be wrong";
        if message.is_empty() {
            format!("the error {code} of the REST API, so {advice}")
        } else {
            format!("the error {code} of the REST API ({message}), so {advice}")
        }
    }
}
