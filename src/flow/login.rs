//! The login that the environment has: for examples and tests.

use std::{env, ffi::OsString, fmt};

#[cfg(feature = "jwt")]
use super::jwt_bearer::JwtBearer;
#[cfg(feature = "cli")]
use super::salesforce_cli::SalesforceCli;
use super::{client_credentials::ClientCredentials, refresh_token::RefreshToken};
use crate::{
    error::{Error, RefreshError, RefreshErrorKind},
    http::transport::HttpClient,
    oauth::{App, SfdxAuthUrl},
    refresh::hook::{RefreshContext, RefreshFn},
    report::reason::{RefreshDescription, RefreshReason},
    session::{session::Session, url::LoginUrl},
    text::pasted,
};

/// The login that the environment variables of the process name: for examples, tools and tests against a real org.
///
/// The first row with all its variables counts. The last one needs no variable: after `sf org login web` there is
/// nothing to set.
///
/// | variables | flow |
/// |---|---|
/// | `SFDX_AUTH_URL` | [`RefreshToken::from_sfdx_auth_url`] |
/// | `SF_CLIENT_ID`, `SF_LOGIN_URL`, `SF_JWT_KEY_FILE`, `SF_USERNAME` | [`JwtBearer`](super::JwtBearer), with the key in this file (feature `jwt`) |
/// | `SF_CLIENT_ID`, `SF_LOGIN_URL`, `SF_CLIENT_SECRET` | [`ClientCredentials`] |
/// | `SF_ACCESS_TOKEN`, `SF_ORG_INSTANCE_URL` | this session, until it ends |
/// | `SF_TARGET_ORG`, or none | `SalesforceCli` (feature `cli`), with the org of this alias or the default org |
///
/// The CLI itself has the variables `SF_ACCESS_TOKEN`, `SF_ORG_INSTANCE_URL` and `SF_TARGET_ORG`, with this meaning. A
/// variable that is empty or blank counts as not set.
///
/// ```no_run
/// use tower_salesforce_auth::{
///     RefreshError, SalesforceAuthLayer,
///     flow::{HttpClient, Login},
/// };
///
/// fn layer(http: impl HttpClient) -> Result<SalesforceAuthLayer, RefreshError> {
///     Ok(SalesforceAuthLayer::new(Login::from_env(http)?))
/// }
/// ```
///
/// A service should name its flow, so that no variable changes who it logs in as.
#[derive(Clone)]
#[must_use = "a flow does nothing until you give it to a layer or a handle"]
pub struct Login<C>(Way<C>);

#[derive(Clone)]
enum Way<C> {
    RefreshToken(RefreshToken<C>),
    #[cfg(feature = "jwt")]
    JwtBearer(JwtBearer<C>),
    ClientCredentials(ClientCredentials<C>),
    AccessToken(Box<Session>),
    #[cfg(feature = "cli")]
    SalesforceCli {
        cli: SalesforceCli,
        /// What each row before the CLI lacked.
        lacked: String,
    },
}

impl<C: HttpClient> Login<C> {
    /// Chooses the login by the variables of this process.
    ///
    /// # Errors
    ///
    /// [`RefreshErrorKind::Configuration`] if a variable cannot be used, or if variables of a row are set and others are
    /// missing. The error lists what was tried, and what each row lacked. So does the error of the first refresh, if only
    /// the CLI was left and cannot log in.
    pub fn from_env(client: C) -> Result<Self, RefreshError> {
        Self::from_lookup(client, |name| env::var_os(name))
    }

    /// Chooses the login by the variables that `lookup` returns.
    ///
    /// ```
    /// use tower_salesforce_auth::flow::{HttpClient, Login};
    ///
    /// fn check(http: impl HttpClient) {
    ///     let vars = [("SF_ACCESS_TOKEN", "00Dxx0000001gEF!AQEAQ")];
    ///     let lookup = |name: &str| Some(vars.iter().find(|(var, _)| *var == name)?.1);
    ///     let error = Login::from_lookup(http, lookup).unwrap_err();
    ///     assert!(error.to_string().contains("SF_ORG_INSTANCE_URL is not set"));
    /// }
    /// # check(tower_salesforce_auth::emulator::Org::new());
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`from_env`](Self::from_env).
    pub fn from_lookup<V: Into<OsString>>(
        client: C,
        lookup: impl Fn(&str) -> Option<V>,
    ) -> Result<Self, RefreshError> {
        let mut search = Search {
            lookup: |name: &str| lookup(name).map(Into::into),
            lacked: Vec::new(),
            has_begun: false,
        };
        if let Some(url) = search.sfdx_auth_url()? {
            let flow = RefreshToken::from_sfdx_auth_url(client, &url);
            return Ok(Self(Way::RefreshToken(flow)));
        }
        if let Some(way) = search.app(&client)? {
            return Ok(Self(way));
        }
        if let Some(session) = search.access_token()? {
            return Ok(Self(Way::AccessToken(Box::new(session))));
        }
        search.salesforce_cli().map(Self)
    }
}

