//! The figures of a bench: a table that is printed row by row, and saved for the report.
#![allow(dead_code, reason = "each bench needs a part of it")]

use std::{env, fs, io, path::PathBuf, time::Duration};

use criterion::Criterion;

/// Rows of figures, under the names of their columns.
pub(crate) struct Table {
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    /// Prints the head of a table.
    pub(crate) fn new(columns: &[&str]) -> Self {
        println!("| {} |", columns.join(" | "));
        println!("|---{}|", "|---:".repeat(columns.len() - 1));
        Self {
            columns: columns.iter().map(ToString::to_string).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, and prints it.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        println!("| {} |", cells.join(" | "));
        self.rows.push(cells.into());
    }

    /// Saves the table as `name`, for the report.
    pub(crate) fn keep(&self, name: &str) {
        let lines = [&self.columns].into_iter().chain(&self.rows);
        let kept: String = lines.map(|line| line.join("\t") + "\n").collect();
        fs::create_dir_all(kept_in()).expect("a directory for figures");
        fs::write(file(name), kept).expect("that the figures can be written");
    }

    /// Reads the table that was saved as `name`.
    pub(crate) fn kept(name: &str) -> io::Result<Self> {
        let kept = fs::read_to_string(file(name))?;
        let mut lines = kept
            .lines()
            .map(|line| line.split('\t').map(str::to_string).collect());
        Ok(Self {
            columns: lines.next().unwrap_or_default(),
            rows: lines.collect(),
        })
    }
}

/// The first quartile of the figures, their median and the third quartile, interpolated between two figures.
pub(crate) fn quartiles(mut figures: Vec<f64>) -> [f64; 3] {
    figures.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| {
        let (at, part) = (
            (figures.len() - 1) * quarter / 4,
            (figures.len() - 1) * quarter % 4,
        );
        let part = [0.0, 0.25, 0.5, 0.75][part];
        let next = figures[figures.len().min(at + 2) - 1];
        figures[at] + (next - figures[at]) * part
    })
}

/// The median. There must be at least one figure.
pub(crate) fn median(figures: Vec<f64>) -> f64 {
    let [_, median, _] = quartiles(figures);
    median
}

/// Criterion with few resamples: the ratios come from rounds, and the default takes ten times as long for its plots.
pub(crate) fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(30)
        .nresamples(5_000)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
}

/// Whether `cargo bench` runs this. `cargo test --all-targets` only checks that it starts.
pub(crate) fn is_wanted() -> bool {
    env::args().any(|argument| argument == "--bench")
}

fn kept_in() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("figures")
}

fn file(name: &str) -> PathBuf {
    kept_in().join(format!("{name}.tsv"))
}
