//! Proxies and root certificates as environments have them (R40).

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use proptest::prelude::*;
use tokio::{
    io::{AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tower::ServiceExt;
use tower_salesforce_auth::{
    BoxError, Error, ErrorKind,
    emulator::Org,
    https::{HttpsClient, Proxy, Roots},
};

use crate::{support::read_head, tls};

fn chain(error: &BoxError) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told = format!("{told}: {error}");
        cause = error.source();
    }
    told
}

/// A proxy that answers CONNECT in these pieces, and makes a tunnel if `tunnels`. Returns its port, and counts connections.
async fn answering(pieces: Vec<&'static str>, tunnels: bool) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            let pieces = pieces.clone();
            tokio::spawn(async move {
                let head = read_head(&mut stream).await;
                for piece in pieces {
                    if stream.write_all(piece.as_bytes()).await.is_err() {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
                if tunnels {
                    let authority = head.split(' ').nth(1).unwrap();
                    let mut target = TcpStream::connect(authority).await.unwrap();
                    let _ = copy_bidirectional(&mut stream, &mut target).await;
                }
            });
        }
    });
    (port, count)
}

/// What a request by this proxy ends in: a status, or an error with its causes.
async fn ask(proxy: Proxy, url: &str, root: Option<&str>) -> String {
    let mut builder = HttpsClient::builder().roots(Roots::WebPki).proxy(proxy);
    if let Some(root) = root {
        builder = builder.root_certificates(root).unwrap();
    }
    let client: HttpsClient<Full<Bytes>> = match builder.build() {
        Ok(client) => client,
        Err(error) => return chain(&error.into()),
    };
    let request = Request::get(url).body(Full::default()).unwrap();
    match client.oneshot(request).await {
        Ok(response) => response.status().to_string(),
        Err(error) => chain(&error),
    }
}

// === The answer to CONNECT ===

/// RFC 9110 §9.3.6: any 2xx makes a tunnel.
#[tokio::test]
async fn r40_any_2xx_to_connect_makes_a_tunnel() {
    let org = Org::new();
    let served = tls::serve(&org, &["h2", "http/1.1"]).await.unwrap();
    for pieces in [
        vec!["HTTP/1.1 200 Connection established\r\n\r\n"],
        vec!["HTTP/1.0 200 OK\r\n\r\n"],
        vec!["HTTP/1.1 200\r\n\r\n"],
        vec!["HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"],
        vec!["HTTP/1.1 204 No Content\r\nVia: 1.1 proxy\r\n\r\n"],
        vec!["HTTP/1.1 299 Miscellaneous\r\n\r\n"],
        vec!["HTTP/1.1  200  OK\r\n\r\n"],
        vec!["HTTP/1.1 200 OK\n\n"],
        vec!["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"],
        vec!["HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"],
        vec!["H", "TTP/1.1 2", "00 OK\r", "\n\r", "\n"],
        vec!["HTTP/1.1 200 OK\r\nX-Proxy: a", "b\r\n", "\r\n"],
    ] {
        let (port, count) = answering(pieces.clone(), true).await;
        let proxy = Proxy::url(format!("http://127.0.0.1:{port}")).unwrap();
        let told = ask(proxy, &served.url, Some(&served.root_pem)).await;
        assert_eq!(told, "404 Not Found", "{pieces:?}");
        assert_eq!(count.load(Ordering::SeqCst), 1, "{pieces:?}");
    }
}

