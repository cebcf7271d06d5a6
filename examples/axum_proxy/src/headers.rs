//! The headers that the proxy removes, in header sections and in trailer sections, which some servers merge into the headers.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName,
    header::{
        AUTHORIZATION, CONNECTION, COOKIE, EXPECT, FORWARDED, HOST, HeaderValue,
        PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE, TRANSFER_ENCODING, UPGRADE, VIA,
    },
};
use http_body::Frame;

/// The key of a caller, for the proxy alone.
pub(crate) const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Headers of the connection, not of the message (RFC 9110 §7.6.1). `Proxy-Authorization` and similar headers are of one hop
/// as well (§11.7).
const OF_THE_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-authentication-info"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Headers that an API accepts as a session. The layer sends a request with its own session unchanged, so a caller could
/// bypass the layer.
const SESSIONS: [HeaderName; 6] = [
    AUTHORIZATION,
    COOKIE,
    HeaderName::from_static("x-sfdc-session"),
    HeaderName::from_static("accesstoken"),
    HeaderName::from_static("instanceurl"),
    HeaderName::from_static("tenantid"),
];

/// Headers about the caller's address. The org does not need them, and callers can forge them.
const FORWARDING: [HeaderName; 7] = [
    FORWARDED,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-real-ip"),
];

/// Headers that override the method or the path after the checks of the proxy.
const OVERRIDES: [HeaderName; 5] = [
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-method-override"),
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-rewrite-url"),
];

/// Removes the headers that must not reach the org.
pub(crate) fn strip_request(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    for name in SESSIONS.iter().chain(&FORWARDING).chain(&OVERRIDES) {
        headers.remove(name);
    }
    headers.remove(VIA);
    headers.remove(API_KEY);
    // The HTTP client writes the host of the instance.
    headers.remove(HOST);
    // The server of the proxy has answered it already.
    headers.remove(EXPECT);
}

/// Adds `Via`, which a gateway must send (RFC 9110 §7.6.3).
pub(crate) fn sign(headers: &mut HeaderMap) {
    headers.insert(VIA, HeaderValue::from_static("1.1 axum_proxy"));
}

/// A frame of a body; if it has trailers, without those that `strip` removes.
pub(crate) fn strip_trailers(frame: Frame<Bytes>, strip: fn(&mut HeaderMap)) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            strip(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(piece) => piece,
    }
}

/// Removes the headers that must not reach the caller.
pub(crate) fn strip_response(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    // A cookie of the org would be a session in the caller's browser.
    headers.remove(SET_COOKIE);
    // It names other addresses of the org, which bypass the proxy.
    headers.remove("alt-svc");
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&OF_THE_HOP) {
        headers.remove(name);
    }
}
