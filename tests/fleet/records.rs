//! Records that the tests save.

use tower_salesforce_auth::{
    Session,
    store::{Record, Save, SessionStore},
};

pub(crate) const KEY: &str = "nightly-export";

pub(crate) fn session(token: &str) -> Session {
    let session = Session::new(token, "https://MyDomainName.my.salesforce.com").unwrap();
    session.with_refresh_token(format!("R-{token}"))
}

pub(crate) fn first() -> Record {
    Record::new(session("T0"))
}

/// Saves the first record of a key.
pub(crate) async fn put(store: &impl SessionStore, record: &Record) {
    let mut lock = store.lock(KEY).await.unwrap();
    lock.save(Save::new(record)).await.unwrap();
    lock.unlock().await;
}
