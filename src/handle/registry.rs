//! The sessions of many orgs: made on demand, within a bound, and evicted when idle.

use std::{
    borrow::Borrow,
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    error::{Error, ErrorKind},
    handle::handle::SessionHandle,
    refresh::shared::SessionCore,
    secret::Secret,
    session::grant_token::GrantToken,
};

/// The sessions of many orgs or users, by a key that you choose, for example a tenant's id.
///
/// A handle is made when its key is first requested. The registry keeps at most `capacity` handles. When it is full, it
/// evicts the idle handle that was requested the longest time ago. A handle is idle if it has no other clone and its
/// session has no running refresh. A request in progress holds a clone. A handle with an [unsaved refresh
/// token](SessionHandle::has_unsaved_refresh_token) is never evicted, because that token may be the only valid one. If
/// no handle can be evicted, [`get`](Self::get) fails.
///
/// Share the registry between tasks in an [`Arc`].
///
/// # Eviction
///
/// Eviction logs no session out. The next request for the key makes a new handle, which loads the stored session or
/// logs in. It also retries a login that failed with a terminal error, and logs in again after a logout if its
/// [`RefreshFn`](crate::RefreshFn) can. So choose a capacity for all active sessions. After a logout,
/// [`remove`](Self::remove) the key, and do not request it again.
///
/// # A web service
///
/// ```
/// use std::sync::Arc;
/// use http::Request;
/// use tower::{Service, ServiceExt};
/// use tower_salesforce_auth::{
///     BoxError, SessionHandle, Sessions, flow::{HttpClient, RefreshToken}, oauth::App,
///     store::SessionStore,
/// };
///
/// type Tenant = String;
///
/// /// The store keeps each tenant's session under the tenant's name.
/// fn sessions(
///     http: impl HttpClient,
///     app: App,
///     store: Arc<dyn SessionStore>,
/// ) -> Sessions<Tenant> {
///     Sessions::new(1_000, move |tenant: &Tenant| {
///         let first = first_refresh_token_of(tenant);
///         let login = RefreshToken::new(http.clone(), app.clone(), first);
///         SessionHandle::builder(login).store(store.clone(), tenant).build()
///     })
/// }
///
/// /// One client for all.
/// async fn limits<C, B>(
///     client: C,
///     sessions: &Sessions<Tenant>,
///     tenant: &str,
///     body: B,
/// ) -> Result<C::Response, BoxError>
/// where
///     C: Service<Request<B>, Error = BoxError>,
/// {
///     let mut request = Request::get("/services/data/v66.0/limits").body(body)?;
///     request.extensions_mut().insert(sessions.get(tenant)?);
///     client.oneshot(request).await
/// }
/// # fn first_refresh_token_of(_: &Tenant) -> String { String::new() }
/// ```
///
/// Without a store, an [`Observer`](crate::observer::Observer) receives each new refresh token. Save the token, and
/// call [`mark_saved`](SessionHandle::mark_saved). The observer must not keep the handle, or the handle is never idle.
pub struct Sessions<K> {
    make: Box<dyn Fn(&K) -> SessionHandle + Send + Sync>,
    capacity: usize,
    kept: Mutex<Kept<K>>,
}

struct Kept<K> {
    by_key: HashMap<K, Entry>,
    /// Number of requests for a handle so far. It orders the uses.
    uses: u64,
}

struct Entry {
    handle: SessionHandle,
    /// Value of `Kept::uses` at the last request for the handle.
    last_use: u64,
}

impl<K: Eq + Hash + Clone> Sessions<K> {
    /// Makes a registry of at most `capacity` sessions. `make` makes the handle of a key.
    ///
    /// `make` may be slow: other keys do not wait for it. Concurrent callers for one key may each call it; all of them
    /// get the same handle. The handle should have a [store](crate::handle::SessionHandleBuilder::store) or start with
    /// the newest refresh token, because an older one may be invalid.
    pub fn new(
        capacity: usize,
        make: impl Fn(&K) -> SessionHandle + Send + Sync + 'static,
    ) -> Self {
        Self {
            make: Box::new(make),
            capacity,
            kept: Mutex::new(Kept {
                by_key: HashMap::new(),
                uses: 0,
            }),
        }
    }