/// What a proxy answers instead of a tunnel says what to do.
#[tokio::test]
async fn r40_a_refusal_of_a_proxy_is_told_with_a_remedy() {
    for (answer, words) in [
        (
            "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: NTLM\r\n\r\n",
            ["407", "NTLM", "user and a password"],
        ),
        (
            "HTTP/1.1 407 No\r\nproxy-authenticate: Negotiate\r\nPROXY-AUTHENTICATE: Basic realm=\"SECRET\"\r\n\r\n",
            ["407", "Negotiate, Basic", "authentication"],
        ),
        (
            "HTTP/1.1 403 Forbidden\r\n\r\n",
            ["403", "rules", "allowed"],
        ),
        (
            "HTTP/1.1 401 Unauthorized\r\n\r\n",
            ["401", "rules", "allowed"],
        ),
        (
            "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\n\r\n<html>SECRET",
            ["502", "reach", "host"],
        ),
        (
            "HTTP/1.1 504 Gateway Timeout\r\n\r\n",
            ["504", "reach", "host"],
        ),
        (
            "HTTP/1.1 302 Found\r\nLocation: http://portal.example.com/?SECRET\r\n\r\n",
            ["302", "log in", "network"],
        ),
        (
            "HTTP/1.1 405 Method Not Allowed\r\n\r\n",
            ["405", "tunnels", "URL"],
        ),
        (
            "HTTP/1.1 400 Bad Request\r\n\r\n",
            ["400", "refuses", "tunnel"],
        ),
        (
            "SSH-2.0-OpenSSH_9.6 SECRET\r\n",
            ["HTTP proxy", "scheme", "port"],
        ),
        (
            "220 mail.example.com ESMTP\r\n",
            ["HTTP proxy", "scheme", "port"],
        ),
        ("HTTP/1.1 SECRET\r\n\r\n", ["HTTP proxy", "scheme", "port"]),
        ("HTTP/1.1 200 O", ["HTTP proxy", "scheme", "port"]),
        (
            "HTTP/1.1 200 OK\r\n\r\nSECRET",
            ["more than", "answer", "CONNECT"],
        ),
        ("", ["without an answer", "closed", "CONNECT"]),
    ] {
        let (port, _) = answering(vec![answer], false).await;
        let proxy = Proxy::url(format!("http://127.0.0.1:{port}")).unwrap();
        let told = ask(proxy, "https://acme.my.salesforce.com", None).await;
        let named = format!("proxy http://127.0.0.1:{port}");
        assert!(told.contains(&named), "{answer:?}: {told}");
        assert!(
            words.iter().all(|word| told.contains(word)),
            "{answer:?}: {told}"
        );
        assert!(!told.contains("SECRET"), "{told}");
    }
    let (port, _) = answering(vec!["HTTP/1.1 407 No\r\n\r\n"], false).await;
    let proxy = Proxy::url(format!("http://user:hunter2@127.0.0.1:{port}")).unwrap();
    let told = ask(proxy, "https://acme.my.salesforce.com", None).await;
    assert!(told.contains("the authentication was refused"), "{told}");
    assert!(!told.contains("hunter2"), "{told}");
}

#[tokio::test]
async fn a_head_without_end_of_a_proxy_is_an_error() {
    let endless = vec!["HTTP/1.1 200 OK\r\nX: "; 1]
        .into_iter()
        .chain(vec!["aaaaaaaaaaaaaaaa"; 2_000]);
    let (port, _) = answering(endless.collect(), false).await;
    let proxy = Proxy::url(format!("http://127.0.0.1:{port}")).unwrap();
    let told = ask(proxy, "https://acme.my.salesforce.com", None).await;
    assert!(told.contains("HTTP proxy"), "{told}");
}

// === NO_PROXY ===

/// Whether a request to `url` bypasses the proxy. No server listens at these URLs: only where the connection goes counts.
async fn bypasses(except: &str, url: &str) -> bool {
    let (port, count) = answering(vec!["HTTP/1.1 502 Bad Gateway\r\n\r\n"], false).await;
    let proxy = Proxy::url(format!("http://127.0.0.1:{port}"))
        .unwrap()
        .except(except);
    let client: HttpsClient<Full<Bytes>> = HttpsClient::builder()
        .roots(Roots::WebPki)
        .connect_timeout(Duration::from_millis(300))
        .proxy(proxy)
        .build()
        .unwrap_or_else(|error| panic!("{except:?}: {error}"));
    let request = Request::get(url).body(Full::default()).unwrap();
    assert!(client.oneshot(request).await.is_err());
    count.load(Ordering::SeqCst) == 0
}

