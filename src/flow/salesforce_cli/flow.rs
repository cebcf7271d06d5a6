//! The flow that takes its sessions from the Salesforce CLI.

use std::{
    ffi::{OsStr, OsString},
    time::Duration,
};

use super::{
    answer::{self, Answer, Shown},
    failure::{self, Call},
    process,
};
use crate::{
    error::RefreshError,
    refresh::hook::{RefreshContext, RefreshFn},
    report::reason::{RefreshDescription, RefreshReason},
    secret::Secret,
    session::session::Session,
    text::pasted::{self, Rule},
};

/// Takes sessions from the Salesforce CLI, `sf`, in which a user has logged in: for programs on a developer's machine and
/// in CI.
///
/// ```no_run
/// use tower_salesforce_auth::{SalesforceAuthLayer, flow::SalesforceCli};
///
/// // After `sf org login web --alias sandbox`.
/// let layer = SalesforceAuthLayer::new(SalesforceCli::new().target_org("sandbox"));
/// ```
///
/// # What it runs
///
/// Each refresh runs `sf org auth show-access-token --json`, which checks the CLI's session, and refreshes it if it has
/// ended. The first one also runs `sf org display --json`, for the instance. So does one by
/// [`SessionHandle::refresh`](crate::SessionHandle::refresh), and one that finds that the alias now names another org. CLIs
/// before May 2026 have no `show-access-token`, and every refresh takes the token from `sf org display --json`.
///
/// The CLI keeps its refresh token and its files to itself: the flow reads neither. So the session has no refresh token,
/// and a logout does not end the CLI's own login.
///
/// # The child process
///
/// It gets no input, no colours (`NO_COLOR`), and this program's environment and working directory, where the CLI looks for
/// a project's default org. It sends no telemetry, and starts no update. It does not outlive its refresh: when the
/// refresh ends, takes too long or is dropped, the process is killed, with all it started. On Unix that is its process
/// group. On Windows it is `taskkill` that ends its descendants, if they still run.
///
/// The runtime needs tokio's IO driver, as `enable_all` or `#[tokio::main]` turn it on.
///
/// # Errors
///
/// | the CLI | error |
/// |---|---|
/// | is not installed, knows no such org, has no default org, hides its token | terminal: [`Configuration`](crate::RefreshErrorKind::Configuration) |
/// | is not logged in any longer, or fails otherwise | terminal: [`Refused`](crate::RefreshErrorKind::Refused), with the CLI's name of the error as [`error_code`](RefreshError::error_code) |
/// | does not reach Salesforce | transient: [`Transport`](crate::RefreshErrorKind::Transport) |
/// | does not answer in time | transient: [`TimedOut`](crate::RefreshErrorKind::TimedOut) |
/// | prints something else than its JSON | transient: [`InvalidResponse`](crate::RefreshErrorKind::InvalidResponse) |
///
/// After a terminal error and a new `sf org login web`, [`SessionHandle::reset`](crate::SessionHandle::reset) lets the layer
/// try again.
///
/// If Salesforce rejects a session that the CLI takes for a valid one, the CLI returns the same token again. The layer then
/// returns the rejection, and makes refreshes rarer, as for any other flow.
#[derive(Clone, Debug)]
#[must_use = "a flow does nothing until you give it to a layer or a handle"]
pub struct SalesforceCli {
    program: OsString,
    /// The alias or user name. `None` for the CLI's default org.
    target_org: Option<String>,
    timeout: Duration,
}

/// The program's name, which on Windows is that of a script.
const PROGRAM: &str = if cfg!(windows) { "sf.cmd" } else { "sf" };

/// Shorter than the refresh timeout, so that its error comes first.
const TIMEOUT: Duration = Duration::from_secs(25);

const SHOW_ACCESS_TOKEN: [&str; 3] = ["org", "auth", "show-access-token"];
const DISPLAY: [&str; 2] = ["org", "display"];

impl SalesforceCli {
    /// Takes the sessions of the CLI's default org.
    pub fn new() -> Self {
        Self {
            program: PROGRAM.into(),
            target_org: None,
            timeout: TIMEOUT,
        }
    }

    /// Takes the sessions of the org with this alias or user name. Default: the CLI's default org (`target-org`).
    pub fn target_org(mut self, alias_or_username: impl Into<String>) -> Self {
        self.target_org = Some(pasted::text(alias_or_username));
        self
    }

    /// Sets the program to run, as a name on the `PATH` or as a path. Default: `sf`, and `sf.cmd` on Windows.
    pub fn program(mut self, program: impl Into<OsString>) -> Self {
        self.program = program.into();
        self
    }

