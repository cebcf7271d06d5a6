//! Why the CLI gave no session, what to do, and whether another attempt can help.

use std::{ffi::OsStr, io, time::Duration};

use super::process;
use crate::{
    error::{RefreshError, RefreshErrorKind},
    http::{
        advice::{self, Outlook},
        server_error::LOGIN_RATE_DELAY,
    },
    text::redact::{redact, redact_code, without_tokens},
};

/// Makes the errors of one call.
pub(super) struct Call<'a> {
    pub(super) program: &'a OsStr,
    /// The command, as it is typed.
    pub(super) command: String,
}

const INSTALL: &str =
    "install it with `npm install --global @salesforce/cli`, and log in with `sf org login web`";

const LOG_IN: &str = "log in again with `sf org login web`";

/// What to do about the errors of the CLI, by their names. Another attempt does not help.
const KNOWN: &[(&[&str], &str)] = &[
    (
        &[
            "NamedOrgNotFoundError",
            "NamedOrgNotFound",
            "NamedOrgNotFoundException",
            "AuthInfoCreationError",
        ],
        "it knows no org of this alias or user name: `sf org list` lists those it knows, and `sf org login web --alias <alias>` \
         adds one",
    ),
    (
        &[
            "NoDefaultEnvError",
            "NoDefaultOrgError",
            "NoUsernameFoundError",
            "NoUsernameFound",
            "RequiresUsernameError",
        ],
        "name an org, or make one the default with `sf config set target-org=<alias>`; `sf org login web --set-default` logs \
         in to one",
    ),
    (
        &["OrgDataNotAvailableError"],
        "the org no longer exists, for example because it was a scratch org and has expired",
    ),
    (
        &[
            "RefreshTokenAuthError",
            "NoAccessTokenError",
            "INVALID_SESSION_ID",
            "Bad_OAuth_Token",
            "AuthDecryptError",
        ],
        LOG_IN,
    ),
];

/// What errors of the network, of an overloaded server, or of another CLI at the same files have in their name or message.
const PASSING: [&str; 14] = [
    "EAI_AGAIN",
    "ECONNABORTED",
    "ECONNREFUSED",
    "ECONNRESET",
    "EHOSTUNREACH",
    "ELOCKED",
    "ENETUNREACH",
    "ENOTFOUND",
    "EPIPE",
    "ERROR_HTTP_5",
    "ETIMEDOUT",
    "Maintenance",
    "Bad Response",
    "socket hang up",
];

/// What an error of the CLI means.
struct Cause {
    kind: RefreshErrorKind,
    is_terminal: bool,
    advice: &'static str,
    /// The shortest delay before another attempt. `None` if that of the layer is long enough.
    delay: Option<Duration>,
}

impl Cause {
    fn of(name: &str, message: &str) -> Self {
        let known = KNOWN.iter().find(|(names, _)| names.contains(&name));
        let known = known.map(|(_, advice)| *advice);
        let is_in_it = |part: &&str| name.contains(part) || message.contains(part);
        let row = advice::find(name, message);
        let (kind, is_terminal, advice) = if let Some(row) = row {
            let is_terminal = row.outlook == Outlook::Terminal;
            (RefreshErrorKind::Refused, is_terminal, row.advice)
        } else if PASSING.iter().any(is_in_it) {
            let advice = "check that it reaches Salesforce";
            (RefreshErrorKind::Transport, false, advice)
        } else if known == Some(LOG_IN) || message.contains("refresh token") {
            (RefreshErrorKind::Refused, true, LOG_IN)
        } else if let Some(advice) = known {
            (RefreshErrorKind::Configuration, true, advice)
        } else {
            let advice = "run the command to see more";
            (RefreshErrorKind::Refused, true, advice)
        };
        Self {
            kind,
            is_terminal,
            advice,
            delay: row
                .filter(|row| row.outlook == Outlook::TooManyLogins)
                .map(|_| LOGIN_RATE_DELAY),
        }
    }
}

