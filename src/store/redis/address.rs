//! What a URL says of a server.

use std::{fmt, path::PathBuf};

use redis::{
    ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo,
};
use zeroize::Zeroizing;

use crate::{
    error::{StoreError, StoreErrorKind},
    secret::Secret,
    text::pasted,
};

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Address {
    /// A host and a port.
    Tcp(String, u16),
    /// The path of a socket.
    Unix(PathBuf),
}

impl Address {
    /// Reads `host:port`, as a server of a cluster names another one. A server that does not know its host leaves it out: it is
    /// the host that was asked. `None` if it is no address.
    pub(super) fn redirected(&self, text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok()?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        match (host, self) {
            ("" | "?", Self::Tcp(host, _)) => Some(Self::Tcp(host.clone(), port)),
            ("" | "?", Self::Unix(_)) => None,
            _ => Some(Self::Tcp(host.to_owned(), port)),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// How to log in to a server.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    /// The user. `None`: the server's default user.
    user: Option<String>,
    /// The password. `None`: without.
    password: Option<Secret>,
    database: i64,
    pub(super) is_tls: bool,
}

impl Login {
    /// What the client sends first on a connection.
    pub(super) fn handshake(&self, protocol: ProtocolVersion) -> RedisConnectionInfo {
        let mut info = RedisConnectionInfo::default()
            .set_db(self.database)
            .set_protocol(protocol)
            // A user needs no permission for it then.
            .set_skip_set_lib_name();
        if let Some(user) = &self.user {
            info = info.set_username(user);
        }
        if let Some(password) = &self.password {
            info = info.set_password(password.expose());
        }
        info
    }
}

/// Reads the URL of a server.
pub(super) fn parse(url: &str) -> Result<(Address, Login), StoreError> {
    let url = pasted::credential(url);
    let Some((scheme, rest)) = url.split_once(':') else {
        return Err(invalid("it has no scheme"));
    };
    // The crate `redis` knows TLS only with a feature that this crate does not use: it brings its own TLS.
    let (scheme, is_tls) = match scheme.to_ascii_lowercase().as_str() {
        "redis" | "valkey" => ("redis", false),
        "rediss" | "valkeys" => ("redis", true),
        "unix" | "redis+unix" | "valkey+unix" => ("unix", false),
        // What precedes a colon may be a user or a password.
        "http" | "https" | "postgres" | "postgresql" | "mysql" | "amqp" | "memcached" | "file" => {
            return Err(invalid(&format!("its scheme is `{scheme}`")));
        }
        "redis-sentinel" | "rediss-sentinel" | "redis+sentinel" => {
            return Err(invalid(
                "this store does not ask sentinels, so name the primary",
            ));
        }
        _ => return Err(invalid("its scheme is another one, or is missing")),
    };
    if rest.contains('#') {
        return Err(invalid(
            "it has a `#`. A password has `%23` for it. Certificates are always checked: see `RedisStore::root_certificates`",
        ));
    }
    // An option that has no effect may be one that asks for TLS.
    if scheme != "unix" && rest.contains('?') {
        return Err(invalid(
            "it has options after a `?`, which this store does not know: TLS is `rediss://`, and the rest are methods of \
             `RedisStore`. A password has `%3F` for a `?`",
        ));
    }
    let text = Zeroizing::new(format!("{scheme}:{rest}"));
    // The error may repeat the URL.
    let info: ConnectionInfo = text
        .as_str()
        .into_connection_info()
        .map_err(|_| invalid("its host, port or database cannot be read"))?;
    let address = match info.addr() {
        ConnectionAddr::Tcp(host, port) => Address::Tcp(host.clone(), *port),
        ConnectionAddr::Unix(path) if cfg!(unix) => Address::Unix(path.clone()),
        _ => return Err(invalid("this system has no such sockets")),
    };
    let settings = info.redis_settings();
    let login = Login {
        user: settings.username().map(str::to_owned),
        password: settings.password().map(Secret::from),
        database: settings.db(),
        is_tls,
    };
    Ok((address, login))
}

fn invalid(reason: &str) -> StoreError {
    StoreError::new(
        StoreErrorKind::Unavailable,
        format!(
            "the URL of the Redis server is not valid: {reason}. Expected `redis://[user[:password]@]host[:port][/database]`, \
             `rediss://…` for TLS, or `redis+unix:///path`; in a user or a password, `%40` stands for `@`, `%2F` for `/`, `%3A` \
             for `:` and `%25` for `%`"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> (String, Option<String>, Option<String>, i64, bool) {
        let (address, login) = parse(url).unwrap();
        let password = login.password.map(|password| password.expose().to_owned());
        (
            address.to_string(),
            login.user,
            password,
            login.database,
            login.is_tls,
        )
    }

    #[test]
    fn urls_of_servers_are_read() {
        let text = |text: &str| Some(text.to_owned());
        let local = "127.0.0.1:6379".to_owned();
        assert_eq!(
            read("redis://127.0.0.1"),
            (local.clone(), None, None, 0, false)
        );
        assert_eq!(
            read(" valkeys://us%40er:p%2Fw%3A%23@127.0.0.1/7\n"),
            (local, text("us@er"), text("p/w:#"), 7, true)
        );
        let six = "[::1]:7000".to_owned();
        assert_eq!(
            read("redis://:pw@[::1]:7000"),
            (six, None, text("pw"), 0, false)
        );
        let socket = "/run/redis.sock".to_owned();
        assert_eq!(
            read("redis+unix:///run/redis.sock?db=2"),
            (socket, None, None, 2, false)
        );
    }

    #[test]
    fn no_url_that_cannot_be_read_is_repeated() {
        for url in [
            "",
            "127.0.0.1:6379",
            "p4ss:w0rd@127.0.0.1",
            "postgres://user:p4ss@127.0.0.1",
            "redis://user:p4ss/w0rd@127.0.0.1",
            "redis://user:p4ss#w0rd@127.0.0.1",
            "redis://user:p4ss@127.0.0.1/database",
            "redis://user:p4ss@",
            "rediss://user:p4ss@127.0.0.1/#insecure",
            "redis://user:p4ss@127.0.0.1:6380?ssl=true",
            "redis://user:p4ss?w0rd@127.0.0.1",
            "redis+sentinel://user:p4ss@127.0.0.1/0",
            "redis://user:p4ss@127.0.0.1:70000",
        ] {
            let error = parse(url).err().unwrap_or_else(|| panic!("{url} was read"));
            let told = format!("{error} {error:?}");
            assert!(told.contains("redis://[user"), "{told}");
            assert!(!told.contains("p4ss") && !told.contains("w0rd"), "{told}");
        }
    }

    #[test]
    fn a_redirection_without_a_host_keeps_the_host() {
        let here = Address::Tcp("cache.example.com".to_owned(), 6379);
        let told = |text| here.redirected(text).map(|address| address.to_string());
        assert_eq!(told(":7001").as_deref(), Some("cache.example.com:7001"));
        assert_eq!(told("10.0.0.2:7001").as_deref(), Some("10.0.0.2:7001"));
        assert_eq!(told("::1:7001").as_deref(), Some("[::1]:7001"));
        assert_eq!(told("10.0.0.2"), None);
    }
}
