//! The authorization response, which the user's browser carries to the app (RFC 6749 §4.1.2).

use std::{borrow::Cow, fmt};

use subtle::ConstantTimeEq;

use super::{authorize::PendingAuthorization, error_response};
use crate::{
    error::{RefreshError, RefreshErrorKind},
    secret::Secret,
    session::url::LoginUrl,
    text::pasted,
};

/// The response to an authorization request, read from the app's redirect URI: a code or an error.
///
/// ```
/// use tower_salesforce_auth::{LoginUrl, oauth::{Callback, PendingAuthorization}};
///
/// let login_url = LoginUrl::production();
/// # let pending = PendingAuthorization::new("xyzzy", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")?;
/// let url = "https://app.example.com/callback?code=aPrx%3D%3D&state=xyzzy";
/// let callback = Callback::parse(url)?;
/// assert_eq!(callback.code(&pending, &login_url)?.expose(), "aPrx==");
///
/// let denied = Callback::parse("/callback?error=access_denied&state=xyzzy")?;
/// let error = denied.code(&pending, &login_url).unwrap_err();
/// assert_eq!(error.error_code(), Some("access_denied"));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Callback {
    code: Option<Secret>,
    state: Option<Secret>,
    issuer: Option<String>,
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
            issuer: None,
            error: None,
            error_description: None,
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let value = value.into_owned();
            let is_repeated = match &*name {
                "code" => callback.code.replace(value.into()).is_some(),
                "state" => callback.state.replace(value.into()).is_some(),
                "iss" => callback.issuer.replace(value).is_some(),
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

    /// Returns the code if the callback belongs to the pending authorization, comes from the server at `login_url`, and the
    /// user consented.
    ///
    /// This method checks the state first, in constant time. Then it checks the issuer, if the callback names one (`iss`,
    /// RFC 9207): another server may not have a code of this one redeemed, or the other way round. Salesforce names none.
    /// Its hosts count as one issuer, except the My Domain of another org.
    ///
    /// A callback that is refused so leaves the pending authorization as it is: the right callback may still come.
    ///
    /// # Errors
    ///
    /// - [`RefreshErrorKind::InvalidCallback`] if the state is missing or is not the pending one, or if another server issued
    ///   the callback.
    /// - [`RefreshErrorKind::Refused`] with the server's error code: `access_denied` if the user did not consent.
    pub fn code(
        &self,
        pending: &PendingAuthorization,
        login_url: &LoginUrl,
    ) -> Result<&Secret, RefreshError> {
        self.check_state(pending)?;
        self.check_issuer(login_url)?;
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

    fn check_state(&self, pending: &PendingAuthorization) -> Result<(), RefreshError> {
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
        Ok(())
    }

    fn check_issuer(&self, login_url: &LoginUrl) -> Result<(), RefreshError> {
        let Some(issuer) = &self.issuer else {
            return Ok(());
        };
        // The text of a forged callback is not shown, only the URL that was read from it.
        let named = issuer.parse::<LoginUrl>();
        let found = match &named {
            Ok(issuer) if login_url.may_be_issuer(issuer) => return Ok(()),
            Ok(issuer) => issuer.to_string(),
            Err(_) => "a text that is no URL of a server".to_owned(),
        };
        Err(invalid(format!(
            "the callback names another issuer (`iss`) than {login_url}: {found}. Its code was not sent. If the user logged \
             in at the right server, use the issuer of its metadata as the login URL (`oauth::discover`); else begin again"
        )))
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

pub(super) fn invalid(message: impl Into<Cow<'static, str>>) -> RefreshError {
    RefreshError::new(RefreshErrorKind::InvalidCallback, true, message)
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callback")
            .field("code", &self.code)
            .field("state", &self.state)
            .field("issuer", &self.issuer)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}