impl Call<'_> {
    fn error(&self, kind: RefreshErrorKind, is_terminal: bool, what: &str) -> RefreshError {
        let message = format!("the Salesforce CLI (`{}`) {what}", self.command);
        RefreshError::new(kind, is_terminal, message)
    }

    /// The error of a call without output.
    pub(super) fn not_run(&self, failure: process::Failure) -> RefreshError {
        use process::Failure;

        match failure {
            Failure::Start(error) => self.not_started(error),
            Failure::TooLong => self.error(
                RefreshErrorKind::InvalidResponse,
                false,
                "printed more than the CLI does: check that this program is the Salesforce CLI",
            ),
            Failure::Read(error) => self
                .error(
                    RefreshErrorKind::Transport,
                    false,
                    "broke off before its answer was read",
                )
                .with_source(error),
        }
    }

    fn not_started(&self, error: io::Error) -> RefreshError {
        let program = self.program.display();
        let (is_terminal, what) = match error.kind() {
            io::ErrorKind::NotFound => (
                true,
                format!("was not found: there is no `{program}` on the PATH; {INSTALL}"),
            ),
            io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput => (
                true,
                format!("cannot be run: check that `{program}` is a program, and may be run"),
            ),
            _ => (false, format!("`{program}` could not be started")),
        };
        self.error(RefreshErrorKind::Configuration, is_terminal, &what)
            .with_source(error)
    }

    /// The error of a call that the CLI refused with its reason. The name of the error may be empty.
    pub(super) fn refused(&self, name: &str, message: &str) -> RefreshError {
        let [name, message] = [name, message].map(without_tokens);
        // The CLI adds its own advice in further lines.
        let message = message.trim_end_matches("See more help with --help").trim();
        let cause = Cause::of(&name, message);
        let [name, message] = [redact_code(&name, &[]), redact(message, &[])];
        let told = match (&*name, &*message) {
            (told, "") | ("", told) => told.to_owned(),
            (name, message) => format!("{name} ({message})"),
        };
        let advice = cause.advice;
        let what = format!("failed: {told}: {advice}");
        let error = self
            .error(cause.kind, cause.is_terminal, &what)
            .with_delay(None, cause.delay);
        if name.is_empty() {
            error
        } else {
            error.with_error_code(&name)
        }
    }

    /// The error of a CLI whose session has ended, and that could not get another. `status` is what it says about that.
    pub(super) fn not_connected(&self, status: Option<&str>) -> RefreshError {
        match status {
            // A sentence, or the name of an error.
            Some(status) if status.contains(' ') => self.refused("", status),
            Some(status) if !is_connected(status) => self.refused(status, ""),
            // It is connected again.
            _ => self.error(
                RefreshErrorKind::Transport,
                false,
                "could not refresh its session: check the network, or log in again with `sf org login web`",
            ),
        }
    }

    /// The error of output that has no JSON of the CLI.
    pub(super) fn unreadable(&self, told: &str, code: Option<i32>) -> RefreshError {
        let told = redact(without_tokens(told).trim(), &[]);
        let told = match &*told {
            "" => "nothing".to_owned(),
            told => format!("\"{told}\""),
        };
        // A shell that does not find or may not run a program, for example the `node` of the CLI.
        let is_broken = matches!(code, Some(126 | 127));
        let (kind, advice) = if is_broken {
            (
                RefreshErrorKind::Configuration,
                "check that the command runs in a terminal",
            )
        } else {
            (
                RefreshErrorKind::InvalidResponse,
                "check that this program is the Salesforce CLI, and that it is whole",
            )
        };
        self.error(
            kind,
            is_broken,
            &format!("printed no JSON, but {told}: {advice}"),
        )
    }

    /// The error of an answer that lacks the access token, or hides it.
    pub(super) fn no_token(&self, fault: &str) -> RefreshError {
        self.error(RefreshErrorKind::InvalidResponse, true, fault)
    }

    /// The error of a CLI that shows no token in any command.
    pub(super) fn redacted(&self) -> RefreshError {
        self.error(
            RefreshErrorKind::Configuration,
            true,
            "hides its access token, and has no command that shows it: update it with `sf update`, or with `npm install \
             --global @salesforce/cli`",
        )
    }

    /// The error of a program that has no command for orgs.
    pub(super) fn outdated(&self) -> RefreshError {
        self.error(
            RefreshErrorKind::Configuration,
            true,
            "has no such command: update it, or check that this program is the Salesforce CLI; `sfdx` is its older name",
        )
    }

    /// The error of an answer for another org than the one before.
    pub(super) fn another_org(&self) -> RefreshError {
        self.error(
            RefreshErrorKind::Other,
            false,
            "answered for two orgs: its alias or default org has changed meanwhile",
        )
    }
}

/// Whether the CLI says that its session works, or says nothing.
pub(super) fn is_connected(status: &str) -> bool {
    matches!(status, "Connected" | "Unknown" | "Active")
}

/// The error of a CLI that did not answer in time.
pub(super) fn hang(program: &OsStr, timeout: Duration) -> RefreshError {
    RefreshError::new(
        RefreshErrorKind::TimedOut,
        false,
        format!(
            "the Salesforce CLI (`{}`) did not answer within {} s, and was stopped: check that it runs in a terminal without \
             a question, and that it reaches Salesforce; SalesforceCli::timeout gives it more time",
            program.display(),
            timeout.as_secs_f32(),
        ),
    )
}
