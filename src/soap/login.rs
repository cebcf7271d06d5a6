//! The `login()` call.

use super::{
    envelope::{Elements, Envelope},
    fault,
};
use crate::{
    error::{RefreshError, RefreshErrorKind},
    http::{
        response::{HttpResponse, PASSWORD_DELAY},
        server_error::unusable_response,
    },
    session::{session::Session, url::LoginUrl},
    text::{
        fields,
        pasted::{self, Rule},
    },
};

/// The arguments of `login()`.
pub(crate) struct Login<'a> {
    pub(crate) username: &'a str,
    /// The password with the security token appended.
    pub(crate) password: &'a str,
    /// The values that must not appear in an error.
    pub(crate) secrets: Vec<&'a str>,
    /// The org of a portal or site user (`LoginScopeHeader`).
    pub(crate) organization_id: Option<&'a str>,
    /// The portal of a portal user (`LoginScopeHeader`).
    pub(crate) portal_id: Option<&'a str>,
    /// The client's name in the org's logs (`CallOptions`).
    pub(crate) client: &'a str,
}

impl Login<'_> {
    pub(crate) fn envelope(&self) -> Result<String, RefreshError> {
        let texts = [
            ("user name", Some(self.username), Rule::Name),
            ("password", Some(self.password), Rule::Password),
            ("organization id", self.organization_id, Rule::Token),
            ("portal id", self.portal_id, Rule::Token),
            ("client name", Some(self.client), Rule::Text),
        ];
        for (name, text, rule) in texts {
            // XML forbids most control characters, and parsers change the others.
            if let Some(text) = text {
                pasted::check(name, text, rule).map_err(RefreshError::unusable_setting)?;
            }
        }
        let size = texts
            .iter()
            .filter_map(|(_, text, _)| *text)
            .map(str::len)
            .sum();
        let scope = |mut scope: Envelope| {
            if let Some(organization_id) = self.organization_id {
                scope = scope.text("urn:organizationId", organization_id);
            }
            if let Some(portal_id) = self.portal_id {
                scope = scope.text("urn:portalId", portal_id);
            }
            scope
        };
        Ok(Envelope::new(size)
            .element("soapenv:Header", |mut header| {
                if self.organization_id.is_some() || self.portal_id.is_some() {
                    header = header.element("urn:LoginScopeHeader", scope);
                }
                header.element("urn:CallOptions", |options| {
                    options.text("urn:client", self.client)
                })
            })
            .element("soapenv:Body", |body| {
                body.element("urn:login", |login| {
                    login
                        .text("urn:username", self.username)
                        .text("urn:password", self.password)
                })
            })
            .finish())
    }

    /// Makes a session from the response.
    pub(crate) fn session(
        &self,
        login_url: &LoginUrl,
        response: HttpResponse,
    ) -> Result<Session, RefreshError> {
        let host = &response.host.clone();
        let is_whole = response.is_whole();
        let result = fault::parse_response("SOAP login", response, &self.secrets)?;
        let expired = result.text("passwordExpired");
        if expired.is_some_and(|expired| expired.eq_ignore_ascii_case("true") || expired == "1") {
            return Err(RefreshError::new(
                RefreshErrorKind::Refused,
                true,
                format!(
                    "{host} accepted the password only to change it, because it has expired: set a new one, or let \
                     the password of this user never expire"
                ),
            )
            .with_error_code("INVALID_OPERATION_WITH_EXPIRED_PASSWORD"));
        }
        let required = |name| {
            result.text(name).ok_or_else(|| {
                // The rest of a response that broke off may have had it.
                RefreshError::new(
                    RefreshErrorKind::InvalidResponse,
                    is_whole,
                    format!("{host} answered the SOAP login without a `{name}`"),
                )
                .with_retry_after(PASSWORD_DELAY)
            })
        };
        let session =
            Session::from_soap_server(required("sessionId")?.into(), required("serverUrl")?)
                .map_err(|error| {
                    unusable_response(format!(
                        "{host} answered the SOAP login with a session that cannot be used"
                    ))
                    .with_source(error)
                })?
                .with_login_url(login_url.clone());
        Ok(with_user(session, &result))
    }
}

/// Adds the user, the org and the session timeout, as far as the response contains them.
fn with_user(mut session: Session, result: &Elements) -> Session {
    if let (Some(organization), Some(user)) = (result.text("organizationId"), result.text("userId"))
    {
        session = session.with_ids(organization, user);
    }
    match result.text("sessionSecondsValid").and_then(fields::seconds) {
        Some(lifetime) => session.with_lifetime(lifetime),
        None => session,
    }
}
