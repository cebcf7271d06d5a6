//! Client certificates: the ready client against an org that demands one, at a port of its own (R37).

use std::{fs, path::Path, process::Stdio};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use rcgen::{CertifiedKey, KeyPair};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    task::JoinSet,
};
use tower::{Layer, ServiceExt};
use tower_salesforce_auth::{
    BoxError, Error, ErrorKind, SalesforceAuthLayer, SessionHandle,
    emulator::{Org, Served},
    flow::RefreshToken,
    https::{HttpsClient, HttpsClientBuilder, Proxy, SalesforceClient},
    oauth::App,
};

const LIMITS: &str = "/services/data/v66.0/limits";

/// A self-signed certificate with its key, both in PEM.
fn certificate(name: &str) -> (String, String) {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    (cert.pem(), signing_key.serialize_pem())
}

/// A client certificate that a root and an intermediate have signed: the root, the chain without it, and the key.
fn chained() -> (String, String, String) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer};
    let authority = |name: &str| {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        (params, KeyPair::generate().unwrap())
    };
    let (root_params, root_key) = authority("root");
    let root = root_params.self_signed(&root_key).unwrap();
    let root_issuer = Issuer::new(root_params, root_key);
    let (between_params, between_key) = authority("between");
    let between = between_params
        .signed_by(&between_key, &root_issuer)
        .unwrap();
    let between_issuer = Issuer::new(between_params, between_key);
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(["client".to_owned()]).unwrap();
    let own = own.signed_by(&key, &between_issuer).unwrap();
    let chain = format!("{}{}", own.pem(), between.pem());
    (root.pem(), chain, key.serialize_pem())
}

/// An org behind mutual TLS, whose logins are on another port.
struct Behind {
    org: Org,
    logins: Served,
    served: Served,
    server_root: String,
}

impl Behind {
    async fn new(client_roots: &str) -> Self {
        let org = Org::new();
        let logins = org.serve().await.unwrap();
        let (server_root, key) = certificate("localhost");
        let served = org
            .serve_mutual_tls(&server_root, key, client_roots)
            .await
            .unwrap();
        Self {
            org,
            logins,
            served,
            server_root,
        }
    }

    fn https(&self) -> HttpsClientBuilder {
        let https = HttpsClient::builder().proxy(Proxy::none());
        https.root_certificates(&self.server_root).unwrap()
    }

    /// A client whose requests go through this one.
    fn client(&self, https: &HttpsClientBuilder, port: u16) -> SalesforceClient {
        let app = App::new(self.org.login_url().parse().unwrap(), self.org.client_id());
        let app = app.client_secret(self.org.client_secret());
        let grant = self.org.authorize();
        let flow = RefreshToken::new(https.build().unwrap(), app, grant.refresh_token());
        let handle = SessionHandle::builder(flow).instance_port(port).build();
        SalesforceAuthLayer::from(handle).layer(https.build().unwrap())
    }
}

async fn get(client: &SalesforceClient, uri: &str) -> Result<StatusCode, BoxError> {
    let request = Request::get(uri).body(Full::<Bytes>::default())?;
    Ok(client.clone().oneshot(request).await?.status())
}

#[tokio::test]
async fn r37_requests_and_replays_present_the_certificate_at_the_port() {
    let (root, chain, key) = chained();
    let behind = Behind::new(&root).await;
    assert_eq!(behind.org.instance_url(), "https://localhost");
    let https = behind.https().client_certificate(chain, key).unwrap();
    let client = behind.client(&https, behind.served.port());
    let absolute = format!("https://localhost{LIMITS}");
    let at_port = format!("{}{LIMITS}", behind.served.url());
    for uri in [LIMITS, &absolute, &at_port] {
        assert_eq!(get(&client, uri).await.unwrap(), StatusCode::OK, "{uri}");
        behind.org.expire_sessions();
        assert_eq!(get(&client, uri).await.unwrap(), StatusCode::OK, "{uri}");
    }
    let counters = behind.org.counters();
    assert_eq!((counters.data_rejected, counters.token_requests), (3, 4));
}

/// The org moves to another port's certificate: the new instance is reached at the port, too.
#[tokio::test(flavor = "multi_thread")]
async fn r37_many_callers_of_a_moved_instance_present_the_certificate() {
    let (root, key) = certificate("client");
    let behind = Behind::new(&root).await;
    let https = behind.https().client_certificate(&root, key).unwrap();
    let client = behind.client(&https, behind.served.port());
    assert_eq!(get(&client, LIMITS).await.unwrap(), StatusCode::OK);
    // Still no port, and a host that is written in another way.
    behind.org.move_instance("https://LOCALHOST:443/");
    behind.org.expire_sessions();
    let mut calls = JoinSet::new();
    for _ in 0..100 {
        let client = client.clone();
        calls.spawn(async move { get(&client, LIMITS).await.unwrap() });
    }
    let answers = calls.join_all().await;
    assert!(answers.iter().all(|status| *status == StatusCode::OK));
    assert_eq!(behind.org.counters().token_requests, 2);
    assert_eq!(behind.org.counters().refresh_token_reuses, 0);
}

