//! SFDX auth URLs, in which the Salesforce CLI carries a login from one machine to another.

use std::{fmt, str::FromStr};

use crate::{
    error::{Error, ErrorKind},
    oauth::App,
    secret::Secret,
    session::url::LoginUrl,
    text::{json, pasted, terminal::without_escapes},
};

/// An SFDX auth URL: `force://<client id>:<client secret>:<refresh token>@<host>` (Salesforce CLI Command Reference, `org
/// login sfdx-url`).
///
/// It is parsed from the URL, or from the JSON that `sf org auth show-sfdx-auth-url --json` prints, or `sf org display
/// --verbose --json` before May 2026. Blanks, line breaks and quotes around it are left out.
///
/// ```
/// use tower_salesforce_auth::oauth::SfdxAuthUrl;
///
/// let url: SfdxAuthUrl = "force://PlatformCLI::5Aep861@MyDomainName.my.salesforce.com".parse()?;
/// assert_eq!(url.client_id(), "PlatformCLI");
/// assert_eq!(url.client_secret(), None);
/// assert_eq!(url.login_url().to_string(), "https://mydomainname.my.salesforce.com");
/// let shown = "force://PlatformCLI::[redacted]@mydomainname.my.salesforce.com";
/// assert_eq!(url.to_string(), shown);
/// # Ok::<_, tower_salesforce_auth::Error>(())
/// ```
///
/// # Shared with the CLI
///
/// The URL has the refresh token of the CLI that printed it. If the app rotates refresh tokens, the two must not both use
/// it: the second use of a refresh token ends the grant, here and in the CLI. Get the program an authorization of its own, or
/// use `flow::SalesforceCli` (feature `cli`), which leaves the refresh token to the CLI.
///
/// Printing it, with [`Display`](fmt::Display) or [`Debug`], redacts the client secret and the refresh token.
#[derive(Clone, PartialEq, Eq)]
pub struct SfdxAuthUrl {
    client_id: String,
    /// The client secret. `None` for an app without one.
    client_secret: Option<Secret>,
    refresh_token: Secret,
    login_url: LoginUrl,
}

impl SfdxAuthUrl {
    /// The client id of the app that the user has authorized, for example `PlatformCLI`.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// The client secret. `None` for an app without one.
    pub fn client_secret(&self) -> Option<&Secret> {
        self.client_secret.as_ref()
    }

    /// The refresh token of the user.
    pub fn refresh_token(&self) -> &Secret {
        &self.refresh_token
    }

    /// Where the refresh token is exchanged: the instance of the org, always over TLS.
    pub fn login_url(&self) -> &LoginUrl {
        &self.login_url
    }

    /// The app that the user has authorized, with its secret.
    pub fn app(&self) -> App {
        let app = App::new(self.login_url.clone(), self.client_id.as_str());
        match &self.client_secret {
            Some(client_secret) => app.client_secret(client_secret.clone()),
            None => app,
        }
    }

    fn parse(url: &str) -> Result<Self, String> {
        if url.is_empty() {
            return Err(
                "is empty: check where it comes from, for example a variable that is not set"
                    .to_owned(),
            );
        }
        if is_redacted(url) {
            return Err("is redacted: print it with `sf org auth show-sfdx-auth-url`".to_owned());
        }
        let Some(rest) = url.strip_prefix(SCHEME) else {
            return Err(format!("does not begin with {SCHEME}: expected {FORM}"));
        };
        let Some((credentials, host)) = rest.rsplit_once('@') else {
            return Err(format!("has no @ before its host: expected {FORM}"));
        };
        let parts: Vec<&str> = credentials.split(':').collect();
        let [client_id, client_secret, refresh_token] = parts[..] else {
            return Err(wrong_parts(&parts));
        };
        if is_none(client_id) {
            return Err(format!(
                "has no client id, as those of a login by access token or of an old CLI: {LOG_IN_AGAIN}"
            ));
        }
        if is_none(refresh_token) {
            return Err(format!(
                "has no refresh token, as those of a login by JWT or access token: {LOG_IN_AGAIN}"
            ));
        }
        check("client id", client_id)?;
        check("refresh token", refresh_token)?;
        let client_secret = Some(client_secret).filter(|secret| !is_none(secret));
        if let Some(client_secret) = client_secret {
            check("client secret", client_secret)?;
        }
        Ok(Self {
            client_id: client_id.to_owned(),
            client_secret: client_secret.map(Secret::from),
            refresh_token: refresh_token.into(),
            login_url: login_url(host)?,
        })
    }
}

