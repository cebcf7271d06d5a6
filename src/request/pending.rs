//! A request that waits for its response: how it is first sent, what is remembered of it, what its response means.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode, Uri, request::Parts};
use http_body::Body;

use crate::{
    body::{BodyFactory, InMemory, KeptBody, Peeked, ReplayBody},
    error::{BoxError, Error, ErrorKind},
    handle::handle::SessionHandle,
    report::{
        observer::Event,
        outcome::{AuthOutcome, ReplaySkipped},
    },
    request::{
        authorize,
        common::Common,
        extensions::{NoRefresh, NoReplay},
        head::Head,
        proof, redirect,
        target::{self, Target},
        watch::{NonceDemand, Watch},
    },
    session::live::{Generation, LiveSession, Published},
    soap::session_header::HeaderRewrite,
    verdict::{Api, Extent, ResponseHead, Verdict},
};

/// What a replay needs.
pub(crate) struct ReplayParts<B> {
    pub(crate) head: Head,
    pub(crate) body: KeptBody<B>,
}

// === The first send ===

/// The body to send with a prepared head, and the pending request. The latter is `None` if the layer passes any response
/// on.
pub(crate) type Prepared<S, B> = (ReplayBody<B>, Option<PendingRequest<S, B>>);

/// Prepares a request for its first send, with a session that has no extras. Changes the head in place.
///
/// `meant_for` is the generation whose instance the request targets, if the request had to wait for a session. `chosen` is
/// the handle that the request carried; it is taken if there is a pending request.
///
/// `IS_BOUND` says whether the session is bound to a key. Then there is always a pending request: the answer may have the nonce
/// of the next proof, or demand one.
#[inline]
pub(crate) fn prepare<S, B, const IS_BOUND: bool>(
    head: &mut Parts,
    body: B,
    meant_for: Option<Generation>,
    published: &Published,
    common: &Arc<Common<S>>,
    chosen: &mut Option<SessionHandle>,
    inner: &S,
) -> Result<Prepared<S, B>, Error>
where
    S: Clone,
    B: Body + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let handle = chosen.as_ref().unwrap_or(&common.handle);
    let policy = &common.policy;
    let api = Api::of(head);
    let is_there = published.is_at_instance(&head.uri);
    let target = match meant_for {
        Some(generation) if published.succeeds(generation) => Target::Instance,
        Some(_) => return Err(other_org()),
        None if is_there => Target::Instance,
        None => match Target::of(&head.uri, published, handle) {
            Some(target) => target,
            None => return Ok((ReplayBody::once(body), None)),
        },
    };
    let is_ours = authorize::claim(head, api, published)?;
    if target == Target::Instance && !is_there && (is_ours || target::is_relative(&head.uri)) {
        target::point_at_instance(head, published)?;
    }
    if !is_ours {
        return Ok((ReplayBody::once(body), None));
    }
    let has_refreshes = policy.max_refreshes != 0 && head.extensions.get::<NoRefresh>().is_none();
    if !has_refreshes && !IS_BOUND {
        authorize::authorize_claimed(head, api, published);
        return Ok((send_once(head, body, api, published), None));
    }
    let (body, replay) = if !IS_BOUND && !handle.is_refreshable() {
        let body = send_once(head, body, api, published);
        (body, Err(ReplaySkipped::NotConfigured))
    } else if !has_refreshes || head.extensions.get::<NoReplay>().is_some() {
        let body = send_once(head, body, api, published);
        (body, Err(ReplaySkipped::NotWanted))
    } else {
        common.keep_spare(inner);
        let (body, kept_body) = keep_body(head, body, api, published, policy.replay_limit);
        let replay = match kept_body {
            Some(kept) => {
                let small_body = match kept {
                    KeptBody::Copied => body.in_memory(),
                    _ => &[],
                };
                let head = Head::pack(head, target, published, small_body);
                Ok(ReplayParts { head, body: kept })
            }
            None => Err(ReplaySkipped::BodyNotReplayable),
        };
        (body, replay)
    };
    authorize::authorize_claimed(head, api, published);
    let pending = PendingRequest {
        common: Arc::clone(common),
        chosen: chosen.take(),
        generation: published.generation,
        attempts: 1,
        refreshes_left: if has_refreshes {
            policy.max_refreshes
        } else {
            0
        },
        has_adopted: false,
        api,
        has_jwt: published.has_jwt,
        watch: None,
        replay,
    };
    Ok((body, Some(pending)))
}

