//! Whether a connection failed before anything was sent, and what to do about it.

use std::{error::Error as StdError, io};

use super::{
    causes::chain,
    error::{Error, ErrorKind},
    message::one_line,
    refresh::{RefreshError, RefreshErrorKind},
};

/// Why a host could not be reached at once. A connection that takes too long is none of these, since the network may be slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreachable {
    /// The name of the host is not known.
    Name,
    /// No program listens at the port.
    Refused,
    /// No route leads to the host.
    Route,
    /// The certificate of the server is not trusted, or is for another name.
    Certificate,
    /// The server ended the handshake, as it does without the certificate that it demands of its clients.
    ClientCertificate,
    /// The server does not speak TLS, or not as the client does.
    Tls,
    /// The client only says that it could not connect.
    Unknown,
}

impl Unreachable {
    /// Reads an error of a client and its causes. `None` if the request may have been sent, or if the time was over.
    pub(crate) fn of(error: &(dyn StdError + 'static)) -> Option<Self> {
        let mut found = None;
        for error in chain(Some(error)) {
            if is_late(error) {
                return None;
            }
            found = match found {
                None => is_of_connection(error).then_some(Self::Unknown),
                found => found,
            };
            // The deeper cause says more.
            if let Some(reason) = Self::reason(error, found.is_some()) {
                found = Some(reason);
            }
        }
        found
    }

    /// What one error says. `is_connecting` if one around it says that there is no connection.
    fn reason(error: &(dyn StdError + 'static), is_connecting: bool) -> Option<Self> {
        let Some(io_error) = error.downcast_ref::<io::Error>() else {
            // hyper-util names the step of its connector.
            return (is_connecting && text(error) == "dns error").then_some(Self::Name);
        };
        match io_error.kind() {
            io::ErrorKind::ConnectionRefused => Some(Self::Refused),
            io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::AddrNotAvailable => Some(Self::Route),
            // rustls ends a handshake so. A certificate that it refuses is named.
            io::ErrorKind::InvalidData if is_connecting => {
                let text = text(error);
                Some(if text.contains("certificate") {
                    Self::Certificate
                } else if is_alert_for_certificate(&text) {
                    Self::ClientCertificate
                } else {
                    Self::Tls
                })
            }
            // The standard library has a text for a failed look-up, and no kind.
            _ => text(error)
                .starts_with("failed to lookup address information")
                .then_some(Self::Name),
        }
    }

    /// What to do. `None` if the reason is not known.
    pub(crate) fn remedy(self) -> Option<&'static str> {
        Some(match self {
            Self::Name => "check the name of the host, and that this machine can look it up",
            Self::Refused => "no server listens there, so check the host and the port",
            Self::Route => "check the network of this machine, and whether it needs a proxy",
            Self::Certificate => {
                "check the name of the host; if a proxy inspects TLS here, trust its root certificate"
            }
            Self::ClientCertificate => {
                "if the server demands a certificate of its clients, give it the right one \
                 (`HttpsClientBuilder::client_certificate`); otherwise check that an HTTPS server listens at this host and port"
            }
            Self::Tls => "check that an HTTPS server listens at this host and port",
            Self::Unknown => return None,
        })
    }
}

/// Whether a server alerts in this way if a client's certificate is missing, or is not taken (RFC 8446 §6.2).
fn is_alert_for_certificate(text: &str) -> bool {
    const ALERTS: [&str; 8] = [
        "HandshakeFailure",
        "CertificateRequired",
        "BadCertificate",
        "UnsupportedCertificate",
        "CertificateRevoked",
        "CertificateExpired",
        "CertificateUnknown",
        "UnknownCA",
    ];
    text.split_once("received fatal alert: ")
        .is_some_and(|(_, alert)| ALERTS.iter().any(|known| alert.starts_with(known)))
}

/// The beginning of an error's text. An error may fail to print.
fn text(error: &(dyn StdError + 'static)) -> String {
    one_line(error, 200)
}

/// Whether a time was over before the connection was there, or before the answer came.
fn is_late(error: &(dyn StdError + 'static)) -> bool {
    let io_error = error.downcast_ref::<io::Error>();
    io_error.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
        || error.is::<tokio::time::error::Elapsed>()
        // reqwest's type for it cannot be named.
        || text(error).contains("timed out")
}

/// Whether an error says that its client could not connect.
fn is_of_connection(error: &(dyn StdError + 'static)) -> bool {
    #[cfg(feature = "https-client")]
    if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
        return error.is_connect();
    }
    let own_error = error.downcast_ref::<Error>();
    own_error.is_some_and(|error| error.kind() == ErrorKind::Connect)
        // The type of hyper-util's error cannot be named without the feature. reqwest's error has it as its source.
        || text(error) == "client error (Connect)"
}

impl RefreshError {
    /// Notes what the core asks of an error. The core itself must not call the methods of a foreign error under its lock.
    pub(crate) fn with_findings(mut self) -> Self {
        let is_reentrant = self.causes().any(|error| {
            let own_error = error.downcast_ref::<Error>();
            own_error.is_some_and(|error| error.kind() == ErrorKind::Reentrant)
        });
        let is_of_client = matches!(
            self.kind(),
            RefreshErrorKind::Transport | RefreshErrorKind::Other
        );
        let is_unreachable =
            is_of_client && self.causes().next().and_then(Unreachable::of).is_some();
        self.note(is_reentrant, is_unreachable);
        self
    }
}
