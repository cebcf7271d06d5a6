//! Whether and when to refresh again: latch, back-off, breaker.
//!
//! - A terminal failure is **latched**: nothing is tried before something changes from outside (R10).
//! - A transient failure makes the next attempt wait, each time longer: **back-off** (R11).
//! - Useless refreshes, whose sessions are rejected at once, open a **breaker**: rejected requests then get their rejection
//!   instead of another refresh, for a while (R12).
//!
//! In all three states a session that another process stored may be adopted, since that costs no token call.

use std::time::Duration;

use tokio::time::Instant;

use crate::session::live::Generation;

/// Longest back-off after the first transient failure. Each further failure doubles it.
const BACKOFF: Duration = Duration::from_millis(500);

/// Longest back-off that a failure causes by itself. A server can ask for more.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// How long the breaker opens after the first useless refresh. Each further one doubles it.
const BREAK: Duration = Duration::from_secs(1);

/// Longest time that the breaker stays open.
const LONGEST_BREAK: Duration = Duration::from_secs(300);

/// A rejection of a session that is older than this means that it expired, not that its refresh was useless.
const YOUNG: Duration = Duration::from_secs(10);

/// How often the store is searched for another session while a failure is latched, or the breaker is open. Each search
/// costs one read.
const LATCHED_SEARCH: Duration = Duration::from_secs(10);
const BREAKER_SEARCH: Duration = Duration::from_secs(1);

/// What the refreshes so far say about the next one. `E` is the failure that callers share.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Policy<E> {
    /// `None` unless the last refresh failed with a terminal failure.
    latched: Option<E>,
    /// Transient failures in a row.
    failures: u32,
    /// The last transient failure, and when the next attempt may begin.
    backing_off: Option<(Instant, E)>,
    /// Attempts since the last success.
    attempts: u32,
    /// When the store may be searched again. `None`: now.
    next_search: Option<Instant>,
    breaker: Breaker,
}

