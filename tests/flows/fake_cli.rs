//! A fake `sf`: a shell script in a directory of its own.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tower_salesforce_auth::flow::SalesforceCli;

/// The commands that the flow runs.
pub(crate) const SHOW: &str = "org auth show-access-token";
pub(crate) const DISPLAY: &str = "org display";

/// The session that the CLI of most tests has.
pub(crate) const TOKEN: &str = "00Dxx0000001gEF!AQEAQfakeTokenOfTheCli";
pub(crate) const INSTANCE: &str = "https://acme.my.salesforce.com";

/// What a CLI of 2026 shows in place of secrets.
pub(crate) const REDACTED: &str = "[REDACTED] Use 'sf org auth show-access-token' to view";

pub(crate) struct FakeCli(TempDir);

impl FakeCli {
    /// A CLI that runs the part of a script for each of its commands. `$here` is its directory.
    pub(crate) fn new(commands: &[(&str, String)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let begin = "#!/bin/sh\nhere=${0%/*}\necho \"$*\" >> \"$here/calls\"\ncase \"$*\" in\n";
        let parts = commands
            .iter()
            .map(|(command, part)| format!("'{command}'*)\n{part}\n;;\n"));
        let end = format!("*)\n{}\n;;\nesac\n", no_such_command("$*"));
        let script = [begin.to_owned(), parts.collect(), end].concat();
        // Written by another process: a file that is open for writing cannot be run, and a child of another test may hold it
        // open for a moment.
        let mut shell = Command::new("sh")
            .args(["-c", "cat > sf && chmod +x sf && mkfifo alive never"])
            .current_dir(directory.path())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = shell.stdin.take().unwrap();
        stdin.write_all(script.as_bytes()).unwrap();
        drop(stdin);
        assert!(shell.wait().unwrap().success());
        Self(directory)
    }

    /// A CLI that is logged in.
    pub(crate) fn logged_in() -> Self {
        Self::new(&[(SHOW, prints(&token(TOKEN))), (DISPLAY, prints(&org()))])
    }

    pub(crate) fn directory(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// The flow that runs it.
    pub(crate) fn flow(&self) -> SalesforceCli {
        SalesforceCli::new().program(self.file("sf"))
    }

    /// The commands that were run, with their options.
    pub(crate) fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.file("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    /// Waits until a part of the script that [`stays`] has begun. Returns what ends when it has ended, with its children.
    pub(crate) async fn begun(&self) -> Alive {
        let path = self.file("alive");
        let begun = tokio::task::spawn_blocking(move || {
            let mut pipe = BufReader::new(File::open(path).unwrap());
            pipe.read_line(&mut String::new()).unwrap();
            Alive(pipe)
        });
        begun.await.unwrap()
    }
}

/// A pipe that the CLI and its children hold open.
pub(crate) struct Alive(BufReader<File>);

impl Alive {
    /// Waits until no process holds the pipe.
    pub(crate) async fn ended(mut self) {
        let end = tokio::task::spawn_blocking(move || {
            let mut rest = String::new();
            self.0.read_to_string(&mut rest).unwrap();
            rest
        });
        assert_eq!(end.await.unwrap(), "");
    }
}

// === Parts of a script ===

pub(crate) fn prints(json: &Value) -> String {
    says(&json.to_string())
}

pub(crate) fn says(text: &str) -> String {
    format!("cat <<'END'\n{text}\nEND")
}

/// Fails with an error of the CLI.
pub(crate) fn fails(name: &str, message: &str) -> String {
    let failure =
        json!({"name": name, "message": message, "status": 1, "exitCode": 1, "warnings": []});
    format!("{}\nexit 1", prints(&failure))
}

/// What the CLI says to a command that it does not have.
pub(crate) fn no_such_command(command: &str) -> String {
    format!(
        "echo ' ›   Warning: {command} is not a sf command.' >&2\n\
         echo ' ›   Error: Run sf help org for a list of available commands.' >&2\nexit 127"
    )
}

/// Says that it has begun, and then stays for ever, with a child that does.
pub(crate) fn stays() -> String {
    "exec 9> \"$here/alive\"\nsh -c 'read line < \"$1\"' sh \"$here/never\" &\necho begun >&9\nread line < \"$here/never\""
        .to_owned()
}

// === Answers of the CLI ===

pub(crate) fn token(token: &str) -> Value {
    let warning = "This command exposes a sensitive Access Token.";
    json!({"status": 0, "result": {"accessToken": token}, "warnings": [warning]})
}

/// The org, as a CLI of 2026 shows it.
pub(crate) fn org() -> Value {
    org_with(REDACTED, "Connected")
}

pub(crate) fn org_with(access_token: &str, connected_status: &str) -> Value {
    json!({
        "status": 0,
        "result": {
            "id": "00Dxx0000001gEFEAY",
            "apiVersion": "66.0",
            "accessToken": access_token,
            "instanceUrl": INSTANCE,
            "username": "user@example.com",
            "clientId": "PlatformCLI",
            "connectedStatus": connected_status,
        },
        "warnings": [],
    })
}
