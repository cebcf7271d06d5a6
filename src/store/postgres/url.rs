//! The URL of a database.

use std::{net::IpAddr, time::Duration};

use tokio_postgres::{
    Config,
    config::{ChannelBinding, SslMode, TargetSessionAttrs},
};
use zeroize::Zeroizing;

use super::server::{Host, Server};
use crate::{
    error::{StoreError, StoreErrorKind},
    secret::Secret,
    text::pasted::unwrapped,
};

const FORM: &str = "expected postgres://user:password@host:5432/database";

const ESCAPES: &str = "in the user and the password write `@` as %40, `/` as %2F, `?` as %3F, `#` as %23, `:` as %3A and `%` as %25";

const OPTIONS: &str = "the options are sslmode, target_session_attrs, channel_binding, application_name, connect_timeout, options, \
                       host, port, user, password and dbname";

/// A connection whose peer is gone is noticed in a minute: by default, it would be in hours.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// Reads a URL. No error shows a part of it that may be secret.
pub(super) fn read(url: &str) -> Result<Server, StoreError> {
    let parts = Parts::of(unwrapped(url))?;
    let hosts = parts.hosts()?;
    let is_local = hosts.iter().all(|(host, _)| is_local(host));
    let mode = match parts.sslmode.as_deref().map(String::as_str) {
        None if is_local => SslMode::Disable,
        None | Some("require" | "verify-ca" | "verify-full") => SslMode::Require,
        Some("disable") => SslMode::Disable,
        Some("prefer") => SslMode::Prefer,
        Some(_) => {
            return Err(invalid(
                "its `sslmode` is unknown: expected disable, prefer, require, verify-ca or verify-full",
            ));
        }
    };
    let hosts = hosts.into_iter().map(|(host, port)| {
        let mut config = parts.config.clone();
        let is_socket = host.starts_with('/');
        config
            .host(&host)
            .port(port)
            .ssl_mode(if is_socket { SslMode::Disable } else { mode })
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES);
        let place = if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        Host { config, place }
    });
    Ok(Server {
        hosts: hosts.collect(),
        has_tls: mode != SslMode::Disable,
        password: parts.password.clone(),
        roots: Vec::new(),
        tls: std::sync::Arc::default(),
    })
}

/// What a URL says.
struct Parts {
    /// Everything but the hosts.
    config: Config,
    /// Each host with its port. A port is `None` if the URL has none.
    hosts: Vec<(String, Option<u16>)>,
    /// The ports of the option `port`.
    ports: Vec<u16>,
    password: Option<Secret>,
    sslmode: Option<Text>,
}

type Text = Zeroizing<String>;

impl Parts {
    fn of(url: &str) -> Result<Self, StoreError> {
        let rest = after_scheme(url)?;
        if rest.contains('#') {
            return Err(invalid(format!("it has a `#` in it: {ESCAPES}")));
        }
        let mut parts = Self {
            config: Config::new(),
            hosts: Vec::new(),
            ports: Vec::new(),
            password: None,
            sslmode: None,
        };
        parts.config.application_name("tower-salesforce-auth");
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let hosts = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => {
                parts.log_in(credentials)?;
                hosts
            }
            // Then the password may have ended the authority.
            None if path.contains('@') => return Err(invalid(ESCAPES)),
            None => authority,
        };
        for host in hosts.split(',').filter(|host| !host.is_empty()) {
            parts.add_host(host)?;
        }
        if let Some(database) = path.strip_prefix('/').filter(|path| !path.is_empty()) {
            parts.config.dbname(decoded(database)?.as_str());
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            parts.set(name, decoded(value)?)?;
        }
        Ok(parts)
    }

    fn log_in(&mut self, credentials: &str) -> Result<(), StoreError> {
        let (user, password) = match credentials.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (credentials, None),
        };
        if !user.is_empty() {
            self.config.user(decoded(user)?.as_str());
        }
        if let Some(password) = password {
            self.set_password(decoded(password)?);
        }
        Ok(())
    }

    fn set_password(&mut self, password: Text) {
        self.config.password(password.as_bytes());
        self.password = Some(Secret::from(password));
    }

    fn add_host(&mut self, text: &str) -> Result<(), StoreError> {
        let (host, port) = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let host = decoded(host)?;
        let is_of_host = |char: char| char.is_ascii_alphanumeric() || "-._:".contains(char);
        let is_socket = host.starts_with('/');
        if host.is_empty() || !(is_socket || host.chars().all(is_of_host)) {
            return Err(invalid(format!(
                "a host in it is not valid: {FORM}; {ESCAPES}"
            )));
        }
        let port = port
            .filter(|port| !port.is_empty())
            .map(port_of)
            .transpose()?;
        self.hosts.push((host.to_string(), port));
        Ok(())
    }

    fn set(&mut self, name: &str, value: Text) -> Result<(), StoreError> {
        match name {
            "user" => {
                self.config.user(value.as_str());
            }
            "password" => self.set_password(value),
            "dbname" => {
                self.config.dbname(value.as_str());
            }
            "application_name" => {
                self.config.application_name(value.as_str());
            }
            "options" => {
                self.config.options(value.as_str());
            }
            "sslmode" => self.sslmode = Some(value),
            "host" => {
                for host in value.split(',') {
                    self.add_host(host)?;
                }
            }
            "port" => {
                let ports = value.split(',').map(port_of);
                self.ports = ports.collect::<Result<_, _>>()?;
            }
            "connect_timeout" => {
                let seconds = value.parse().map_err(|_| {
                    invalid("its `connect_timeout` is not valid: expected a number of seconds")
                })?;
                self.config.connect_timeout(Duration::from_secs(seconds));
            }
            "channel_binding" => {
                self.config.channel_binding(channel_binding(&value)?);
            }
            "target_session_attrs" if matches!(value.as_str(), "read-write" | "primary") => {}
            _ => return Err(not_an_option(name)),
        }
        Ok(())
    }

    /// Each host with its port.
    fn hosts(&self) -> Result<Vec<(String, u16)>, StoreError> {
        if self.hosts.is_empty() {
            return Err(invalid(format!("it names no host: {FORM}")));
        }
        if self.ports.len() > 1 && self.ports.len() != self.hosts.len() {
            return Err(invalid("it has another number of ports than of hosts"));
        }
        let hosts = self.hosts.iter().enumerate();
        Ok(hosts
            .map(|(index, (host, port))| {
                let port = port.or_else(|| self.ports.get(index).copied());
                let port = port.or_else(|| self.ports.first().copied());
                (host.clone(), port.unwrap_or(5432))
            })
            .collect())
    }
}

