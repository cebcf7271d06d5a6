//! A tunnel through an HTTP proxy: the `CONNECT` request and its answer (RFC 9110 §9.3.6).

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
};

use http::{HeaderValue, StatusCode, Uri};
use hyper::rt::{Read, ReadBuf, Write};
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind};

/// Longest answer of a proxy that is read, in bytes.
const LONGEST_ANSWER: usize = 16 * 1024;

/// Opens a tunnel to `destination` over a connection to a proxy.
pub(super) async fn open<T: Read + Write + Unpin>(
    mut connection: T,
    destination: &Uri,
    authorization: Option<&HeaderValue>,
) -> Result<T, Error> {
    let host = destination.host().unwrap_or_default();
    let port = destination.port_u16().unwrap_or(443);
    let mut request = Zeroizing::new(Vec::with_capacity(1024));
    let line = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
    request.extend_from_slice(line.as_bytes());
    if let Some(authorization) = authorization {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(authorization.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    write_all(&mut connection, &request).await.map_err(broken)?;

    let mut answer = Vec::new();
    loop {
        let Some((head, rest)) = split_head(&answer) else {
            if answer.len() > LONGEST_ANSWER || !may_be_http(&answer) {
                return Err(no_http_proxy());
            }
            if read(&mut connection, &mut answer).await.map_err(broken)? == 0 {
                return Err(if answer.is_empty() {
                    failed("it closed the connection without an answer to CONNECT")
                } else {
                    no_http_proxy()
                });
            }
            continue;
        };
        match status_of(head).ok_or_else(no_http_proxy)? {
            // An interim answer (RFC 9110 §15.2).
            status if status.is_informational() => answer = rest.to_vec(),
            status if !status.is_success() => return Err(refusal(status, head, authorization)),
            // TLS begins with the client.
            _ if !rest.is_empty() => {
                return Err(failed("it sent more than the answer to CONNECT"));
            }
            _ => return Ok(connection),
        }
    }
}

/// The head of an answer, and what follows it. `None` while the head is incomplete.
fn split_head(answer: &[u8]) -> Option<(&[u8], &[u8])> {
    let ends = [&b"\r\n\r\n"[..], b"\n\n"];
    let end = ends.into_iter().filter_map(|end| {
        let at = answer.windows(end.len()).position(|part| part == end)?;
        Some(at + end.len())
    });
    end.min().map(|end| answer.split_at(end))
}

fn may_be_http(answer: &[u8]) -> bool {
    let shared = answer.len().min(5);
    answer[..shared] == b"HTTP/"[..shared]
}

fn status_of(head: &[u8]) -> Option<StatusCode> {
    let line = head.split(|byte| *byte == b'\n').next()?;
    let mut words = line
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    let version = words.next()?;
    let status = words.next()?;
    version
        .starts_with(b"HTTP/")
        .then(|| StatusCode::from_bytes(status).ok())?
}

/// What a status other than 2xx means, and what to do.
fn refusal(status: StatusCode, head: &[u8], authorization: Option<&HeaderValue>) -> Error {
    let what = match status {
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            let schemes = schemes(head);
            return failed(match authorization {
                None => format!(
                    "proxy authorization required ({status}; {schemes}): for authentication, put a user and a password into the URL of the proxy; \
                     this client has the scheme Basic only"
                ),
                Some(_) => format!(
                    "proxy authorization required ({status}; {schemes}): the authentication was refused, so check the user and the password in the URL of the \
                     proxy; this client has the scheme Basic only"
                ),
            });
        }
        _ if status.is_redirection() => {
            "it redirects, as the login page of a network does: log in to the network, or check the URL of the proxy"
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "its rules do not let this host and port pass: have them allowed"
        }
        StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_FOUND | StatusCode::NOT_IMPLEMENTED => {
            "it makes no tunnels: check whether the URL is that of a proxy"
        }
        _ if status.is_server_error() => "it does not reach the host",
        _ => "it refuses the tunnel",
    };
    failed(format!("it answered CONNECT with {status}: {what}"))
}

/// The names of the schemes that the proxy offers.
fn schemes(head: &[u8]) -> String {
    let head = String::from_utf8_lossy(head);
    let names: Vec<_> = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| name.eq_ignore_ascii_case("proxy-authenticate"))
        .filter_map(|(_, value)| value.split_whitespace().next())
        // The proxy's text is foreign.
        .filter(|scheme| scheme.len() < 20 && scheme.bytes().all(|byte| byte.is_ascii_alphabetic()))
        .collect();
    match names.as_slice() {
        [] => "it offers no scheme".to_owned(),
        names => format!("it offers {}", names.join(", ")),
    }
}

fn no_http_proxy() -> Error {
    failed(
        "it does not answer as an HTTP proxy: check the scheme and the port in the URL of the proxy",
    )
}

fn broken(error: io::Error) -> Error {
    failed("the connection broke off during CONNECT").with_source(error)
}

fn failed(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Connect, message)
}

async fn write_all(stream: &mut (impl Write + Unpin), mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = poll_fn(|cx| Pin::new(&mut *stream).poll_write(cx, bytes)).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
    }
    let mut stream = pin!(stream);
    poll_fn(|cx| stream.as_mut().poll_flush(cx)).await
}

/// Appends what comes next. Returns its length: 0 at the end.
async fn read(stream: &mut (impl Read + Unpin), bytes: &mut Vec<u8>) -> io::Result<usize> {
    let mut buffer = [0; 1024];
    let mut buffer = ReadBuf::new(&mut buffer);
    poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, buffer.unfilled())).await?;
    bytes.extend_from_slice(buffer.filled());
    Ok(buffer.filled().len())
}
