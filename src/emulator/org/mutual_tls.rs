//! The org behind mutual TLS: a port that demands a certificate of its clients.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto::aws_lc_rs};
use tokio_rustls::server::TlsStream;

use super::Org;
use crate::emulator::server::{self, Handshake, Served};
use crate::error::BoxError;

impl Handshake for TlsAcceptor {
    type Stream = TlsStream<TcpStream>;

    async fn begin(self, stream: TcpStream) -> io::Result<Self::Stream> {
        self.accept(stream).await
    }
}

impl Org {
    /// Serves the org by TLS on a free port of `localhost`, to clients with a certificate. It stands for
    /// port 8443 of a My Domain. A client without a certificate of `client_roots` gets no answer.
    ///
    /// The instance URL changes to `https://localhost`, without a port: Salesforce names none either.
    /// The login URL stays; [`serve`](Self::serve) the org first to log in over a socket. `chain` and
    /// `key` are the server's certificate for `localhost` and its private key, all in PEM.
    ///
    /// # Errors
    ///
    /// If a certificate or the key cannot be used, and those of binding the socket.
    ///
    /// # Panics
    ///
    /// If called outside of a tokio runtime with I/O enabled.
    ///
    /// ```
    /// use tower_salesforce_auth::{BoxError, emulator::{Org, Served}};
    ///
    /// async fn serve(org: &Org, server: (&str, &str), clients: &str) -> Result<Served, BoxError> {
    ///     let served = org.serve_mutual_tls(server.0, server.1, clients).await?;
    ///     println!("set `instance_port` to {}", served.port());
    ///     Ok(served)
    /// }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # assert!(serve(&Org::new(), ("", ""), "").await.is_err());
    /// # }
    /// ```
    #[cfg_attr(docsrs, doc(cfg(feature = "https-client")))]
    #[expect(
        clippy::unused_async,
        reason = "listening needs a runtime, and an async function is called where there is one"
    )]
    pub async fn serve_mutual_tls(
        &self,
        chain: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
        client_roots: impl AsRef<[u8]>,
    ) -> Result<Served, BoxError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(client_roots.as_ref()) {
            roots.add(root?)?;
        }
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_ref()).collect();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain?, PrivateKeyDer::from_pem_slice(key.as_ref())?)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];

        let listener = server::listen((Ipv4Addr::LOCALHOST, 0).into())?;
        let url = format!("https://localhost:{}", listener.local_addr()?.port());
        self.move_instance("https://localhost");
        let org = self.clone();
        let accepted = move || org.state().counters.connections += 1;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(server::serve(
            listener,
            url,
            self.clone(),
            acceptor,
            accepted,
        )?)
    }
}
