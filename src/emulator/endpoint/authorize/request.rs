//! Authorization requests: checks them and decides the next step (RFC 7636 §4.3).

use form_urlencoded::Serializer;

use super::error_page::ErrorPage;
use crate::emulator::endpoint::token::{GrantKind, fields};
use crate::emulator::state::app::CLIENT_ID;
use crate::emulator::state::backend::Backend;
use crate::emulator::state::codes::CodeGrant;
use crate::emulator::state::decision::UserDecision;
use crate::emulator::state::user::{USERNAME, User};
use crate::emulator::wire::form::Form;
use crate::emulator::wire::page::{self, PageUser};
use crate::emulator::wire::scope;

/// An authorization request with a valid client id and callback.
pub(crate) struct ConsentRequest {
    redirect_uri: String,
    state: Option<String>,
    nonce: Option<String>,
    /// The thumbprint of the key that the code will be bound to. `None` if it will not be.
    key: Option<String>,
    immediate: bool,
    code_challenge: Option<String>,
    /// The issuer that the callback names. `None` if it names none.
    issuer: Option<String>,
    /// Whether the request asked for tokens. The parameters of the redirect are then in the
    /// fragment.
    in_fragment: bool,
    /// The kind of answer and the scope, or the error to send back.
    wanted: Result<(ResponseType, String), Denial>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ResponseType {
    Code,
    /// Tokens in the fragment: the user-agent flow (RFC 6749 §4.2).
    Token,
}

/// An error for the app, sent with the redirect.
#[derive(Clone, Copy)]
struct Denial {
    error: &'static str,
    description: &'static str,
}

/// The next thing for the browser.
pub(super) enum NextStep {
    Page(String),
    Redirect(String),
}

impl ConsentRequest {
    pub(crate) fn read(org: &Backend, form: &Form) -> Result<Self, ErrorPage> {
        if form.get("client_id") != Some(CLIENT_ID) {
            return Err(ErrorPage::new(
                "invalid_client_id",
                "client identifier invalid",
            ));
        }
        let Some(redirect_uri) = form.get("redirect_uri") else {
            return Err(ErrorPage::new(
                "redirect_uri_missing",
                "missing required parameter: redirect_uri",
            ));
        };
        let state = org.state();
        if !state
            .app
            .redirect_uris
            .iter()
            .any(|uri| uri == redirect_uri)
        {
            return Err(ErrorPage::redirect_mismatch());
        }
        let code_challenge = form.get("code_challenge").map(str::to_owned);
        if state.app.requires_pkce && code_challenge.is_none() {
            return Err(ErrorPage::new(
                "OAUTH_APPROVAL_ERROR_GENERIC",
                "An unexpected error has occurred during authentication. Please try again.",
            ));
        }
        let owned = |name: &str| form.get(name).map(str::to_owned);
        Ok(Self {
            redirect_uri: redirect_uri.to_owned(),
            state: owned("state"),
            nonce: owned("nonce"),
            key: owned("dpop_jkt"),
            immediate: form.get("immediate") == Some("true"),
            code_challenge,
            issuer: state.app.names_issuer.then(|| state.login_url.clone()),
            in_fragment: form
                .get("response_type")
                .is_some_and(|kind| kind.starts_with("token")),
            wanted: wanted(form),
        })
    }

    /// The first request: shows the login page, unless the answer is known without it.
    pub(super) fn begin(&self, org: &Backend, form: &Form) -> NextStep {
        let denial = match self.wanted {
            Err(denial) => denial,
            // The org keeps no browser sessions, so the user is never logged in beforehand.
            Ok(_) if self.immediate => Denial {
                error: "immediate_unsuccessful",
                description: "the user must log in",
            },
            Ok(_) => return NextStep::Page(page::login(form, shown_user(org), None)),
        };
        NextStep::Redirect(self.deny(denial))
    }