/// Whether a refresh may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permit<'a, E> {
    Now,
    /// Not before then, because of this failure.
    NotBefore(Instant, &'a E),
    /// Not at all, because of this failure.
    Never(&'a E),
}

impl<E: Clone> Policy<E> {
    pub(crate) fn new() -> Self {
        Self {
            latched: None,
            failures: 0,
            backing_off: None,
            attempts: 0,
            next_search: None,
            breaker: Breaker::default(),
        }
    }

    /// Whether a refresh may begin at `now`.
    pub(crate) fn permit(&self, now: Instant) -> Permit<'_, E> {
        match (&self.latched, &self.backing_off) {
            (Some(failure), _) => Permit::Never(failure),
            (None, Some((until, failure))) if now < *until => Permit::NotBefore(*until, failure),
            _ => Permit::Now,
        }
    }

    pub(crate) fn latched(&self) -> Option<&E> {
        self.latched.as_ref()
    }

    /// Latches a terminal failure, and returns whether none was latched before. Old failures go to `retired`.
    pub(crate) fn latch(&mut self, failure: E, retired: &mut Vec<E>) -> bool {
        self.failures = 0;
        let before = self.latched.replace(failure);
        let is_first = before.is_none();
        retired.extend(before);
        is_first
    }

    /// Releases the latch: something changed from outside.
    pub(crate) fn unlatch(&mut self, retired: &mut Vec<E>) {
        retired.extend(self.latched.take());
    }

    /// Makes the next attempt wait after a transient failure. `retry_after` is what the server asked for. `jitter`, from 0
    /// to 1, spreads clients that failed together.
    pub(crate) fn back_off(
        &mut self,
        failure: E,
        retry_after: Option<Duration>,
        jitter: f64,
        now: Instant,
        retired: &mut Vec<E>,
    ) {
        let longest = doubled(BACKOFF, self.failures).min(LONGEST_BACKOFF);
        let delay = longest.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
        let delay = delay.max(retry_after.unwrap_or_default());
        self.failures = self.failures.saturating_add(1);
        let until = now
            .checked_add(delay)
            .unwrap_or_else(|| now + LONGEST_BREAK);
        // A failure of the store does not shorten what the server asked for.
        let until = match &self.backing_off {
            Some((before, _)) => until.max(*before),
            None => until,
        };
        let before = self.backing_off.replace((until, failure));
        retired.extend(before.map(|(_, failure)| failure));
    }

    /// Counts an attempt, and returns its number since the last success, from 1.
    pub(crate) fn begin_attempt(&mut self) -> u32 {
        self.attempts = self.attempts.saturating_add(1);
        self.attempts
    }

    /// A session was obtained.
    pub(crate) fn succeed(&mut self, retired: &mut Vec<E>) {
        retired.extend(self.latched.take());
        retired.extend(self.backing_off.take().map(|(_, failure)| failure));
        self.failures = 0;
        self.attempts = 0;
        self.next_search = None;
    }

    /// Something changed from outside: everything may be tried again.
    pub(crate) fn reset(&mut self, retired: &mut Vec<E>) {
        self.succeed(retired);
        self.breaker = Breaker::default();
    }

    /// Whether the store may be searched at `now`. Counts the search if so.
    pub(crate) fn may_search(&mut self, now: Instant) -> bool {
        if self.next_search.is_some_and(|next| now < next) {
            return false;
        }
        let pause = match self.latched {
            Some(_) => LATCHED_SEARCH,
            None => BREAKER_SEARCH,
        };
        self.next_search = now.checked_add(pause);
        true
    }

    #[cfg(test)]
    pub(super) fn times_mut(&mut self) -> impl Iterator<Item = &mut Instant> {
        let backing_off = self.backing_off.as_mut().map(|(until, _)| until);
        let probation = self.breaker.probation.as_mut();
        let since = probation.map(|probation| &mut probation.since);
        let times = backing_off.into_iter().chain(&mut self.next_search);
        times.chain(&mut self.breaker.open_until).chain(since)
    }

    /// When the policy permits something that it does not permit now.
    #[cfg(test)]
    pub(super) fn deadlines(&self) -> impl Iterator<Item = Instant> {
        let backing_off = self.backing_off.as_ref().map(|(until, _)| *until);
        let times = [backing_off, self.next_search, self.breaker.open_until];
        times.into_iter().flatten()
    }

    // === The breaker ===

    /// Whether the breaker is open at `now`.
    pub(crate) fn is_open(&self, now: Instant) -> bool {
        self.breaker.open_until.is_some_and(|until| now < until)
    }

    /// Whether the session on probation has to be watched for an acceptance: requests pay for that.
    pub(crate) fn is_watching(&self) -> bool {
        let follows_unconfirmed = self
            .breaker
            .probation
            .is_some_and(|probation| probation.follows_unconfirmed);
        self.breaker.useless > 0 || follows_unconfirmed
    }

    /// A session was published that a refresh returned for a rejected one (`is_refreshed`), or that was adopted.
    pub(crate) fn start_probation(
        &mut self,
        generation: Generation,
        is_refreshed: bool,
        now: Instant,
    ) {
        let before = self.breaker.probation;
        if before.is_some_and(|before| before.generation == generation) {
            // Two refreshes share the session.
            return;
        }
        self.breaker.probation = Some(Probation {
            generation,
            since: now,
            is_refreshed,
            follows_unconfirmed: before.is_some_and(|before| before.rejected != Rejected::No),
            rejected: Rejected::No,
        });
    }

    /// A refresh returned the token that was rejected (R19).
    pub(crate) fn record_useless_refresh(&mut self, now: Instant) {
        self.breaker.open(now);
    }

    /// A session was rejected: of a replay if not `is_first`, otherwise of a request that was not rejected before. A
    /// session that `was_accepted` before has expired, and its refresh was not useless.
    ///
    /// A refresh is useless if the request that caused it is rejected again. It is also useless if no request was accepted
    /// with its session or with the one before, which covers requests that cannot be replayed.
    pub(crate) fn record_rejection(
        &mut self,
        generation: Generation,
        is_first: bool,
        was_accepted: bool,
        now: Instant,
    ) {
        let Some(probation) = &mut self.breaker.probation else {
            return;
        };
        let is_young = now.saturating_duration_since(probation.since) < YOUNG;
        if probation.generation != generation || !is_young || was_accepted {
            return;
        }
        let is_useless = probation.is_refreshed && (!is_first || probation.follows_unconfirmed);
        if !is_useless {
            probation.rejected = probation.rejected.max(Rejected::Once);
        } else if probation.rejected != Rejected::Useless {
            probation.rejected = Rejected::Useless;
            self.breaker.open(now);
        }
    }

    /// A request that was rejected before was accepted with this session.
    pub(crate) fn confirm(&mut self, generation: Generation) {
        let confirmed = self
            .breaker
            .probation
            .take_if(|probation| probation.generation == generation);
        if confirmed.is_some() {
            self.breaker = Breaker::default();
        }
    }
}

/// Opens after useless refreshes, each time for longer.
#[derive(Clone, Copy, Debug, Default, Hash)]
struct Breaker {
    /// Useless refreshes in a row.
    useless: u32,
    /// When the breaker closes. `None` if it never opened.
    open_until: Option<Instant>,
    /// The last session that replaced a rejected one, until it is confirmed.
    probation: Option<Probation>,
}

impl Breaker {
    fn open(&mut self, now: Instant) {
        let pause = doubled(BREAK, self.useless).min(LONGEST_BREAK);
        self.useless = self.useless.saturating_add(1);
        self.open_until = Some(now + pause);
    }
}

