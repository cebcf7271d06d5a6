//! A fleet of processes, on any number of machines, shares one user's session and one refresh token that works only once.
//!
//! ```sh
//! cargo run -p fleet
//! cargo run -p fleet -- --processes 8 redis://127.0.0.1
//! ```
//!
//! Each process (default: 4) sends requests as fast as it can, while the session expires again and again. The database is a
//! Redis, whose URL is the argument or `REDIS_URL`. Without one the processes share a directory. They follow the store: when
//! one of them has refreshed the session, the others adopt it before one of their requests is rejected.
//!
//! In two terminals, with a third for the emulated org:
//!
//! ```sh
//! cargo run -p fleet -- org
//! cargo run -p fleet -- join redis://127.0.0.1    # with the variables that the org prints
//! ```

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
};

use tower_salesforce_auth::BoxError;

mod join;
mod options;
mod org;
mod shared_store;
mod supervisor;
#[cfg(test)]
mod tests;
mod worker;

use options::{Mode, Options, USAGE};

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let options = match Options::read(&arguments, |name| env::var(name).ok()) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("{problem}\n\n{USAGE}");
            return Ok(ExitCode::from(2));
        }
    };
    match options.mode {
        Mode::Help => {
            writeln!(io::stdout(), "{USAGE}")?;
            Ok(ExitCode::SUCCESS)
        }
        Mode::Supervise => supervisor::supervise(&options).await,
        Mode::Work => worker::work().await.map(|()| ExitCode::SUCCESS),
        Mode::Org => org::serve(&options).await.map(|()| ExitCode::SUCCESS),
        Mode::Join => join::join(&options).await.map(|()| ExitCode::SUCCESS),
    }
}