const SCHEME: &str = "force://";

const FORM: &str = "force://<client id>:<client secret>:<refresh token>@<host>, as `sf org auth show-sfdx-auth-url` prints it";

const LOG_IN_AGAIN: &str =
    "log in with `sf org login web`, and print the URL again with `sf org auth show-sfdx-auth-url`";

/// What the CLI prints for a part that is not there.
fn is_none(part: &str) -> bool {
    matches!(part, "" | "undefined" | "null")
}

/// Whether this is what the CLI prints in place of a URL since May 2026.
fn is_redacted(url: &str) -> bool {
    url.to_ascii_lowercase().contains("redacted]")
}

fn wrong_parts(parts: &[&str]) -> String {
    match parts {
        // Up to 2018 the CLI wrote it so, and meant its own app.
        [_] => format!(
            "is of the older form, force://<refresh token>@<host>, which lacks the client: {LOG_IN_AGAIN}"
        ),
        _ => format!(
            "has {} parts before the @ in place of 3: expected {FORM}",
            parts.len()
        ),
    }
}

/// Checks that a part has the characters that the CLI reads: `[A-Za-z0-9._-]+={0,2}`.
fn check(what: &str, part: &str) -> Result<(), String> {
    let is_of_a_part = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let padding = part.len() - part.trim_end_matches('=').len();
    let body = &part[..part.len() - padding];
    if !body.is_empty() && padding <= 2 && body.bytes().all(is_of_a_part) {
        return Ok(());
    }
    Err(format!(
        "has a {what} with a character that none has: only letters, digits, `.`, `_`, `-` and up to two `=` at its end; check \
         how it was copied"
    ))
}

/// The login URL of the host, which has no scheme, and may have a port.
fn login_url(host: &str) -> Result<LoginUrl, String> {
    if host.contains("//") {
        return Err("has a scheme before its host: leave `https://` out".to_owned());
    }
    let host = host.strip_suffix('/').unwrap_or(host);
    let is_of_a_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    if host.is_empty() || !host.bytes().all(is_of_a_host) {
        return Err(
            "has something else than a host and a port after the @: expected for example \
             MyDomainName.my.salesforce.com"
                .to_owned(),
        );
    }
    let url = format!("https://{host}").parse();
    url.map_err(|error: Error| format!("has no usable host: {error}"))
}

impl FromStr for SfdxAuthUrl {
    type Err = Error;

    /// Parses the URL, or the JSON that has it as `sfdxAuthUrl`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidUrl`] if the URL has another form, has no client id or no refresh token, or is redacted. The error
    /// says what to do, and repeats nothing of the URL but its host.
    fn from_str(text: &str) -> Result<Self, Error> {
        let text = without_escapes(text);
        let url = if pasted::credential(&text).starts_with('{') {
            url_of_json(&text)
        } else {
            Ok(text.into_owned())
        };
        url.and_then(|url| Self::parse(pasted::unwrapped(&url)))
            .map_err(|fault| {
                Error::new(ErrorKind::InvalidUrl, format!("the SFDX auth URL {fault}"))
            })
    }
}

/// The URL in the output of the CLI with `--json`.
fn url_of_json(text: &str) -> Result<String, String> {
    const NAME: &str = "sfdxAuthUrl";
    let members = json::find(text, &[NAME]);
    let url = members.iter().rev().find(|member| member.name == NAME);
    match url.and_then(|member| member.value.as_str()) {
        Some(url) => Ok(url.to_owned()),
        None => Err(format!(
            "is not in the JSON, which has no `{NAME}`: print it with `sf org auth show-sfdx-auth-url --json`"
        )),
    }
}

impl fmt::Display for SfdxAuthUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let client_secret = match &self.client_secret {
            Some(_) => "[redacted]",
            None => "",
        };
        let login_url = self.login_url.to_string();
        let host = login_url.strip_prefix("https://").unwrap_or(&login_url);
        write!(
            f,
            "{SCHEME}{}:{client_secret}:[redacted]@{host}",
            self.client_id
        )
    }
}

impl fmt::Debug for SfdxAuthUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SfdxAuthUrl({self})")
    }
}
