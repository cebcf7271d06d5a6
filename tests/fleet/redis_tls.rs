//! `RedisStore` over TLS.

use std::{fs, time::Duration};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;
use tower_salesforce_auth::store::{RedisStore, SessionStore, StoreErrorKind, conformance};

use crate::{
    records::{KEY, first, put},
    servers::{free_port, redis::Redis, text},
};

/// A server that speaks TLS at one port, and none at another.
struct Tls {
    redis: Redis,
    port: u16,
    certificate: String,
    _files: TempDir,
}

impl Tls {
    fn start(clients: &str) -> Option<Self> {
        let names = vec!["127.0.0.1".to_owned()];
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
        let files = tempfile::tempdir().unwrap();
        let path = |name: &str| files.path().join(name);
        fs::write(path("cert.pem"), cert.pem()).unwrap();
        fs::write(path("key.pem"), signing_key.serialize_pem()).unwrap();
        let port = free_port();
        let redis = Redis::start_with(&[
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            text(&path("cert.pem")),
            "--tls-key-file",
            text(&path("key.pem")),
            "--tls-ca-cert-file",
            text(&path("cert.pem")),
            "--tls-auth-clients",
            clients,
        ])?;
        Some(Self {
            redis,
            port,
            certificate: cert.pem(),
            _files: files,
        })
    }

    fn url(&self) -> String {
        format!("rediss://127.0.0.1:{}", self.port)
    }

    fn store(&self) -> RedisStore {
        let store = RedisStore::new(self.url()).unwrap();
        let store = store.root_certificates(&self.certificate).unwrap();
        store.lock_timeout(Duration::from_millis(200))
    }
}

/// Checks that a load fails, and says all of this.
async fn assert_told(store: &RedisStore, parts: &[&str]) {
    let error = store.load(KEY).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    let told = error.to_string();
    for part in parts {
        assert!(told.contains(part), "no {part:?} in {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_root_certificate_is_trusted_when_added() {
    let Some(tls) = Tls::start("no") else { return };
    put(&tls.store(), &first()).await;
    conformance::check_notices(|| tls.store()).await;

    let store = RedisStore::new(tls.url()).unwrap();
    assert_told(&store, &["certificate", "`RedisStore::root_certificates`"]).await;
    let elsewhere = RedisStore::new(format!("rediss://localhost:{}", tls.port)).unwrap();
    let elsewhere = elsewhere.root_certificates(&tls.certificate).unwrap();
    assert_told(&elsewhere, &["certificate", "check the name of the host"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_or_without_tls_is_told_apart() {
    let Some(tls) = Tls::start("no") else { return };
    let plain = RedisStore::new(format!("redis://127.0.0.1:{}", tls.port)).unwrap();
    assert_told(&plain, &["use `rediss://`"]).await;
    let url = format!("rediss://127.0.0.1:{}", tls.redis.port());
    // The server waits for the rest of a command.
    let encrypted = RedisStore::new(url).unwrap();
    let encrypted = encrypted.timeout(Duration::from_secs(1));
    assert_told(&encrypted, &["use `redis://`"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_wants_a_client_certificate_is_told() {
    let Some(tls) = Tls::start("yes") else { return };
    assert_told(&tls.store(), &["tls-auth-clients no"]).await;
}

#[tokio::test]
async fn root_certificates_that_are_none_are_refused() {
    let store = RedisStore::new("rediss://127.0.0.1").unwrap();
    let error = store.root_certificates("no certificate").unwrap_err();
    let told = error.to_string();
    assert!(told.contains("BEGIN CERTIFICATE"), "{told}");
}