/// A session that replaced a rejected one, and that no replay was accepted with so far.
#[derive(Clone, Copy, Debug, Hash)]
struct Probation {
    generation: Generation,
    since: Instant,
    /// Whether a refresh returned it. An adopted session cost no token call, and is never held against the breaker.
    is_refreshed: bool,
    /// Whether the session before was rejected, too, without being accepted.
    follows_unconfirmed: bool,
    rejected: Rejected,
}

/// Whether a session on probation was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Rejected {
    No,
    Once,
    /// It was, and its refresh is counted as useless.
    Useless,
}

fn doubled(duration: Duration, times: u32) -> Duration {
    duration.saturating_mul(2_u32.saturating_pow(times))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Event {
        Pass(Duration),
        Terminal,
        Transient(Option<u64>, f64),
        Useless,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (0_u64..2_000).prop_map(|millis| Event::Pass(Duration::from_millis(millis))),
            Just(Event::Terminal),
            (proptest::option::of(0_u64..10), 0.0..1.0)
                .prop_map(|(retry_after, jitter)| Event::Transient(retry_after, jitter)),
            Just(Event::Useless),
        ]
    }

    proptest! {
        /// R10: once latched, nothing is permitted until something changes.
        #[test]
        fn r10_nothing_but_a_change_from_outside_opens_a_latch(
            events in proptest::collection::vec(event(), 0..50),
            hours in 0_u64..100,
        ) {
            let mut policy = Policy::new();
            let mut now = Instant::now();
            policy.latch("dead", &mut Vec::new());
            for event in events {
                match event {
                    Event::Pass(time) => now += time,
                    Event::Terminal => {
                        policy.latch("dead", &mut Vec::new());
                    }
                    Event::Transient(seconds, jitter) => {
                        policy.back_off("busy", seconds.map(Duration::from_secs), jitter, now, &mut Vec::new());
                    }
                    Event::Useless => policy.record_useless_refresh(now),
                }
                now += Duration::from_secs(3600 * hours);
                prop_assert_eq!(policy.permit(now), Permit::Never(&"dead"));
            }
            policy.reset(&mut Vec::new());
            prop_assert_eq!(policy.permit(now), Permit::Now);
        }

        /// R11: attempts that are made as soon as they may be are spaced by at least 250 ms and by what the server asked
        /// for, and by no more than the longest back-off without that.
        #[test]
        fn r11_attempts_are_spaced(
            failures in proptest::collection::vec((proptest::option::of(0_u64..7_200), 0.0..=1.0), 1..40),
        ) {
            let mut policy = Policy::new();
            let mut now = Instant::now();
            let mut shortest = Duration::ZERO;
            for (seconds, jitter) in failures {
                let retry_after = seconds.map(Duration::from_secs);
                policy.back_off("busy", retry_after, jitter, now, &mut Vec::new());
                let Permit::NotBefore(until, &"busy") = policy.permit(now) else {
                    panic!("{:?}", policy.permit(now));
                };
                let delay = until - now;
                prop_assert!(delay >= Duration::from_millis(250));
                prop_assert!(delay >= retry_after.unwrap_or_default());
                prop_assert!(delay <= LONGEST_BACKOFF.max(retry_after.unwrap_or_default()));
                // It grows: half of the last one's longest is the least.
                if retry_after.is_none() {
                    prop_assert!(delay >= shortest);
                    shortest = (shortest * 2).clamp(BACKOFF / 2, LONGEST_BACKOFF / 2);
                } else {
                    shortest = Duration::ZERO;
                }
                prop_assert_eq!(policy.permit(until - Duration::from_nanos(1)), Permit::NotBefore(until, &"busy"));
                prop_assert_eq!(policy.permit(until), Permit::Now);
                now = until;
            }
            policy.succeed(&mut Vec::new());
            prop_assert_eq!(policy.permit(now), Permit::Now);
            policy.back_off("busy", None, 1.0, now, &mut Vec::new());
            prop_assert_eq!(policy.permit(now + BACKOFF), Permit::Now);
        }

        /// R12: however rejections come, at most 10 useless refreshes are let through in 600 s.
        #[test]
        fn r12_useless_refreshes_become_rare(gaps in proptest::collection::vec(1_u64..3_000, 1_000)) {
            let mut policy = Policy::<()>::new();
            let start = Instant::now();
            let mut now = start;
            let mut refreshes = 0;
            for gap in gaps {
                if !policy.is_open(now) {
                    refreshes += 1;
                    policy.record_useless_refresh(now);
                }
                now += Duration::from_millis(gap);
                if now - start > Duration::from_secs(600) {
                    break;
                }
            }
            prop_assert!(refreshes <= 10, "{}", refreshes);
            policy.start_probation(Generation::FIRST, true, now);
            policy.confirm(Generation::FIRST);
            prop_assert!(!policy.is_open(now));
        }
    }
}