/// Prepares a request for its first send with a session that may have [`Extras`](crate::session::live::Extras): with a proof if it
/// is bound to a key (RFC 9449).
#[cold]
#[inline(never)]
pub(crate) fn prepare_with_extras<S, B>(
    head: &mut Parts,
    body: B,
    meant_for: Option<Generation>,
    published: &Published,
    common: &Arc<Common<S>>,
    chosen: &mut Option<SessionHandle>,
    inner: &S,
) -> Result<Prepared<S, B>, Error>
where
    S: Clone,
    B: Body + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let is_bearer = published.session.bound_key().is_none();
    let api = Api::of(head);
    let is_passed_through = is_bearer || authorize::is_passed_through(head, api);
    let prepare = if is_bearer {
        prepare::<S, B, false>
    } else {
        prepare::<S, B, true>
    };
    let mut prepared = prepare(head, body, meant_for, published, common, chosen, inner)?;
    if let (_, Some(pending)) = &mut prepared {
        pending.watch = Watch::of(published, &head.uri, None);
        if !pending.handle().is_refreshable() {
            pending.refreshes_left = 0;
        }
    }
    // The session is in the request now, unless the request goes elsewhere.
    if !is_passed_through && authorize::is_authenticated(&head.headers, api) {
        let Parts {
            method,
            uri,
            extensions,
            headers,
            ..
        } = head;
        proof::write(headers, (method, uri, extensions), api, published)?;
    }
    Ok(prepared)
}

/// Keeps nothing of the body. Writes the session into a SOAP envelope.
fn send_once<B>(head: &mut Parts, body: B, api: Api, published: &Published) -> ReplayBody<B>
where
    B: Body + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    if api == Api::Soap {
        keep_body(head, body, api, published, 0).0
    } else {
        ReplayBody::once(body)
    }
}

/// Keeps the body, or its factory, for a replay. Writes the session into a SOAP envelope that is in memory.
fn keep_body<B>(
    head: &mut Parts,
    body: B,
    api: Api,
    published: &Published,
    limit: usize,
) -> (ReplayBody<B>, Option<KeptBody<B>>)
where
    B: Body + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    // Most requests have no extensions: nothing is looked up then.
    if !head.extensions.is_empty()
        && let Some(factory) = head.extensions.remove::<BodyFactory<B>>()
        && api != Api::Soap
        // A redirect, for example, may have removed the body and left its factory.
        && !body.is_end_stream()
    {
        return ReplayBody::made(body, factory);
    }
    ReplayBody::keeping(body, limit, |memory| {
        if api == Api::Soap {
            write_envelope(head, memory, published);
        }
    })
}

/// Writes the session into a SOAP envelope.
///
/// Callers build an envelope before the layer chooses the session. An envelope with a stale session would be rejected,
/// and the rejection counted against the current session.
fn write_envelope(head: &mut Parts, memory: &mut InMemory, published: &Published) {
    let request = (&head.method, &head.uri);
    let written = authorize::write_session(memory.data(), request, published);
    if let HeaderRewrite::Envelope(envelope) = written {
        let growth = authorize::growth(memory.data(), &envelope);
        authorize::correct_length(&mut head.headers, growth);
        memory.replace_data(Bytes::from(envelope));
    }
}

fn other_org() -> Error {
    Error::new(
        ErrorKind::OtherOrg,
        "a session of another org was set while the request waited for its own: send it again if it is for this org \
         too",
    )
}

// === PendingRequest ===