#[tokio::test]
async fn r37_a_client_without_the_right_certificate_sends_no_token() {
    let (root, _) = certificate("client");
    let (other, other_key) = certificate("client");
    let behind = Behind::new(&root).await;
    let wrong = behind.https().client_certificate(other, other_key).unwrap();
    for https in [behind.https(), wrong] {
        let client = behind.client(&https, behind.served.port());
        assert!(get(&client, LIMITS).await.is_err());
        assert_eq!(behind.org.counters().data_requests, 0);
    }
    // Without the port, nothing is sent to the port with the certificate, nor elsewhere.
    let client = behind.client(&behind.https(), 1);
    let error = get(&client, LIMITS).await.unwrap_err();
    let error: &Error = error.downcast_ref().unwrap();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(error.to_string().contains("localhost:1"), "{error}");
    drop(behind.logins);
}

/// `openssl s_server`, which demands a certificate, in one version of TLS. Ends when it is dropped.
struct OpenSsl {
    url: String,
    _server: Child,
}

impl OpenSsl {
    /// `None` without openssl on this machine.
    async fn new(folder: &Path, version: &str) -> Option<Self> {
        let mut server = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", version, "-www"])
            .args([
                "-Verify",
                "2",
                "-verify_return_error",
                "-CAfile",
                "root.pem",
            ])
            .args(["-cert", "server.pem", "-key", "server.key"])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .ok()?;
        let mut lines = BufReader::new(server.stdout.take()?).lines();
        loop {
            let line = lines.next_line().await.unwrap()?;
            if let Some((_, port)) = line.split_once("ACCEPT 127.0.0.1:") {
                // It waits for room if its output is not read.
                tokio::spawn(async move {
                    while lines.next_line().await.is_ok_and(|line| line.is_some()) {}
                });
                let url = format!("https://localhost:{port}/");
                return Some(Self {
                    url,
                    _server: server,
                });
            }
        }
    }
}

#[tokio::test]
async fn r37_openssl_takes_the_certificate_and_demands_one() {
    let folder = tempfile::tempdir().unwrap();
    let (root, chain, key) = chained();
    let (server, server_key) = certificate("localhost");
    for (name, pem) in [
        ("root.pem", &root),
        ("server.pem", &server),
        ("server.key", &server_key),
    ] {
        fs::write(folder.path().join(name), pem).unwrap();
    }
    let https = HttpsClient::builder().proxy(Proxy::none());
    let https = https.root_certificates(&server).unwrap();
    for version in ["-tls1_3", "-tls1_2"] {
        let Some(openssl) = OpenSsl::new(folder.path(), version).await else {
            return eprintln!("there is no openssl on this machine");
        };
        let get = async |https: &HttpsClientBuilder| {
            let request = Request::get(&openssl.url).body(Full::<Bytes>::default())?;
            let response = https.build()?.oneshot(request).await?;
            let page = response.into_body().collect().await?.to_bytes();
            Ok::<_, BoxError>(String::from_utf8_lossy(&page).into_owned())
        };
        let with = https
            .clone()
            .client_certificate(&chain, key.clone())
            .unwrap();
        let page = get(&with).await.unwrap();
        assert!(
            page.contains("Verify return code: 0 (ok)"),
            "{version}: {page}"
        );
        assert!(page.contains("DNS:client"), "{version}: {page}");
        // In TLS 1.3 the client has sent by then. What it sent is not answered.
        let error = get(&https).await.unwrap_err();
        if version == "-tls1_2" {
            let told = error.to_string();
            assert!(told.contains("client_certificate"), "{told}");
        }
    }
}

fn fixture(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/flows/encrypted_keys");
    fs::read(format!("{folder}/{name}")).unwrap()
}

