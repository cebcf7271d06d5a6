//! Runs the other benches, and writes their results beside the goals.
//!
//! ```sh
//! cargo bench -p benches --bench report
//! cargo bench -p benches --bench report -- refresh_storm end_to_end
//! cargo bench -p benches --bench report -- --again
//! ```
//!
//! The first line runs all benches, the second some of them, and the third no bench: the report takes the results that each
//! bench saved last. The report is a page, `target/report/index.html`, and for the repository `benches/report/README.md` with
//! its plots. It names the results that are missing.
#![allow(missing_docs)]

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use reporting::{
    criterion,
    document::{Document, markdown, page},
    environment, goals,
    kept::Kept,
    sections::sections,
};

mod figures;
mod reporting;

/// The link from this page to criterion's.
const CRITERION: &str = "../criterion/report/index.html";

/// The benches, in the order of the run.
const BENCHES: [&str; 10] = [
    "instructions",
    "end_to_end_instructions",
    "call_overhead",
    "read_contention",
    "replay_body",
    "refresh_storm",
    "end_to_end",
    "dpop",
    "many_sessions",
    "fleet",
];

fn main() -> io::Result<()> {
    if !figures::is_wanted() {
        return Ok(());
    }
    let arguments: Vec<_> = env::args().skip(1).collect();
    let named = |bench: &&str| arguments.iter().any(|argument| argument == bench);
    let benches: Vec<_> = if arguments.iter().any(|argument| argument == "--again") {
        Vec::new()
    } else if BENCHES.iter().any(named) {
        BENCHES.into_iter().filter(named).collect()
    } else {
        BENCHES.into()
    };
    let mut failed = Vec::new();
    for bench in benches {
        println!("\n=== {bench}\n");
        let has_run = Command::new(env!("CARGO"))
            .args(["bench", "--bench", bench])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()?
            .success();
        if !has_run {
            failed.push(bench);
        }
    }
    write()?;
    assert!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

fn write() -> io::Result<()> {
    let kept = Kept::read();
    let document = Document {
        title: "Performance of tower-salesforce-auth",
        facts: environment::facts(),
        goals: goals::table(&goals::goals(&kept)),
        sections: sections(&kept),
    };

    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("report");
    fs::create_dir_all(&repository)?;
    fs::write(repository.join("README.md"), markdown(&document))?;
    for plot in document.sections.iter().flat_map(|section| &section.plot) {
        fs::write(repository.join(plot.file), &plot.svg)?;
    }

    let target = page_directory();
    fs::create_dir_all(&target)?;
    let link = Some(CRITERION).filter(|link| target.join(link).exists());
    let page_file = target.join("index.html");
    fs::write(&page_file, page(&document, link))?;
    println!("\nThe report is in {}.", page_file.display());
    Ok(())
}

/// The directory of the page, beside criterion's.
fn page_directory() -> PathBuf {
    criterion::directory().with_file_name("report")
}
