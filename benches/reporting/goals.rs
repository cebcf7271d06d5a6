//! The performance goals, and the figures reached.

use crate::{
    figures::Table,
    reporting::kept::{Kept, Row, largest, row_with, rows, rows_with},
};

pub(crate) struct Goal {
    pub(crate) goal: String,
    /// The figure reached. `None` if it was not measured.
    pub(crate) reached: Option<Reached>,
}

pub(crate) struct Reached {
    pub(crate) what: String,
    pub(crate) is_met: bool,
}

impl Goal {
    fn at_most(what: &str, limit: f64, reached: Option<f64>, show: fn(f64) -> String) -> Self {
        Self {
            goal: format!("{what}: at most {}", show(limit)),
            reached: reached.map(|reached| Reached {
                what: show(reached),
                is_met: reached <= limit,
            }),
        }
    }

    /// Adds the request or setting that reached the figure.
    fn at(mut self, place: Option<String>) -> Self {
        if let (Some(reached), Some(place)) = (&mut self.reached, place) {
            reached.what = format!("{} ({place})", reached.what);
        }
        self
    }
}

pub(crate) fn goals(kept: &Kept) -> Vec<Goal> {
    let mut goals = calls(kept);
    goals.extend(threads(kept.read_contention.as_ref()));
    goals.extend(storm(kept.refresh_storm.as_ref()));
    goals.extend(memory(kept.many_sessions.as_ref()));
    goals.extend(end_to_end(kept.end_to_end_instructions.as_ref()));
    goals
}

/// As a table, for the report.
pub(crate) fn table(goals: &[Goal]) -> Table {
    let row = |goal: &Goal| match &goal.reached {
        Some(Reached { what, is_met }) => {
            let met = if *is_met { "met" } else { "missed" };
            vec![goal.goal.clone(), what.clone(), met.to_string()]
        }
        None => vec![
            goal.goal.clone(),
            "not measured".to_string(),
            "–".to_string(),
        ],
    };
    Table {
        columns: ["goal", "reached", "met?"].map(str::to_string).into(),
        rows: goals.iter().map(row).collect(),
    }
}

// === By area ===

fn calls(kept: &Kept) -> Vec<Goal> {
    const SENT: &str = "8 headers, 256 bytes";
    let instructions =
        |contender| row_with(kept.instructions.as_ref()?, &[("request", SENT)])?.number(contender);
    let allocations = |cells: &[(&str, &str)]| {
        largest(&rows_with(kept.allocations.as_ref()?, cells), "allocations")
    };
    let replay =
        || row_with(kept.replays.as_ref()?, &[("replayed request", SENT)])?.number("instructions");
    vec![
        Goal::at_most(
            "instructions that `inject_only` adds, 8 headers and 256 bytes",
            850.0,
            instructions("inject_only"),
            plain,
        ),
        Goal::at_most(
            "allocations of `inject_only`, 8 headers and 256 bytes",
            0.0,
            allocations(&[("contender", "inject_only"), ("request", SENT)]),
            plain,
        ),
        Goal::at_most(
            "instructions that `default` adds, 8 headers and 256 bytes",
            2_450.0,
            instructions("default"),
            plain,
        ),
        Goal::at_most(
            "allocations of `default`, 8 headers and 256 bytes",
            1.0,
            allocations(&[("contender", "default"), ("request", SENT)]),
            plain,
        ),
        Goal::at_most(
            "allocations of `default`, 8 headers and no body",
            1.0,
            allocations(&[("contender", "default"), ("request", "8 headers")]),
            plain,
        ),
        Goal::at_most(
            "instructions of a replay, 8 headers and 256 bytes",
            11_000.0,
            replay(),
            plain,
        ),
    ]
}

fn threads(table: Option<&Table>) -> Vec<Goal> {
    const SLOWDOWN: &str = "slowdown per thread";
    let slowdown = |contender| {
        row_with(table?, &[("contender", contender), ("threads", "2")])?.number(SLOWDOWN)
    };
    let mut goals: Vec<_> = ["inject_only", "default"]
        .map(|contender| {
            let what = format!("slowdown of two threads with one layer, `{contender}`");
            Goal::at_most(&what, 1.10, slowdown(contender), times)
        })
        .into();
    let both = slowdown("inject_only").zip(slowdown("fixed_header"));
    goals.push(Goal {
        goal: "slowdown of two threads, `inject_only`: at most that of `fixed_header`".to_string(),
        reached: both.map(|(inject_only, fixed_header)| Reached {
            what: format!("{}, and {}", times(inject_only), times(fixed_header)),
            is_met: inject_only <= fixed_header,
        }),
    });
    goals
}