/// What the layer remembers of a request until it returns the response.
pub(crate) struct PendingRequest<S, B> {
    pub(crate) common: Arc<Common<S>>,
    /// The handle that the request carried. `None` if it is sent with the layer's session.
    chosen: Option<SessionHandle>,
    /// Generation of the session that the request was last sent with.
    pub(crate) generation: Generation,
    /// How many times the request was sent.
    attempts: u32,
    /// How many more refreshes the request may use up.
    refreshes_left: u32,
    /// Whether the request was sent with an adopted session, one that another process stored. The first adopted session
    /// does not use up a refresh: it may already be expired.
    has_adopted: bool,
    /// The API that the request calls.
    api: Api,
    /// Whether the token that the request was last sent with is a JWT.
    has_jwt: bool,
    /// What is noted for the answer. `None` for nearly every session.
    watch: Option<Box<Watch>>,
    /// What a replay needs, or why there is no replay.
    pub(crate) replay: Result<ReplayParts<B>, ReplaySkipped>,
}

/// What the head of a response decides.
pub(crate) enum HeadVerdict {
    /// The response is returned, with this verdict.
    Final(Verdict),
    /// The body is read first: to get a verdict if there is `None`, else to free the connection for the replay.
    ReadBody(Option<Verdict>),
}

impl<S, B> PendingRequest<S, B> {
    /// The session that the request is sent with.
    #[inline]
    pub(crate) fn handle(&self) -> &SessionHandle {
        self.chosen.as_ref().unwrap_or(&self.common.handle)
    }

    /// Counts a replay with this session.
    pub(super) fn count_replay(&mut self, published: &Published) {
        let is_same_session = published.generation == self.generation;
        self.generation = published.generation;
        self.attempts = self.attempts.saturating_add(1);
        if let Some(watch) = self.watch.as_mut().filter(|watch| watch.is_nonce_due()) {
            // It uses up no refresh.
            watch.nonce_done(is_same_session);
        } else if !published.is_adopted || std::mem::replace(&mut self.has_adopted, true) {
            self.refreshes_left = self.refreshes_left.saturating_sub(1);
        }
        self.has_jwt = published.has_jwt;
    }

    /// Notes where a replay is sent with this session.
    pub(super) fn watch(&mut self, published: &Published, uri: &Uri) {
        if published.extras.is_some() || self.watch.is_some() {
            self.watch = Watch::of(published, uri, self.watch.as_deref());
        }
    }

