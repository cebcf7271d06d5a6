//! The user's decisions without a browser.

use http::Uri;

use super::Org;
use crate::emulator::endpoint::authorize::{ConsentRequest, ErrorPage};
use crate::emulator::state::decision::UserDecision;
use crate::emulator::wire::form::Form;

/// The user at a browser.
impl Org {
    /// Opens `authorize_url`, logs in and allows access, as the user does. Returns the URL of the
    /// redirect back to the app. No page is shown and no login is counted.
    ///
    /// The URL contains the code, or the error of a request that the org refuses by redirect.
    ///
    /// # Errors
    ///
    /// The page that the browser shows instead of a redirect. Reasons are an unknown client id, a
    /// callback that is not the app's, and a missing `code_challenge`.
    ///
    /// ```
    /// use tower_salesforce_auth::emulator::Org;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let org = Org::new();
    /// org.set_redirect_uri("https://app.example.com/callback");
    /// let authorize_url = format!(
    ///     "{}/services/oauth2/authorize?response_type=code&client_id={}\
    ///      &redirect_uri=https%3A%2F%2Fapp.example.com%2Fcallback&state=xyz",
    ///     org.login_url(),
    ///     org.client_id(),
    /// );
    /// let url = org.approve(&authorize_url)?;
    /// assert!(url.starts_with("https://app.example.com/callback?code=aPrx"));
    /// assert!(url.ends_with("&state=xyz"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn approve(&self, authorize_url: &str) -> Result<String, ErrorPage> {
        self.settle(authorize_url, UserDecision::Allow)
    }

    /// Opens `authorize_url`, logs in and denies access, as the user does.
    ///
    /// # Errors
    ///
    /// The same as those of [`approve`](Self::approve).
    pub fn deny(&self, authorize_url: &str) -> Result<String, ErrorPage> {
        self.settle(authorize_url, UserDecision::Deny)
    }

    fn settle(&self, authorize_url: &str, decision: UserDecision) -> Result<String, ErrorPage> {
        let url: Uri = authorize_url
            .parse()
            .map_err(|_| ErrorPage::new("invalid_request", "not a URL"))?;
        let form = Form::parse(url.query().unwrap_or_default().as_bytes())?;
        let request = ConsentRequest::read(&self.backend, &form)?;
        Ok(request.settle(&self.backend, decision))
    }
}
