//! Text from servers, programs and users: decodes it, reads its fields, redacts secrets, reads XML and JWTs, and checks what
//! was pasted.

pub(crate) mod charset;
#[cfg(any(
    feature = "postgres-store",
    all(
        feature = "key-formats",
        any(feature = "dpop", feature = "https-client", feature = "jwt")
    )
))]
#[cfg_attr(
    not(all(
        feature = "key-formats",
        any(feature = "dpop", feature = "https-client", feature = "jwt")
    )),
    expect(dead_code, reason = "a certificate needs less than a key")
)]
pub(crate) mod der;
pub(crate) mod fields;
pub(crate) mod inflate;
pub(crate) mod json;
pub(crate) mod jwt;
#[cfg(all(
    feature = "key-formats",
    any(feature = "dpop", feature = "https-client", feature = "jwt")
))]
pub(crate) mod key;
pub(crate) mod pasted;
#[cfg(any(
    feature = "dpop",
    feature = "https-client",
    feature = "jwt",
    feature = "postgres-store",
    feature = "redis-store"
))]
pub(crate) mod pem;
pub(crate) mod redact;
pub(crate) mod terminal;
pub(crate) mod xml;