/// request/request#2194, docker/docs#9745, unjs/node-fetch-native#125, RHDH's documentation: how `NO_PROXY` is written.
#[tokio::test]
async fn r40_hosts_without_a_proxy_are_written_in_many_ways() {
    for except in [
        "localhost",
        "LOCALHOST",
        " localhost ",
        ".localhost",
        "localhost.",
        "example.com,localhost",
        "example.com localhost",
        "example.com;localhost",
        "example.com|localhost",
        "example.com,\n\tlocalhost",
        "example.com,,localhost,",
        "\"localhost\"",
        "'example.com, localhost'",
        "localhost:9",
        "localhost:*",
        "https://localhost",
        "https://localhost:9/",
        "*",
        "*.localhost",
        "*localhost",
        "local*",
        "*cal*st",
        "<local>",
        "\u{feff}localhost",
    ] {
        assert!(bypasses(except, "https://localhost:9").await, "{except:?}");
    }
    for except in [
        "127.0.0.1",
        "127.0.0.0/8",
        "127.0.0.0/255.0.0.0",
        "127.",
        "127.*",
        "127.0.0.1:9",
        "0.0.0.0/0",
        "*.1",
    ] {
        assert!(bypasses(except, "https://127.0.0.1:9").await, "{except:?}");
    }
    for except in ["::1", "[::1]", "[::1]:9", "::/0", "0::0/120", "::1%lo"] {
        assert!(bypasses(except, "https://[::1]:9").await, "{except:?}");
    }
    for (except, url) in [
        ("", "https://localhost:9"),
        ("localhost:10", "https://localhost:9"),
        ("host", "https://localhost:9"),
        ("*.local", "https://localhost:9"),
        ("a.localhost", "https://localhost:9"),
        ("126.0.0.0/8", "https://127.0.0.1:9"),
        ("127.0.0.2/32", "https://127.0.0.1:9"),
        ("127.0.0.1:443", "https://127.0.0.1:9"),
        ("<local>", "https://127.0.0.1:9"),
        ("::2", "https://[::1]:9"),
    ] {
        assert!(!bypasses(except, url).await, "{except:?}");
    }
}

