//! The command line.

pub(crate) const USAGE: &str = "\
Processes that share one session and one rotating refresh token.

Usage: fleet [--processes N] [URL]    N processes (default: 4) on the database of this URL
       fleet org [--port PORT]        an org for `join`, whose session expires every 5 s; default: port 8444
       fleet join [URL]               one process of a terminal, with the variables that `org` prints

URL is that of a Redis or a Valkey, such as redis://127.0.0.1. Default: the variable REDIS_URL. Without either, the processes
share a directory.";

const PROCESSES: usize = 4;
const PORT: u16 = 8444;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Supervise,
    /// A process that the supervisor has started.
    Work,
    Org,
    Join,
    Help,
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) mode: Mode,
    pub(crate) processes: usize,
    pub(crate) port: u16,
    /// The URL of the database. `None`: the processes share a directory.
    pub(crate) url: Option<String>,
}

impl Options {
    /// Reads the arguments, and the environment where they say nothing.
    pub(crate) fn read(
        arguments: &[String],
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let mut options = Self {
            mode: Mode::Supervise,
            processes: PROCESSES,
            port: PORT,
            url: None,
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "worker" => options.mode = Mode::Work,
                "org" => options.mode = Mode::Org,
                "join" => options.mode = Mode::Join,
                "--help" | "-h" => options.mode = Mode::Help,
                "--processes" => options.processes = number(argument, arguments.next(), &1)?,
                "--port" => options.port = number(argument, arguments.next(), &0)?,
                url if url.contains("://") => options.url = Some(url.to_owned()),
                _ => return Err(format!("{argument} is neither an option nor a URL.")),
            }
        }
        options.url = options.url.or_else(|| variable("REDIS_URL"));
        Ok(options)
    }
}

fn number<N: std::str::FromStr + PartialOrd>(
    option: &str,
    text: Option<&String>,
    least: &N,
) -> Result<N, String> {
    text.and_then(|text| text.parse().ok())
        .filter(|number| number >= least)
        .ok_or_else(|| format!("{option} needs a number after it."))
}
