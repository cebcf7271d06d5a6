//! The sessions of many orgs: made on demand, kept within a bound, and given up when nobody would miss them.

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
    secret::Secret,
};

/// The sessions of many orgs or users, by a key of yours: a tenant's id for one.
///
/// Handles are made when they are first asked for, and kept, `capacity` of them at most. When there is no room for
/// another, the idle one that was asked for the longest ago is evicted. A session is idle if nobody else holds its handle
/// (a request that is under way does) and no refresh is under way. One with an [unsaved refresh
/// token](SessionHandle::has_unsaved_refresh_token) is never evicted: that token may be the only one that still works.
/// If nothing can be evicted, [`get`](Self::get) fails.
///
/// Give it to many tasks in an [`Arc`].
///
/// # What is forgotten with a handle
///
/// Evicting logs nobody out. When the key is asked for again, its session begins anew with what `make` makes: with a
/// login, or with what was kept of it. A refresh that failed for good is tried again then, and a session that was logged
/// out logs in again if its [`RefreshFn`](crate::RefreshFn) can. So let there be room for all that are active, and
/// [`remove`](Self::remove) a session that was logged out once nobody is to have it.
///
/// # A web service
///
/// ```
/// use std::sync::Arc;
/// use http::Request;
/// use tower::{Service, ServiceExt};
/// use tower_salesforce_auth::{
///     BoxError, SalesforceAuthLayer, Sessions, flow::{HttpClient, RefreshToken}, oauth::App, store::SessionStore,
/// };
///
/// type Tenant = String;
///
/// /// Whatever refreshes bring is saved under the tenant's name, and found there when the tenant comes back.
/// fn sessions(http: impl HttpClient, app: App, store: Arc<dyn SessionStore>) -> Sessions<Tenant> {
///     Sessions::new(1_000, move |tenant: &Tenant| {
///         let login = RefreshToken::new(http.clone(), app.clone(), first_refresh_token_of(tenant));
///         SalesforceAuthLayer::new(login).store(store.clone(), tenant).handle()
///     })
/// }
///
/// /// One client for all.
/// async fn limits<C, B>(client: C, sessions: &Sessions<Tenant>, tenant: &str, body: B) -> Result<C::Response, BoxError>
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
/// Without a store, an [`Observer`](crate::Observer) tells of each new refresh token, and
/// [`mark_saved`](SessionHandle::mark_saved) says that it was written down. One that held the handle itself would keep it from
/// ever being idle.
pub struct Sessions<K> {
    make: Box<dyn Fn(&K) -> SessionHandle + Send + Sync>,
    capacity: usize,
    kept: Mutex<Kept<K>>,
}

struct Kept<K> {
    by_key: HashMap<K, Entry>,
    /// How often a handle was asked for: the time that uses are told by.
    uses: u64,
}

struct Entry {
    handle: SessionHandle,
    last_use: u64,
}

impl<K: Eq + Hash + Clone> Sessions<K> {
    /// Keeps `capacity` sessions at most, each made by `make`.
    ///
    /// `make` may take its time: other keys do not wait for it. It may be called beside itself for one key, by callers who
    /// come at the same moment; all of them get the same handle. The handle should have a
    /// [store](crate::SalesforceAuthLayer::store), or begin with the newest refresh token, since an older one may not work
    /// any more.
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

    /// The session of this key. It is made if there is none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::SessionsFull`] if it would have to be made, and there is no room: each session is in use or has an
    /// unsaved refresh token. Nothing is lost, and sessions that are there already are still to be had.
    ///
    /// # Panics
    ///
    /// If `make` does. Nothing is kept for the key then, and nothing is evicted.
    pub fn get<Q>(&self, key: &Q) -> Result<SessionHandle, Error>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        if let Some(handle) = self.lock().use_again(key) {
            return Ok(handle);
        }
        // Without the lock: it may ask for another session, or take its time.
        let own_key = key.to_owned();
        let made = (self.make)(&own_key);
        let mut kept = self.lock();
        if let Some(handle) = kept.use_again(key) {
            // Another was faster. What is dropped is dropped without the lock, since the user's types are in it.
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

    /// The session of this key, if there is one. None is made, and it does not count as a use.
    pub fn find<Q>(&self, key: &Q) -> Option<SessionHandle>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let kept = self.lock();
        kept.by_key.get(key).map(|entry| entry.handle.clone())
    }

    /// Takes a session out, whether it is idle or not, and returns it, unsaved refresh token and all.
    ///
    /// It is not logged out, and whoever has its handle goes on with it. The next to [`get`](Self::get) the key gets
    /// another.
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
    /// How many sessions are kept now.
    pub fn len(&self) -> usize {
        self.lock().by_key.len()
    }

    /// Whether no session is kept now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Kept<K>> {
        // Of the user's code only `Eq`, `Hash` and `Clone` of the keys run under it, and leave it whole.
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

    /// Takes out the idle session that was asked for the longest ago.
    ///
    /// All are looked at, which is little beside the login that a new session is about to cost.
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
    /// Says that this refresh token is kept elsewhere, where it survives this handle: to be called once it is written
    /// down. Does nothing if there is a newer one meanwhile.
    ///
    /// ```
    /// use tower_salesforce_auth::{RefreshContext, Session, SessionHandle};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower_salesforce_auth::Error> {
    /// let session = Session::new("00Dxx!AQEAQ", "https://MyDomainName.my.salesforce.com")?;
    /// let rotated = session.clone().with_refresh_token("5Aep862");
    /// let handle = SessionHandle::new(move |_: RefreshContext| std::future::ready(Ok(rotated.clone())));
    /// handle.set(session.with_refresh_token("5Aep861"));
    /// assert!(!handle.has_unsaved_refresh_token());
    ///
    /// let live = handle.refresh().await?;
    /// assert!(handle.has_unsaved_refresh_token());
    /// if let Some(refresh_token) = live.refresh_token() {
    ///     // Write it down, and then
    ///     handle.mark_saved(refresh_token);
    /// }
    /// assert!(!handle.has_unsaved_refresh_token());
    /// # Ok(())
    /// # }
    /// ```
    pub fn mark_saved(&self, refresh_token: &Secret) {
        let mut life = self.shared.lock();
        if life.refresh_token.as_ref() == Some(refresh_token) {
            life.saved_refresh_token = Some(refresh_token.clone());
        }
    }

    /// Whether the newest refresh token is one that a refresh brought, and that nobody [said was
    /// saved](Self::mark_saved).
    ///
    /// One that a session was [set](Self::set) with, or that [`flow::RefreshToken`](crate::flow::RefreshToken) was made
    /// with, is somewhere already, and counts as saved.
    pub fn has_unsaved_refresh_token(&self) -> bool {
        let life = self.shared.lock();
        life.refresh_token.is_some() && life.refresh_token != life.saved_refresh_token
    }

    /// Whether nothing is lost if this handle, the only one that its owner has, is dropped: nobody else has one, no
    /// refresh is under way, and no refresh token is unsaved.
    ///
    /// Nobody can get one meanwhile if the owner does not hand it out. A refresh has a handle until it has landed; what
    /// it brought is seen here, if it was seen to be gone.
    fn is_dispensable(&self) -> bool {
        Arc::strong_count(&self.shared) == 1
            && self.shared.lock().flight.is_none()
            && !self.has_unsaved_refresh_token()
    }
}
