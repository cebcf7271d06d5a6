//! The machine and the versions that the figures come from.

use std::{env::consts, fs, process::Command, thread};

/// Crates whose versions influence the figures.
const CRATES: [&str; 8] = [
    "hyper",
    "hyper-util",
    "tower",
    "tower-http",
    "http",
    "tokio",
    "arc-swap",
    "bytes",
];

/// Facts and their names.
pub(crate) fn facts() -> Vec<(&'static str, String)> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = model_name(&cpu).unwrap_or("a processor of no known name");
    let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock");
    let lock = fs::read_to_string(lock).unwrap_or_default();
    let crates = CRATES.map(|name| format!("{name} {}", versions(&lock, name)));
    vec![
        (
            "machine",
            format!("{cpu}, {cores} cores, {} {}", consts::OS, consts::ARCH),
        ),
        ("compiler", compiler()),
        (
            "crate",
            format!("tower-salesforce-auth {}", env!("CARGO_PKG_VERSION")),
        ),
        ("beside it", crates.join(", ")),
        (
            "written by",
            "`cargo bench -p benches --bench report`; compare within one run only".to_string(),
        ),
        (
            "other crates",
            "`benches/report/peers.md`, which `benches/peers` writes".to_string(),
        ),
    ]
}

fn compiler() -> String {
    let said = Command::new("rustc").arg("--version").output();
    let said = said.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string());
    said.unwrap_or("unknown".to_string())
}

fn model_name(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo
        .lines()
        .find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

/// The versions of a crate in a lock file. There are several if dependencies need different ones.
fn versions(lock: &str, name: &str) -> String {
    let package = format!("name = \"{name}\"");
    let lines = lock.lines().zip(lock.lines().skip(1));
    let versions = lines
        .filter(|(line, _)| *line == package)
        .filter_map(|(_, next)| next.strip_prefix("version = "))
        .map(|version| version.trim_matches('"'));
    versions.collect::<Vec<_>>().join(" and ")
}
