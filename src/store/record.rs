//! What is stored of a session, and how it is written.

use std::{
    fmt::Write,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{
    error::{Error, StoreError, StoreErrorKind},
    secret::Secret,
    session::{session::Session, url::LoginUrl},
};

/// How a record says what it is.
const FORMAT: &str = "tower-salesforce-auth session";

const VERSION: u32 = 1;

// === Record ===

/// A session as it is stored, and which of the sessions that were stored under its key it is.
///
/// A store keeps what [`encode`](Self::encode) returns, and gives back what [`decode`](Self::decode) makes of it.
///
/// ```
/// use tower_salesforce_auth::{Session, store::Record};
///
/// let session = Session::new("00Dxx!AQEAQ", "https://MyDomainName.my.salesforce.com")?.with_refresh_token("5Aep861");
/// let record = Record::new(session);
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
    revision: Revision,
    /// Whether a refresh token of its line was rotated out. What somebody was given to begin with may be spent then.
    has_rotated: bool,
}

/// Tells the records of one key apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Revision {
    /// Which login it goes back to: records that were saved one after the other, with nothing deleted in between, have the
    /// same.
    line: u128,
    /// How many there were before it in its line. Each save counts one up.
    number: u64,
}

impl Revision {
    /// Whether it was saved after `seen`, or is of another login.
    pub(crate) fn is_news_to(self, seen: Option<Self>) -> bool {
        seen.is_none_or(|seen| self.line != seen.line || self.number > seen.number)
    }
}

impl Record {
    /// The first record of a session.
    pub fn new(session: Session) -> Self {
        // No other login has brought this token, and none is going to.
        let line = fingerprint(session.access_token().expose());
        Self {
            has_rotated: session.is_rotated(),
            session: session.without_provenance(),
            revision: Revision { line, number: 1 },
        }
    }

    /// The record to save in place of this one.
    #[must_use]
    pub fn followed_by(&self, session: Session) -> Self {
        let Revision { line, number } = self.revision;
        Self {
            has_rotated: self.has_rotated || session.is_rotated(),
            session: session.without_provenance(),
            revision: Revision {
                line,
                number: number.saturating_add(1),
            },
        }
    }

    /// The session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    pub(crate) fn into_session(self) -> Session {
        self.session
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    pub(crate) fn has_rotated(&self) -> bool {
        self.has_rotated
    }

    /// The record as text: JSON on one line, with all tokens in it.
    pub fn encode(&self) -> Secret {
        let session = &self.session;
        let mut line = String::with_capacity(32);
        // Writing to a string does not fail.
        let _ = write!(line, "{:032x}", self.revision.line);
        let written = Written {
            format: FORMAT,
            version: VERSION,
            line: &line,
            number: self.revision.number,
            access_token: session.access_token().expose(),
            refresh_token: session.refresh_token().map(Secret::expose),
            instance_url: session.instance_url().to_string(),
            login_url: session.login_url().map(WrittenLoginUrl::of),
            identity_url: session.identity_url(),
            scope: session.scope(),
            issued_at: session.issued_at().map(millis_since_epoch),
            lifetime: session.lifetime().map(millis),
            organization_id: session.organization_id(),
            user_id: session.user_id(),
            is_soap: session.is_soap(),
            has_rotated: self.has_rotated,
        };
        // Room for the tokens, so that no copy is left behind by a buffer that has to grow.
        let tokens = written.access_token.len() + written.refresh_token.map_or(0, str::len);
        let mut text = Zeroizing::new(Vec::with_capacity(2 * tokens + 4096));
        // Strings and numbers can be written, and so can a vector be.
        let _ = serde_json::to_writer(&mut *text, &written);
        Secret::from(Zeroizing::new(String::from_utf8_lossy(&text).into_owned()))
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    ///
    /// [`UnsupportedVersion`](StoreErrorKind::UnsupportedVersion) if a later version of this crate wrote it,
    /// [`Undecryptable`](StoreErrorKind::Undecryptable) if it is encrypted, and [`Corrupt`](StoreErrorKind::Corrupt) if it
    /// is anything else. No error has anything of the text in it.
    pub fn decode(text: &str) -> Result<Self, StoreError> {
        let header: Header = serde_json::from_str(text).map_err(|error| unreadable(&error))?;
        check_version(header.version, VERSION)?;
        match header.format.as_str() {
            FORMAT => {}
            format if format.starts_with(FORMAT) => {
                return Err(StoreError::new(
                    StoreErrorKind::Undecryptable,
                    "the session record is encrypted: give the store the key that it was encrypted with",
                ));
            }
            _ => return Err(corrupt("the record is not one of a session")),
        }
        let read: Read = serde_json::from_str(text).map_err(|error| unreadable(&error))?;
        let line = u128::from_str_radix(&read.line, 16)
            .map_err(|_| corrupt("the session record has no valid line"))?;
        let revision = Revision {
            line,
            number: read.number,
        };
        let has_rotated = read.has_rotated;
        let session = read.session().map_err(|error| {
            corrupt("the session record holds a session that cannot be used").with_source(error)
        })?;
        Ok(Self {
            session,
            revision,
            has_rotated,
        })
    }
}

/// What any version of a record begins with.
#[derive(Deserialize)]
struct Header {
    format: String,
    version: u32,
}

pub(super) fn check_version(version: u32, supported: u32) -> Result<(), StoreError> {
    if version > supported {
        return Err(StoreError::new(
            StoreErrorKind::UnsupportedVersion,
            format!(
                "the session record is of version {version}, and this version of tower-salesforce-auth knows {supported} \
                 at most: update it, or delete the record to log in anew"
            ),
        ));
    }
    Ok(())
}

/// A record of version 1.
#[derive(Serialize)]
struct Written<'a> {
    format: &'a str,
    version: u32,
    line: &'a str,
    number: u64,
    access_token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
    instance_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    login_url: Option<WrittenLoginUrl>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    /// Milliseconds since the Unix epoch, less than zero before it.
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
}

#[derive(Deserialize)]
struct Read {
    line: String,
    number: u64,
    access_token: Secret,
    refresh_token: Option<Secret>,
    instance_url: String,
    login_url: Option<WrittenLoginUrl>,
    identity_url: Option<String>,
    scope: Option<String>,
    issued_at: Option<i64>,
    lifetime: Option<u64>,
    organization_id: Option<String>,
    user_id: Option<String>,
    is_soap: bool,
    has_rotated: bool,
}

impl Read {
    fn session(self) -> Result<Session, Error> {
        let mut session = if self.is_soap {
            Session::from_session_id(self.access_token, &self.instance_url)?
        } else {
            Session::new(self.access_token, &self.instance_url)?
        };
        if let Some(refresh_token) = self.refresh_token {
            session = session.with_refresh_token(refresh_token);
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
struct WrittenLoginUrl {
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorization_endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revocation_endpoint: Option<String>,
}

impl WrittenLoginUrl {
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

/// A number that no other text has.
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
    StoreError::new(StoreErrorKind::Corrupt, message)
}

/// What is wrong, and where, without the text that a parser's message quotes.
pub(super) fn unreadable(error: &serde_json::Error) -> StoreError {
    StoreError::new(
        StoreErrorKind::Corrupt,
        format!(
            "the session record cannot be read: at line {}, column {} it is not what is expected there; restore it, or \
             delete it to log in anew",
            error.line(),
            error.column()
        ),
    )
}
