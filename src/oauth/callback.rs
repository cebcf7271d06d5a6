//! The authorization response: what the user's browser brings back (RFC 6749 §4.1.2).

use std::fmt;

use subtle::ConstantTimeEq;

use super::{authorize::PendingAuthorization, error_response};
use crate::{
    error::{RefreshError, RefreshErrorKind},
    secret::Secret,
};

/// The answer to an authorization request, as the redirect to the app brought it: a code, or an error.
///
/// ```
/// use tower_salesforce_auth::oauth::{Callback, PendingAuthorization};
///
/// # let pending = PendingAuthorization::new("xyzzy", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")?;
/// let callback = Callback::parse("https://app.example.com/callback?code=aPrx%3D%3D&state=xyzzy")?;
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
    /// Reads the URL that was requested, the path and query of it, or the query alone.
    ///
    /// # Errors
    ///
    /// [`RefreshErrorKind::InvalidCallback`] if there is neither a code nor an error in it, or one of them twice.
    pub fn parse(url: &str) -> Result<Self, RefreshError> {
        let url = url.split_once('#').map_or(url, |(url, _)| url);
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
                "the callback has neither a `code` nor an `error`: give the URL that the browser requested, query \
                 included",
            ));
        }
        Ok(callback)
    }

    /// The code, if this is the answer to the pending authorization, and the user allowed it.
    ///
    /// The state is compared in constant time, and before anything else is believed.
    ///
    /// # Errors
    ///
    /// [`RefreshErrorKind::InvalidCallback`] if the state is another, or missing, and [`RefreshErrorKind::Refused`] with
    /// the error code of the server, `access_denied` if the user said no.
    pub fn code(&self, pending: &PendingAuthorization) -> Result<&Secret, RefreshError> {
        let is_answer = self.state.as_ref().is_some_and(|state| {
            let (state, expected) = (
                state.expose().as_bytes(),
                pending.state().expose().as_bytes(),
            );
            state.ct_eq(expected).into()
        });
        if !is_answer {
            return Err(invalid(
                "the callback's `state` is not that of the authorization that was begun: it is a forgery, or of another \
                 attempt in the same browser; begin again",
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

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> RefreshError {
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
