//! The stored session, and its format.

use std::{
    fmt::Write,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::version::Version;
use crate::{
    error::{Error, ErrorKind, StoreError, StoreErrorKind},
    secret::Secret,
    session::{dpop_key::DpopKey, grant_token::GrantToken, session::Session, url::LoginUrl},
};

/// The value of `format` that identifies a session record.
const FORMAT: &str = "tower-salesforce-auth session";

/// Version 1 called `login` `line`, and had no place for a `dpop_key`.
const VERSION: u32 = 2;

/// The `token_type` of a record whose access token is bound to a key.
const BOUND: &str = "DPoP";

// === Record ===

/// A stored session, and its position among the records that were saved under its key.
///
/// A store keeps the text that [`encode`](Self::encode) returns, and reads it back with [`decode`](Self::decode).
///
/// ```
/// use tower_salesforce_auth::{Session, store::Record};
///
/// let session = Session::new("00Dxx!AQEAQ", "https://MyDomainName.my.salesforce.com")?;
/// let record = Record::new(session.with_refresh_token("5Aep861"));
///
/// let text = record.encode();
/// assert!(text.expose().starts_with('{'), "it is JSON, and secret");
/// let record = Record::decode(text.expose())?;
/// assert_eq!(record.session().access_token().expose(), "00Dxx!AQEAQ");
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Record {
    session: Session,
    version: Version,
    /// Whether the server has rotated the refresh token since the login. The token that a flow was configured with may be
    /// used up then.
    has_rotated: bool,
}

impl Record {
    /// Creates the first record of a login.
    pub fn new(session: Session) -> Self {
        // Every login returns another access token. A session that is set and saved again may have another refresh token.
        let login = token_fingerprint(&session);
        let has_rotated = session.is_rotated();
        Self::at(login, 1, session, has_rotated)
    }

    /// Creates the record that replaces this one.
    #[must_use]
    pub fn followed_by(&self, session: Session) -> Self {
        let has_rotated = self.has_rotated || session.is_rotated();
        let number = self.version.number.saturating_add(1);
        Self::at(self.version.login, number, session, has_rotated)
    }

    fn at(login: u128, number: u64, session: Session, has_rotated: bool) -> Self {
        Self {
            version: Version {
                login,
                number,
                tokens: first_half(token_fingerprint(&session)),
            },
            session: session.without_provenance(),
            has_rotated,
        }
    }

    /// The session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The version of the record, by which a save is a compare-and-swap.
    pub fn version(&self) -> Version {
        self.version
    }

    pub(crate) fn has_rotated(&self) -> bool {
        self.has_rotated
    }

    /// Encodes the record as JSON on one line. The text contains all tokens.
    pub fn encode(&self) -> Secret {
        let session = &self.session;
        let (bound_key, grant_key) = (session.bound_key(), session.grant_key());
        let dpop_key = grant_key.map(DpopKey::encode);
        let access_token_key = bound_key.filter(|key| grant_key != Some(*key));
        let access_token_key = access_token_key.map(DpopKey::encode);
        let mut login = String::with_capacity(32);
        // Writing to a `String` never fails.
        let _ = write!(login, "{:032x}", self.version.login);
        let encoded = EncodedRecord {
            format: FORMAT,
            version: VERSION,
            login: &login,
            number: self.version.number,
            access_token: session.access_token().expose(),
            refresh_token: session.refresh_token().map(Secret::expose),
            instance_url: session.instance_url().to_string(),
            login_url: session.login_url().map(EncodedLoginUrl::of),
            identity_url: session.identity_url(),
            scope: session.scope(),
            issued_at: session.issued_at().map(millis_since_epoch),
            lifetime: session.lifetime().map(millis),
            organization_id: session.organization_id(),
            user_id: session.user_id(),
            is_soap: session.is_soap(),
            has_rotated: self.has_rotated,
            token_type: bound_key.map(|_| BOUND),
            dpop_key: dpop_key.as_ref().map(Secret::expose),
            access_token_key: access_token_key.as_ref().map(Secret::expose),
        };
        // Enough capacity for the tokens: a buffer that grows would leave an unwiped copy of them behind.
        let tokens = encoded.access_token.len()
            + encoded.refresh_token.map_or(0, str::len)
            + encoded.dpop_key.map_or(0, str::len)
            + encoded.access_token_key.map_or(0, str::len);
        let mut text = Zeroizing::new(Vec::with_capacity(2 * tokens + 4096));
        // Serializing strings and numbers to a `Vec` never fails.
        let _ = serde_json::to_writer(&mut *text, &encoded);
        Secret::from(Zeroizing::new(String::from_utf8_lossy(&text).into_owned()))
    }

    /// Decodes the text that [`encode`](Self::encode) returned.
    ///
    /// # Errors
    ///
    /// - [`UnsupportedVersion`](StoreErrorKind::UnsupportedVersion) if a later version of this crate wrote the text,
    /// - [`Undecryptable`](StoreErrorKind::Undecryptable) if the text is encrypted,
    /// - [`Corrupt`](StoreErrorKind::Corrupt) for any other text.
    ///
    /// No error quotes the text.
    pub fn decode(text: &str) -> Result<Self, StoreError> {
        let header: RecordHeader =
            serde_json::from_str(text).map_err(|error| unreadable(&error))?;
        check_version(header.version, VERSION)?;
        match header.format.as_str() {
            FORMAT => {}
            format if format.starts_with(FORMAT) => {
                return Err(StoreError::new(
                    StoreErrorKind::Undecryptable,
                    "the session record is encrypted: give the store the key with which it was encrypted",
                ));
            }
            _ => return Err(corrupt("the record is not a session record")),
        }
        let decoded: DecodedRecord =
            serde_json::from_str(text).map_err(|error| unreadable(&error))?;
        let login = u128::from_str_radix(&decoded.login, 16)
            .map_err(|_| corrupt("the session record has no valid `login`"))?;
        let (number, has_rotated) = (decoded.number, decoded.has_rotated);
        let session = decoded.session().map_err(|error| match error.kind() {
            ErrorKind::InvalidKey if cfg!(not(feature = "dpop")) => StoreError::new(
                StoreErrorKind::UnsupportedVersion,
                "the session record has a DPoP key",
            )
            .with_source(error),
            _ => corrupt("the session record contains a session that cannot be used")
                .with_source(error),
        })?;
        Ok(Self::at(login, number, session, has_rotated))
    }
}

/// The fields that a record of any version has.
#[derive(Deserialize)]
struct RecordHeader {
    format: String,
    version: u32,
}

pub(super) fn check_version(version: u32, supported: u32) -> Result<(), StoreError> {
    if version > supported {
        return Err(StoreError::new(
            StoreErrorKind::UnsupportedVersion,
            format!(
                "the session record has version {version}, and this version of tower-salesforce-auth reads versions up to \
                 {supported}: update the crate, or delete the record to log in again"
            ),
        ));
    }
    Ok(())
}

/// A record of version 2, as it is written.
#[derive(Serialize)]
struct EncodedRecord<'a> {
    format: &'a str,
    version: u32,
    /// [`Version::login`] in hexadecimal.
    login: &'a str,
    number: u64,
    access_token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
    instance_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    login_url: Option<EncodedLoginUrl>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    /// Milliseconds since the Unix epoch, negative before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_at: Option<i64>,
    /// Milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    lifetime: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    organization_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    is_soap: bool,
    has_rotated: bool,
    /// [`BOUND`] if the access token is bound. `None` for a bearer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
    /// The key of the grant, in PKCS #8 and Base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    dpop_key: Option<&'a str>,
    /// The key of the access token. `None` if it is that of the grant.
    #[serde(skip_serializing_if = "Option::is_none")]
    access_token_key: Option<&'a str>,
}