// === The search ===

/// The search for a login, row by row.
struct Search<L> {
    lookup: L,
    /// What each row so far lacked.
    lacked: Vec<String>,
    /// Whether a variable of a row was set that another row does not have.
    has_begun: bool,
}

impl<L: Fn(&str) -> Option<OsString>> Search<L> {
    /// The value of a variable. `None` if it is not set, or blank.
    fn get(&self, name: &str) -> Result<Option<String>, RefreshError> {
        let Some(value) = (self.lookup)(name) else {
            return Ok(None);
        };
        let value = value
            .into_string()
            .map_err(|_| unusable(name, "is not in UTF-8"))?;
        Ok(Some(value).filter(|value| !pasted::credential(value).is_empty()))
    }

    fn lacks(&mut self, what: &str, missing: &[&str]) {
        let verb = if missing.len() == 1 { "is" } else { "are" };
        self.lacked
            .push(format!("{what}: {} {verb} not set", missing.join(", ")));
    }

    fn sfdx_auth_url(&mut self) -> Result<Option<SfdxAuthUrl>, RefreshError> {
        const NAME: &str = "SFDX_AUTH_URL";
        match self.get(NAME)? {
            Some(url) => url.parse().map(Some).map_err(|error| invalid(NAME, &error)),
            None => {
                self.lacks("an SFDX auth URL", &[NAME]);
                Ok(None)
            }
        }
    }

    /// JWT bearer or client credentials.
    fn app<C: HttpClient>(&mut self, client: &C) -> Result<Option<Way<C>>, RefreshError> {
        const WHAT: &str = "an app with a key or a secret";
        let client_id = self.get("SF_CLIENT_ID")?;
        let login_url = self.get("SF_LOGIN_URL")?;
        let client_secret = self.get("SF_CLIENT_SECRET")?;
        let key_file = self.get("SF_JWT_KEY_FILE")?;
        let username = self.get("SF_USERNAME")?;
        self.has_begun |= client_id.is_some() || client_secret.is_some() || key_file.is_some();

        let needs_username = key_file.is_some() && username.is_none() && client_secret.is_none();
        let missing: Vec<&str> = [
            ("SF_CLIENT_ID", client_id.is_none()),
            ("SF_LOGIN_URL", login_url.is_none()),
            (
                "SF_JWT_KEY_FILE or SF_CLIENT_SECRET",
                key_file.is_none() && client_secret.is_none(),
            ),
            ("SF_USERNAME", needs_username),
        ]
        .into_iter()
        .filter_map(|(name, is_missing)| is_missing.then_some(name))
        .collect();
        let (Some(client_id), Some(login_url), true) = (client_id, login_url, missing.is_empty())
        else {
            self.lacks(WHAT, &missing);
            return Ok(None);
        };
        let login_url: LoginUrl = login_url
            .parse()
            .map_err(|error| invalid("SF_LOGIN_URL", &error))?;
        let app = App::new(login_url, client_id);
        if let (Some(key_file), Some(username)) = (key_file, username) {
            return jwt_bearer(client.clone(), app, &key_file, username).map(Some);
        }
        Ok(client_secret.map(|client_secret| {
            let flow = ClientCredentials::new(client.clone(), app.client_secret(client_secret));
            Way::ClientCredentials(flow)
        }))
    }

    fn access_token(&mut self) -> Result<Option<Session>, RefreshError> {
        const NAMES: [&str; 2] = ["SF_ACCESS_TOKEN", "SF_ORG_INSTANCE_URL"];
        let [token, instance_url] = NAMES.map(|name| self.get(name));
        let (token, instance_url) = (token?, instance_url?);
        self.has_begun |= token.is_some();
        match (token, instance_url) {
            (Some(token), Some(instance_url)) => {
                let session = Session::new(pasted::text(token), &instance_url);
                session
                    .map(Some)
                    .map_err(|error| invalid(&NAMES.join(" with "), &error))
            }
            (token, instance_url) => {
                let are_set = [token.is_some(), instance_url.is_some()];
                let names = NAMES.into_iter().zip(are_set);
                let missing: Vec<&str> = names
                    .filter_map(|(name, is_set)| (!is_set).then_some(name))
                    .collect();
                self.lacks("an access token", &missing);
                Ok(None)
            }
        }
    }

