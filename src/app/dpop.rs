//! Whether and how an app binds its tokens to keys (RFC 9449).

use std::{fmt, sync::Arc, time::SystemTime};

use crate::{
    error::Error,
    session::{
        clock::WallClock,
        dpop_key::{DpopKey, ProofSettings},
    },
};

/// Which key an app binds its tokens to (DPoP, RFC 9449), and how it makes proofs.
///
/// | | key | use it if |
/// |---|---|---|
/// | a [`DpopKey`] | that one, for all users | the key comes from a vault, or you keep refresh tokens yourself |
/// | [`Dpop::per_grant`] | a new one for each authorization | a [store](mod@crate::store) keeps the sessions: it keeps the keys too |
///
/// A refresh token that is bound to a key is presented with that key, also if it is another one than the app's: the token
/// works with no other. An observer is told so by `dpop_notice`.
///
/// ```
/// use tower_salesforce_auth::{LoginUrl, oauth::{App, Dpop}};
///
/// let app = App::new(LoginUrl::production(), "3MVG9…").dpop(Dpop::per_grant());
/// ```
#[derive(Clone)]
pub struct Dpop {
    /// The key of all grants. `None` for a new one for each grant.
    key: Option<DpopKey>,
    clock: WallClock,
    rewrites: Vec<(String, String)>,
    /// The two above, as keys have them.
    settings: Arc<ProofSettings>,
}

impl Dpop {
    /// Makes a new key for each authorization or login.
    ///
    /// Sessions carry their key, and a store keeps it in their records. Without a store the key is gone when the process ends,
    /// and the refresh token with it: it works with its key only. [`Session::dpop_key`](crate::Session::dpop_key) returns it.
    pub fn per_grant() -> Self {
        Self::new(None)
    }

    fn new(key: Option<DpopKey>) -> Self {
        Self {
            key,
            clock: WallClock::system(),
            rewrites: Vec::new(),
            settings: Arc::default(),
        }
        .with_settings()
    }

    /// Replaces the system clock, which proofs take their time (`iat`) from.
    #[must_use]
    pub fn clock(mut self, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = WallClock::new(now);
        self.with_settings()
    }

    /// Writes another `htu` into the proofs of URIs that begin so. Default: `htu` is the URI of the request.
    ///
    /// A server that is reached by another URL than the one it knows itself by needs it: behind a gateway, or below the path of
    /// an Experience Cloud site. May be called repeatedly. The first one that fits counts.
    ///
    /// ```
    /// use tower_salesforce_auth::oauth::Dpop;
    ///
    /// let dpop = Dpop::per_grant()
    ///     .htu("https://acme.my.site.com/partners", "https://acme.my.site.com");
    /// ```
    #[must_use]
    pub fn htu(mut self, beginning: impl Into<String>, replacement: impl Into<String>) -> Self {
        self.rewrites.push(ProofSettings::rewrite(
            &beginning.into(),
            &replacement.into(),
        ));
        self.with_settings()
    }

    fn with_settings(mut self) -> Self {
        self.settings = Arc::new(ProofSettings {
            clock: self.clock.clone(),
            rewrites: self.rewrites.clone(),
        });
        self.key = self.key.map(|key| key.with_settings(&self.settings));
        self
    }

    /// Proves with this key, which keeps its settings.
    pub(crate) fn with_key(key: DpopKey) -> Self {
        Self {
            key: Some(key),
            clock: WallClock::system(),
            rewrites: Vec::new(),
            settings: Arc::default(),
        }
    }

    /// The key of all grants. `None` for a new one for each grant.
    pub(crate) fn configured(&self) -> Option<&DpopKey> {
        self.key.as_ref()
    }

    /// The key of a new grant.
    pub(crate) fn new_key(&self) -> Result<DpopKey, Error> {
        match &self.key {
            Some(key) => Ok(key.clone()),
            None => DpopKey::generate().map(|key| key.with_settings(&self.settings)),
        }
    }

    /// The same key with the settings of the app, and with the nonces that the app's key knows if it is that key.
    pub(crate) fn apply(&self, key: DpopKey) -> DpopKey {
        match &self.key {
            Some(configured) if *configured == key => configured.clone(),
            _ => key.with_settings(&self.settings),
        }
    }
}

impl From<DpopKey> for Dpop {
    /// Binds all tokens to this key.
    fn from(key: DpopKey) -> Self {
        Self::new(Some(key))
    }
}

impl fmt::Debug for Dpop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dpop")
            .field("key", &self.key)
            .field("rewrites", &self.rewrites)
            .finish_non_exhaustive()
    }
}