/// A record of version 1 or 2, as it is read.
#[derive(Deserialize)]
struct DecodedRecord {
    #[serde(alias = "line")]
    login: String,
    number: u64,
    access_token: Secret,
    refresh_token: Option<Secret>,
    instance_url: String,
    login_url: Option<EncodedLoginUrl>,
    identity_url: Option<String>,
    scope: Option<String>,
    issued_at: Option<i64>,
    lifetime: Option<u64>,
    organization_id: Option<String>,
    user_id: Option<String>,
    is_soap: bool,
    has_rotated: bool,
    token_type: Option<String>,
    dpop_key: Option<Secret>,
    access_token_key: Option<Secret>,
}

impl DecodedRecord {
    fn session(self) -> Result<Session, Error> {
        let mut session = if self.is_soap {
            Session::from_soap_server(self.access_token, &self.instance_url)?
        } else {
            Session::from_answer(self.access_token, &self.instance_url)?
        };
        let key = |encoded: Option<Secret>| encoded.map(|key| DpopKey::decode(key.expose()));
        let dpop_key = key(self.dpop_key).transpose()?;
        let access_token_key = key(self.access_token_key).transpose()?;
        if self.token_type.as_deref() == Some(BOUND) {
            let key = access_token_key.or_else(|| dpop_key.clone());
            // A bound token is never sent as a bearer token.
            let missing = || {
                Error::new(
                    ErrorKind::InvalidKey,
                    "the DPoP key of the session is missing",
                )
            };
            session = session.bound_to(key.ok_or_else(missing)?);
        }
        if let Some(token) = self.refresh_token {
            session = session.with_grant_token(GrantToken { token, dpop_key });
        }
        if let Some(login_url) = self.login_url {
            session = session.with_login_url(login_url.parse()?);
        }
        if let Some(identity_url) = self.identity_url {
            session = session.with_identity_url(identity_url);
        }
        if let Some(scope) = self.scope {
            session = session.with_scope(scope);
        }
        if let Some(issued_at) = self.issued_at.and_then(time) {
            session = session.with_issued_at(issued_at);
        }
        if let Some(lifetime) = self.lifetime {
            session = session.with_lifetime(Duration::from_millis(lifetime));
        }
        if let (Some(organization), Some(user)) = (self.organization_id, self.user_id) {
            session = session.with_ids(organization, user);
        }
        Ok(session)
    }
}

