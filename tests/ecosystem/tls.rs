//! TLS in front of the emulated org, which has none of its own.

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

/// An org that is served by `https`, for as long as this lives.
pub(crate) struct TlsServed {
    /// `https://localhost:PORT`
    pub(crate) url: String,
    /// The certificate, signed by itself, so that it is its own root.
    pub(crate) root_pem: String,
    _accepting: JoinSet<()>,
}

/// Serves the org as `localhost`, in the protocols that the client may choose from, and moves it there.
pub(crate) async fn serve(org: &Org, protocols: &[&str]) -> Result<TlsServed, BoxError> {
    let (acceptor, root_pem) = acceptor(protocols)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let url = format!("https://localhost:{}", listener.local_addr()?.port());
    // What the tokens say; the login URL is for the app to know.
    org.move_instance(&url);

    let mut accepting = JoinSet::new();
    accepting.spawn(accept(org.clone(), listener, acceptor));
    Ok(TlsServed {
        url,
        root_pem,
        _accepting: accepting,
    })
}

/// TLS for `localhost`, and the certificate that it shows, in PEM.
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
    // They end with this task.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let (org, acceptor) = (org.clone(), acceptor.clone());
        connections.spawn(async move {
            // A client that does not trust the certificate ends it here; that is the client's to tell.
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(org))
                .await;
        });
    }
}
