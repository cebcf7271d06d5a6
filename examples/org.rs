//! An emulated org for programs in any language.
//!
//! ```sh
//! cargo run --example org -- --port 8443
//! ```
//!
//! Prints one line of JSON with everything a client needs to log in, and serves until Ctrl-C or SIGTERM stops it. The
//! controls of the org are below `/emulator/`: see "Controls" in the docs of `emulator`.

use std::{
    env, fs,
    io::{self, Write},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde_json::json;
use tower_salesforce_auth::{BoxError, emulator::Org};

const USAGE: &str = "\
Serves an emulated Salesforce org on 127.0.0.1.

Usage: org [--port PORT] [--rotate]

  --port PORT  where to listen; 0, the default, picks a free port
  --rotate     every refresh yields a new refresh token and ends the old one

The first line of the output is a JSON object: base_url, client_id, client_secret, redirect_uri, username, password,
security_token, and jwt_private_key, the path of a private key that the org deletes when it stops.";

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Options::read(env::args().skip(1)) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("{problem}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match serve(&options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(options: &Options) -> Result<(), BoxError> {
    // Listen for the signals first: the reader of the line below may send one at once.
    let stop = stop_signal()?;

    let org = Org::new();
    org.rotate_refresh_tokens(options.rotate);
    org.expose_controls(true);
    let address = (Ipv4Addr::LOCALHOST, options.port);
    let served = org.serve_on(address).await.map_err(|error| {
        let port = options.port;
        format!("Cannot listen on port {port} of 127.0.0.1: {error}.")
    })?;
    let key = KeyFile::write(&org.jwt_private_key())?;

    let told = json!({
        "base_url": served.url(),
        "client_id": org.client_id(),
        "client_secret": org.client_secret(),
        "redirect_uri": org.redirect_uri(),
        "username": org.username(),
        "password": org.password(),
        "security_token": org.security_token(),
        "jwt_private_key": key.path.to_str().ok_or("The path of the temporary directory is not UTF-8.")?,
    });
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{told}")?;
    stdout.flush()?;
    drop(stdout);

    stop.await;
    served.shutdown().await;
    Ok(())
}

struct Options {
    port: u16,
    rotate: bool,
}

impl Options {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            port: 0,
            rotate: false,
        };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--port" => {
                    let port = arguments.next().ok_or("--port needs a number.")?;
                    options.port = port
                        .parse()
                        .map_err(|_| format!("{port} is not a port, which is 0 to 65535."))?;
                }
                "--rotate" => options.rotate = true,
                _ => return Err(format!("{argument} is not an option.")),
            }
        }
        Ok(options)
    }
}

/// A private key that only this user can read. It is deleted on drop.
struct KeyFile {
    path: PathBuf,
}

impl KeyFile {
    fn write(key: &str) -> io::Result<Self> {
        // Other users may write to the directory: the name is random, and the file must not exist yet.
        let random = getrandom::u64()?;
        let path = env::temp_dir().join(format!("salesforce-org-{random:016x}.pem"));
        let mut file = create_private(&path)?;
        let this = Self { path };
        file.write_all(key.as_bytes())?;
        Ok(this)
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        // An error means that the file is gone already.
        let _ = fs::remove_file(&self.path);
    }
}

fn create_private(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(unix)]
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        // Without Ctrl-C only killing the process stops it.
        let _ = tokio::signal::ctrl_c().await;
    })
}
