//! What a layer adds to a request that is answered well, in instructions: the same number at every run.
//!
//! ```sh
//! cargo bench --bench instructions
//! ```
//!
//! It runs itself under valgrind's callgrind, once for each contender and request, and says which goals are missed. Without
//! valgrind it says so, and counts nothing. Each number is of one call, from `poll_ready` to the answer, without making the
//! request. What a contender adds is its number less that of the service alone.
#![allow(missing_docs)]

use std::{env, fs, process::Command};

use contenders::{Contender, Headers, Stream, Work, call, in_memory, request};
use http::Request;
use tower::Service;

mod contenders;

/// So many calls are made before those that count: what is made once is made by then.
const WARM_UP: usize = 32;

/// So many count. The number is their mean.
const CALLS: usize = 64;

/// What is sent: so many headers, and a body of so many bytes. None: a stream of two frames.
type Sent = (Headers, Option<usize>);

const SENT: [Sent; 6] = [
    (Headers(4), Some(0)),
    (Headers(8), Some(0)),
    (Headers(16), Some(0)),
    (Headers(8), Some(256)),
    (Headers(8), Some(64 * 1024)),
    (Headers(8), None),
];

fn main() {
    let arguments: Vec<_> = env::args().skip(1).collect();
    if let ["--one", contender, sent] = *arguments.iter().map(String::as_str).collect::<Vec<_>>() {
        let contender = Contender::named(contender).expect("a contender");
        let sent = SENT[sent.parse::<usize>().expect("a number")];
        match sent {
            (headers, Some(len)) => contender.with(Repeat(|| request(headers, in_memory(len)))),
            (headers, None) => contender.with(Repeat(|| request(headers, Stream::new(2, 256)))),
        }
        return;
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("There is no valgrind here: nothing was counted.");
        return;
    }
    count_all();
}

struct Repeat<M>(M);

impl<B, M: Fn() -> Request<B>> Work<B> for Repeat<M> {
    type Output = ();

    fn with<S: Service<Request<B>>>(self, mut service: S) {
        for _ in 0..WARM_UP {
            call(&mut service, self.0());
        }
        for _ in 0..CALLS {
            counted_call(&mut service, self.0());
        }
    }
}

/// Callgrind counts what is done in a function of this name.
#[inline(never)]
fn counted_call<S: Service<Request<B>>, B>(service: &mut S, request: Request<B>) {
    call(service, request);
}

fn count_all() {
    let [_, others @ ..] = Contender::ALL;
    println!(
        "| request | bare | {} |",
        others.map(Contender::name).join(" | ")
    );
    println!("|---|---:|{}", "---:|".repeat(others.len()));
    let mut missed = Vec::new();
    for (number, (headers, body)) in SENT.into_iter().enumerate() {
        let sent = match body {
            Some(len) => format!("{} headers, {len} bytes", headers.0),
            None => format!("{} headers, a stream", headers.0),
        };
        let bare = count(Contender::Bare, number);
        let added = others.map(|contender| count(contender, number) - bare);
        let cells = added.map(|added| format!("{added:+}")).join(" | ");
        println!("| {sent} | {bare} | {cells} |");
        let [fixed_header, inject_only, default] = added;
        let mut goal = |what: &str, is: i64, at_most: i64| {
            if is > at_most {
                missed.push(format!(
                    "{sent}: {what} adds {is}, and {at_most} is the goal"
                ));
            }
        };
        goal("injection alone", inject_only, fixed_header * 115 / 100);
        if (headers, body) == (Headers(8), Some(256)) {
            goal("the default", default, 1_800);
        }
    }
    for missed in &missed {
        println!("{missed}");
    }
}

/// The instructions of one call.
fn count(contender: Contender, sent: usize) -> i64 {
    let program = env::current_exe().expect("this program");
    let report = env::temp_dir().join(format!("callgrind.{}.out", std::process::id()));
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--collect-atstart=no"])
        .arg("--toggle-collect=*counted_call*")
        .arg(format!("--callgrind-out-file={}", report.display()))
        .arg(program)
        .args(["--one", contender.name(), &sent.to_string()])
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
        .and_then(|total| total.trim().parse::<i64>().ok())
        .expect("a total");
    assert!(total > 0, "callgrind did not find what to count");
    total / i64::try_from(CALLS).expect("a small number")
}