    /// Sets how long the CLI may take for one refresh. Default: 25 s.
    ///
    /// It should be shorter than the [refresh timeout](crate::handle::SessionHandleBuilder::refresh_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    async fn session(&self, context: &RefreshContext) -> Result<Session, RefreshError> {
        let call = self.call(&SHOW_ACCESS_TOKEN);
        let Some(shown) = self.run(&call, &SHOW_ACCESS_TOKEN).await? else {
            return self.session_of_display().await;
        };
        if shown.is_stale() {
            let (call, org) = self.display().await?;
            return Err(call.not_connected(status_of(&org).as_deref()));
        }
        let token = token_of(&call, &shown)?;
        let known = context.previous().filter(|known| {
            // A person who asks for a refresh may know of a change.
            context.reason() != RefreshReason::Manual
                && org_of(known.access_token().expose()) == org_of(token.expose())
        });
        let instance_url = match known {
            Some(known) => known.instance_url().to_string(),
            None => {
                let (call, org) = self.display().await?;
                let of_token = org_of(token.expose());
                let of_display = org.text("id");
                let of_display = of_display.as_deref().and_then(|id| id.get(..15));
                if of_token.zip(of_display).is_some_and(|(a, b)| a != b) {
                    return Err(call.another_org());
                }
                instance_of(&call, &org)?
            }
        };
        session(&call, token, &instance_url)
    }

    /// The session from a CLI that has one command for all.
    async fn session_of_display(&self) -> Result<Session, RefreshError> {
        let (call, org) = self.display().await?;
        let status = status_of(&org);
        let is_connected = status.as_deref().is_none_or(failure::is_connected);
        if org.is_stale() || !is_connected {
            return Err(call.not_connected(status.as_deref()));
        }
        let token = token_of(&call, &org)?;
        let instance_url = instance_of(&call, &org)?;
        session(&call, token, &instance_url)
    }

    /// What the CLI knows of the org.
    async fn display(&self) -> Result<(Call<'_>, Shown), RefreshError> {
        let call = self.call(&DISPLAY);
        match self.run(&call, &DISPLAY).await? {
            Some(org) => Ok((call, org)),
            None => Err(call.outdated()),
        }
    }

    fn call(&self, command: &[&str]) -> Call<'_> {
        let name = OsStr::new(&self.program).display();
        Call {
            program: &self.program,
            command: format!("{name} {}", command.join(" ")),
        }
    }

    /// Runs a command. `None` if this CLI does not have it.
    async fn run(&self, call: &Call<'_>, command: &[&str]) -> Result<Option<Shown>, RefreshError> {
        let mut arguments = command.to_vec();
        arguments.push("--json");
        if let Some(target_org) = &self.target_org {
            arguments.extend(["--target-org", target_org]);
        }
        let output = process::run(&self.program, &arguments)
            .await
            .map_err(|failure| call.not_run(failure))?;
        match answer::read(&output, command.last().copied().unwrap_or_default()) {
            Answer::Result(shown) => Ok(Some(shown)),
            Answer::NoSuchCommand => Ok(None),
            Answer::Failed { name, message } => Err(call.refused(&name, &message)),
            Answer::Unreadable(told) => Err(call.unreadable(&told, output.code)),
        }
    }

    /// Refuses a name that cannot be one, before the CLI takes it for an option.
    fn check(&self) -> Result<(), RefreshError> {
        let Some(target_org) = &self.target_org else {
            return Ok(());
        };
        let what = "alias or user name of the org";
        pasted::check(what, target_org, Rule::Name).map_err(RefreshError::unusable_setting)?;
        if target_org.starts_with('-') {
            let message = format!("the {what} begins with a hyphen, as an option does");
            return Err(RefreshError::unusable_setting(message));
        }
        Ok(())
    }
}

/// Whether the CLI's session works, in its own words; for a scratch org, whether that exists. `None` if it says nothing.
fn status_of(org: &Shown) -> Option<String> {
    org.text("connectedStatus").or_else(|| org.text("status"))
}

/// The access token, if it is one.
fn token_of(call: &Call<'_>, shown: &Shown) -> Result<Secret, RefreshError> {
    let Some(token) = shown.access_token() else {
        return Err(call.no_token("showed no access token: log in again with `sf org login web`"));
    };
    if token.expose().to_ascii_lowercase().contains("redacted]") {
        return Err(call.redacted());
    }
    match pasted::not_an_access_token(token.expose()) {
        Some(fault) => Err(call.no_token(&format!("showed an access token that {fault}"))),
        None => Ok(token),
    }
}

fn instance_of(call: &Call<'_>, org: &Shown) -> Result<String, RefreshError> {
    let instance_url = org.text("instanceUrl");
    instance_url.ok_or_else(|| {
        call.no_token("showed no `instanceUrl` of the org: log in again with `sf org login web`")
    })
}

fn session(call: &Call<'_>, token: Secret, instance_url: &str) -> Result<Session, RefreshError> {
    Session::from_answer(token, instance_url)
        .map_err(|error| call.no_token(&format!("gave no usable session: {error}")))
}

/// The id of the org that an access token begins with: 15 characters, then `!`. `None` for a JWT.
fn org_of(token: &str) -> Option<&str> {
    token.split_once('!')?.0.get(..15)
}

impl Default for SalesforceCli {
    fn default() -> Self {
        Self::new()
    }
}

impl RefreshFn for SalesforceCli {
    async fn refresh(&self, context: RefreshContext) -> Result<Session, RefreshError> {
        self.check()?;
        match tokio::time::timeout(self.timeout, self.session(&context)).await {
            Ok(session) => session,
            Err(_) => Err(failure::hang(&self.program, self.timeout)),
        }
    }

    fn describe(&self, _context: &RefreshContext) -> Option<RefreshDescription> {
        let org = self.target_org.as_deref().unwrap_or("default org");
        Some(RefreshDescription::new("salesforce_cli", org.to_owned()))
    }
}
