//! The authorization response, which the user's browser carries to the app (RFC 6749 §4.1.2).

use std::{borrow::Cow, fmt};

use subtle::ConstantTimeEq;

use super::{authorize::PendingAuthorization, error_response};
use crate::{
    error::{RefreshError, RefreshErrorKind},
    secret::Secret,
    text::pasted,
};

/// The response to an authorization request, read from the app's redirect URI: a code or an error.
///
/// ```
/// use tower_salesforce_auth::oauth::{Callback, PendingAuthorization};
///
/// # let pending = PendingAuthorization::new("xyzzy", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")?;
/// let url = "https://app.example.com/callback?code=aPrx%3D%3D&state=xyzzy";
/// let callback = Callback::parse(url)?;
/// assert_eq!(callback.code(&pending)?.expose(), "aPrx==");
///
/// let denied = Callback::parse("/callback?error=access_denied&state=xyzzy")?;
/// assert_eq!(denied.code(&pending).unwrap_err().error_code(), Some("access_denied"));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Callback {
    code: Option<Secret>,
    state: Option<Secret>,
    error: Option<String>,
    error_description: Option<String>,
}

impl Callback {
    /// Parses the requested URL. The path and query, or the query alone, is enough.
    ///
    /// A URL that was pasted may have blanks, quotes or angle brackets around it, line breaks in it, and `&amp;` for `&`.
    ///
    /// # Errors
    ///
    /// [`RefreshErrorKind::InvalidCallback`] if the URL contains neither a code nor an error, or a parameter twice.
    pub fn parse(url: &str) -> Result<Self, RefreshError> {
        let url = unwrapped(url);
        let url = url.split_once('#').map_or(&*url, |(url, _)| url);
        let query = url.split_once('?').map_or(url, |(_, query)| query);
        let mut callback = Self {
            code: None,
            state: None,
            error: None,
            error_description: None,
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let value = value.into_owned();
            let is_repeated = match &*name {
                "code" => callback.code.replace(value.into()).is_some(),
                "state" => callback.state.replace(value.into()).is_some(),
                "error" => callback.error.replace(value).is_some(),
                "error_description" => callback.error_description.replace(value).is_some(),
                _ => false,
            };
            if is_repeated {
                return Err(invalid(format!(
                    "the callback has more than one `{name}`, which no authorization server sends"
                )));
            }
        }
        callback.code.take_if(|code| code.expose().is_empty());
        if callback.code.is_none() && callback.error.is_none() {
            return Err(invalid(
                "the callback has neither a `code` nor an `error`: pass the URL that the browser requested, including \
                 its query",
            ));
        }
        Ok(callback)
    }

    /// Returns the code if the callback belongs to the pending authorization and the user consented.
    ///
    /// This method checks the state first, in constant time.
    ///
    /// # Errors
    ///
    /// - [`RefreshErrorKind::InvalidCallback`] if the state is missing or is not the pending one.
    /// - [`RefreshErrorKind::Refused`] with the server's error code: `access_denied` if the user did not consent.
    pub fn code(&self, pending: &PendingAuthorization) -> Result<&Secret, RefreshError> {
        let has_pending_state = self.state.as_ref().is_some_and(|state| {
            let (state, expected) = (
                state.expose().as_bytes(),
                pending.state().expose().as_bytes(),
            );
            state.ct_eq(expected).into()
        });
        if let (Some(error), None) = (&self.error, &self.state) {
            // Some refusals come before the server knows the app, and without the state. So they may be forged.
            let description = self.error_description.as_deref().unwrap_or_default();
            return Err(invalid(
                "the callback is a refusal without a `state`, so that it may be forged",
            )
            .with_source(error_response::authorization_refusal(
                error,
                description,
                &[],
            ))
            .with_remedy(Some("begin again, unless the refusal explains it")));
        }
        if !has_pending_state {
            return Err(invalid(
                "the callback's `state` is not the one of the pending authorization: the callback is forged, or \
                 belongs to another attempt in the same browser; begin again",
            ));
        }
        match (&self.error, &self.code) {
            (None, Some(code)) => Ok(code),
            (error, code) => {
                let secrets = code.iter().chain(&self.state).map(Secret::expose);
                Err(error_response::authorization_refusal(
                    error.as_deref().unwrap_or_default(),
                    self.error_description.as_deref().unwrap_or_default(),
                    &secrets.collect::<Vec<_>>(),
                ))
            }
        }
    }
}

/// The URL without what a terminal, a mail, a log or a markup language put around it and into it.
fn unwrapped(pasted: &str) -> Cow<'_, str> {
    let mut url = pasted::credential(pasted);
    // The request line, as a server logs it.
    if let Some(path) = url.strip_prefix("GET ") {
        let is_version = |version: &str| version.starts_with("HTTP/");
        url = path
            .rsplit_once(' ')
            .filter(|(_, end)| is_version(end))
            .map_or(path, |(path, _)| path);
    }
    let url = pasted::unwrapped(url);
    let is_wrapped = |char: char| char.is_control() || pasted::is_invisible(char);
    let has_entities = url.contains("&amp;") || url.contains("&#38;") || url.contains("\\u0026");
    if !has_entities && !url.contains(is_wrapped) {
        return Cow::Borrowed(url);
    }
    // Terminals break long URLs into lines, and quote them with an indent.
    let url: String = url.lines().map(pasted::credential).collect();
    let url: String = url.chars().filter(|char| !is_wrapped(*char)).collect();
    let url = url.replace("&amp;", "&").replace("&#38;", "&");
    Cow::Owned(url.replace("\\u0026", "&"))
}

fn invalid(message: impl Into<Cow<'static, str>>) -> RefreshError {
    RefreshError::new(RefreshErrorKind::InvalidCallback, true, message)
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callback")
            .field("code", &self.code)
            .field("state", &self.state)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}