    /// The requests after the login page and the consent page.
    pub(super) fn go_on(&self, org: &Backend, form: &Form) -> NextStep {
        let (response_type, scope) = match &self.wanted {
            Ok((response_type, scope)) => (*response_type, scope),
            Err(denial) => return NextStep::Redirect(self.deny(*denial)),
        };
        if let Some(login) = form.get("login") {
            if !org.state().codes.end_login(login) {
                let message = Some("Your login has ended.");
                return NextStep::Page(page::login(form, shown_user(org), message));
            }
            let decision = UserDecision::read(form);
            return NextStep::Redirect(self.decide(org, response_type, scope, decision));
        }
        let (Some(username), Some(password)) = (form.get("username"), form.get("password")) else {
            return self.begin(org, form);
        };
        let mut state = org.state();
        let entered = state.log_in(|user: &mut User| user.login_on_page(username, password));
        if entered.is_err() || state.user.password_expired {
            // The real page shows the same text for every reason.
            let message = "Please check your username and password. \
                           If you still can't log in, contact your Salesforce administrator.";
            return NextStep::Page(page::login(form, shown_user(org), Some(message)));
        }
        let login = state.codes.begin_login();
        NextStep::Page(page::consent(form, USERNAME, &login, scope))
    }

    /// The URL for the browser after the decision of the user, or at once for a request with an
    /// error.
    pub(crate) fn settle(&self, org: &Backend, decision: UserDecision) -> String {
        match &self.wanted {
            Ok((response_type, scope)) => self.decide(org, *response_type, scope, decision),
            Err(denial) => self.deny(*denial),
        }
    }

    fn decide(
        &self,
        org: &Backend,
        response_type: ResponseType,
        scope: &str,
        decision: UserDecision,
    ) -> String {
        if decision == UserDecision::Deny {
            return self.deny(Denial {
                error: "access_denied",
                description: "end-user denied authorization",
            });
        }
        let now = org.now();
        let mut state = org.state();
        if response_type == ResponseType::Code {
            let grant = CodeGrant {
                scope: scope.to_owned(),
                redirect_uri: self.redirect_uri.clone(),
                code_challenge: self.code_challenge.clone(),
                nonce: self.nonce.clone(),
                key: self.key.clone(),
            };
            let code = state.codes.issue(grant, now);
            state.counters.codes_issued += 1;
            return self.send_back([("code", code.as_str())]);
        }
        let mint = state.mint(now);
        let tokens = state.sessions.authorize(scope, &mint);
        let nonce = self.nonce.as_deref();
        let body = fields(&state, GrantKind::Consent, tokens, nonce, now);
        let members = body.as_object().into_iter().flatten();
        self.send_back(members.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?))))
    }

    fn deny(&self, denial: Denial) -> String {
        self.send_back([
            ("error", denial.error),
            ("error_description", denial.description),
        ])
    }

    /// The callback with `parameters`, the `state` of the request, and perhaps the issuer.
    fn send_back<'a>(&self, parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
        let state = self.state.iter().map(|state| ("state", state.as_str()));
        let encoded = Serializer::new(String::new())
            .extend_pairs(parameters)
            .extend_pairs(state)
            .extend_pairs(self.issuer.iter().map(|issuer| ("iss", issuer)))
            .finish();
        let joint = match (self.in_fragment, self.redirect_uri.contains('?')) {
            (true, _) => '#',
            (false, true) => '&',
            (false, false) => '?',
        };
        format!("{}{joint}{encoded}", self.redirect_uri)
    }
}

fn shown_user(org: &Backend) -> PageUser<'_> {
    PageUser {
        username: USERNAME,
        password: &org.password,
    }
}

fn wanted(form: &Form) -> Result<(ResponseType, String), Denial> {
    let denial = |error, description| Denial { error, description };
    let response_type = match form.get("response_type") {
        Some("code") => ResponseType::Code,
        Some("token" | "token id_token") => ResponseType::Token,
        _ => {
            return Err(denial(
                "unsupported_response_type",
                "response type not supported",
            ));
        }
    };
    // Without a method, Salesforce assumes S256. RFC 7636 §4.3 assumes `plain`.
    let method = form.get("code_challenge_method");
    if method.is_some_and(|method| method != "S256") {
        return Err(denial(
            "invalid_request",
            "code_challenge_method must be S256",
        ));
    }
    match scope::granted(form.get("scope")) {
        Some(scope) => Ok((response_type, scope.to_owned())),
        None => Err(denial(
            "invalid_scope",
            "the requested scope is not allowed",
        )),
    }
}
