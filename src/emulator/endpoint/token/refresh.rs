//! The refresh token grant.

use http::request::Parts;

use super::client::{SecretRule, authenticate};
use super::refusal::TokenRefusal;
use crate::emulator::state::backend::Backend;
use crate::emulator::state::sessions::{NewTokens, RefreshRefusal};
use crate::emulator::wire::form::Form;

/// A refresh without an answer so far. Dropping it leaves the refresh token as it was before.
pub(super) struct RefreshInProcess<'a> {
    org: &'a Backend,
    token: String,
}

impl<'a> RefreshInProcess<'a> {
    pub(super) fn begin(
        org: &'a Backend,
        parts: &Parts,
        form: &Form,
        key: Option<&str>,
    ) -> Result<Self, TokenRefusal> {
        authenticate(org, parts, form, SecretRule::AsSetUp)?;
        let token = form
            .get("refresh_token")
            .ok_or_else(|| TokenRefusal::missing("refresh_token"))?;
        let mut state = org.state();
        state.user.check_active()?;
        let must_be_bound = state.dpop.required;
        let description = match state.sessions.begin_refresh(token, key, must_be_bound) {
            Ok(()) => {
                let token = token.to_owned();
                return Ok(Self { org, token });
            }
            Err(RefreshRefusal::Dead) => "expired access/refresh token",
            Err(RefreshRefusal::Reused) => {
                state.counters.refresh_token_reuses += 1;
                "expired access/refresh token"
            }
            Err(RefreshRefusal::NotProven) => {
                return Err(TokenRefusal::new(
                    "invalid_dpop_proof",
                    "the refresh token is bound to another key",
                ));
            }
            Err(RefreshRefusal::NotBound) => "the refresh token is not bound to a key",
            Err(RefreshRefusal::InProcess) => {
                state.counters.concurrent_refreshes += 1;
                "token request is already being processed"
            }
        };
        Err(TokenRefusal::invalid_grant(description))
    }

    pub(super) fn finish(self, now: u64) -> Result<NewTokens, TokenRefusal> {
        let mut state = self.org.state();
        let rotate = state.rotate_refresh_tokens;
        let mint = state.mint(now);
        let tokens = state.sessions.finish_refresh(&self.token, rotate, &mint);
        // The guard is let go before `self` is dropped, which locks again.
        drop(state);
        tokens.ok_or_else(|| TokenRefusal::invalid_grant("expired access/refresh token"))
    }
}

impl Drop for RefreshInProcess<'_> {
    fn drop(&mut self) {
        // Nothing is in process after `finish`, so this changes nothing then.
        self.org.state().sessions.abandon_refresh(&self.token);
    }
}
