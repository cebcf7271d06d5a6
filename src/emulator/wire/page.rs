//! The HTML pages of the org: plain forms that need no scripts.

use std::fmt::{self, Write};

use super::form::Form;
use super::scope;

/// The fields of the pages. All other fields belong to the authorization request.
const OWN_FIELDS: [&str; 4] = ["username", "password", "login", "decision"];

/// The user that the pages tell a visitor to log in as.
#[derive(Clone, Copy)]
pub(crate) struct PageUser<'a> {
    pub(crate) username: &'a str,
    pub(crate) password: &'a str,
}

/// The login page. It carries the authorization request along.
pub(crate) fn login(request: &Form, user: PageUser<'_>, message: Option<&str>) -> String {
    // The name typed before, or else the hint of the app.
    let hint = request.get("username").or(request.get("login_hint"));
    let body = format!(
        "<h1>Log in</h1>{}<form method=\"post\" action=\"authorize\">{}{}\
         <p class=\"buttons\"><button class=\"main\">Log In</button></p></form>{}",
        notice(message),
        carried(request),
        credentials(hint),
        who_to_type(user),
    );
    document("Log in", &body)
}

/// The consent page, which lists the scopes that the app asks for.
pub(crate) fn consent(request: &Form, username: &str, login: &str, scope: &str) -> String {
    let mut scopes = String::new();
    for scope in scope.split_whitespace() {
        let meaning = scope::meaning(scope);
        // Writing to a `String` does not fail.
        let _ = write!(scopes, "<li>{meaning} <code>{}</code></li>", Escaped(scope));
    }
    let app = request.get("client_id").unwrap_or_default();
    let callback = request.get("redirect_uri").unwrap_or_default();
    let body = format!(
        "<h1>Allow access?</h1><p>The connected app <code>{}</code> asks to:</p>\
         <ul>{scopes}</ul>\
         <form method=\"post\" action=\"authorize\">{}\
         <input type=\"hidden\" name=\"login\" value=\"{}\">{DECISION}</form>\
         <div class=\"hint\"><p>Logged in as <code>{}</code>. The browser then goes to \
         <code>{}</code>.</p></div>",
        Escaped(app),
        carried(request),
        Escaped(login),
        Escaped(username),
        Escaped(callback),
    );
    document("Allow access?", &body)
}

/// The page for the code of a device.
pub(crate) fn device(user_code: &str, user: PageUser<'_>, message: Option<&str>) -> String {
    let body = format!(
        "<h1>Connect a device</h1>{}<form method=\"post\" action=\"connect\">\
         <label>Code <input name=\"user_code\" value=\"{}\" autocomplete=\"off\" required></label>{}\
         {DECISION}</form>{}",
        notice(message),
        Escaped(user_code),
        credentials(None),
        who_to_type(user),
    );
    document("Connect a device", &body)
}

/// The page that reports success.
pub(crate) fn done(message: &str) -> String {
    let body = format!(
        "<h1>{}</h1><p>You can close this page.</p>",
        Escaped(message)
    );
    document("Done", &body)
}

/// The error page, in the form that known clients search for.
pub(crate) fn error(error: &str, description: &str) -> String {
    let encoded = description.replace(' ', "%20");
    let body = format!(
        "<h1>OAuth Error</h1><p role=\"alert\">{}</p>\
         <p><code>error={}&amp;error_description={}</code></p>",
        Escaped(description),
        Escaped(error),
        Escaped(&encoded),
    );
    document("OAuth Error", &body)
}

const DECISION: &str = "<p class=\"buttons\">\
                        <button class=\"main\" name=\"decision\" value=\"allow\">Allow</button>\
                        <button name=\"decision\" value=\"deny\">Deny</button></p>";

fn credentials(username: Option<&str>) -> String {
    format!(
        "<label>Username <input name=\"username\" autocomplete=\"username\" value=\"{}\" \
         autocapitalize=\"none\" required></label>\
         <label>Password <input name=\"password\" type=\"password\" \
         autocomplete=\"current-password\" required></label>",
        Escaped(username.unwrap_or_default()),
    )
}

fn who_to_type(user: PageUser<'_>) -> String {
    format!(
        "<div class=\"hint\"><p>Log in as the one user of this org:</p><dl><dt>Username</dt>\
         <dd><code>{}</code></dd><dt>Password</dt><dd><code>{}</code></dd></dl></div>",
        Escaped(user.username),
        Escaped(user.password),
    )
}

/// The parameters of the authorization request as hidden fields.
fn carried(request: &Form) -> String {
    let mut fields = String::new();
    for (name, value) in request.iter() {
        if !OWN_FIELDS.contains(&name) {
            let (name, value) = (Escaped(name), Escaped(value));
            // Writing to a `String` does not fail.
            let _ = write!(
                fields,
                "<input type=\"hidden\" name=\"{name}\" value=\"{value}\">"
            );
        }
    }
    fields
}

fn notice(message: Option<&str>) -> String {
    message.map_or_else(String::new, |message| {
        format!("<p role=\"alert\">{}</p>", Escaped(message))
    })
}

const STYLE: &str = include_str!("page.css");

fn document(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <title>{title} | Emulated Salesforce org</title><style>{STYLE}</style></head>\
         <body><main><p class=\"org\"><span>Emulated Salesforce org</span></p>{body}</main>\
         <footer>A test double on this machine. Nothing here reaches Salesforce.</footer>\
         </body></html>"
    )
}

/// Text escaped for HTML, attribute values included.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            other => f.write_char(other),
        })
    }
}
