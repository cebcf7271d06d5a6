//! The target of the upload: an emulated org, or a real one.

use std::env;

use tower_salesforce_auth::{
    BoxError,
    emulator::{self, Served},
    oauth::App,
};

/// An org, and the app to log in with.
pub(crate) struct Org {
    pub(crate) app: App,
    pub(crate) api_version: String,
    /// The emulated org. `None` for a real org.
    pub(crate) emulated: Option<emulator::Org>,
    /// Serves the emulated org until this is dropped.
    _served: Option<Served>,
}

impl Org {
    /// The org that the environment names, or else an emulated one.
    pub(crate) async fn from_env() -> Result<Self, BoxError> {
        let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let required = |name| variable(name).ok_or(format!("{name} is not set"));
        let api_version = variable("SF_API_VERSION").unwrap_or("66.0".to_owned());
        let Some(login_url) = variable("SF_LOGIN_URL") else {
            let org = emulator::Org::new();
            let served = org.serve().await?;
            let app = App::new(org.login_url().parse()?, org.client_id())
                .client_secret(org.client_secret());
            return Ok(Self {
                app,
                api_version,
                emulated: Some(org),
                _served: Some(served),
            });
        };
        let login_url = login_url
            .parse()
            .map_err(|error| format!("SF_LOGIN_URL: {error}"))?;
        let app = App::new(login_url, required("SF_CLIENT_ID")?)
            .client_secret(required("SF_CLIENT_SECRET")?);
        Ok(Self {
            app,
            api_version,
            emulated: None,
            _served: None,
        })
    }

    /// Expires the session. The org rejects the next upload after this many bytes. Does nothing with a real org.
    pub(crate) fn expire_after(&self, bytes: u64) {
        if let Some(org) = &self.emulated {
            org.expire_sessions();
            org.answer_early(usize::try_from(bytes).unwrap_or(usize::MAX));
        }
    }
}
