//! Processes that share a store which can fail, and a server with strict rotation.

use tokio::task::JoinHandle;
use tower_salesforce_auth::{Error, LiveSession, SessionHandle, store::OnSaveFailure};

use crate::{
    faulty::Faulty,
    rotating::{Client, Server},
};

/// The key that all sessions are stored under.
pub(crate) const KEY: &str = "user";

pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) store: Faulty,
}

impl World {
    pub(crate) fn new() -> Self {
        let server = Server::default();
        let store = Faulty::new(&Client::new(&server, 0));
        Self { server, store }
    }

    pub(crate) fn client(&self, id: u32) -> Client {
        Client::new(&self.server, id)
    }

    pub(crate) fn process(&self, id: u32) -> SessionHandle {
        self.process_that(id, OnSaveFailure::Continue)
    }

    pub(crate) fn process_that(&self, id: u32, on_save_failure: OnSaveFailure) -> SessionHandle {
        let client = self.client(id);
        SessionHandle::builder(client.flow())
            .store(self.store.of(&client), KEY)
            .on_save_failure(on_save_failure)
            .build()
    }

    /// A process whose session is stored.
    pub(crate) async fn logged_in(&self, id: u32) -> SessionHandle {
        let handle = self.process(id);
        handle.set(self.server.login());
        handle.save().await.unwrap();
        handle
    }

    pub(crate) async fn stored(&self) -> Option<String> {
        self.store.refresh_token(KEY).await
    }

    /// The session ends, and the process obtains another.
    pub(crate) async fn expire(&self, handle: &SessionHandle) -> Result<LiveSession, Error> {
        self.server.expire();
        if let Some(live) = handle.try_session() {
            handle.invalidate(live.generation());
        }
        match handle.session().await {
            Ok(live) if !self.server.accepts(live.access_token().expose()) => {
                handle.invalidate(live.generation());
                handle.session().await
            }
            live => live,
        }
    }

    /// Logs out in a task of its own.
    pub(crate) fn logging_out(&self, handle: &SessionHandle) -> JoinHandle<Result<(), Error>> {
        self.server.logs_out(
            1,
            handle
                .refresh_token()
                .map(|token| token.expose().to_owned())
                .as_deref(),
        );
        let (handle, client) = (handle.clone(), self.client(1));
        tokio::spawn(async move { handle.logout_and_revoke(client).await })
    }

    #[track_caller]
    pub(crate) fn assert_no_fault(&self) {
        assert_eq!(
            (self.server.reuses(), self.server.faults()),
            (0, Vec::new())
        );
    }
}
