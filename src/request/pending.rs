//! One request and its answer, over all attempts: how the first is sent, and what is remembered for the next.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode, request::Parts};
use http_body::Body;

use crate::{
    body::{BodyFactory, KeptBody, ReplayBody},
    error::{BoxError, Error, ErrorKind},
    handle::handle::SessionHandle,
    report::{
        observer::News,
        outcome::{AuthOutcome, OnRefreshFailure, ReplaySkipped},
    },
    request::{
        authorize,
        extensions::{NoRefresh, NoReplay},
        head::Head,
        redirect,
        target::{self, Target},
    },
    session::live::{Generation, LiveSession, Published, Trial},
    soap::session_header::HeaderRewrite,
    verdict::{Api, Classifier, ResponseHead, Verdict},
};

/// When a request is sent again, and how much may be done for that.
#[derive(Clone, Debug)]
pub(crate) struct ReplayPolicy {
    pub(crate) max_refreshes: u32,
    pub(crate) replay_limit: usize,
    pub(crate) on_refresh_failure: OnRefreshFailure,
    pub(crate) classifier: Classifier,
}

/// What is remembered of a request while its answer is awaited.
pub(crate) struct PendingRequest<S, B> {
    pub(crate) handle: SessionHandle,
    /// The session that it was sent with last.
    pub(crate) generation: Generation,
    /// How often it was sent.
    pub(crate) attempts: u32,
    /// How often it may still be rejected, wait and be sent again.
    pub(crate) refreshes_left: u32,
    /// Whether it was sent with a session that another process had stored. The first of those is no refresh: it may be as
    /// dead as the one before it, and nobody would have been asked for another.
    pub(crate) has_adopted: bool,
    pub(crate) on_refresh_failure: OnRefreshFailure,
    /// Whose request it is.
    pub(crate) api: Api,
    /// Whether the token that it was sent with last is a JWT.
    pub(crate) has_jwt: bool,
    pub(crate) classifier: Classifier,
    /// Where it is noted that the session was accepted, if anybody wants to know.
    pub(crate) trial: Option<Arc<Trial>>,
    pub(crate) kept: Result<ReplayParts<S, B>, ReplaySkipped>,
}

/// What the head of an answer tells.
pub(crate) enum Judged {
    /// It is returned.
    Answer,
    /// Its body has to be read, to know the verdict, or to give its connection back.
    Suspect(Option<Verdict>),
}

/// What it takes to send a request again.
pub(crate) struct ReplayParts<S, B> {
    /// The service to send it with. It was not polled to readiness yet.
    pub(crate) not_ready_inner: S,
    pub(crate) head: Head,
    pub(crate) body: KeptBody<B>,
}

/// The body to send with a head that was prepared, and what is remembered of the request. None: its answer is passed on,
/// whatever it is.
pub(crate) type Prepared<S, B> = (ReplayBody<B>, Option<PendingRequest<S, B>>);

/// Prepares the first attempt. The head is changed where it is.
///
/// `meant_for` is the session whose instance the request was found to be meant for, if it had to wait for another.
/// `clone_inner` gets the service that a second attempt would be sent with.
#[inline]
pub(crate) fn prepare<S, B>(
    head: &mut Parts,
    body: B,
    meant_for: Option<Generation>,
    published: &Published,
    handle: &SessionHandle,
    policy: &ReplayPolicy,
    clone_inner: impl FnOnce() -> S,
) -> Result<Prepared<S, B>, Error>
where
    B: Body + Unpin + 'static,
    B::Error: Into<BoxError>,
{
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
        target::send_to_instance(head, published)?;
    }
    if !is_ours {
        return Ok((ReplayBody::once(body), None));
    }
    if policy.max_refreshes == 0 || head.extensions.get::<NoRefresh>().is_some() {
        authorize::authorize_elsewhere(head, api, published);
        return Ok((send_once(head, body, api, published), None));
    }
    let (body, kept) = if !handle.is_renewable() {
        let body = send_once(head, body, api, published);
        (body, Err(ReplaySkipped::NotConfigured))
    } else if head.extensions.get::<NoReplay>().is_some() {
        let body = send_once(head, body, api, published);
        (body, Err(ReplaySkipped::NotWanted))
    } else {
        let (body, kept_body) = keep_body(head, body, api, published, policy.replay_limit);
        let kept = match kept_body {
            Some(body) => Ok(ReplayParts {
                not_ready_inner: clone_inner(),
                head: Head::keep(head, target, published),
                body,
            }),
            None => Err(ReplaySkipped::BodyNotReplayable),
        };
        (body, kept)
    };
    authorize::authorize_elsewhere(head, api, published);
    let pending = PendingRequest {
        handle: handle.clone(),
        generation: published.generation,
        attempts: 1,
        refreshes_left: policy.max_refreshes,
        has_adopted: false,
        on_refresh_failure: policy.on_refresh_failure,
        api,
        has_jwt: published.has_jwt,
        classifier: policy.classifier.clone(),
        trial: published.trial.clone(),
        kept,
    };
    Ok((body, Some(pending)))
}

