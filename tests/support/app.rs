//! The app of the org.

use tower_salesforce_auth::{emulator::Org, oauth::App};

/// The org's app, as it is registered there.
pub(crate) fn app(org: &Org) -> App {
    App::new(org.login_url().parse().unwrap(), org.client_id()).client_secret(org.client_secret())
}