    /// The CLI, which needs no variable. It is not what a user means who has set a part of another row.
    fn salesforce_cli<C>(mut self) -> Result<Way<C>, RefreshError> {
        let target_org = self.get("SF_TARGET_ORG")?;
        let reason = if self.has_begun {
            "not tried, since variables of another login are set"
        } else if cfg!(not(feature = "cli")) {
            "needs the feature `cli`"
        } else {
            ""
        };
        #[cfg(feature = "cli")]
        if reason.is_empty() {
            let cli = match target_org {
                Some(target_org) => SalesforceCli::new().target_org(target_org),
                None => SalesforceCli::new(),
            };
            let lacked = self.lacked.join("; ");
            return Ok(Way::SalesforceCli { cli, lacked });
        }
        #[cfg(not(feature = "cli"))]
        drop(target_org);
        self.lacked.push(format!("the Salesforce CLI: {reason}"));
        Err(none(&self.lacked.join("; ")))
    }
}

#[cfg(feature = "jwt")]
fn jwt_bearer<C: HttpClient>(
    client: C,
    app: App,
    key_file: &str,
    username: String,
) -> Result<Way<C>, RefreshError> {
    const NAME: &str = "SF_JWT_KEY_FILE";
    let pem = std::fs::read(pasted::unwrapped(key_file))
        .map_err(|error| unusable(NAME, &format!("names a file that cannot be read: {error}")))?;
    let key = crate::oauth::PrivateKey::from_pem(pem).map_err(|error| invalid(NAME, &error))?;
    Ok(Way::JwtBearer(JwtBearer::new(client, app, username, key)))
}

#[cfg(not(feature = "jwt"))]
fn jwt_bearer<C>(
    _client: C,
    _app: App,
    _key_file: &str,
    _username: String,
) -> Result<Way<C>, RefreshError> {
    Err(unusable("SF_JWT_KEY_FILE", "needs the feature `jwt`"))
}

/// The error of a variable that cannot be used.
fn unusable(name: &str, fault: &str) -> RefreshError {
    RefreshError::unusable_setting(format!("the variable {name} {fault}"))
}

fn invalid(name: &str, error: &Error) -> RefreshError {
    RefreshError::unusable_setting(format!("the variable {name} cannot be used: {error}"))
}

/// The error if there is no login.
fn none(tried: &str) -> RefreshError {
    RefreshError::unusable_setting(format!("the environment has no login ({tried})"))
}

// === The flow ===

impl<C: HttpClient> RefreshFn for Login<C> {
    async fn refresh(&self, context: RefreshContext) -> Result<Session, RefreshError> {
        match &self.0 {
            Way::RefreshToken(flow) => flow.refresh(context).await,
            #[cfg(feature = "jwt")]
            Way::JwtBearer(flow) => flow.refresh(context).await,
            Way::ClientCredentials(flow) => flow.refresh(context).await,
            Way::AccessToken(session) => same_again(session, &context),
            #[cfg(feature = "cli")]
            Way::SalesforceCli { cli, lacked } => {
                let is_first = context.previous().is_none();
                let session = cli.refresh(context).await;
                session.map_err(|error| {
                    if is_first && error.kind() == RefreshErrorKind::Configuration {
                        none(&format!("{lacked}; {error}"))
                    } else {
                        error
                    }
                })
            }
        }
    }

    fn describe(&self, context: &RefreshContext) -> Option<RefreshDescription> {
        match &self.0 {
            Way::RefreshToken(flow) => flow.describe(context),
            #[cfg(feature = "jwt")]
            Way::JwtBearer(flow) => flow.describe(context),
            Way::ClientCredentials(flow) => flow.describe(context),
            Way::AccessToken(session) => {
                let host = session.instance_url().host().to_owned();
                Some(RefreshDescription::new("access_token", host))
            }
            #[cfg(feature = "cli")]
            Way::SalesforceCli { cli, .. } => cli.describe(context),
        }
    }

    fn app(&self) -> Option<&App> {
        match &self.0 {
            Way::RefreshToken(flow) => flow.app(),
            #[cfg(feature = "jwt")]
            Way::JwtBearer(flow) => flow.app(),
            Way::ClientCredentials(flow) => flow.app(),
            Way::AccessToken(_) => None,
            // The app of the CLI, or of the CLI's login.
            #[cfg(feature = "cli")]
            Way::SalesforceCli { .. } => None,
        }
    }
}

/// The session of an access token that nothing refreshes.
fn same_again(session: &Session, context: &RefreshContext) -> Result<Session, RefreshError> {
    if context.reason() == RefreshReason::Rejected {
        return Err(RefreshError::new(
            RefreshErrorKind::Refused,
            true,
            "the session of SF_ACCESS_TOKEN has ended, and nothing refreshes it: set a new access token, or one of the other \
             logins",
        ));
    }
    Ok(session.clone())
}

impl<C> fmt::Debug for Login<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way: &dyn fmt::Debug = match &self.0 {
            Way::RefreshToken(flow) => flow,
            #[cfg(feature = "jwt")]
            Way::JwtBearer(flow) => flow,
            Way::ClientCredentials(flow) => flow,
            Way::AccessToken(session) => &**session,
            #[cfg(feature = "cli")]
            Way::SalesforceCli { cli, .. } => cli,
        };
        f.debug_tuple("Login").field(way).finish()
    }
}
