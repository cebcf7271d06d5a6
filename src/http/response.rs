//! A server's response, of which everything that can be read counts (R39).

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::StatusCode;

use crate::{
    error::BoxError,
    text::{charset, fields::Fields, json::is_blank, redact::redact},
};

/// The shortest delay before a password is sent again, after an answer that says nothing about it.
pub(crate) const PASSWORD_DELAY: Duration = Duration::from_secs(5 * 60);

/// The longest title of a page that is shown, in characters.
const LONGEST_TITLE: usize = 80;

/// A server's response, with as much of its body as was read.
pub(crate) struct HttpResponse {
    pub(crate) host: String,
    pub(crate) status: StatusCode,
    /// The body, decompressed if possible.
    pub(crate) body: Bytes,
    pub(crate) ending: Ending,
    /// The `Content-Type`. `None` if it is absent or not readable.
    pub(crate) content_type: Option<String>,
    /// How the body is compressed. `None` if it is not, or was decompressed.
    pub(crate) compression: Option<String>,
    /// The delay that the server asked for in `Retry-After`. `None` if it asked for none.
    pub(crate) retry_after: Option<Duration>,
    /// Whether the request carried a password.
    pub(crate) has_password: bool,
    /// The time in the proof of the request, by the clock of this machine. `None` if it had no proof.
    pub(crate) proof: Option<SystemTime>,
    /// Whether the answer has a nonce for the next proof that can be used.
    pub(crate) has_nonce: bool,
    /// `WWW-Authenticate`. `None` if it is absent or not readable.
    pub(crate) challenge: Option<String>,
    /// `Date`. `None` if it is absent or not readable.
    pub(crate) date: Option<String>,
}

/// How a body ended.
#[derive(Debug)]
pub(crate) enum Ending {
    Whole,
    /// The rest was not read.
    TooLong,
    BrokeOff(BoxError),
}

impl HttpResponse {
    pub(crate) fn text(&self) -> Cow<'_, str> {
        charset::decode(&self.body, self.content_type.as_deref())
    }

    /// The fields of the body. `None` if it is no JSON object and has none of the `wanted` fields.
    pub(crate) fn fields(&self, wanted: &[&str]) -> Option<Fields> {
        let fields = Fields::read(&self.text(), wanted)?;
        let is_token_response =
            || fields.token("access_token").is_some() && fields.token("instance_url").is_some();
        // The scripts of a page may name tokens and other fields.
        (!self.is_html() || fields.has("error") || is_token_response()).then_some(fields)
    }

    /// Whether the server demands another nonce in the proof, and has sent one (RFC 9449 §8, §9). An answer with tokens
    /// demands nothing.
    pub(crate) fn demands_nonce(&self) -> bool {
        const CODE: &str = "use_dpop_nonce";

        if !self.has_nonce {
            return false;
        }
        let in_challenge = || self.challenge.as_ref().is_some_and(|it| it.contains(CODE));
        let fields = self.fields(&["error"]).unwrap_or_default();
        let has_token = ["access_token", "refresh_token"]
            .iter()
            .any(|name| fields.has(name));
        let is_demanded = match fields.string("error") {
            // Any other error comes from a server that has looked at more than the proof.
            Some(code) => code == CODE,
            None => !self.status.is_success() && in_challenge(),
        };
        is_demanded && !has_token
    }

    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.ending, Ending::Whole)
    }

    pub(crate) fn is_html(&self) -> bool {
        is_html(&self.text())
    }

    /// What is odd about the body, for an error. It contains none of `secrets`.
    pub(crate) fn oddity(&self, secrets: &[&str]) -> String {
        let content = self.content(secrets);
        match self.ending {
            Ending::Whole => content,
            Ending::TooLong => format!("{content}, which is too long to be read to its end"),
            Ending::BrokeOff(_) => format!("{content}, which broke off"),
        }
    }

    fn content(&self, secrets: &[&str]) -> String {
        if let Some(compression) = &self.compression {
            return format!(
                "a body that is compressed ({}), which was not asked for: give the flow a client that \
                 decompresses, or that asks for no compression",
                redact(compression, secrets)
            );
        }
        let text = self.text();
        let text = text.trim_matches(is_blank);
        if is_html(text) {
            return match title(text) {
                Some(title) => format!("an HTML page, \"{}\"", redact(&title, secrets)),
                None => "an HTML page".to_owned(),
            };
        }
        let content = match text.chars().next() {
            None => "an empty body",
            Some('{' | '[') => "JSON without what was asked for",
            Some('<') => "XML without what was asked for",
            Some(_) => "a body that is neither JSON nor XML",
        };
        content.to_owned()
    }
}

/// Whether a text is a page for people, by its first element.
fn is_html(text: &str) -> bool {
    const TAGS: [&str; 10] = [
        "!doctype html",
        "html",
        "head",
        "title",
        "body",
        "script",
        "center",
        "div",
        "h1",
        "p",
    ];

    let mut rest = text.trim_start_matches(is_blank);
    for (start, end) in [("<?", "?>"), ("<!--", "-->"), ("<!--", "-->")] {
        if let Some((_, behind)) = rest
            .strip_prefix(start)
            .and_then(|rest| rest.split_once(end))
        {
            rest = behind.trim_start_matches(is_blank);
        }
    }
    let Some(tag) = rest.strip_prefix('<') else {
        return false;
    };
    TAGS.iter().any(|known| {
        let is_it = tag
            .get(..known.len())
            .is_some_and(|tag| tag.eq_ignore_ascii_case(known));
        let next = tag.get(known.len()..).and_then(|rest| rest.chars().next());
        is_it && next.is_none_or(|next| next == '>' || next == '/' || next.is_whitespace())
    })
}

/// The title of an HTML page.
fn title(page: &str) -> Option<String> {
    let lower = page.to_ascii_lowercase();
    let start = lower.find("<title")?;
    let start = start + lower.get(start..)?.find('>')? + 1;
    let end = start + lower.get(start..)?.find('<')?;
    let words: Vec<&str> = page.get(start..end)?.split_whitespace().collect();
    let title: String = words.join(" ").chars().take(LONGEST_TITLE).collect();
    (!title.is_empty()).then_some(title)
}