/// Keeps nothing of the body.
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

/// Keeps the body, or what makes it, and writes the session into an envelope that is in memory.
///
/// Envelopes are made before anybody knows which session they are going to be sent with. A stale one, sent as it is,
/// would be held against a session that is not in it.
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
    if let Some(factory) = head.extensions.remove::<BodyFactory<B>>()
        && api != Api::Soap
        // Whoever took the body out, a redirect for one, may have left what made it.
        && !body.is_end_stream()
    {
        return ReplayBody::made(body, factory);
    }
    let (mut sent, mut kept) = ReplayBody::keeping(body, limit);
    if api == Api::Soap
        && let Some(KeptBody::InMemory(memory)) = &mut kept
        && let HeaderRewrite::Envelope(envelope) =
            authorize::write_session(memory.data(), published)
    {
        authorize::correct_length(
            &mut head.headers,
            authorize::growth(memory.data(), &envelope),
        );
        memory.replace_data(Bytes::from(envelope));
        sent = ReplayBody::in_memory(memory.clone());
    }
    (sent, kept)
}

fn other_org() -> Error {
    Error::new(
        ErrorKind::OtherOrg,
        "a session of another org was set while the request waited for one of the org that it is meant for: send it \
         again if it is for this org too",
    )
}

impl<S, B> PendingRequest<S, B> {
    /// Why it would be of no use, or do harm, to send the request again with this session.
    pub(crate) fn reason_to_stop(&self, live: &LiveSession) -> Option<ReplaySkipped> {
        if live.generation() == self.generation {
            Some(ReplaySkipped::Fruitless)
        } else if !live.cures(self.generation) {
            Some(ReplaySkipped::Unchanged)
        } else if !live.0.succeeds(self.generation) {
            Some(ReplaySkipped::OtherOrg)
        } else {
            None
        }
    }

    /// What there is to be classified of an answer.
    pub(crate) fn head_of<'a, R>(&self, response: &'a Response<R>) -> ResponseHead<'a> {
        let head = ResponseHead::new(self.api, response);
        if self.has_jwt { head.with_jwt() } else { head }
    }

    /// Whether a rejection would be followed by a refresh.
    pub(crate) fn may_refresh(&self) -> bool {
        let is_renewable = !matches!(self.kept, Err(ReplaySkipped::NotConfigured));
        is_renewable && self.refreshes_left > 0
    }

    /// The verdict on an answer that nothing can be done about, as far as it is to be had without its body.
    fn known_by(&self, status: StatusCode) -> Option<Verdict> {
        match &self.kept {
            _ if status == StatusCode::UNAUTHORIZED => Some(Verdict::Expired),
            Err(ReplaySkipped::NotConfigured) => Some(Verdict::Pass),
            _ => None,
        }
    }

    /// Judges an answer by its head. One that is returned as it is has what was done for it noted on it.
    pub(crate) fn judge<R>(&self, response: &mut Response<R>) -> Judged {
        let verdict = match self.classifier.head(&self.head_of(response)) {
            Some(Verdict::Pass) => Some(Verdict::Pass),
            _ if redirect::answered_by_foreign_host(response, &self.handle) => Some(Verdict::Pass),
            None if !self.may_refresh() => self.known_by(response.status()),
            suspected => suspected,
        };
        match verdict {
            Some(verdict) if verdict != Verdict::Expired || !self.may_refresh() => {
                self.conclude(response, verdict);
                Judged::Answer
            }
            suspected => Judged::Suspect(suspected),
        }
    }

    /// Notes on a response that is returned what was done for it, if it was rejected, at first or for good.
    pub(crate) fn conclude<R>(&self, response: &mut Response<R>, verdict: Verdict) {
        let replay_skipped = match (verdict, &self.kept) {
            (Verdict::Pass, _) => None,
            (Verdict::Incurable, _) => Some(ReplaySkipped::Incurable),
            (Verdict::Expired, Err(ReplaySkipped::NotConfigured)) => {
                Some(ReplaySkipped::NotConfigured)
            }
            (Verdict::Expired, _) => Some(ReplaySkipped::RefreshesExhausted),
        };
        if let (Verdict::Pass, Some(trial)) = (verdict, &self.trial) {
            trial.accept();
        }
        if self.is_refreshed() {
            match verdict {
                Verdict::Pass => self.handle.prove(self.generation),
                Verdict::Expired => self.handle.judge(self.generation),
                // The session is not to blame.
                Verdict::Incurable => {}
            }
        }
        if replay_skipped.is_some() || self.is_refreshed() {
            self.note(response, self.is_refreshed(), replay_skipped);
        }
    }

    /// Notes on a response what was done for it.
    pub(super) fn note<R>(
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
        if let Some(reason) = replay_skipped {
            let news = News::ReplaySkipped(reason, outcome.clone());
            self.handle.shared.announce(&[news]);
        }
        response.extensions_mut().insert(outcome);
    }

    /// Whether the session was renewed since the first attempt, for all that this pending has seen.
    pub(crate) fn is_refreshed(&self) -> bool {
        self.attempts > 1
    }
}
