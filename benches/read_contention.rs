//! What threads that send through one layer cost each other.
//!
//! ```sh
//! cargo bench -p benches --bench read_contention
//! ```
//!
//! One thread and up to sixteen send, each through a clone of one service. The slowdown is the time of a call with all threads
//! over that with one thread in the same round. The table shows the median of all rounds, and the cores of the machine. With
//! more threads than cores, threads take turns, and contend less than they would. `bare` is the floor: the slowdown that the
//! machine causes by itself. `rw_lock`, `watch` and `mutex` keep a ready-made header in the usual places; `inject_only` has one
//! too.
#![allow(missing_docs)]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::{
    hint::spin_loop,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    thread,
    time::Instant,
};

use bytes::Bytes;
use contenders::{Accepting, Contender, Headers, Work, authorization, call, in_memory, request};
use figures::{Table, median};
use http::{HeaderValue, Request, header::AUTHORIZATION};
use http_body_util::Full;
use tokio::sync::watch;
use tower::Service;

mod contenders;
mod figures;

const ROUNDS: usize = 40;

/// The first is what the others are compared with.
const THREADS: [usize; 5] = [1, 2, 4, 8, 16];

/// Requests made ahead, and sent while the clock runs.
const BATCH: u32 = 512;
const BATCHES: usize = 8;

type Body = Full<Bytes>;

fn main() {
    if !figures::is_wanted() {
        return;
    }
    let cores = cores();
    let mut table = Table::new(&[
        "contender",
        "threads",
        "cores",
        "ns a call",
        "slowdown per thread",
        "quartiles",
    ]);
    for (name, measured) in rounds() {
        for (at, threads) in THREADS.into_iter().enumerate() {
            let of = |round: &Round| (round[at], round[at] / round[0]);
            let (times, slowdowns): (Vec<_>, Vec<_>) = measured.iter().map(of).unzip();
            let [first, middle, third] = figures::quartiles(slowdowns);
            table.row([
                name.to_string(),
                threads.to_string(),
                cores.to_string(),
                format!("{:.0}", median(times)),
                format!("{middle:.2}"),
                format!("{first:.2}..{third:.2}"),
            ]);
        }
    }
    table.keep("read_contention");
}

/// The time of a call, by number of threads.
type Measure = fn(usize) -> f64;

const CONTENDERS: [(&str, Measure); 7] = [
    ("bare", |n| Contender::Bare.with(Threads(n))),
    ("fixed_header", |n| Contender::FixedHeader.with(Threads(n))),
    ("inject_only", |n| Contender::InjectOnly.with(Threads(n))),
    ("default", |n| Contender::Default.with(Threads(n))),
    ("rw_lock", |n| holding(n, RwLock::new)),
    ("watch", |n| {
        holding(n, |header| watch::Sender::new(header).subscribe())
    }),
    ("mutex", |n| holding(n, Mutex::new)),
];

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The times of a call in one round, by number of threads.
type Round = [f64; THREADS.len()];

/// The rounds of each contender.
fn rounds() -> [(&'static str, Vec<Round>); CONTENDERS.len()] {
    let mut measured = CONTENDERS.map(|(name, _)| (name, Vec::new()));
    for round in 0..ROUNDS {
        for ((_, measured), (_, measure)) in measured.iter_mut().zip(CONTENDERS) {
            // The machine may change its pace, so the order alternates.
            let mut times = Round::default();
            for turn in 0..THREADS.len() {
                let at = if round.is_multiple_of(2) {
                    turn
                } else {
                    THREADS.len() - 1 - turn
                };
                times[at] = measure(THREADS[at]);
            }
            measured.push(times);
        }
    }
    measured
}

/// The nanoseconds that a call takes each of this many threads at once.
struct Threads(usize);

impl Work<Body> for Threads {
    type Output = f64;

    fn with<S: Service<Request<Body>> + Clone + Send + 'static>(self, service: S) -> f64 {
        let cores = cores();
        let arrived = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..self.0)
            .map(|_| {
                let (mut service, arrived) = (service.clone(), Arc::clone(&arrived));
                thread::spawn(move || {
                    let times = (1..=BATCHES).map(|batch| {
                        let requests: Vec<_> = (0..BATCH)
                            .map(|_| request(Headers(8), in_memory(0)))
                            .collect();
                        // Spins, so that all threads begin at once: a thread that has to be woken would begin late.
                        arrived.fetch_add(1, Ordering::AcqRel);
                        while arrived.load(Ordering::Acquire) < batch * self.0 {
                            if self.0 > cores {
                                thread::yield_now();
                            }
                            spin_loop();
                        }
                        let start = Instant::now();
                        for request in requests {
                            call(&mut service, request);
                        }
                        start.elapsed().as_secs_f64() * 1e9 / f64::from(BATCH)
                    });
                    median(times.collect())
                })
            })
            .collect();
        let times = threads.into_iter().map(|thread| thread.join().unwrap());
        median(times.collect())
    }
}

// === Other holders ===

/// Keeps a header where another thread could replace it.
trait Holder {
    fn read(&self) -> HeaderValue;
}

impl Holder for RwLock<HeaderValue> {
    fn read(&self) -> HeaderValue {
        self.read().unwrap().clone()
    }
}

impl Holder for Mutex<HeaderValue> {
    fn read(&self) -> HeaderValue {
        self.lock().unwrap().clone()
    }
}

impl Holder for watch::Receiver<HeaderValue> {
    fn read(&self) -> HeaderValue {
        self.borrow().clone()
    }
}

struct Holding<H> {
    header: Arc<H>,
    inner: Accepting,
}

impl<H> Clone for Holding<H> {
    fn clone(&self) -> Self {
        Self {
            header: Arc::clone(&self.header),
            inner: self.inner.clone(),
        }
    }
}

impl<H: Holder> Service<Request<Body>> for Holding<H> {
    type Response = <Accepting as Service<Request<Body>>>::Response;
    type Error = <Accepting as Service<Request<Body>>>::Error;
    type Future = <Accepting as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<Request<Body>>::poll_ready(&mut self.inner, cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let header = self.header.read();
        request.headers_mut().insert(AUTHORIZATION, header);
        self.inner.call(request)
    }
}

fn holding<H: Holder + Send + Sync + 'static>(
    threads: usize,
    hold: impl FnOnce(HeaderValue) -> H,
) -> f64 {
    Threads(threads).with(Holding {
        header: Arc::new(hold(authorization())),
        inner: Accepting,
    })
}
