//! Runs this program under valgrind's callgrind, and reads what it counted.

use std::{env, fs, process::Command};

/// Whether there is a valgrind. Says so if there is none.
pub(crate) fn is_there() -> bool {
    let is_there = Command::new("valgrind").arg("--version").output().is_ok();
    if !is_there {
        println!("There is no valgrind here: nothing was counted.");
    }
    is_there
}

/// The instructions of this program with these arguments: those inside functions whose names match `toggle`, or all.
pub(crate) fn count(toggle: Option<&str>, arguments: &[&str]) -> i64 {
    let program = env::current_exe().expect("this program");
    let report = env::temp_dir().join(format!("callgrind.{}.out", std::process::id()));
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", report.display()));
    if let Some(toggle) = toggle {
        valgrind
            .arg("--collect-atstart=no")
            .arg(format!("--toggle-collect={toggle}"));
    }
    let run = valgrind
        .arg(program)
        .args(arguments)
        .output()
        .expect("valgrind runs");
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
    let counted = fs::read_to_string(&report).expect("what callgrind counted");
    fs::remove_file(&report).expect("that it can be removed");
    let total = counted
        .lines()
        .find_map(|line| line.strip_prefix("totals: "))
        .and_then(|total| total.trim().parse().ok())
        .expect("a total");
    assert!(total > 0, "callgrind did not find what to count");
    total
}