#[tokio::test]
async fn r37_a_certificate_of_an_archive_is_presented() {
    let converted = String::from_utf8(fixture("pkcs12_converted.pem")).unwrap();
    let (from, to) = (
        converted.find("-----BEGIN CERTIFICATE").unwrap(),
        converted.find("-----END CERTIFICATE-----").unwrap() + 25,
    );
    let behind = Behind::new(&converted[from..to]).await;
    for name in ["pkcs12.p12", "keytool.p12", "pkcs12_converted.pem"] {
        let https = behind.https();
        let https = https
            .encrypted_client_certificate(fixture(name), "hunter2")
            .unwrap();
        let client = behind.client(&https, behind.served.port());
        assert_eq!(
            get(&client, LIMITS).await.unwrap(),
            StatusCode::OK,
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_chain_in_another_order_is_presented_from_its_end() {
    let (root, chain, key) = chained();
    let behind = Behind::new(&root).await;
    let at = chain.rfind("-----BEGIN").unwrap();
    let reversed = format!("{}{}", &chain[at..], &chain[..at]);
    // Both in one text, given twice.
    let both = format!("{key}{reversed}");
    let https = behind
        .https()
        .client_certificate(&both, both.clone())
        .unwrap();
    let client = behind.client(&https, behind.served.port());
    assert_eq!(get(&client, LIMITS).await.unwrap(), StatusCode::OK);
}

#[test]
fn a_client_certificate_of_every_kind_of_key_is_taken() {
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let params = rcgen::CertificateParams::new(["client".to_owned()]).unwrap();
        let chain = params.self_signed(&key).unwrap().pem();
        let shown = format!(
            "{:?}",
            HttpsClient::builder()
                .client_certificate(&chain, key.serialize_der())
                .unwrap()
        );
        assert!(shown.contains("client_certificate: true"), "{shown}");
        let pem = key.serialize_pem().replace('\n', "\\n");
        assert!(
            HttpsClient::builder()
                .client_certificate(&chain, pem)
                .is_ok()
        );
    }
}

#[test]
fn a_client_certificate_that_cannot_be_used_is_named() {
    let (chain, key) = certificate("client");
    let (other, _) = certificate("client");
    let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let encrypted = String::from_utf8(fixture("pkcs8_aes256_sha256.pem")).unwrap();
    let invalid = ErrorKind::InvalidCertificate;
    let cut = format!("{chain}{}", &other[..other.len() / 2]);
    let traditional = String::from_utf8(fixture("traditional.pem")).unwrap();
    let with_encrypted = format!("{chain}{encrypted}");
    let with_traditional = format!("{chain}{traditional}");
    for (chain, key, kind, words) in [
        (
            &*chain,
            "",
            ErrorKind::InvalidKey,
            ["it is empty", "BEGIN PRIVATE KEY"],
        ),
        (
            &chain,
            &*chain,
            ErrorKind::InvalidKey,
            ["certificates in it alone", "key file"],
        ),
        (
            &chain,
            "client.key",
            ErrorKind::InvalidKey,
            ["path of a file", "BEGIN PRIVATE KEY"],
        ),
        (
            &chain,
            &encrypted,
            ErrorKind::InvalidKey,
            ["encrypted", "`key-formats`"],
        ),
        ("", &key, invalid, ["it is empty", "BEGIN CERTIFICATE"]),
        (
            &key,
            &key,
            invalid,
            ["no certificate in it", "BEGIN CERTIFICATE"],
        ),
        (&cut, &key, invalid, ["cut off", "BEGIN CERTIFICATE"]),
        (
            &chain,
            &with_encrypted,
            ErrorKind::InvalidKey,
            ["it is encrypted", "`key-formats`"],
        ),
        (
            &with_traditional,
            &with_traditional,
            ErrorKind::InvalidKey,
            ["traditional form", "openssl pkcs8"],
        ),
        (
            "client.pem",
            &key,
            invalid,
            ["path of a file", "BEGIN CERTIFICATE"],
        ),
        (
            &other,
            &key,
            invalid,
            ["not that of its private key", "openssl x509"],
        ),
        (nonsense, &key, invalid, ["cannot be read", "X.509"]),
    ] {
        let error = HttpsClient::builder()
            .client_certificate(chain, key)
            .unwrap_err();
        let told = format!("{error} {error:?}");
        assert_eq!(error.kind(), kind, "{told}");
        assert!(words.iter().all(|word| told.contains(word)), "{told}");
        let secret = key.lines().nth(1).unwrap_or("no key");
        assert!(!told.contains(secret), "{told}");
    }
}

#[test]
fn an_encrypted_client_certificate_that_cannot_be_used_is_named() {
    let archive = fixture("pkcs12.p12");
    let error = HttpsClient::builder().client_certificate(&archive, archive.clone());
    let told = error.unwrap_err().to_string();
    assert!(
        told.contains("PKCS #12") && told.contains("`key-formats`"),
        "{told}"
    );
    for (name, pass_phrase, words) in [
        ("pkcs12.p12", "hunter3", ["pass phrase", "PKCS #12"]),
        (
            "pkcs12_nokey.p12",
            "hunter2",
            ["certificates in it alone", "key file"],
        ),
        (
            "pkcs8_aes256_sha256.pem",
            "hunter2",
            ["no certificate in it", "BEGIN CERTIFICATE"],
        ),
        (
            "old_pkcs12.p12",
            "hunter2",
            ["RC2", "openssl pkcs12 -legacy"],
        ),
        ("keytool.jks", "hunter2", ["Java keystore", "keytool"]),
    ] {
        let error = HttpsClient::builder()
            .encrypted_client_certificate(fixture(name), pass_phrase)
            .unwrap_err();
        let told = error.to_string();
        assert!(
            words.iter().all(|word| told.contains(word)),
            "{name}: {told}"
        );
    }
}
