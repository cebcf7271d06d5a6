//! What a layer adds to a request that is answered well, in instructions: the same number at every run.
//!
//! ```sh
//! cargo bench -p benches --bench instructions
//! ```
//!
//! The bench runs itself under valgrind's callgrind, once for each contender and request. It reports missed goals, and fails
//! where a call takes more instructions than before. Without valgrind it says so, and counts nothing.
//!
//! Each number counts one call, from `poll_ready` to the answer, without making the request. A contender adds its number
//! less that of the service alone.
#![allow(missing_docs)]

use std::{env, fs, process::Command};

use contenders::{Contender, Headers, Stream, Work, call, in_memory, request};
use figures::Table;
use http::Request;
use tower::Service;

mod contenders;
mod figures;

/// Calls made before counting starts, so that one-time work is over.
const WARM_UP: usize = 32;

/// Calls that are counted; the result is their mean.
const CALLS: usize = 64;

/// Goals for a request with eight headers and 256 bytes: the ratio of injection alone to a fixed header, and the instructions
/// that the default adds.
const INJECTION_GOAL: f64 = 1.15;
const DEFAULT_GOAL: i64 = 1_800;

/// Upper bounds for what both add today, with a twentieth to spare for other compilers and allocators.
const INJECTION_CEILING: i64 = 900;
const DEFAULT_CEILING: i64 = 2_900;

/// A request: its number of headers, and the bytes of its body. `None` for a stream of two frames.
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
    if !figures::is_wanted() {
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

/// Callgrind counts the instructions inside a function of this name.
#[inline(never)]
fn counted_call<S: Service<Request<B>>, B>(service: &mut S, request: Request<B>) {
    call(service, request);
}

fn count_all() {
    let [bare, fixed_header, inject_only, default] = Contender::ALL.map(Contender::name);
    let mut table = Table::new(&["request", bare, fixed_header, inject_only, default]);
    let mut missed = Vec::new();
    for (number, (headers, body)) in SENT.into_iter().enumerate() {
        let sent = match body {
            Some(len) => format!("{} headers, {len} bytes", headers.0),
            None => format!("{} headers, a stream", headers.0),
        };
        let bare = count(Contender::Bare, number);
        let [fixed_header, inject_only, default] = [
            Contender::FixedHeader,
            Contender::InjectOnly,
            Contender::Default,
        ]
        .map(|contender| count(contender, number) - bare);
        table.row([
            sent.clone(),
            bare.to_string(),
            format!("{fixed_header:+}"),
            format!("{inject_only:+}"),
            format!("{default:+}"),
        ]);
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let ratio = inject_only as f64 / fixed_header as f64;
        if ratio > INJECTION_GOAL {
            missed.push(format!(
                "{sent}: injection adds {ratio:.2} × a fixed header, and {INJECTION_GOAL} is the goal"
            ));
        }
        if (headers, body) == (Headers(8), Some(256)) {
            if default > DEFAULT_GOAL {
                missed.push(format!(
                    "{sent}: the default adds {default}, and {DEFAULT_GOAL} is the goal"
                ));
            }
            assert!(
                inject_only <= INJECTION_CEILING && default <= DEFAULT_CEILING,
                "a call takes more than it did: {INJECTION_CEILING} and {DEFAULT_CEILING} is what injection alone and the \
                 default may add"
            );
        }
    }
    table.keep("instructions");
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
