//! The key that tokens are bound to (RFC 9449), and the proofs that it makes.

use std::{
    borrow::Cow,
    fmt,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use http::{HeaderMap, HeaderValue, Method, Uri};
use zeroize::Zeroizing;

use super::{
    clock::WallClock,
    dpop_nonces::Nonces,
    dpop_proof::{self, Claims},
    random::{no_randomness, random_id},
};
#[cfg(feature = "key-formats")]
use crate::text::key;
use crate::{
    error::{Error, ErrorKind},
    secret::Secret,
    text::{pasted, pem::Pem},
};

/// The private key that an app binds its tokens to (DPoP, RFC 9449): a P-256 key, which signs with ES256.
///
/// A stolen token is of no use without the key: each request carries a new proof, which the key signs. [`App::dpop`] turns it
/// on. The [guide](crate::docs::dpop) shows the way from there.
///
/// Clones share the key, and the nonces that servers have sent for it. The key is wiped from memory when its last clone is
/// dropped. [`Debug`] shows its [thumbprint](Self::thumbprint), which is public.
///
/// ```
/// use tower_salesforce_auth::{LoginUrl, oauth::{App, DpopKey}};
///
/// let key = DpopKey::generate()?;
/// assert_eq!(DpopKey::from_pem(key.to_pem().expose())?, key);
///
/// let app = App::new(LoginUrl::production(), "3MVG9…").dpop(key);
/// # Ok::<_, tower_salesforce_auth::Error>(())
/// ```
///
/// [`App::dpop`]: crate::oauth::App::dpop
#[derive(Clone)]
pub struct DpopKey {
    key: Arc<Key>,
    settings: Arc<ProofSettings>,
}

struct Key {
    pair: EcdsaKeyPair,
    /// The header of all proofs, encoded.
    header: String,
    thumbprint: String,
    nonces: Nonces,
}

/// What an app sets for all proofs.
pub(crate) struct ProofSettings {
    pub(crate) clock: WallClock,
    /// Beginnings of `htu`, each with what replaces it.
    pub(crate) rewrites: Vec<(String, String)>,
}

impl Default for ProofSettings {
    fn default() -> Self {
        Self {
            clock: WallClock::system(),
            rewrites: Vec::new(),
        }
    }
}

impl ProofSettings {
    /// What replaces this beginning of `htu`, which has the normal form of a URI then.
    pub(crate) fn rewrite(beginning: &str, replacement: &str) -> (String, String) {
        let uri = pasted::unwrapped(beginning).parse::<Uri>();
        let beginning = uri.map_or_else(|_| beginning.to_owned(), |uri| dpop_proof::htu(&uri));
        let trimmed = |url: &str| url.trim_end_matches('/').to_owned();
        (trimmed(&beginning), trimmed(replacement))
    }

    /// The `htu` of a request.
    fn htu(&self, uri: &Uri) -> String {
        let htu = dpop_proof::htu(uri);
        let replaced = self.rewrites.iter().find_map(|(beginning, replacement)| {
            let rest = htu.strip_prefix(beginning.as_str())?;
            let is_whole = rest.is_empty() || rest.starts_with('/');
            is_whole.then(|| format!("{replacement}{rest}"))
        });
        replaced.unwrap_or(htu)
    }
}

impl DpopKey {
    /// Makes a new key.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoRandomness`] if the operating system has no random numbers.
    pub fn generate() -> Result<Self, Error> {
        EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
            .map(Self::of_pair)
            .map_err(no_randomness)
    }

    /// Reads an unencrypted P-256 key from PEM: PKCS #8 (`BEGIN PRIVATE KEY`, RFC 5208) or SEC 1 (`BEGIN EC PRIVATE KEY`,
    /// RFC 5915). Other content of the file is skipped.
    ///
    /// The PEM may have escaped line breaks (`\n`), none at all, an indent, or a byte order mark. A key in DER works too.
    /// `from_encrypted`, of the feature `key-formats`, reads what is encrypted.
    ///
    /// A `Vec` or `String` is wiped from memory after reading. Borrowed text is not: it stays with the caller.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidKey`] with a message that says what the text contains instead, for example a key of another curve.
    pub fn from_pem(pem: impl Into<Vec<u8>>) -> Result<Self, Error> {
        let input = Zeroizing::new(pem.into());
        Self::read(&Pem::read(&input))
    }

    /// Reads a P-256 key that is encrypted with a pass phrase: PKCS #8 (`BEGIN ENCRYPTED PRIVATE KEY`, RFC 5958) in PEM or DER,
    /// or a PKCS #12 archive (`.p12` or `.pfx`, RFC 7292).
    ///
    /// The key has to be encrypted with AES, by PBES2 with PBKDF2 (RFC 8018 §6.2), as `openssl genpkey -aes256` of OpenSSL 3
    /// does. Other ciphers get an error that says how to convert the file. A key that is not encrypted is read as by
    /// [`from_pem`](Self::from_pem). A line break at the end of the pass phrase is left out.
    ///
    /// The decrypted key is wiped from memory after reading.
    ///
    /// ```no_run
    /// use tower_salesforce_auth::oauth::DpopKey;
    ///
    /// let pass_phrase = std::fs::read_to_string("/run/secrets/dpop.pass")?;
    /// let key = DpopKey::from_encrypted(std::fs::read("dpop.pem")?, pass_phrase)?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidKey`] if the pass phrase is wrong, the file is damaged, or its cipher is not read. Otherwise as for
    /// [`from_pem`](Self::from_pem).
    #[cfg(feature = "key-formats")]
    #[cfg_attr(docsrs, doc(cfg(feature = "key-formats")))]
    pub fn from_encrypted(
        file: impl Into<Vec<u8>>,
        pass_phrase: impl Into<Secret>,
    ) -> Result<Self, Error> {
        let input = Zeroizing::new(file.into());
        let pem = key::decrypted(&input, &pass_phrase.into());
        Self::read(&pem.map_err(|reason| unusable(&reason))?)
    }

    fn read(pem: &Pem) -> Result<Self, Error> {
        let is_key = |label: &str| matches!(label, "PRIVATE KEY" | "EC PRIVATE KEY" | "");
        match pem.blocks.iter().find(|block| is_key(&block.label)) {
            Some(key) => Self::from_der(&key.der),
            None => Err(unusable(&reason_for_missing_key(pem))),
        }
    }

    fn from_der(der: &[u8]) -> Result<Self, Error> {
        let pair = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der);
        pair.map(Self::of_pair).map_err(|error| {
            let kind = KINDS.iter().find(|(_, id)| contains(der, id));
            let reason = match kind {
                Some((kind, _)) => {
                    format!("it is {kind}, and proofs need one of the curve P-256: {MAKE_ONE}")
                }
                None => {
                    format!(
                        "it is no P-256 key in PKCS #8 or SEC 1, or is damaged: {MAKE_ONE}. An encrypted key or a PKCS #12 \
                         archive is read with its pass phrase, by `DpopKey::from_encrypted` of the feature `key-formats`"
                    )
                }
            };
            unusable(&reason).with_source(error)
        })
    }

    fn of_pair(pair: EcdsaKeyPair) -> Self {
        // An uncompressed point: 4, x, y (SEC 1 §2.3.3).
        let point = pair.public_key().as_ref();
        let coordinates = point.get(1..).unwrap_or_default();
        let (x, y) = coordinates.split_at(coordinates.len() / 2);
        let [x, y] = [x, y].map(|coordinate| URL_SAFE_NO_PAD.encode(coordinate));
        Self {
            key: Arc::new(Key {
                header: dpop_proof::encoded_header(&x, &y),
                thumbprint: dpop_proof::thumbprint(&x, &y),
                nonces: Nonces::default(),
                pair,
            }),
            settings: Arc::default(),
        }
    }

    /// Writes the key as PKCS #8 in PEM, which [`from_pem`](Self::from_pem) reads. The text is the private key.
    pub fn to_pem(&self) -> Secret {
        let encoded = self.encode();
        let mut pem = Zeroizing::new(String::with_capacity(512));
        pem.push_str("-----BEGIN PRIVATE KEY-----\n");
        let mut rest = encoded.expose();
        while !rest.is_empty() {
            let (line, next) = rest.split_at(rest.len().min(64));
            pem.push_str(line);
            pem.push('\n');
            rest = next;
        }
        pem.push_str("-----END PRIVATE KEY-----\n");
        Secret::from(pem)
    }

    /// The thumbprint of the public key (RFC 7638), by which servers know the key. It is not secret.
    pub fn thumbprint(&self) -> &str {
        &self.key.thumbprint
    }

    /// The key as records and cookies keep it: PKCS #8 in Base64.
    pub(crate) fn encode(&self) -> Secret {
        let mut encoded = Zeroizing::new(String::with_capacity(256));
        // A key that was made or read can be written.
        if let Ok(der) = self.key.pair.to_pkcs8v1() {
            STANDARD.encode_string(der.as_ref(), &mut encoded);
        }
        Secret::from(encoded)
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub(crate) fn decode(encoded: &str) -> Result<Self, Error> {
        let mut der = Zeroizing::new(Vec::with_capacity(encoded.len()));
        match STANDARD.decode_vec(encoded, &mut der) {
            Ok(()) => Self::from_der(&der),
            Err(_) => Err(unusable("it is not in Base64")),
        }
    }

    /// The same key, with the settings of an app.
    pub(crate) fn with_settings(mut self, settings: &Arc<ProofSettings>) -> Self {
        self.settings = Arc::clone(settings);
        self
    }

    /// The time that a proof made now has.
    pub(crate) fn now(&self) -> SystemTime {
        self.settings.clock.now()
    }

    /// Makes the proof of one request: of this method, to this URI, with this access token.
    ///
    /// Its id is new, and it has the newest nonce of the server.
    pub(crate) fn prove(
        &self,
        method: &Method,
        uri: &Uri,
        access_token: Option<&Secret>,
    ) -> Result<String, Error> {
        let nonce = self.nonce(uri);
        let since_epoch = self.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let claims = Claims {
            htm: method.as_str(),
            htu: &self.settings.htu(uri),
            iat: since_epoch.as_secs(),
            jti: &random_id()?,
            ath: access_token.map(|token| dpop_proof::hash(token.expose())),
            nonce: nonce.as_deref(),
        };
        self.sign(&claims)
    }

    fn sign(&self, claims: &Claims<'_>) -> Result<String, Error> {
        let mut proof = claims.signing_input(&self.key.header);
        let signature = self
            .key
            .pair
            .sign(&SystemRandom::new(), proof.as_bytes())
            .map_err(|error| unusable("signing failed").with_source(error))?;
        proof.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut proof);
        Ok(proof)
    }

    /// The proof as the value of the header `DPoP`.
    pub(crate) fn header(
        &self,
        method: &Method,
        uri: &Uri,
        access_token: Option<&Secret>,
    ) -> Result<HeaderValue, Error> {
        let proof = self.prove(method, uri, access_token)?;
        // Base64 and dots.
        let value = HeaderValue::try_from(proof);
        let mut value = value.map_err(|error| unusable("signing failed").with_source(error))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// The nonce that a proof made now has. `None` if the server has sent none.
    pub(crate) fn nonce(&self, uri: &Uri) -> Option<Arc<str>> {
        self.key.nonces.of(uri)
    }

    /// Keeps the nonce of a server's answer for the next proofs, and returns it. `None` if the answer has none that can be used.
    pub(crate) fn keep_nonce(&self, uri: &Uri, headers: &HeaderMap) -> Option<Arc<str>> {
        self.key.nonces.keep(uri, headers)
    }
}

const MAKE_ONE: &str = "make one with DpopKey::generate, or with `openssl genpkey -algorithm EC -pkeyopt \
                        ec_paramgen_curve:P-256`";

/// Kinds of other keys, and the object identifier that each has in DER.
const KINDS: [(&str, &[u8]); 6] = [
    ("a key of the curve P-384", &[0x2b, 0x81, 0x04, 0x00, 0x22]),
    ("a key of the curve P-521", &[0x2b, 0x81, 0x04, 0x00, 0x23]),
    (
        "a key of the curve secp256k1",
        &[0x2b, 0x81, 0x04, 0x00, 0x0a],
    ),
    (
        "an RSA key",
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01],
    ),
    (
        "a key of the curve Ed25519",
        &[0x06, 0x03, 0x2b, 0x65, 0x70],
    ),
    ("a key of the curve X25519", &[0x06, 0x03, 0x2b, 0x65, 0x6e]),
];

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The reason why `pem` contains no usable key.
fn reason_for_missing_key(pem: &Pem) -> Cow<'static, str> {
    const NO_KEY: &str =
        "there is no PEM block `BEGIN PRIVATE KEY` or `BEGIN EC PRIVATE KEY` in it";
    let has = |label: &str| pem.blocks.iter().any(|block| block.label == label);
    if has("RSA PRIVATE KEY") {
        return format!("it is an RSA key, and proofs need one of the curve P-256: {MAKE_ONE}")
            .into();
    }
    if has("PUBLIC KEY") {
        return "it is a public key: use the private key".into();
    }
    match pem.what_it_is() {
        Some(what) => format!("{NO_KEY}: {what}").into(),
        None => NO_KEY.into(),
    }
}

fn unusable(reason: &str) -> Error {
    Error::new(
        ErrorKind::InvalidKey,
        format!("the DPoP key cannot be used: {reason}"),
    )
}

impl PartialEq for DpopKey {
    fn eq(&self, other: &Self) -> bool {
        self.key.thumbprint == other.key.thumbprint
    }
}

impl Eq for DpopKey {}

impl fmt::Debug for DpopKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DpopKey")
            .field("thumbprint", &self.key.thumbprint)
            .finish_non_exhaustive()
    }
}
