//! The tables that the benches saved, read by the names of their columns.

use crate::figures::Table;

/// All tables. A table is `None` if its bench has not run, or could not make it.
pub(crate) struct Kept {
    pub(crate) instructions: Option<Table>,
    pub(crate) replays: Option<Table>,
    pub(crate) call_overhead: Option<Table>,
    pub(crate) allocations: Option<Table>,
    pub(crate) read_contention: Option<Table>,
    pub(crate) replay_body: Option<Table>,
    pub(crate) refresh_storm: Option<Table>,
    pub(crate) end_to_end_instructions: Option<Table>,
    pub(crate) end_to_end: Option<Table>,
    pub(crate) dpop: Option<Table>,
    pub(crate) many_sessions: Option<Table>,
    pub(crate) many_sessions_throughput: Option<Table>,
    pub(crate) fleet: Option<Table>,
    pub(crate) fleet_at_rest: Option<Table>,
}

impl Kept {
    pub(crate) fn read() -> Self {
        let kept = |name| Table::kept(name).ok();
        Self {
            instructions: kept("instructions"),
            replays: kept("replays"),
            call_overhead: kept("call_overhead"),
            allocations: kept("allocations"),
            read_contention: kept("read_contention"),
            replay_body: kept("replay_body"),
            refresh_storm: kept("refresh_storm"),
            end_to_end_instructions: kept("end_to_end_instructions"),
            end_to_end: kept("end_to_end"),
            dpop: kept("dpop"),
            many_sessions: kept("many_sessions"),
            many_sessions_throughput: kept("many_sessions_throughput"),
            fleet: kept("fleet"),
            fleet_at_rest: kept("fleet_at_rest"),
        }
    }
}

/// A row of a table.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    columns: &'a [String],
    cells: &'a [String],
}

impl<'a> Row<'a> {
    /// The text of a cell; empty if there is no such column.
    pub(crate) fn cell(self, column: &str) -> &'a str {
        let at = self.columns.iter().position(|one| one == column);
        at.and_then(|at| self.cells.get(at))
            .map_or("", String::as_str)
    }

    /// The number in a cell; `None` if it has no number.
    pub(crate) fn number(self, column: &str) -> Option<f64> {
        self.cell(column).parse().ok()
    }

    fn has(self, cells: &[(&str, &str)]) -> bool {
        cells
            .iter()
            .all(|(column, cell)| self.cell(column) == *cell)
    }
}

pub(crate) fn rows(table: &Table) -> impl Iterator<Item = Row<'_>> {
    table.rows.iter().map(|cells| Row {
        columns: &table.columns,
        cells,
    })
}

/// The rows that have these cells.
pub(crate) fn rows_with<'a>(table: &'a Table, cells: &[(&str, &str)]) -> Vec<Row<'a>> {
    rows(table).filter(|row| row.has(cells)).collect()
}

/// The first row that has these cells.
pub(crate) fn row_with<'a>(table: &'a Table, cells: &[(&str, &str)]) -> Option<Row<'a>> {
    rows(table).find(|row| row.has(cells))
}

/// The distinct values of a column, in order.
pub(crate) fn distinct<'a>(table: &'a Table, column: &str) -> Vec<&'a str> {
    let mut distinct = Vec::new();
    for row in rows(table) {
        let cell = row.cell(column);
        if !distinct.contains(&cell) {
            distinct.push(cell);
        }
    }
    distinct
}

/// The largest number of a column.
pub(crate) fn largest(rows: &[Row<'_>], column: &str) -> Option<f64> {
    rows.iter()
        .filter_map(|row| row.number(column))
        .max_by(f64::total_cmp)
}

/// A row for each combination of `keys`, with a column of `value` for each of `by`.
pub(crate) fn pivot(table: &Table, keys: &[&str], by: &str, value: &str) -> Table {
    let contenders = distinct(table, by);
    let columns = keys.iter().copied().chain(contenders.iter().copied());
    let mut pivoted = Table {
        columns: columns.map(str::to_string).collect(),
        rows: Vec::new(),
    };
    for row in rows(table) {
        let cells: Vec<_> = keys.iter().map(|key| row.cell(key).to_string()).collect();
        let at = pivoted
            .rows
            .iter()
            .position(|one| one.starts_with(&cells))
            .unwrap_or(pivoted.rows.len());
        if at == pivoted.rows.len() {
            let none = contenders.iter().map(|_| "–".to_string());
            pivoted.rows.push(cells.into_iter().chain(none).collect());
        }
        let contender = contenders.iter().position(|one| *one == row.cell(by));
        if let Some(contender) = contender {
            pivoted.rows[at][keys.len() + contender] = row.cell(value).to_string();
        }
    }
    pivoted
}

/// Adds a column `name`: what `contender` has in a column of another table, in the row with the same `keys`.
pub(crate) fn joined(
    mut table: Table,
    name: &str,
    keys: &[&str],
    other: &Table,
    contender: &str,
    column: &str,
) -> Table {
    let of_contender = rows_with(other, &[("contender", contender)]);
    let cell = |row: Row<'_>| {
        let same = |one: &&Row<'_>| keys.iter().all(|key| one.cell(key) == row.cell(key));
        let found = of_contender.iter().find(same);
        found.map_or("–", |found| found.cell(column)).to_string()
    };
    let cells: Vec<_> = rows(&table).map(cell).collect();
    table.columns.push(name.to_string());
    for (row, cell) in table.rows.iter_mut().zip(cells) {
        row.push(cell);
    }
    table
}