    /// Returns the handle of this key, and makes it if the registry has none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::SessionsFull`] if the registry is full and no handle can be evicted: each is in use or has an unsaved
    /// refresh token. The registry still returns the handles that it has.
    ///
    /// # Panics
    ///
    /// If `make` panics. The registry does not change then.
    pub fn get<Q>(&self, key: &Q) -> Result<SessionHandle, Error>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        if let Some(handle) = self.lock().use_again(key) {
            return Ok(handle);
        }
        // Without the lock: `make` may be slow, and may call the registry.
        let own_key = key.to_owned();
        let made = (self.make)(&own_key);
        let mut kept = self.lock();
        if let Some(handle) = kept.use_again(key) {
            // A concurrent caller was faster. Release the lock first: dropping the handle drops types of the user.
            drop(kept);
            return Ok(handle);
        }
        let evicted = if kept.by_key.len() < self.capacity {
            None
        } else {
            match kept.evict() {
                Some(evicted) => Some(evicted),
                None => {
                    drop(kept);
                    return Err(full(self.capacity));
                }
            }
        };
        let last_use = kept.count_use();
        let entry = Entry {
            handle: made.clone(),
            last_use,
        };
        kept.by_key.insert(own_key, entry);
        drop(kept);
        drop(evicted);
        Ok(made)
    }

    /// Returns the handle of this key, or `None` if the registry has none. The call does not count as a use.
    pub fn find<Q>(&self, key: &Q) -> Option<SessionHandle>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let kept = self.lock();
        kept.by_key.get(key).map(|entry| entry.handle.clone())
    }

    /// Removes the handle of this key and returns it, even if it is in use or has an unsaved refresh token.
    ///
    /// The session is not logged out: other clones of the handle keep working. The next [`get`](Self::get) of the key
    /// makes a new handle.
    pub fn remove<Q>(&self, key: &Q) -> Option<SessionHandle>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let removed = self.lock().by_key.remove_entry(key);
        removed.map(|(_, entry)| entry.handle)
    }
}

impl<K> Sessions<K> {
    /// Number of handles in the registry.
    pub fn len(&self) -> usize {
        self.lock().by_key.len()
    }

    /// Whether the registry has no handle.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Kept<K>> {
        // Under the lock, only `Eq`, `Hash` and `Clone` of the keys are code of the user. A panic there leaves the map
        // valid.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Clone> Kept<K> {
    fn use_again<Q>(&mut self, key: &Q) -> Option<SessionHandle>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let now = self.count_use();
        let entry = self.by_key.get_mut(key)?;
        entry.last_use = now;
        Some(entry.handle.clone())
    }

    fn count_use(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }

    /// Removes the idle handle that was requested the longest time ago. `None` if no handle can be evicted.
    ///
    /// Visits every entry, which costs little compared with the login of a new session.
    fn evict(&mut self) -> Option<(K, Entry)> {
        let (key, _) = self
            .by_key
            .iter()
            .filter(|(_, entry)| entry.handle.is_dispensable())
            .min_by_key(|(_, entry)| entry.last_use)?;
        let key = key.clone();
        self.by_key.remove_entry(&key)
    }
}

fn full(capacity: usize) -> Error {
    Error::new(
        ErrorKind::SessionsFull,
        format!(
            "there is no room for another Salesforce session: the `Sessions` keep {capacity} at most, and each of them \
             is in use or has a refresh token that was not saved; say with SessionHandle::mark_saved what was saved, \
             drop handles that are not needed, or make more room"
        ),
    )
}

impl<K> fmt::Debug for Sessions<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions")
            .field("len", &self.len())
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

impl SessionHandle {
    /// Marks this refresh token as saved outside the handle. Call it when the token is saved. Does nothing if the
    /// handle has a newer token.
    ///
    /// ```
    /// use tower_salesforce_auth::{RefreshContext, Session, SessionHandle};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower_salesforce_auth::Error> {
    /// let instance = "https://MyDomainName.my.salesforce.com";
    /// let session = Session::new("00Dxx!AQEAQ", instance)?;
    /// let rotated = session.clone().with_refresh_token("5Aep862");
    /// let login = move |_: RefreshContext| std::future::ready(Ok(rotated.clone()));
    /// let handle = SessionHandle::new(login);
    /// handle.set(session.with_refresh_token("5Aep861"));
    /// assert!(!handle.has_unsaved_refresh_token());
    ///
    /// let live = handle.refresh().await?;
    /// assert!(handle.has_unsaved_refresh_token());
    /// if let Some(refresh_token) = live.refresh_token() {
    ///     // Save the token first.
    ///     handle.mark_saved(refresh_token);
    /// }
    /// assert!(!handle.has_unsaved_refresh_token());
    /// # Ok(())
    /// # }
    /// ```
    pub fn mark_saved(&self, refresh_token: &Secret) {
        let saved = GrantToken::unbound(refresh_token.clone());
        self.shared.apply(|core, _| core.mark_saved(&saved));
    }

    /// Whether the newest refresh token came from a refresh, and is neither stored nor [marked as
    /// saved](Self::mark_saved).
    ///
    /// A token of a session that was [set](Self::set), or of
    /// [`flow::RefreshToken::new`](crate::flow::RefreshToken::new), comes from the program and counts as saved.
    pub fn has_unsaved_refresh_token(&self) -> bool {
        self.shared.read(SessionCore::has_unsaved_refresh_token)
    }

    /// Whether nothing is lost if this handle is dropped: no other handle exists, no refresh or save is under way, no refresh
    /// token is unsaved, and no logout is pending.
    ///
    /// The registry hands out no handle meanwhile. A refresh holds a handle until its driver has ended.
    fn is_dispensable(&self) -> bool {
        Arc::strong_count(&self.shared) == 1
            && self.shared.is_idle()
            && self.shared.read(SessionCore::is_dispensable)
    }
}
