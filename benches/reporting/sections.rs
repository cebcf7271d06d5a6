//! The sections of the report, one for each bench.

use crate::{
    figures::Table,
    reporting::{
        criterion,
        document::{Plot, Section},
        kept::{Kept, Row, distinct, joined, pivot, rows},
        plots,
    },
};

pub(crate) fn sections(kept: &Kept) -> Vec<Section> {
    vec![
        Section {
            title: "Instructions",
            reading: "Of one call, without making the request: the service alone, and what each contender adds to it. \
                      Then of a replay, from a rejection to the second answer, with a newer session at hand. The same at \
                      every run with the same compiler.",
            bench: "instructions",
            tables: copies(&[kept.instructions.as_ref(), kept.replays.as_ref()]),
            ..none()
        },
        Section {
            title: "Instructions, end to end",
            reading: "Of hyper-util's client for one request over loopback, with the making of the request: with the token in \
                      it by hand, and what each contender adds to that. The server runs in another process. Repeats to \
                      half a percent.",
            bench: "end_to_end_instructions",
            tables: copies(&[kept.end_to_end_instructions.as_ref()]),
            ..none()
        },
        call_overhead(kept.call_overhead.as_ref(), kept.allocations.as_ref()),
        read_contention(kept.read_contention.as_ref()),
        refresh_storm(kept.refresh_storm.as_ref()),
        end_to_end(kept.end_to_end.as_ref()),
        Section {
            title: "DPoP",
            reading: "Requests per second through the layer to a service that answers at once, with a bearer token and with a \
                      session that is bound to a key. A proof is one ES256 signature, made on the thread that sends. Then a \
                      storm on one thread: the proofs of 1,000 replays.",
            bench: "dpop",
            tables: copies(&[kept.dpop.as_ref()]),
            ..none()
        },
        Section {
            title: "Many sessions",
            reading: "Bytes of memory requested from the allocator: by an idle session, and by a caller that waits for a \
                      refresh. Then requests per second to one org each, one after the other on one core, over a service \
                      that answers at once.",
            bench: "many_sessions",
            tables: copies(&[
                kept.many_sessions.as_ref(),
                kept.many_sessions_throughput.as_ref(),
            ]),
            ..none()
        },
        Section {
            title: "Fleet",
            reading: "Processes that share a session by a Redis on loopback: the milliseconds from the save of one process to the \
                      adoption by the last, and the calls and bytes of the store that an expiry takes. Then those of requests \
                      that are accepted, and of rest: followers test their subscription every 15 s.",
            bench: "fleet",
            tables: copies(&[kept.fleet.as_ref(), kept.fleet_at_rest.as_ref()]),
            ..none()
        },
        replay_body(kept.replay_body.as_ref()),
    ]
}

fn none() -> Section {
    Section {
        title: "",
        reading: "",
        bench: "",
        tables: Vec::new(),
        in_full: Vec::new(),
        plot: None,
        pictures: Vec::new(),
    }
}

fn copies(tables: &[Option<&Table>]) -> Vec<Table> {
    tables.iter().flatten().map(|table| copy(table)).collect()
}

fn copy(table: &Table) -> Table {
    Table {
        columns: table.columns.clone(),
        rows: table.rows.clone(),
    }
}

// === Sections ===

fn call_overhead(times: Option<&Table>, allocations: Option<&Table>) -> Section {
    const KEYS: [&str; 1] = ["request"];
    let mut section = Section {
        title: "Call overhead",
        reading: "How many times as long as the service alone each contender takes for a call: the median of many short \
                  rounds, in which they take turns. Then the nanoseconds of the service alone, and how often this layer \
                  allocates for a call. A service that answers at once makes the ratios as large as they can be. Bodies \
                  of 64 KiB and more are clones of one, and need no allocation to be cloned once more.",
        bench: "call_overhead",
        in_full: copies(&[times, allocations]),
        ..none()
    };
    let Some(times) = times else {
        return section;
    };
    let ratios = pivot(times, &KEYS, "contender", "over bare");
    let mut table = joined(ratios, "bare, ns", &KEYS, times, "bare", "ns a call");
    for contender in ["inject_only", "default"] {
        let name = format!("{contender}, allocations");
        if let Some(allocations) = allocations {
            table = joined(table, &name, &KEYS, allocations, contender, "allocations");
        }
    }
    let requests = distinct(times, "request");
    section.pictures = requests
        .into_iter()
        .filter_map(criterion::picture)
        .collect();
    section.tables.push(table);
    section
}

