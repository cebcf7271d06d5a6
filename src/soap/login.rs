//! `login()`.

use std::time::Duration;

use super::{
    envelope::{Elements, Envelope},
    fault,
};
use crate::{
    error::{RefreshError, RefreshErrorKind},
    http::{server_error::unusable_response, transport::HttpResponse},
    session::{session::Session, url::LoginUrl},
};

/// What `login()` is called with.
pub(crate) struct Login<'a> {
    pub(crate) username: &'a str,
    /// With the security token at its end.
    pub(crate) password: &'a str,
    /// What must not be seen in an error.
    pub(crate) secrets: Vec<&'a str>,
    /// The org and the portal of a portal or site user (`LoginScopeHeader`).
    pub(crate) organization_id: Option<&'a str>,
    pub(crate) portal_id: Option<&'a str>,
    /// How the client is called in the org's logs (`CallOptions`).
    pub(crate) client: &'a str,
}

impl Login<'_> {
    pub(crate) fn envelope(&self) -> Result<String, RefreshError> {
        let texts = [
            ("user name", Some(self.username)),
            ("password", Some(self.password)),
            ("organization id", self.organization_id),
            ("portal id", self.portal_id),
            ("client name", Some(self.client)),
        ];
        for (what, text) in texts {
            // XML cannot carry most of them, and changes the others.
            if text.is_some_and(|text| text.contains(char::is_control)) {
                return Err(RefreshError::configuration(format!(
                    "the {what} has a control character in it, a line break for one, which no Salesforce {what} has: \
                     check how it was copied"
                )));
            }
        }
        let size = texts
            .iter()
            .filter_map(|(_, text)| *text)
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

    /// The session that the answer describes.
    pub(crate) fn session(
        &self,
        login_url: &LoginUrl,
        response: &HttpResponse,
    ) -> Result<Session, RefreshError> {
        let result = fault::parse_response("SOAP login", response, &self.secrets)?;
        let host = &response.host;
        if result.text("passwordExpired") == Some("true") {
            return Err(RefreshError::new(
                RefreshErrorKind::Refused,
                true,
                format!(
                    "{host} accepted the password, which has expired, for nothing but changing it: set a new one, or \
                     let the password of this user never expire"
                ),
            )
            .with_error_code("INVALID_OPERATION_WITH_EXPIRED_PASSWORD"));
        }
        let required = |name| {
            result
                .text(name)
                .filter(|text| !text.is_empty())
                .ok_or_else(|| {
                    unusable_response(format!("{host} answered the SOAP login without a `{name}`"))
                })
        };
        let session = Session::from_session_id(required("sessionId")?, required("serverUrl")?)
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

fn with_user(mut session: Session, result: &Elements) -> Session {
    if let (Some(organization), Some(user)) = (result.text("organizationId"), result.text("userId"))
    {
        session = session.with_ids(organization, user);
    }
    let seconds = result
        .text("sessionSecondsValid")
        .and_then(|seconds| seconds.parse().ok());
    match seconds {
        Some(seconds) => session.with_lifetime(Duration::from_secs(seconds)),
        None => session,
    }
}
