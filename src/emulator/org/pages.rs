//! The levers that stand in for a user in front of a browser.

use http::Uri;

use super::Org;
use crate::emulator::endpoint::authorize::{ConsentRequest, ErrorPage};
use crate::emulator::state::decision::UserDecision;
use crate::emulator::wire::form::Form;

/// A user in front of a browser.
impl Org {
    /// What a user does who opens `authorize_url`, logs in and presses Allow: yields the URL that
    /// the browser is sent back to. The pages are skipped, and no login is counted.
    ///
    /// The URL holds the code, or the error of a request that the org refuses towards the app.
    ///
    /// # Errors
    ///
    /// The page that the browser is shown where it is not sent back: an unknown client id, a
    /// callback that is not the app's, a missing `code_challenge`.
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

    /// What a user does who opens `authorize_url`, logs in and presses Deny.
    ///
    /// # Errors
    ///
    /// Those of [`approve`](Self::approve).
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