    /// Whether the session that the request was last sent with is bound to a key.
    pub(super) fn was_bound(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.is_bound())
    }

    pub(super) fn api(&self) -> Api {
        self.api
    }

    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Whether the session was refreshed since the first send, as far as this request knows.
    pub(crate) fn is_refreshed(&self) -> bool {
        let was_for_nonce_alone = || {
            let watch = self.watch.as_ref();
            watch.is_some_and(|watch| watch.was_for_nonce_alone())
        };
        self.attempts > 1 && (self.attempts > 2 || !was_for_nonce_alone())
    }

    /// Whether the request has used up its refreshes.
    pub(super) fn is_exhausted(&self) -> bool {
        self.refreshes_left == 0
    }

    /// Whether a refresh would follow a rejection.
    pub(crate) fn may_refresh(&self) -> bool {
        let is_renewable = !matches!(self.replay, Err(ReplaySkipped::NotConfigured));
        is_renewable && !self.is_exhausted()
    }

    /// Whether a replay may follow a rejection with this status: after a refresh, or for a nonce (RFC 9449 §9).
    pub(crate) fn may_replay(&self, status: StatusCode) -> bool {
        let is_for_nonce = || status == StatusCode::UNAUTHORIZED && self.may_replay_for_nonce();
        self.may_refresh() || self.replay.is_ok() && is_for_nonce()
    }

    /// Whether a replay for a nonce may follow, which uses up no refresh.
    pub(super) fn may_replay_for_nonce(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.may_replay())
    }

    /// Whether the next replay is for a nonce.
    pub(super) fn is_nonce_due(&self) -> bool {
        self.watch
            .as_ref()
            .is_some_and(|watch| watch.is_nonce_due())
    }

    /// Why a replay with this session would be useless or harmful. `None` if the session is fine.
    pub(crate) fn skip_reason(&self, live: &LiveSession) -> Option<ReplaySkipped> {
        if live.generation() == self.generation {
            // The session is fine, and only the proof is not.
            (!self.is_nonce_due()).then_some(ReplaySkipped::Fruitless)
        } else if !live.cures(self.generation) {
            Some(ReplaySkipped::Unchanged)
        } else if !live.0.succeeds(self.generation) {
            Some(ReplaySkipped::OtherOrg)
        } else {
            None
        }
    }

    // === The response ===

    /// Classifies a response by its head.
    pub(crate) fn classify_head<R>(&self, response: &Response<R>) -> HeadVerdict {
        let status = response.status();
        let verdict = match self
            .common
            .policy
            .classifier
            .head(&self.response_head(response))
        {
            Some(Verdict::Pass) => Some(Verdict::Pass),
            _ if redirect::answered_by_foreign_host(response, self.handle()) => Some(Verdict::Pass),
            None if !self.may_replay(status) => self.verdict_without_body(status),
            verdict => verdict,
        };
        match verdict {
            Some(verdict) if verdict != Verdict::Expired || !self.may_replay(status) => {
                HeadVerdict::Final(verdict)
            }
            verdict => HeadVerdict::ReadBody(verdict),
        }
    }

    /// Classifies a response by what was read of its body.
    pub(crate) fn classify_body<R: Body>(
        &self,
        response: &Response<Peeked<R>>,
        extent: Extent,
    ) -> Option<Verdict> {
        let head = self.response_head(response);
        self.common
            .policy
            .classifier
            .body(&head, response.body().seen(), extent)
    }

    fn response_head<'a, R>(&self, response: &'a Response<R>) -> ResponseHead<'a> {
        let head = ResponseHead::new(self.api, response);
        if self.has_jwt { head.with_jwt() } else { head }
    }

    /// The verdict on a response that no refresh can follow, if the status decides it.
    fn verdict_without_body(&self, status: StatusCode) -> Option<Verdict> {
        if status == StatusCode::UNAUTHORIZED {
            return Some(Verdict::Expired);
        }
        // A layer without a way to refresh reads no bodies.
        (!self.handle().is_refreshable()).then_some(Verdict::Pass)
    }

    /// Ends the request with a verdict on its last response: reports to the session whether it was accepted, and attaches
    /// the outcome if the request was ever rejected.
    pub(crate) fn conclude<R>(&self, response: &mut Response<R>, verdict: Verdict) {
        let replay_skipped = match (verdict, &self.replay) {
            (Verdict::Pass, _) => None,
            (Verdict::Incurable, _) => Some(ReplaySkipped::Incurable),
            _ if !self.handle().is_refreshable() => Some(ReplaySkipped::NotConfigured),
            (Verdict::Expired, Err(ReplaySkipped::NotWanted)) => Some(ReplaySkipped::NotWanted),
            (Verdict::Expired, _) => Some(ReplaySkipped::RefreshesExhausted),
        };
        if let Some(watch) = &self.watch {
            watch.conclude(response, verdict);
        }
        let is_replayed = self.attempts > 1;
        if is_replayed && self.is_refreshed() {
            match verdict {
                Verdict::Pass => self.handle().confirm(self.generation),
                Verdict::Expired => self.handle().reject_last(self.generation),
                // The session is not the cause.
                Verdict::Incurable => {}
            }
        }
        if replay_skipped.is_some() || is_replayed {
            self.attach_outcome(response, self.is_refreshed(), replay_skipped);
        }
    }

    /// Notes a rejection, and whether a new proof may cure it without another session.
    pub(crate) fn rejected<R>(&mut self, response: &Response<R>) -> NonceDemand {
        match &mut self.watch {
            Some(watch) => watch.rejected(response),
            None => NonceDemand::None,
        }
    }

    /// Attaches the outcome to a response. Reports a replay that was skipped.
    pub(super) fn attach_outcome<R>(
        &self,
        response: &mut Response<R>,
        refreshed: bool,
        replay_skipped: Option<ReplaySkipped>,
    ) {
        let outcome = AuthOutcome {
            attempts: self.attempts,
            generation: self.generation,
            refreshed,
            replay_skipped,
        };
        if replay_skipped.is_some() {
            let event = Event::ReplaySkipped(outcome.clone());
            self.handle().shared.announce(&[event]);
        }
        response.extensions_mut().insert(outcome);
    }
}