fn read_contention(table: Option<&Table>) -> Section {
    const KEYS: [&str; 2] = ["threads", "cores"];
    let on_all_cores = table.map(|table| Table {
        columns: table.columns.clone(),
        rows: with_most_running(table),
    });
    Section {
        title: "Read contention",
        reading: "How many times as long as alone a call takes a thread, when several send through one layer, on as many cores \
                  as the table says. With more threads than cores, threads take turns, and contend less. The plot has the \
                  quartiles of the rounds. `rw_lock`, `watch` and `mutex` hold the header in the usual places.",
        bench: "read_contention",
        plot: on_all_cores.as_ref().map(|table| Plot {
            file: "read_contention.svg",
            shows: "Slowdown per thread of each contender, with its quartiles",
            svg: plots::read_contention(table),
        }),
        tables: table
            .map(|table| pivot(table, &KEYS, "contender", "slowdown per thread"))
            .into_iter()
            .collect(),
        in_full: table.map(copy).into_iter().collect(),
        ..none()
    }
}

/// The rows with the most threads that run at once.
fn with_most_running(table: &Table) -> Vec<Vec<String>> {
    let running = |row: Row<'_>| {
        let threads = row.number("threads")?;
        (threads <= row.number("cores")?).then_some(threads)
    };
    let most = rows(table).filter_map(running).fold(0.0, f64::max);
    rows(table)
        .zip(&table.rows)
        .filter(|(row, _)| running(*row) == Some(most))
        .map(|(_, cells)| cells.clone())
        .collect()
}

fn refresh_storm(table: Option<&Table>) -> Section {
    const KEYS: [&str; 2] = ["transport", "callers"];
    let in_short = table.map(|table| {
        let times = pivot(table, &KEYS, "contender", "ms to the last success");
        [
            ("layer over hand_written", "over hand-written"),
            ("layer's refreshes", "refreshes"),
            ("layer's failures", "failures"),
        ]
        .into_iter()
        .fold(times, |in_short, (name, column)| {
            joined(in_short, name, &KEYS, table, "layer", column)
        })
    });
    Section {
        title: "Refresh storm",
        reading: "All callers meet an expired session at the same moment: the milliseconds until the last of them is served, \
                  50 of which the token endpoint takes. `bare` has a live token, and sends as many requests: the floor. \
                  `hand_written` is a mutex around the refresh. `naive_mutex` refreshes for each caller in turn, and \
                  `per_caller` for all at once, which the rotated refresh token fails for all but one.",
        bench: "refresh_storm",
        plot: table.map(|table| Plot {
            file: "refresh_storm.svg",
            shows: "Time to the last success by callers, for each contender and transport",
            svg: plots::refresh_storm(table),
        }),
        tables: in_short.into_iter().collect(),
        in_full: table.map(copy).into_iter().collect(),
        ..none()
    }
}

fn end_to_end(table: Option<&Table>) -> Section {
    const KEYS: [&str; 2] = ["request", "protocol"];
    let in_short = table.map(|table| pivot(table, &KEYS, "contender", "of by hand"));
    Section {
        title: "End to end",
        reading: "Requests per second over loopback, without TLS, as a part of those of the client alone, which has the \
                  token in each request already.",
        bench: "end_to_end",
        tables: in_short.into_iter().collect(),
        in_full: table.map(copy).into_iter().collect(),
        ..none()
    }
}

fn replay_body(table: Option<&Table>) -> Section {
    const KEYS: [&str; 2] = ["body", "comes"];
    let in_short = table.map(|table| {
        let ratios = pivot(table, &KEYS, "contender", "over collect");
        joined(ratios, "collect, µs", &KEYS, table, "collect", "µs")
    });
    Section {
        title: "Replayed bodies",
        reading: "How many times as long as collecting a body by hand, and sending it, it takes to pass it through the \
                  layer with replay off, to record it while it is sent, and to send it twice: collected by hand, or \
                  recorded by the layer, with a rejection and another session in between.",
        bench: "replay_body",
        tables: in_short.into_iter().collect(),
        in_full: table.map(copy).into_iter().collect(),
        ..none()
    }
}
