//! An app that no org has.

use tower_salesforce_auth::{LoginUrl, oauth::App};

/// An app of the production login URL, without a secret.
pub(crate) fn production_app() -> App {
    App::new(LoginUrl::production(), "3MVG9")
}
