//! What of a header section stays on this side of the proxy, and of a trailer section, which some servers take for more
//! headers.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName,
    header::{
        AUTHORIZATION, CONNECTION, COOKIE, EXPECT, FORWARDED, HOST, HeaderValue,
        PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE, TRANSFER_ENCODING, UPGRADE, VIA,
    },
};
use http_body::Frame;

/// What callers show to be let in. It is for the proxy alone.
pub(crate) const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// About this connection, and not about the message (RFC 9110 §7.6.1). `Proxy-Authorization` and its kin are of each
/// hop, too (§11.7).
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

/// What would be a session, in any of the places where an API looks for one. The layer leaves a request alone that
/// brings its own, so that a caller could go past it.
const SESSIONS: [HeaderName; 6] = [
    AUTHORIZATION,
    COOKIE,
    HeaderName::from_static("x-sfdc-session"),
    HeaderName::from_static("accesstoken"),
    HeaderName::from_static("instanceurl"),
    HeaderName::from_static("tenantid"),
];

/// What tells where the caller is, or how it got here: nothing that the org need know, and nothing to believe.
const FORWARDING: [HeaderName; 7] = [
    FORWARDED,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-real-ip"),
];

/// What would be another method, or another path, than those that were looked at.
const OVERRIDES: [HeaderName; 5] = [
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-method-override"),
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-rewrite-url"),
];

/// What goes on to the org.
pub(crate) fn strip_request(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    for name in SESSIONS.iter().chain(&FORWARDING).chain(&OVERRIDES) {
        headers.remove(name);
    }
    headers.remove(VIA);
    headers.remove(API_KEY);
    // The client writes the host that it connects to.
    headers.remove(HOST);
    // Answered already, by the server that reads the body.
    headers.remove(EXPECT);
}

/// A gateway has to say that it is there (RFC 9110 §7.6.3), and need not say what is behind it.
pub(crate) fn sign(headers: &mut HeaderMap) {
    headers.insert(VIA, HeaderValue::from_static("1.1 axum_proxy"));
}

/// A piece of a body, or what follows it, without what `strip` takes out.
pub(crate) fn strip_trailers(frame: Frame<Bytes>, strip: fn(&mut HeaderMap)) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            strip(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(piece) => piece,
    }
}

/// What goes back to the caller.
pub(crate) fn strip_response(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    // Cookies of the org's would be a session of it, in the hands of a browser.
    headers.remove(SET_COOKIE);
    // Where else the org is to be found, without the proxy.
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
