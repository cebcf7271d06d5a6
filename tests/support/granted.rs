//! Sessions of users who have authorized the app.

use tower_salesforce_auth::{
    SalesforceAuthLayer, Session, SessionHandle, emulator::Org, flow::RefreshToken,
    handle::SessionHandleBuilder,
};

use super::app::app;

/// A session of the org with its refresh token and login URL.
pub(crate) fn granted(org: &Org) -> Session {
    let grant = org.authorize();
    Session::new(grant.access_token(), grant.instance_url())
        .unwrap()
        .with_refresh_token(grant.refresh_token())
        .with_login_url(org.login_url().parse().unwrap())
}

/// Builds a handle that starts with such a session, and refreshes it by its refresh token.
pub(crate) fn builder(org: &Org) -> SessionHandleBuilder {
    let session = granted(org);
    let refresh_token = session.refresh_token().unwrap().clone();
    let flow = RefreshToken::new(org.clone(), app(org), refresh_token);
    SessionHandle::builder(flow).initial_session(session)
}

/// A layer that starts with such a session.
pub(crate) fn layer(org: &Org) -> SalesforceAuthLayer {
    builder(org).build().into()
}
