//! The hosts that bypass a proxy, as `NO_PROXY` lists them.

use std::net::{IpAddr, Ipv4Addr};

use http::Uri;

use crate::{
    error::{Error, ErrorKind},
    text::pasted,
};

/// A list of hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bypass {
    entries: Vec<Entry>,
    /// Entries that mean nothing.
    unreadable: Vec<String>,
}

/// One entry. The port is that of the request. `None` for any.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    host: HostPattern,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum HostPattern {
    /// A name in lower case, with all names below it.
    Domain(String),
    /// A text with `*` for any characters.
    Glob(String),
    Network(IpAddr, u8),
    /// Names without a dot, as `<local>` means on Windows.
    Local,
}

impl Bypass {
    /// Adds the entries of a list. Commas, semicolons, bars and white space separate them.
    pub(super) fn add(&mut self, list: &str) {
        let is_separator = |char: char| {
            matches!(char, ',' | ';' | '|') || char.is_whitespace() || char.is_control()
        };
        let is_quote = |char| matches!(char, '"' | '\'');
        let entries = list
            .split(is_separator)
            .map(|entry| pasted::credential(entry).trim_matches(is_quote))
            .filter(|entry| !entry.is_empty());
        for entry in entries {
            match Entry::parse(entry) {
                Some(parsed) => self.entries.push(parsed),
                None => self.unreadable.push(entry.to_owned()),
            }
        }
    }

    /// Fails if an entry means nothing: its host would silently go through the proxy.
    pub(super) fn check(&self) -> Result<(), Error> {
        let Some(entry) = self.unreadable.first() else {
            return Ok(());
        };
        // It may be a URL with a password.
        let entry = if entry.contains('@') {
            "one with an @"
        } else {
            entry
        };
        Err(Error::new(
            ErrorKind::InvalidUrl,
            format!(
                "an entry of the hosts without a proxy (NO_PROXY) cannot be read: {entry:?}; expected a host name, an \
                 address, a network like 10.0.0.0/8, or a pattern like *.example.com, each perhaps with a port"
            ),
        ))
    }

    /// Whether a request to `destination` bypasses the proxy.
    pub(super) fn has(&self, destination: &Uri) -> bool {
        let host = destination.host().unwrap_or_default();
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let port = destination.port_u16().unwrap_or(443);
        let address = without_brackets(&host).parse().ok().map(canonical);
        self.entries.iter().any(|entry| {
            entry.port.is_none_or(|given| given == port) && entry.host.matches(&host, address)
        })
    }
}

impl Entry {
    fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        if text == "<local>" || text == "<-loopback>" {
            let host = HostPattern::Local;
            return (text == "<local>").then_some(Self { host, port: None });
        }
        let (host, port) = match HostPattern::parse(&text) {
            Some(host) => (host, None),
            None => Self::of_url(&text)?,
        };
        Some(Self { host, port })
    }

    /// A host with a port, or a whole URL.
    fn of_url(text: &str) -> Option<(HostPattern, Option<u16>)> {
        let text = text.split_once("://").map_or(text, |(_, rest)| rest);
        let text = text.strip_suffix('/').unwrap_or(text);
        if let Some(host) = HostPattern::parse(text) {
            return Some((host, None));
        }
        let (host, port) = text.rsplit_once(':')?;
        let port = match port {
            "*" => None,
            port if port.bytes().all(|byte| byte.is_ascii_digit()) => Some(port.parse().ok()?),
            _ => return None,
        };
        Some((HostPattern::parse(host)?, port))
    }
}

impl HostPattern {
    fn parse(text: &str) -> Option<Self> {
        if let Some(network) = network(text) {
            return Some(network);
        }
        let is_name = |text: &str| {
            !text.is_empty()
                && !text.contains("..")
                && text
                    .chars()
                    .all(|char| char.is_alphanumeric() || matches!(char, '.' | '-' | '_'))
        };
        // A dot or a star with a dot at the beginning means the domain itself, too.
        let name = text.strip_prefix('*').unwrap_or(text);
        let name = name
            .strip_prefix('.')
            .filter(|_| text != "*")
            .unwrap_or(text);
        let is_numeric = |text: &str| {
            text.bytes()
                .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-'))
        };
        if is_numeric(text) {
            // The beginning of an address, for example `192.168.`.
            let numbers = text.strip_suffix('.')?.split('.');
            let is_beginning =
                numbers.clone().count() < 4 && numbers.clone().all(|it| it.parse::<u8>().is_ok());
            return is_beginning.then(|| Self::Glob(format!("{text}*")));
        }
        let name = name.strip_suffix('.').unwrap_or(name);
        if is_name(name) {
            return Some(Self::Domain(name.to_owned()));
        }
        let is_glob =
            text.contains('*') && text.split('*').all(|part| part.is_empty() || is_name(part));
        is_glob.then(|| Self::Glob(text.to_owned()))
    }

    fn matches(&self, host: &str, address: Option<IpAddr>) -> bool {
        match self {
            Self::Domain(domain) => {
                let rest = host.strip_suffix(domain.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            Self::Glob(pattern) => glob(pattern, without_brackets(host)),
            Self::Network(network, length) => {
                address.is_some_and(|address| is_in_network(address, *network, *length))
            }
            Self::Local => address.is_none() && !host.contains('.'),
        }
    }
}

/// An address, or a network: `10.0.0.0/8`, `10.0.0.0/255.0.0.0`, `fd00::/8`.
fn network(text: &str) -> Option<HostPattern> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address = without_brackets(address);
    // `fe80::1%eth0`: the zone is of this machine alone.
    let address = address
        .split_once('%')
        .map_or(address, |(address, _)| address);
    let address: IpAddr = address.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => longest,
        Some(length) => match length.parse::<u8>() {
            Ok(length) => length,
            Err(_) => prefix_of_mask(length.parse().ok()?)?,
        },
    };
    (length <= longest).then_some(HostPattern::Network(address, length))
}

/// The length of a network's prefix, of its mask.
fn prefix_of_mask(mask: Ipv4Addr) -> Option<u8> {
    let bits = mask.to_bits();
    let length = bits.leading_ones();
    (bits.count_ones() == length).then(|| u8::try_from(length).unwrap_or(32))
}

fn is_in_network(address: IpAddr, network: IpAddr, length: u8) -> bool {
    let is_same = |one: u128, other: u128, bits: u8| {
        one.checked_shr(u32::from(bits - length)) == other.checked_shr(u32::from(bits - length))
            || length == 0
    };
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            is_same(address.to_bits().into(), network.to_bits().into(), 32)
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            is_same(address.to_bits(), network.to_bits(), 128)
        }
        _ => false,
    }
}

/// An IPv4 address that is written as one of IPv6 counts as the former.
fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

/// Whether `text` matches a pattern with `*` for any characters.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(text) = text.strip_prefix(start) else {
        return false;
    };
    match rest.rsplit_once('*') {
        None => text.ends_with(rest),
        Some((between, end)) => {
            let Some(mut text) = text.strip_suffix(end) else {
                return false;
            };
            // The first place for each part leaves the most for the others.
            for part in between.split('*') {
                match text.split_once(part) {
                    Some((_, after)) => text = after,
                    None => return false,
                }
            }
            true
        }
    }
}