fn storm(table: Option<&Table>) -> Vec<Goal> {
    /// From this many callers on, the time per caller should stay the same.
    const MANY: f64 = 1_000.0;
    let layer: Vec<_> = table
        .map(|table| rows_with(table, &[("contender", "layer")]))
        .unwrap_or_default();
    let place = |row: Row<'_>| format!("{} callers", row.cell("callers"));
    let mut goals = vec![
        Goal::at_most("storm: refreshes", 1.0, largest(&layer, "refreshes"), plain),
        Goal::at_most("storm: failures", 0.0, largest(&layer, "failures"), plain),
    ];
    for transport in ["HTTP/2", "in-process"] {
        let layer: Vec<_> = layer
            .iter()
            .copied()
            .filter(|row| row.cell("transport") == transport)
            .collect();
        let over_hand_written = highest(&layer, |row| row.number("over hand-written"));
        let growth = highest(&layer, |row| {
            let is_of_many = |row: &Row<'_>| row.number("callers") >= Some(MANY);
            let first = layer.iter().find(|row| is_of_many(row))?;
            is_of_many(&row)
                .then_some(row.number("µs per caller")? / first.number("µs per caller")?)
        });
        goals.push(
            Goal::at_most(
                &format!("storm, {transport}: time over that of a loop written by hand"),
                1.05,
                over_hand_written.map(|(ratio, _)| ratio),
                times,
            )
            .at(over_hand_written.map(|(_, row)| place(row))),
        );
        goals.push(
            Goal::at_most(
                &format!("storm, {transport}: time per caller, over that with 1,000 callers"),
                1.10,
                growth.map(|(ratio, _)| ratio),
                times,
            )
            .at(growth.map(|(_, row)| place(row))),
        );
    }
    goals
}

/// The memory goals, which the bench saves beside the figures.
fn memory(table: Option<&Table>) -> Vec<Goal> {
    let Some(table) = table else {
        return vec![Goal {
            goal: "memory: idle sessions and waiting callers".to_string(),
            reached: None,
        }];
    };
    rows(table)
        .filter_map(|row| {
            let what = format!(
                "memory: {}, {} of them",
                row.cell("what"),
                row.cell("count")
            );
            let limit = row.number("goal")?;
            let reached = row.number("of them the layer's");
            Some(Goal::at_most(&what, limit, reached, bytes))
        })
        .collect()
}

/// What the contenders may add to the client's instructions.
fn end_to_end(table: Option<&Table>) -> Vec<Goal> {
    const GOALS: [(&str, &str, &str, f64); 6] = [
        ("inject_only", "GET", "HTTP/1.1", 800.0),
        ("inject_only", "GET", "HTTP/2", 650.0),
        ("default", "GET", "HTTP/1.1", 2_300.0),
        ("default", "POST 256 B", "HTTP/1.1", 2_500.0),
        ("default", "GET", "HTTP/2", 2_300.0),
        ("default", "POST 256 B", "HTTP/2", 2_000.0),
    ];
    let goal = |(contender, request, protocol, limit)| {
        let row = table
            .and_then(|table| row_with(table, &[("request", request), ("protocol", protocol)]));
        Goal::at_most(
            &format!("client instructions that `{contender}` adds, {request}, {protocol}"),
            limit,
            row.and_then(|row| row.number(contender)),
            plain,
        )
    };
    GOALS.map(goal).into()
}

// === Figures ===

/// The highest figure, and its row.
fn highest<'a>(
    rows: &[Row<'a>],
    figure: impl Fn(Row<'a>) -> Option<f64>,
) -> Option<(f64, Row<'a>)> {
    rows.iter()
        .filter_map(|row| Some((figure(*row)?, *row)))
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
}

fn times(ratio: f64) -> String {
    format!("{} ×", (ratio * 1_000.0).round() / 1_000.0)
}

fn bytes(number: f64) -> String {
    format!("{number} bytes")
}

fn plain(number: f64) -> String {
    number.to_string()
}
