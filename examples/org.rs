//! An emulated org for programs in any language.
//!
//! ```sh
//! cargo run --example org -- --port 8443
//! ```
//!
//! Prints one line of JSON with everything a client needs to log in, and commands that log in. Serves until Ctrl-C or
//! SIGTERM stops it. The controls of the org are below `/emulator/`: see "Controls" in the docs of `emulator`.

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
Serves an emulated Salesforce org on 127.0.0.1, until Ctrl-C.

Usage: cargo run --example org -- [--port PORT] [--password PASSWORD] [--rotate]

  --port PORT          where to listen; 0, the default, picks a free port
  --password PASSWORD  the user's password; the default has characters that clients must escape
  --rotate             every refresh yields a new refresh token and ends the old one
  --help               prints this text

The first line of standard output is a JSON object for programs: base_url, client_id, client_secret, redirect_uri,
username, password, security_token, and jwt_private_key, the path of a private key that the org deletes when it stops.
Standard error says the same for people, with commands that log in.";

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Options::read(env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
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

    let org = match &options.password {
        Some(password) => Org::with_password(password),
        None => Org::new(),
    };
    org.rotate_refresh_tokens(options.rotate);
    org.expose_controls(true);
    let address = (Ipv4Addr::LOCALHOST, options.port);
    let served = org.serve_on(address).await.map_err(|error| {
        let port = options.port;
        format!("Cannot listen on port {port} of 127.0.0.1: {error}. Without --port, a free one is used.")
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
    eprintln!("{}", how_to_log_in(&org, served.url(), &key.path));

    stop.await;
    served.shutdown().await;
    Ok(())
}

/// What people need to log in, as commands to copy.
fn how_to_log_in(org: &Org, url: &str, key: &Path) -> String {
    let (username, password) = (org.username(), org.password());
    let (id, secret, token) = (org.client_id(), org.client_secret(), org.security_token());
    let callback = org.redirect_uri().replace(':', "%3A").replace('/', "%2F");
    let key = key.display();
    format!(
        "
The emulated org is at {url}, until Ctrl-C.

  username        {username}
  password        {password}
  security token  {token} (the password grant and SOAP want it right after the password)

For the first program of the README, and for the examples that take a real org:

  export SF_LOGIN_URL={url} SF_CLIENT_ID={id} SF_CLIENT_SECRET={secret}

In a browser, which then goes to {callback_url}:

  {url}/services/oauth2/authorize?response_type=code&client_id={id}&redirect_uri={callback}

With curl:

  curl {url}/services/oauth2/token -d grant_type=client_credentials \\
    -d client_id={id} -d client_secret={secret}

With the Salesforce CLI, which without SF_AUDIENCE_URL would try Salesforce's own hosts as well:

  SF_AUDIENCE_URL={url} sf org login jwt --instance-url {url} \\
    --username {username} --client-id {id} --jwt-key-file {key}

To end all sessions, and see how a client takes it:

  curl -X POST {url}/emulator/expire-sessions
",
        callback_url = org.redirect_uri(),
    )
}

struct Options {
    port: u16,
    /// `None` for the default of the org.
    password: Option<String>,
    rotate: bool,
}

impl Options {
    /// `None` if the arguments ask for help.
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut options = Self {
            port: 0,
            password: None,
            rotate: false,
        };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--port" => {
                    let port = arguments.next().ok_or("--port needs a number after it.")?;
                    options.port = port
                        .parse()
                        .map_err(|_| format!("{port} is not a port, which is 0 to 65535."))?;
                }
                "--password" => {
                    let password = arguments.next().filter(|password| !password.is_empty());
                    options.password =
                        Some(password.ok_or("--password needs a password after it.")?);
                }
                "--rotate" => options.rotate = true,
                "--help" | "-h" => return Ok(None),
                _ => return Err(format!("{argument} is not an option. The options are:")),
            }
        }
        Ok(Some(options))
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
