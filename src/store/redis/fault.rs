//! What went wrong on a connection, and what to do about it.

use std::{io, time::Duration};

use redis::{ErrorKind, RedisError};

use super::address::Address;
use crate::error::{StoreError, StoreErrorKind};

/// Why a server gave no answer to a call.
#[derive(Debug)]
pub(super) enum Fault {
    /// There is no connection to it.
    Connect(io::Error),
    /// TLS could not be set up on this side.
    Tls(crate::error::Error),
    /// The call failed: the connection broke, or the server refused.
    Call(RedisError),
    /// The time was over before there was a connection.
    LateConnection,
    /// The time was over.
    Late,
}

impl From<RedisError> for Fault {
    fn from(error: RedisError) -> Self {
        Self::Call(error)
    }
}

impl Fault {
    /// The code and the text of the server's answer. `None` if it has not answered.
    fn answer(&self) -> Option<(&str, &str)> {
        let Self::Call(error) = self else { return None };
        Some((error.code()?, error.detail().unwrap_or_default()))
    }

    /// Whether the server refused for this reason.
    fn is_refused_for(&self, reason: &str) -> bool {
        self.answer()
            .is_some_and(|(code, text)| is_of(code, text, reason))
    }

    fn is_refused_login(&self) -> bool {
        matches!(self, Self::Call(error) if error.kind() == ErrorKind::AuthenticationFailed)
    }

    /// The server of a cluster that has the slot, and whether for this call only.
    pub(super) fn redirection(&self) -> Option<(&str, bool)> {
        let Self::Call(error) = self else { return None };
        let (address, _) = error.redirect_node()?;
        Some((address, error.code() == Some("ASK")))
    }

    /// Whether the script has to be sent as a whole.
    pub(super) fn is_unknown_script(&self) -> bool {
        self.is_refused_for("NOSCRIPT")
    }

    /// Whether the connection is of no use for the next call. A primary that became a replica has another one in its place.
    pub(super) fn ends_connection(&self) -> bool {
        self.answer().is_none() || self.is_refused_for("READONLY")
    }

    /// Whether the connection broke without an answer.
    pub(super) fn is_broken_connection(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Call(_)) && self.answer().is_none()
    }

    /// The error of a store whose call to this server failed. `name` is the key at the server.
    pub(super) fn told(
        self,
        address: &Address,
        is_tls: bool,
        name: &str,
        limit: Duration,
    ) -> StoreError {
        if self.is_refused_for("WRONGTYPE") {
            return StoreError::new(
                StoreErrorKind::Corrupt,
                format!(
                    "the key {name:?} of the Redis server at {address} is not a session record, and stays as it is: set \
                     another prefix, or delete the key"
                ),
            );
        }
        let remedy = self.remedy(is_tls);
        let is_refused_login = self.is_refused_login();
        let what = match &self {
            Self::Connect(_) => format!("the Redis server at {address} cannot be reached"),
            Self::Tls(_) => format!("there is no TLS for the Redis server at {address}"),
            Self::Late | Self::LateConnection => {
                format!("the Redis server at {address} did not answer within {limit:?}")
            }
            Self::Call(_) => match self.answer() {
                Some((code, text)) => {
                    format!(
                        "the Redis server at {address} refuses: {code} {}",
                        shown(text)
                    )
                }
                None if self.is_refused_login() => {
                    format!("the Redis server at {address} refuses the login")
                }
                None => format!("the Redis server at {address} broke off"),
            },
        };
        let error = StoreError::new(StoreErrorKind::Unavailable, what);
        let error = match self {
            Self::Connect(source) => error.with_source(source),
            Self::Tls(source) => error.with_source(source),
            Self::Call(source) if source.kind() == ErrorKind::Io => error.with_source(source),
            Self::Call(_) if is_refused_login => error,
            Self::Call(source) if source.code().is_none() => {
                // Its own text may repeat what was received.
                error.with_source(io::Error::other(source.category().to_owned()))
            }
            Self::Call(_) | Self::Late | Self::LateConnection => error,
        };
        match remedy {
            Some(remedy) => error.with_remedy(remedy),
            None => error,
        }
    }

    /// What to do. `None` if that is not known.
    fn remedy(&self, is_tls: bool) -> Option<&'static str> {
        match self {
            Self::Connect(error) => remedy_of_io(error, is_tls),
            Self::Tls(_) => None,
            Self::LateConnection if is_tls => Some(
                "check the server, its load, and the network in between; if it does not speak TLS at this port, use `redis://`",
            ),
            Self::Late | Self::LateConnection => {
                Some("check the server, its load, and the network in between")
            }
            Self::Call(_) if self.is_refused_login() => {
                Some("check the user and the password of the URL")
            }
            Self::Call(error) => match self.answer() {
                Some((code, text)) => remedy_of_answer(code, text),
                // A refused client certificate comes in several ways.
                None if error.is_connection_dropped() || is_tls => Some(remedy_of_broken(is_tls)),
                None => Some(
                    "check that a Redis server listens there; if it expects TLS, use `rediss://`",
                ),
            },
        }
    }
}

