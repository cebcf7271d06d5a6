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

use crate::session::{jitter::shortened, live::Generation};

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
        let delay = shortened(longest, jitter).max(retry_after.unwrap_or_default());
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

    /// Drops what is no longer needed.
    fn none<E>() -> Vec<E> {
        Vec::new()
    }

    #[derive(Clone, Debug)]
    enum Event {
        Pass(Duration),
        Terminal,
        Transient(Option<u64>, f64),
        Useless,
        Attempt,
        Search,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (0_u64..2_000).prop_map(|millis| Event::Pass(Duration::from_millis(millis))),
            Just(Event::Terminal),
            (proptest::option::of(0_u64..10), 0.0..1.0)
                .prop_map(|(retry_after, jitter)| Event::Transient(retry_after, jitter)),
            Just(Event::Useless),
            Just(Event::Attempt),
            Just(Event::Search),
        ]
    }

    proptest! {
        #[test]
        fn r10_nothing_but_a_change_from_outside_opens_a_latch(
            events in proptest::collection::vec(event(), 0..50),
            hours in 0_u64..100,
        ) {
            let mut policy = Policy::new();
            let mut now = Instant::now();
            prop_assert!(policy.latch("dead", &mut none()));
            for event in events {
                match event {
                    Event::Pass(time) => now += time,
                    Event::Terminal => prop_assert!(!policy.latch("dead", &mut none())),
                    Event::Transient(seconds, jitter) => {
                        let retry_after = seconds.map(Duration::from_secs);
                        policy.back_off("busy", retry_after, jitter, now, &mut none());
                    }
                    Event::Useless => policy.record_useless_refresh(now),
                    Event::Attempt => drop(policy.begin_attempt()),
                    Event::Search => drop(policy.may_search(now)),
                }
                now += Duration::from_secs(3600 * hours);
                prop_assert_eq!(policy.permit(now), Permit::Never(&"dead"));
            }
            policy.reset(&mut none());
            prop_assert_eq!(policy.permit(now), Permit::Now);
        }

        /// Attempts that are made as soon as they are permitted are at least 250 ms apart, and as far as the server asked for.
        /// Without that they are no further apart than the longest back-off.
        #[test]
        fn r11_attempts_are_spaced(
            failures in proptest::collection::vec((proptest::option::of(0_u64..7_200), 0.0..=1.0), 1..40),
        ) {
            let mut policy = Policy::new();
            let mut now = Instant::now();
            let mut shortest = Duration::ZERO;
            for (seconds, jitter) in failures {
                let retry_after = seconds.map(Duration::from_secs);
                policy.back_off("busy", retry_after, jitter, now, &mut none());
                let Permit::NotBefore(until, &"busy") = policy.permit(now) else {
                    panic!("{:?}", policy.permit(now));
                };
                let delay = until - now;
                prop_assert!(delay >= Duration::from_millis(250));
                prop_assert!(delay >= retry_after.unwrap_or_default());
                prop_assert!(delay <= LONGEST_BACKOFF.max(retry_after.unwrap_or_default()));
                // The least is half of the longest, which doubles.
                if retry_after.is_none() {
                    prop_assert!(delay >= shortest);
                    shortest = (shortest * 2).clamp(BACKOFF / 2, LONGEST_BACKOFF / 2);
                } else {
                    shortest = Duration::ZERO;
                }
                let before = until - Duration::from_nanos(1);
                prop_assert_eq!(policy.permit(before), Permit::NotBefore(until, &"busy"));
                prop_assert_eq!(policy.permit(until), Permit::Now);
                now = until;
            }
            policy.succeed(&mut none());
            prop_assert_eq!(policy.permit(now), Permit::Now);
            policy.back_off("busy", None, 1.0, now, &mut none());
            prop_assert_eq!(policy.permit(now + BACKOFF), Permit::Now);
        }

        /// However rejections come, at most 10 useless refreshes are permitted in 600 s.
        #[test]
        fn r12_useless_refreshes_become_rare(
            gaps in proptest::collection::vec(1_u64..3_000, 1_000),
            are_unchanged in proptest::collection::vec(any::<bool>(), 1_000),
        ) {
            let mut policy = Policy::<()>::new();
            let start = Instant::now();
            let mut now = start;
            let mut generation = Generation::FIRST;
            let mut refreshes = 0;
            for (gap, is_unchanged) in gaps.into_iter().zip(are_unchanged) {
                if !policy.is_open(now) {
                    refreshes += 1;
                    if is_unchanged {
                        policy.record_useless_refresh(now);
                    } else {
                        generation = generation.next();
                        policy.start_probation(generation, true, now);
                        policy.record_rejection(generation, false, false, now);
                    }
                }
                now += Duration::from_millis(gap);
                if now - start > Duration::from_secs(600) {
                    break;
                }
            }
            prop_assert!(refreshes <= 10, "{}", refreshes);
            generation = generation.next();
            policy.start_probation(generation, true, now);
            policy.confirm(generation);
            prop_assert!(!policy.is_open(now));
        }
    }

    #[test]
    fn r10_a_second_terminal_failure_is_not_the_first() {
        let mut policy = Policy::new();
        let mut retired = Vec::new();
        assert!(policy.latch("dead", &mut retired));
        assert!(!policy.latch("dead as well", &mut retired));
        assert_eq!(
            (policy.latched(), &*retired),
            (Some(&"dead as well"), &["dead"][..])
        );
        policy.unlatch(&mut retired);
        assert!(policy.latch("dead again", &mut retired));
    }

    #[test]
    fn r11_a_store_failure_does_not_shorten_a_retry_after() {
        let mut policy = Policy::new();
        let now = Instant::now();
        let asked = Duration::from_secs(20);
        policy.back_off("busy", Some(asked), 0.0, now, &mut none());
        policy.back_off("no store", None, 0.0, now, &mut none());
        assert_eq!(
            policy.permit(now),
            Permit::NotBefore(now + asked, &"no store")
        );
    }

    #[test]
    fn r11_a_retry_after_beyond_the_clock_is_five_minutes() {
        let mut policy = Policy::new();
        let now = Instant::now();
        policy.back_off("busy", Some(Duration::MAX), 0.0, now, &mut none());
        assert_eq!(
            policy.permit(now),
            Permit::NotBefore(now + LONGEST_BREAK, &"busy")
        );
    }

    #[test]
    fn r11_a_latch_does_not_end_a_backoff() {
        let mut policy = Policy::new();
        let now = Instant::now();
        let asked = Duration::from_secs(20);
        policy.back_off("busy", Some(asked), 0.0, now, &mut none());
        policy.latch("unreadable", &mut none());
        policy.unlatch(&mut none());
        assert_eq!(policy.permit(now), Permit::NotBefore(now + asked, &"busy"));
    }

    #[test]
    fn r12_one_refresh_is_useless_once() {
        let mut policy = Policy::<()>::new();
        let now = Instant::now();
        policy.start_probation(Generation::FIRST, true, now);
        for _ in 0..3 {
            policy.record_rejection(Generation::FIRST, false, false, now);
        }
        assert!(policy.is_open(now));
        assert!(!policy.is_open(now + BREAK));
    }

    #[test]
    fn r12_a_session_that_was_accepted_or_adopted_is_not_useless() {
        let now = Instant::now();
        // Refreshed, accepted, age.
        for (is_refreshed, was_accepted, age) in [
            (false, false, Duration::ZERO),
            (true, true, Duration::ZERO),
            (true, false, YOUNG),
        ] {
            let mut policy = Policy::<()>::new();
            policy.start_probation(Generation::FIRST, is_refreshed, now);
            policy.record_rejection(Generation::FIRST, false, was_accepted, now + age);
            assert!(!policy.is_open(now + age), "{is_refreshed} {was_accepted}");
        }
    }

    #[test]
    fn r12_first_rejections_of_two_sessions_in_a_row_are_useless() {
        let mut policy = Policy::<()>::new();
        let now = Instant::now();
        policy.start_probation(Generation::FIRST, true, now);
        policy.record_rejection(Generation::FIRST, true, false, now);
        assert!(!policy.is_open(now));
        let second = Generation::FIRST.next();
        policy.start_probation(second, true, now);
        // A request that is accepted with the session closes the breaker again.
        assert!(policy.is_watching());
        policy.record_rejection(second, true, false, now);
        assert!(policy.is_open(now));
    }

    #[test]
    fn requests_pay_for_a_watch_only_after_a_useless_refresh() {
        let mut policy = Policy::<()>::new();
        let now = Instant::now();
        policy.start_probation(Generation::FIRST, true, now);
        assert!(!policy.is_watching());
        policy.record_useless_refresh(now);
        assert!(policy.is_watching());
        policy.confirm(Generation::FIRST);
        assert!(!policy.is_watching());
    }

    #[test]
    fn r43_a_session_is_put_on_probation_once() {
        let mut policy = Policy::<()>::new();
        let now = Instant::now();
        policy.start_probation(Generation::FIRST, true, now);
        policy.record_rejection(Generation::FIRST, false, false, now);
        policy.start_probation(Generation::FIRST, true, now);
        policy.record_rejection(Generation::FIRST, false, false, now + BREAK);
        assert!(!policy.is_open(now + BREAK));
    }

    #[test]
    fn a_search_of_the_store_is_permitted_after_a_pause() {
        let mut policy = Policy::new();
        let now = Instant::now();
        policy.latch("dead", &mut none());
        assert!(policy.may_search(now));
        assert!(!policy.may_search(now + LATCHED_SEARCH - Duration::from_nanos(1)));
        assert!(policy.may_search(now + LATCHED_SEARCH));
        policy.reset(&mut none());
        assert!(policy.may_search(now + LATCHED_SEARCH));
        assert!(policy.may_search(now + LATCHED_SEARCH + BREAKER_SEARCH));
    }
}
