//! Parameters of OAuth requests.

use http::header::CONTENT_TYPE;
use http::request::Parts;

/// The parameters of a request: those of the query, then those of the form.
#[derive(Default)]
pub(crate) struct Form(Vec<(String, String)>);

/// The name of a repeated parameter, which RFC 6749 §3.1 and §3.2 forbid.
pub(crate) struct Duplicate(pub(crate) String);

impl Form {
    pub(crate) fn read(parts: &Parts, body: &[u8]) -> Result<Self, Duplicate> {
        let query = parts.uri.query().unwrap_or_default().as_bytes();
        let content_type = parts
            .headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        // Another content type yields no parameters. The endpoint then reports a missing one.
        let is_form = media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded");
        let body = if is_form { body } else { &[] };
        Self::parse(query)?.and(Self::parse(body)?)
    }

    pub(crate) fn parse(encoded: &[u8]) -> Result<Self, Duplicate> {
        form_urlencoded::parse(encoded)
            .into_owned()
            .try_fold(Self(Vec::new()), Self::with)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut parameters = self.0.iter();
        parameters.find_map(|(key, value)| (key == name).then_some(value.as_str()))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    fn and(self, other: Self) -> Result<Self, Duplicate> {
        other.0.into_iter().try_fold(self, Self::with)
    }

    fn with(mut self, (name, value): (String, String)) -> Result<Self, Duplicate> {
        if self.get(&name).is_some() {
            return Err(Duplicate(name));
        }
        self.0.push((name, value));
        Ok(self)
    }
}
