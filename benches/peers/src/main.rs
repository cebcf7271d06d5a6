//! This crate beside other Rust clients of Salesforce, in one run and one table.
//!
//! ```sh
//! cargo run --release --manifest-path benches/peers/Cargo.toml > benches/report/peers.md
//! ```
//!
//! README.md beside this package says what is measured, and what is not. The page goes to the standard output, and what is
//! being measured to the standard error.

use std::{env, process::exit};

use page::Page;

#[path = "../../callgrind/mod.rs"]
mod callgrind;
mod clients;
#[path = "../../contenders/mod.rs"]
mod contenders;
mod edges;
mod figures;
mod instructions;
#[path = "../../loopback/mod.rs"]
mod loopback;
mod org;
mod page;
#[path = "../../server_process/mod.rs"]
mod server_process;
mod storm;

const USAGE: &str = "\
usage: peers [OPTION]...
  --requests N      count N requests of each client; 1000 if not given, and 0 counts none
  --callers N,N     meet a storm with so many callers; 1000 if not given
  --rounds N        rounds of each storm; 7 if not given, and 0 runs none
  --no-hung         leave out the refresh that never ends, which takes 65 s";

/// What to measure.
struct Options {
    requests: i64,
    callers: Vec<usize>,
    rounds: usize,
    hung: bool,
}

impl Options {
    fn of(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self {
            requests: 1_000,
            callers: vec![1_000],
            rounds: 7,
            hung: true,
        };
        let mut arguments = arguments.iter();
        while let Some(option) = arguments.next() {
            let mut value = || {
                let value = arguments.next();
                value.ok_or(format!("{option} needs a value"))
            };
            match option.as_str() {
                "--requests" => options.requests = number(value()?)?,
                "--callers" => {
                    let callers = value()?.split(',').map(number);
                    options.callers = callers.collect::<Result<_, _>>()?;
                    if options.callers.contains(&0) {
                        return Err("a storm needs at least one caller".to_string());
                    }
                }
                "--rounds" => options.rounds = number(value()?)?,
                "--no-hung" => options.hung = false,
                _ => return Err(format!("there is no option {option}")),
            }
        }
        Ok(options)
    }
}

/// A number without a sign.
fn number<N: TryFrom<u32>>(text: &str) -> Result<N, String> {
    let number = text.parse().ok().and_then(|n: u32| N::try_from(n).ok());
    number.ok_or(format!("{text} is not a number that fits here"))
}

fn main() {
    let arguments: Vec<_> = env::args().skip(1).collect();
    match *arguments.iter().map(String::as_str).collect::<Vec<_>>() {
        [server_process::SERVE] => return instructions::serve(),
        ["--send", client, protocol, origin, requests] => {
            return instructions::send(client, protocol, origin, requests);
        }
        _ => {}
    }
    let options = Options::of(&arguments).unwrap_or_else(|wrong| {
        eprintln!("{wrong}\n{USAGE}");
        exit(2);
    });
    let mut page = Page::begin();
    if options.requests > 0 {
        instructions::measure(options.requests, &mut page);
    }
    if options.rounds > 0 {
        for callers in options.callers {
            storm::measure(callers, options.rounds, &mut page);
        }
    }
    edges::measure(options.hung, &mut page);
    page.print();
}