#[test]
fn r40_an_unreadable_host_without_a_proxy_is_an_error() {
    for (except, shown) in [
        ("localhost, 10.0.0.0/33", "10.0.0.0/33"),
        ("256.1.1.1", "256.1.1.1"),
        ("10.0.0", "10.0.0"),
        ("10.0.0.1-10.0.0.9", "10.0.0.1-10.0.0.9"),
        ("example.com:http", "example.com:http"),
        ("example.com/path", "example.com/path"),
        ("^.*example$", "^.*example$"),
        ("10.0.0.0/255.0.255.0", "10.0.0.0/255.0.255.0"),
        ("fd00::/129", "fd00::/129"),
        (
            "http://user:hunter2@proxy.example.com:3128",
            "one with an @",
        ),
    ] {
        let proxy = Proxy::url("http://proxy.example.com:3128")
            .unwrap()
            .except(except);
        let built = HttpsClient::<()>::builder()
            .roots(Roots::WebPki)
            .proxy(proxy)
            .build::<Full<Bytes>>();
        let error = built.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidUrl);
        let told = error.to_string();
        assert!(told.contains("NO_PROXY") && told.contains(shown), "{told}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

proptest! {
    /// Any text is a list or an error, and no error of it panics or repeats what is before an @.
    #[test]
    fn r40_any_text_is_a_list_of_hosts_or_an_error(text in "[a-z0-9.*:/@<>,; \\[\\]-]{0,40}") {
        let proxy = Proxy::url("http://proxy.example.com:3128").unwrap().except(&text);
        let built = HttpsClient::<()>::builder().roots(Roots::WebPki).proxy(proxy).build::<Full<Bytes>>();
        if let Err(error) = built {
            prop_assert!(error.to_string().contains("NO_PROXY"));
        }
    }
}

// === URLs of proxies ===

/// A character that a URL cannot have is named as the cause: a backslash of a domain's user, a percent, a blank, an umlaut.
#[test]
fn r40_a_password_that_needs_encoding_is_told_to() {
    for url in [
        "http://DOMAIN\\user:pass@proxy.example.com:8080",
        "http://user:p ss@proxy.example.com:8080",
        "http://user:p\u{e4}ss@proxy.example.com:8080",
        "http://user:p^ss@proxy.example.com:8080",
        "http://user:p\"ss@proxy.example.com:8080",
        "http://user:p@ss@proxy.example.com:8080",
        "http://user:p/ss@proxy.example.com:8080",
        "http://user:p?ss@proxy.example.com:8080",
        "http://user:p#ss@proxy.example.com:8080",
        "http://user:p[ss@proxy.example.com:8080",
        "http://user:p%ss@proxy.example.com:8080",
        "http://user:pss%@proxy.example.com:8080",
        "http://user:p{ss@proxy.example.com:8080",
        "http://user:p|ss@proxy.example.com:8080",
        "user:p<ss@proxy.example.com:8080",
        "https://user:p`ss@proxy.example.com",
        "socks5://user:p\u{20ac}ss@proxy.example.com:1080",
    ] {
        let error = Proxy::url(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidUrl);
        let told = format!("{error} {error:?}");
        assert!(!told.contains("ss@") && !told.contains("pss"), "{told}");
        assert!(told.contains("percent-encoded"), "{url}: {told}");
    }
    // The code to write is told.
    let told = Proxy::url("http://DOMAIN\\user:x@proxy.example.com")
        .unwrap_err()
        .to_string();
    assert!(told.contains("%5C"), "{told}");
}

#[test]
fn r40_a_pasted_proxy_url_is_understood() {
    for url in [
        "http://proxy.example.com:3128\n",
        "  http://proxy.example.com:3128",
        "\u{feff}proxy.example.com:3128\r\n",
        "http://user:p%40s%20s@proxy.example.com:3128\n",
        "socks5h://proxy.example.com:1080\t",
        "\"http://proxy.example.com:3128\"",
        "'http://user:p%40ss@proxy.example.com:3128'\n",
    ] {
        Proxy::url(url).unwrap_or_else(|error| panic!("{url:?}: {error}"));
    }
}

// === Root certificates ===

fn root() -> rcgen::Certificate {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    parameters.self_signed(&key).unwrap()
}

fn roots(pem: impl AsRef<[u8]>) -> Result<(), Error> {
    HttpsClient::builder().root_certificates(pem).map(drop)
}

/// A company's roots, as they come out of Windows, environments and OpenSSL.
#[test]
fn r40_roots_may_be_written_in_many_ways() {
    let root = root();
    let pem = root.pem();
    let lines: Vec<_> = pem.trim().lines().collect();
    let utf_16: Vec<u8> = format!("\u{feff}{pem}")
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    for (name, text) in [
        ("as it is", pem.clone().into_bytes()),
        ("CRLF", lines.join("\r\n").into_bytes()),
        ("no last line break", lines.join("\n").into_bytes()),
        (
            "two, and text between",
            format!("# Acme Root\n{pem}\nsubject=CN = Acme\n{pem}").into_bytes(),
        ),
        (
            "behind a byte order mark",
            format!("\u{feff}{pem}").into_bytes(),
        ),
        (
            "indented",
            format!("  {}\n", lines.join("\n  ")).into_bytes(),
        ),
        ("escaped line breaks", lines.join("\\n").into_bytes()),
        (
            "in quotes",
            format!("\"{}\"", lines.join("\\n")).into_bytes(),
        ),
        ("in one line", lines.join(" ").into_bytes()),
        ("without line breaks", lines.concat().into_bytes()),
        ("UTF-16", utf_16),
        (
            "an older label",
            pem.replace("CERTIFICATE", "X509 CERTIFICATE").into_bytes(),
        ),
        ("DER", root.der().to_vec()),
    ] {
        roots(text).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn r40_what_is_no_root_is_named_with_a_remedy() {
    let pem = root().pem();
    for (text, words) in [
        (
            pem.replace("CERTIFICATE", "TRUSTED CERTIFICATE"),
            ["OpenSSL", "BEGIN CERTIFICATE"],
        ),
        (
            pem.replace("CERTIFICATE", "PKCS7"),
            ["PKCS #7", "openssl pkcs7"],
        ),
        (
            pem.replace("CERTIFICATE", "CERTIFICATE REQUEST"),
            ["certificate request", "BEGIN CERTIFICATE"],
        ),
        (
            "/etc/ssl/certs/acme.crt".to_owned(),
            ["path", "text of the file"],
        ),
        (
            pem[..pem.len() / 2].to_owned(),
            ["cut off", "END CERTIFICATE"],
        ),
        (String::new(), ["empty", "BEGIN CERTIFICATE"]),
        (
            pem.replace("-----", "\u{2013}"),
            ["hyphens", "BEGIN CERTIFICATE"],
        ),
    ] {
        let error = roots(&text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidCertificate);
        let told = error.to_string();
        assert!(
            words.iter().all(|word| told.contains(word)),
            "{text}: {told}"
        );
    }
}
