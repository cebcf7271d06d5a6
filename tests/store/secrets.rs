//! Secrets in the output and the traced events of a store (R17).

use std::io::Write;

use crate::{
    scripted::{Fate, Scripted},
    support::{KEY, Traced, app, limits, save, session},
};
use tower_salesforce_auth::{
    SalesforceAuthLayer, SessionHandle,
    emulator::Org,
    flow::RefreshToken,
    observer::{Observer, SessionAdopted, StoreFailed, StoreOperation},
    store::{EncryptionKey, FileStore, MemoryStore, Record, SessionStore, StoreErrorKind},
};

/// The traced events of this thread and the output of observer events, as text.
#[derive(Clone)]
struct Shown(Traced);

impl Shown {
    fn add(&self, what: impl std::fmt::Debug) {
        writeln!(self.0.clone(), "{what:?} {what:#?}").unwrap();
    }
}

impl Observer for Shown {
    fn session_adopted(&self, event: &SessionAdopted) {
        self.add(event);
    }

    fn store_failed(&self, event: &StoreFailed) {
        self.add(event);
        self.add(format_args!(
            "{} {:?}",
            event.error(),
            std::error::Error::source(&event.error())
        ));
    }
}

#[tokio::test(start_paused = true)]
async fn r17_no_secret_of_a_stored_session_is_shown_or_traced() {
    let (traced, _guard) = Traced::begin();
    let shown = Shown(traced);

    let org = Org::new();
    let grant = org.authorize();
    let mut secrets = vec![
        org.client_secret().to_owned(),
        grant.access_token().to_owned(),
        grant.refresh_token().to_owned(),
        "\u{7}".repeat(32),
        "7, 7, 7".to_owned(),
    ];
    let store = Scripted::default();
    save(&store.store, session(&grant)).await;
    let login = RefreshToken::new(org.clone(), app(&org), "none");
    let handle = SessionHandle::builder(login)
        .store(store.clone(), KEY)
        .observer(shown.clone())
        .build();
    let layer = SalesforceAuthLayer::from(handle);
    let unavailable = Fate::Fails(StoreErrorKind::Unavailable);
    for (operation, fate) in [
        (StoreOperation::Load, unavailable),
        (StoreOperation::Load, Fate::Done),
        (StoreOperation::Lock, unavailable),
        (StoreOperation::Lock, Fate::Done),
        (StoreOperation::Save, unavailable),
        (StoreOperation::Save, Fate::Done),
        (StoreOperation::Delete, unavailable),
    ] {
        // Other tests may have cached the callsites as disabled.
        tracing::callsite::rebuild_interest_cache();
        store.on(operation, fate);
        if let Err(error) = limits(&layer, &org).await {
            shown.add(&error);
        }
        let kept = layer.handle().refresh_token();
        secrets.extend(kept.map(|token| token.expose().to_owned()));
        let live = layer.handle().try_session();
        secrets.extend(live.map(|live| live.access_token().expose().to_owned()));
        if let Err(error) = layer.handle().save().await {
            shown.add(&error);
        }
        org.expire_sessions();
        // The time is beyond any back-off.
        tokio::time::advance(std::time::Duration::from_secs(60)).await;
    }
    shown.add(&layer);
    shown.add(layer.handle().logout(org.clone()).await.unwrap_err());

    let directory = tempfile::tempdir().unwrap();
    let key = EncryptionKey::new([7; 32]);
    let files = FileStore::open(directory.path())
        .unwrap()
        .encryption(key.clone());
    let record = Record::new(session(&grant));
    save(&files, session(&grant)).await;
    shown.add((&key, &files, &record, record.encode(), MemoryStore::new()));
    for (text, key) in [
        ("{", [7; 32]),
        (record.encode().expose(), [7; 32]),
        (record.encode().expose(), [8; 32]),
    ] {
        shown.add(EncryptionKey::new(key).open(KEY, text).unwrap_err());
    }
    let other = EncryptionKey::new([8; 32]);
    shown.add(files.clone().encryption(other).load(KEY).await.unwrap_err());

    let text = shown.0.text();
    for event in [
        "session adopted",
        "session store failed",
        "SessionAdopted {",
        "StoreFailed {",
    ] {
        assert!(text.contains(event), "{event} in {text}");
    }
    assert!(secrets.len() > 10, "{}", secrets.len());
    for secret in secrets {
        assert!(!text.contains(&secret), "{secret} in {text}");
    }
}
