//! What the CLI prints with `--json`, old and new.

use super::process::Output;
use crate::{
    secret::Secret,
    text::{fields::Fields, terminal::without_escapes},
};

/// An answer of the CLI.
pub(super) enum Answer {
    /// The command succeeded.
    Result(Shown),
    /// The command failed. Neither text is safe to show.
    Failed { name: String, message: String },
    /// This version of the CLI does not have the command.
    NoSuchCommand,
    /// The output has no JSON of the CLI. The text is what it printed for people, and not safe to show.
    Unreadable(String),
}

/// The result of a command that shows an access token, or an org.
pub(super) struct Shown {
    result: Fields,
    warnings: Vec<String>,
}

impl Shown {
    /// A text of the result. `None` if there is none.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.result.string(name)
    }

    /// The access token. `None` if there is none.
    pub(super) fn access_token(&self) -> Option<Secret> {
        self.text("accessToken").map(Secret::from)
    }

    /// Whether the CLI could not refresh its session, and shows the last one.
    pub(super) fn is_stale(&self) -> bool {
        let is_warning = |warning: &String| {
            warning
                .to_ascii_lowercase()
                .contains("unable to refresh auth")
        };
        self.warnings.iter().any(is_warning)
    }
}

/// Reads the output of a command whose last word is `command`.
pub(super) fn read(output: &Output, command: &str) -> Answer {
    // Some errors are on one stream, some on the other.
    let streams = [&output.stdout, &output.stderr].map(|stream| plain(stream));
    let answer = streams.iter().find_map(|text| of_json(text, command));
    answer.unwrap_or_else(|| {
        let [stdout, stderr] = streams;
        let told = if stderr.trim().is_empty() {
            stdout
        } else {
            stderr
        };
        if is_unknown_command(&told, command) {
            Answer::NoSuchCommand
        } else {
            Answer::Unreadable(told)
        }
    })
}

/// The output without colours, around the JSON and in its strings.
fn plain(text: &str) -> String {
    let text = text
        .replace("\\u001b", "\u{1b}")
        .replace("\\u001B", "\u{1b}");
    without_escapes(&text).into_owned()
}

/// Reads the JSON in a text, which may come after warnings.
fn of_json(text: &str, command: &str) -> Option<Answer> {
    const NAMES: [&str; 4] = ["status", "result", "name", "message"];
    let start = text.find('{')?;
    let fields = Fields::read(&text[start..], &NAMES)?;
    let has_failed = fields.text("status").is_some_and(|status| status != "0");
    if let Some(result) = fields.inner("result").filter(|_| !has_failed) {
        let warnings = fields.list("warnings");
        return Some(Answer::Result(Shown { result, warnings }));
    }
    let name = fields.string("name");
    let message = fields.string("message").unwrap_or_default();
    if is_unknown_command(&message, command) {
        return Some(Answer::NoSuchCommand);
    }
    Some(Answer::Failed {
        name: name?,
        message,
    })
}

/// Whether a text says that there is no such command, in the words of any version.
fn is_unknown_command(text: &str, command: &str) -> bool {
    text.contains(command) && (text.contains("is not a") || text.contains("not found"))
}
