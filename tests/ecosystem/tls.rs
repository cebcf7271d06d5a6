//! TLS in front of the emulated org, which serves plain HTTP.

use std::{net::Ipv4Addr, sync::Arc};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer},
};
use tower_salesforce_auth::{BoxError, emulator::Org};

/// An org that is served by `https` until this is dropped.
pub(crate) struct TlsServed {
    /// `https://localhost:PORT`
    pub(crate) url: String,
    /// The self-signed certificate, in PEM.
    pub(crate) root_pem: String,
    _accepting: JoinSet<()>,
}

/// Serves the org as `localhost`, with these protocols for ALPN, and moves its instance there.
pub(crate) async fn serve(org: &Org, protocols: &[&str]) -> Result<TlsServed, BoxError> {
    let (acceptor, root_pem) = acceptor(protocols)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let url = format!("https://localhost:{}", listener.local_addr()?.port());
    // Token responses name the instance; the app knows the login URL.
    org.move_instance(&url);

    let mut accepting = JoinSet::new();
    accepting.spawn(accept(org.clone(), listener, acceptor));
    Ok(TlsServed {
        url,
        root_pem,
        _accepting: accepting,
    })
}

/// A TLS acceptor for `localhost`, and its certificate in PEM.
pub(crate) fn acceptor(protocols: &[&str]) -> Result<(TlsAcceptor, String), BoxError> {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der())?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)?;
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().into())
        .collect();
    Ok((TlsAcceptor::from(Arc::new(config)), certified.cert.pem()))
}

async fn accept(org: Org, listener: TcpListener, acceptor: TlsAcceptor) {
    // The connections end with this task.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let (org, acceptor) = (org.clone(), acceptor.clone());
        connections.spawn(async move {
            // A client that does not trust the certificate ends the handshake, and reports the error itself.
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(org))
                .await;
        });
    }
}