#[derive(Serialize, Deserialize)]
struct EncodedLoginUrl {
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorization_endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revocation_endpoint: Option<String>,
}

impl EncodedLoginUrl {
    fn of(login_url: &LoginUrl) -> Self {
        let given = login_url.given_endpoints();
        let [authorization_endpoint, token_endpoint, revocation_endpoint] =
            given.map(|endpoint| endpoint.map(ToString::to_string));
        Self {
            url: login_url.to_string(),
            authorization_endpoint,
            token_endpoint,
            revocation_endpoint,
        }
    }

    fn parse(&self) -> Result<LoginUrl, Error> {
        let mut login_url: LoginUrl = self.url.parse()?;
        if let Some(endpoint) = &self.authorization_endpoint {
            login_url = login_url.with_authorization_endpoint(endpoint)?;
        }
        if let Some(endpoint) = &self.token_endpoint {
            login_url = login_url.with_token_endpoint(endpoint)?;
        }
        if let Some(endpoint) = &self.revocation_endpoint {
            login_url = login_url.with_revocation_endpoint(endpoint)?;
        }
        Ok(login_url)
    }
}

/// Identifies the tokens of a session.
fn token_fingerprint(session: &Session) -> u128 {
    let access_token = session.access_token().expose();
    match session.refresh_token() {
        Some(refresh_token) => {
            let both = Zeroizing::new(format!("{access_token} {}", refresh_token.expose()));
            fingerprint(&both)
        }
        None => fingerprint(access_token),
    }
}

fn first_half(number: u128) -> u64 {
    u64::try_from(number >> 64).unwrap_or_default()
}

/// The first 128 bits of the SHA-256 of `text`.
pub(super) fn fingerprint(text: &str) -> u128 {
    let digest = Sha256::digest(text);
    let bytes = digest.iter().take(16);
    bytes.fold(0, |number, byte| (number << 8) | u128::from(*byte))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn millis_since_epoch(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => millis(after),
        Err(before) => -millis(before.duration()),
    }
}

fn time(millis_since_epoch: i64) -> Option<SystemTime> {
    let distance = Duration::from_millis(millis_since_epoch.unsigned_abs());
    if millis_since_epoch < 0 {
        UNIX_EPOCH.checked_sub(distance)
    } else {
        UNIX_EPOCH.checked_add(distance)
    }
}

pub(super) fn corrupt(message: &'static str) -> StoreError {
    let message = format!("{message}: restore the record, or delete it to log in again");
    StoreError::new(StoreErrorKind::Corrupt, message)
}

/// An error with the position of the fault, but without serde's message, which may quote a secret.
pub(super) fn unreadable(error: &serde_json::Error) -> StoreError {
    StoreError::new(
        StoreErrorKind::Corrupt,
        format!(
            "the session record cannot be read: unexpected content at line {}, column {}; restore the record, or \
             delete it to log in again",
            error.line(),
            error.column()
        ),
    )
}
