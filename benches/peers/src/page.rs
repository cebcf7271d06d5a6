//! The page: where it was measured, and the table.

use std::{
    env::{self, consts},
    fs,
    process::Command,
    thread,
};

use crate::clients::{Contender, VERSIONS};

/// Collects the rows of the table.
pub(crate) struct Page {
    rows: Vec<(String, [String; Contender::COUNT])>,
    load: String,
}

impl Page {
    pub(crate) fn begin() -> Self {
        Self {
            rows: Vec::new(),
            load: load(),
        }
    }

    /// Adds a row. A contender without a cell has a dash.
    pub(crate) fn row(
        &mut self,
        name: impl Into<String>,
        cell: impl Fn(Contender) -> Option<String>,
    ) {
        let name = name.into();
        let cells = Contender::ALL.map(|one| cell(one).unwrap_or_else(|| "–".to_string()));
        eprintln!("{name}: {}", cells.join(" | "));
        self.rows.push((name, cells));
    }

    pub(crate) fn print(&self) {
        println!("# tower-salesforce-auth beside its peers\n");
        println!(
            "- machine: {}, {} cores, {} {}",
            processor(),
            cores(),
            consts::OS,
            consts::ARCH
        );
        println!(
            "- load average before and after, over 1, 5 and 15 minutes: {}; {}",
            self.load,
            load()
        );
        println!("- versions: {}", versions());
        println!("- compiler: {}", compiler());
        println!("- written by: `{}`; compare within one run only", command());
        println!("- [what the rows are, and what is left out](../peers/README.md)\n");
        if cfg!(debug_assertions) {
            println!("**Not optimised: a debug build. Its figures say nothing.**\n");
        }
        let names = Contender::ALL.map(Contender::name);
        println!("| measure | {} |", names.join(" | "));
        println!("|---{}|", "|---:".repeat(names.len()));
        for (name, cells) in &self.rows {
            println!("| {name} | {} |", cells.join(" | "));
        }
    }
}

fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let parts: Vec<_> = load.split(' ').take(3).collect();
    if parts.len() == 3 {
        parts.join(" ")
    } else {
        "unknown".to_string()
    }
}

/// The command that wrote the page.
fn command() -> String {
    let command = "cargo run --release --manifest-path benches/peers/Cargo.toml";
    let arguments: Vec<_> = env::args().skip(1).collect();
    if arguments.is_empty() {
        command.to_string()
    } else {
        format!("{command} -- {}", arguments.join(" "))
    }
}

fn compiler() -> String {
    let said = Command::new("rustc").arg("--version").output();
    let said = said.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string());
    said.unwrap_or("unknown".to_string())
}

fn processor() -> String {
    let about = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = about
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map(|model| model.trim_start_matches(['\t', ' ', ':']));
    model.unwrap_or("unknown processor").to_string()
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The versions in the lock file.
fn versions() -> String {
    let lock = include_str!("../Cargo.lock");
    let named = VERSIONS.iter().map(|name| {
        let package = format!("name = \"{name}\"\nversion = \"");
        let found = lock
            .split(&package)
            .skip(1)
            .filter_map(|after| after.split('"').next());
        format!("{name} {}", found.collect::<Vec<_>>().join(" and "))
    });
    named.collect::<Vec<_>>().join(", ")
}