fn channel_binding(value: &str) -> Result<ChannelBinding, StoreError> {
    match value {
        "disable" => Ok(ChannelBinding::Disable),
        "prefer" => Ok(ChannelBinding::Prefer),
        "require" => Ok(ChannelBinding::Require),
        _ => Err(invalid(
            "its `channel_binding` is unknown: expected disable, prefer or require",
        )),
    }
}

/// The error of an option that has no such name or value. It is not shown: a password may have ended the URL before it.
fn not_an_option(name: &str) -> StoreError {
    match name {
        // A standby may lag behind, and so must not serve a load.
        "target_session_attrs" => invalid(
            "its `target_session_attrs` is not `read-write`: sessions are loaded from the server that saves them",
        ),
        "sslrootcert" | "sslcert" | "sslkey" => invalid(
            "certificates cannot be set in it: pass root certificates in PEM to `root_certificates`; there are no client \
             certificates",
        ),
        _ => invalid(format!(
            "it has an option that is unknown: {OPTIONS}; {ESCAPES}"
        )),
    }
}

/// The URL without its scheme.
fn after_scheme(url: &str) -> Result<&str, StoreError> {
    let (scheme, rest) = url
        .split_once("://")
        .ok_or_else(|| invalid(format!("it is not a URL: {FORM}")))?;
    match scheme.to_ascii_lowercase().as_str() {
        "postgres" | "postgresql" => Ok(rest),
        "jdbc:postgresql" => Err(invalid(format!("it is one of JDBC: {FORM}"))),
        scheme if is_scheme(scheme) => Err(invalid(format!(
            "its scheme is `{scheme}`, which is not that of PostgreSQL: {FORM}"
        ))),
        _ => Err(invalid(format!("its scheme is not `postgres`: {FORM}"))),
    }
}

/// Whether it is short and of letters, as schemes are and secrets are not.
fn is_scheme(text: &str) -> bool {
    let is_of_scheme = |char: char| char.is_ascii_alphanumeric() || "+-.:".contains(char);
    text.len() <= 20 && text.chars().all(is_of_scheme)
}

fn port_of(text: &str) -> Result<u16, StoreError> {
    let port = text.parse().ok().filter(|port| *port != 0);
    port.ok_or_else(|| {
        invalid(format!(
            "a port in it is not a number from 1 to 65535: {FORM}; {ESCAPES}"
        ))
    })
}

/// Whether a connection to this host does not leave the machine.
fn is_local(host: &str) -> bool {
    let is_loopback = |host: &str| host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    host.starts_with('/') || host.eq_ignore_ascii_case("localhost") || is_loopback(host)
}

/// Decodes what is percent-encoded (RFC 3986 §2.1).
fn decoded(text: &str) -> Result<Text, StoreError> {
    let broken = || invalid(format!("its percent-encoding is broken: {ESCAPES}"));
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = after.split_first_chunk::<2>().ok_or_else(broken)?;
        let digits = str::from_utf8(digits).map_err(|_| broken())?;
        let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let byte = u8::from_str_radix(digits, 16)
            .ok()
            .filter(|byte| is_hex && *byte != 0);
        bytes.push(byte.ok_or_else(broken)?);
        rest = after;
    }
    let text = str::from_utf8(&bytes).map_err(|_| broken())?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn invalid(why: impl AsRef<str>) -> StoreError {
    let message = format!("the URL of the database is not valid: {}", why.as_ref());
    StoreError::new(StoreErrorKind::Unavailable, message)
}
