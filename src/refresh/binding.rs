//! The DPoP settings of the app of a flow, as the sessions of a handle get them, and what is told of sessions that differ.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::{
    app::{App, Dpop},
    refresh::hook::SharedRefreshFn,
    report::{event::DpopNotice, observer::Event},
    session::{live::LiveSession, session::Session},
};

/// The DPoP settings of the app of a flow.
#[derive(Default)]
pub(crate) struct Binding {
    /// `None` if the flow has no app, or its tokens are bearer tokens.
    dpop: Option<Dpop>,
    told_unbound: AtomicBool,
    told_other_key: AtomicBool,
}

impl Binding {
    pub(crate) fn of(refresh_fn: Option<&SharedRefreshFn>) -> Self {
        let app = refresh_fn.and_then(|refresh_fn| refresh_fn.app());
        Self {
            dpop: app.and_then(App::binding).cloned(),
            ..Self::default()
        }
    }

    /// The session with the app's settings for proofs.
    pub(crate) fn apply(&self, session: Session) -> Session {
        match &self.dpop {
            Some(dpop) => session.map_keys(|key| dpop.apply(key)),
            None => session,
        }
    }

    /// How a new session differs from what the app is set up for. `None` if it does not, or if it was told before.
    pub(crate) fn notice(&self, new: Option<&LiveSession>) -> Option<Event> {
        self.difference(new?).map(Event::DpopNotice)
    }

    fn difference(&self, session: &Session) -> Option<DpopNotice> {
        if session.is_left_unbound() {
            let is_first = !self.told_unbound.swap(true, Ordering::Relaxed);
            return is_first.then_some(DpopNotice::NotBound);
        }
        let configured = self.dpop.as_ref()?.configured()?;
        let key = session.grant_key().filter(|key| *key != configured)?;
        let is_first = !self.told_other_key.swap(true, Ordering::Relaxed);
        is_first.then(|| DpopNotice::OtherKey {
            configured: configured.thumbprint().to_owned(),
            used: key.thumbprint().to_owned(),
        })
    }
}
