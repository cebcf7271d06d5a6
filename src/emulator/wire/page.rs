//! The HTML pages of the org: plain forms that need no scripts.

use std::fmt::{self, Write};

use super::form::Form;

/// The fields of the pages. All other fields belong to the authorization request.
const OWN_FIELDS: [&str; 4] = ["username", "password", "login", "decision"];

/// The login page. It carries the authorization request along.
pub(crate) fn login(request: &Form, message: Option<&str>) -> String {
    // The name typed before, or else the hint of the app.
    let hint = request.get("username").or(request.get("login_hint"));
    let body = format!(
        "<h1>Log in</h1>{}<form method=\"post\" action=\"authorize\">{}{}\
         <p><button>Log In</button></p></form>",
        notice(message),
        carried(request),
        credentials(hint),
    );
    document("Login | Salesforce", &body)
}

/// The consent page, which lists the scopes that the app asks for.
pub(crate) fn consent(request: &Form, login: &str, scope: &str) -> String {
    let mut scopes = String::new();
    for scope in scope.split_whitespace() {
        // Writing to a `String` does not fail.
        let _ = write!(scopes, "<li>{}</li>", Escaped(scope));
    }
    let body = format!(
        "<h1>Allow access?</h1><p>The app asks for:</p><ul>{scopes}</ul>\
         <form method=\"post\" action=\"authorize\">{}\
         <input type=\"hidden\" name=\"login\" value=\"{}\">{DECISION}</form>",
        carried(request),
        Escaped(login),
    );
    document("Allow Access? | Salesforce", &body)
}

/// The page for the code of a device.
pub(crate) fn device(user_code: &str, message: Option<&str>) -> String {
    let body = format!(
        "<h1>Connect a device</h1>{}<form method=\"post\" action=\"connect\">\
         <p><label>Code <input name=\"user_code\" value=\"{}\" required></label></p>{}\
         {DECISION}</form>",
        notice(message),
        Escaped(user_code),
        credentials(None),
    );
    document("Connect | Salesforce", &body)
}

/// The page that reports success.
pub(crate) fn done(message: &str) -> String {
    document("Salesforce", &notice(Some(message)))
}

/// The error page, in the form that known clients search for.
pub(crate) fn error(error: &str, description: &str) -> String {
    let description = description.replace(' ', "%20");
    let body = format!(
        "<h1>OAuth Error</h1><p>error={}&amp;error_description={}</p>",
        Escaped(error),
        Escaped(&description),
    );
    document("OAuth Error | Salesforce", &body)
}

const DECISION: &str = "<p><button name=\"decision\" value=\"allow\">Allow</button> \
                        <button name=\"decision\" value=\"deny\">Deny</button></p>";

fn credentials(username: Option<&str>) -> String {
    format!(
        "<p><label>Username <input name=\"username\" autocomplete=\"username\" value=\"{}\" \
         required></label></p><p><label>Password <input name=\"password\" type=\"password\" \
         autocomplete=\"current-password\" required></label></p>",
        Escaped(username.unwrap_or_default()),
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

const STYLE: &str = "body{font:1rem/1.5 system-ui,sans-serif;max-width:22rem;margin:4rem auto;\
                     padding:0 1rem}label,input{display:block;width:100%;box-sizing:border-box}\
                     input{font:inherit;padding:.4rem}button{font:inherit;padding:.4rem 1rem}";

fn document(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
         <style>{STYLE}</style></head><body>{body}</body></html>"
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