/// Whether an answer is a refusal for this reason. Older servers have the code of an error in a script in its text.
fn is_of(code: &str, text: &str, reason: &str) -> bool {
    code == reason || text.split_whitespace().any(|word| word == reason)
}

/// The text of an answer, without what it repeats of the call and of its script.
fn shown(text: &str) -> &str {
    let text = text.split(", with args").next().unwrap_or_default();
    let text = text.split(" script: ").next().unwrap_or_default();
    text.trim_end_matches('.')
}

fn remedy_of_broken(is_tls: bool) -> &'static str {
    if is_tls {
        "see its log, and check that it speaks TLS at this port, and wants no client certificate (`tls-auth-clients no`)"
    } else {
        "see its log; if it expects TLS at this port, use `rediss://`"
    }
}

fn remedy_of_io(error: &io::Error, is_tls: bool) -> Option<&'static str> {
    let text = error.to_string();
    Some(match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "no server listens there, so check the host and the port"
        }
        io::ErrorKind::NotFound => "no server has this socket, so check the path",
        io::ErrorKind::PermissionDenied => "this process may not use the socket",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            "check the network of this machine"
        }
        io::ErrorKind::InvalidData if text.contains("certificate") => {
            "check the name of the host; trust the root certificate of a private CA with `RedisStore::root_certificates`"
        }
        io::ErrorKind::InvalidData if is_tls => {
            "if the server does not speak TLS at this port, use `redis://` or another port"
        }
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => remedy_of_broken(is_tls),
        _ if text.contains("failed to lookup address") => {
            "check the name of the host, and that this machine can look it up"
        }
        _ => return None,
    })
}

fn remedy_of_answer(code: &str, text: &str) -> Option<&'static str> {
    let is_for = |reason: &str| is_of(code, text, reason);
    let rules: [(bool, &'static str); 15] = [
        (
            is_for("NOAUTH"),
            "it wants authentication, so put the user and the password into the URL: `redis://user:password@host`",
        ),
        (
            is_for("WRONGPASS"),
            "check the user and the password of the URL",
        ),
        (
            is_for("NOPERM") || text.contains("can't run this command"),
            "give the user the permissions that the documentation of `RedisStore` lists",
        ),
        (
            is_for("READONLY"),
            "it is a replica, or became one, so use the address of the primary",
        ),
        (
            is_for("OOM"),
            "it has no memory left for a record, so raise its `maxmemory`, or delete keys that are not needed",
        ),
        (
            is_for("MISCONF"),
            "it cannot write to its disk, so see its log and its disk",
        ),
        (
            is_for("NOREPLICAS"),
            "it writes only with its replicas, so start them",
        ),
        (
            is_for("LOADING"),
            "it loads its data after a start, so wait",
        ),
        (
            is_for("MASTERDOWN"),
            "it is a replica without its primary, so use the address of the primary",
        ),
        (
            is_for("CLUSTERDOWN") || is_for("TRYAGAIN"),
            "the cluster moves slots, or has lost some: see `CLUSTER INFO`",
        ),
        (
            is_for("MOVED") || is_for("ASK"),
            "the cluster moves slots: see `CLUSTER INFO`",
        ),
        (
            is_for("CROSSSLOT"),
            "it is a proxy that does not know hash tags, so use another way to the cluster",
        ),
        (
            text.contains("cluster mode"),
            "a cluster has database 0 only, so leave the database out of the URL",
        ),
        (
            text.contains("DB index"),
            "check the database at the end of the URL: by default a server has 0 to 15",
        ),
        (
            text.contains("unknown command") || text.contains("max number of clients"),
            "the store needs a server with scripts (`EVAL`) and a free connection: see the documentation of `RedisStore`",
        ),
    ];
    rules
        .into_iter()
        .find_map(|(applies, remedy)| applies.then_some(remedy))
}
