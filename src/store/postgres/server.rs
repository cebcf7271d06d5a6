//! The servers that a URL names.

use std::sync::{Arc, OnceLock};

use rustls::pki_types::CertificateDer;
use tokio_postgres::Config;

use super::{failure::unavailable, tls::Connector};
use crate::{error::StoreError, secret::Secret, tls::platform_config};

/// One server.
#[derive(Clone)]
pub(super) struct Host {
    /// How to connect to it. It has the password.
    pub(super) config: Config,
    /// Its host and port, to be shown.
    pub(super) place: String,
}

/// The servers of a URL, one of which takes writes.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) hosts: Vec<Host>,
    pub(super) has_tls: bool,
    /// What no error shows. `None` if the URL has no password.
    pub(super) password: Option<Secret>,
    /// The root certificates that are trusted in addition to those of the operating system.
    pub(super) roots: Vec<CertificateDer<'static>>,
    /// Made when the first connection is.
    pub(super) tls: Arc<OnceLock<Connector>>,
}

impl Server {
    pub(super) fn trusting(&self, roots: &[CertificateDer<'static>]) -> Self {
        Self {
            roots: roots.to_vec(),
            tls: Arc::default(),
            ..self.clone()
        }
    }

    pub(super) fn connector(&self) -> Result<Connector, StoreError> {
        if !self.has_tls {
            return Ok(Connector(None));
        }
        if let Some(connector) = self.tls.get() {
            return Ok(connector.clone());
        }
        let config = platform_config(&self.roots)
            .map_err(|error| unavailable("there is no TLS to PostgreSQL").with_source(error))?;
        let connector = Connector(Some(Arc::new(config)));
        Ok(self.tls.get_or_init(|| connector).clone())
    }
}
