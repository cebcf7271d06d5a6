//! When to stop: what the refreshes so far say about the next one.
//!
//! Three things keep a client from harming its user. A failure that trying again cannot cure is **latched**: nothing is
//! tried any more. A failure that may pass makes the next attempt wait, each time longer: **back-off**. And refreshes that
//! succeed, and bring tokens that are turned down all the same, trip a **breaker**, which lets fewer and fewer of them
//! through, and takes no part in anything else.
//!
//! Plain state: it is told what happened, and when, and has neither a clock nor randomness of its own.

use std::time::Duration;

use tokio::time::Instant;

/// How long the first failure that may pass keeps the next attempt waiting, at most; each further one doubles it.
const BACKOFF: Duration = Duration::from_millis(500);

/// The longest back-off that a failure causes by itself. A server can ask for more.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// How long the first fruitless refresh keeps the next one waiting; each further one doubles it.
const BREAK: Duration = Duration::from_secs(1);

/// The longest that the breaker stays open.
const LONGEST_BREAK: Duration = Duration::from_secs(300);

/// What is remembered of the refreshes so far. `E` is what a failure is shared as.
#[derive(Clone, Debug)]
pub(crate) struct Policy<E> {
    /// The failure that nothing but a change from outside can cure.
    latched: Option<E>,
    /// Failures in a row that may pass, the last of them, and until when to leave the server alone for it.
    failures: u32,
    backing_off: Option<(Instant, E)>,
    /// Refreshes in a row that brought a token which was turned down, and until when there are to be no more.
    fruitless: u32,
    broken_until: Option<Instant>,
}

/// Whether a refresh may be tried now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permit<'a, E> {
    Now,
    /// Not before then, because of this failure.
    NotBefore(Instant, &'a E),
    /// Not at all, because of this failure.
    Never(&'a E),
}

impl<E> Policy<E> {
    pub(crate) fn new() -> Self {
        Self {
            latched: None,
            failures: 0,
            backing_off: None,
            fruitless: 0,
            broken_until: None,
        }
    }

    /// Whether a refresh may be tried at `now`.
    pub(crate) fn permit(&self, now: Instant) -> Permit<'_, E> {
        match (&self.latched, &self.backing_off) {
            (Some(failure), _) => Permit::Never(failure),
            (None, Some((until, failure))) if now < *until => Permit::NotBefore(*until, failure),
            _ => Permit::Now,
        }
    }

    /// Whether the breaker is open at `now`: whoever is rejected is to be told so, instead of asking for a refresh.
    pub(crate) fn is_broken(&self, now: Instant) -> bool {
        self.broken_until.is_some_and(|until| now < until)
    }

    /// A refresh failed for good.
    pub(crate) fn latch(&mut self, failure: E) {
        self.latched = Some(failure);
        self.failures = 0;
        self.backing_off = None;
    }

    /// Forgets a latched failure if it `is_cured`.
    pub(crate) fn unlatch_if(&mut self, is_cured: impl FnOnce(&E) -> bool) {
        self.latched.take_if(|failure| is_cured(failure));
    }

    /// A refresh failed at `now` in a way that may pass. `retry_after` is what the server asked for, and `jitter`, from 0
    /// to 1, keeps clients that failed together from coming back together.
    pub(crate) fn back_off(
        &mut self,
        failure: E,
        retry_after: Option<Duration>,
        jitter: f64,
        now: Instant,
    ) {
        let longest = doubled(BACKOFF, self.failures).min(LONGEST_BACKOFF);
        let delay = longest.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
        let delay = delay.max(retry_after.unwrap_or_default());
        self.failures = self.failures.saturating_add(1);
        let until = now
            .checked_add(delay)
            .unwrap_or_else(|| now + LONGEST_BREAK);
        self.backing_off = Some((until, failure));
    }

    /// A refresh brought a session.
    pub(crate) fn succeed(&mut self) {
        self.latched = None;
        self.failures = 0;
        self.backing_off = None;
    }

    /// What a refresh brought at last was turned down at `now`, or was what had been turned down before.
    pub(crate) fn find_fruitless(&mut self, now: Instant) {
        let pause = doubled(BREAK, self.fruitless).min(LONGEST_BREAK);
        self.fruitless = self.fruitless.saturating_add(1);
        self.broken_until = Some(now + pause);
    }

    /// Whether the last refresh was fruitless, for all that is known.
    pub(crate) fn has_been_fruitless(&self) -> bool {
        self.fruitless > 0
    }

    /// What a refresh brought was accepted.
    pub(crate) fn find_fruitful(&mut self) {
        self.fruitless = 0;
        self.broken_until = None;
    }

    /// Somebody did something: everything is worth another try.
    pub(crate) fn reset(&mut self) {
        *self = Self::new();
    }
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
        Fruitless,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (0_u64..2_000).prop_map(|millis| Event::Pass(Duration::from_millis(millis))),
            Just(Event::Terminal),
            (proptest::option::of(0_u64..10), 0.0..1.0)
                .prop_map(|(retry_after, jitter)| Event::Transient(retry_after, jitter)),
            Just(Event::Fruitless),
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
            policy.latch("dead");
            for event in events {
                match event {
                    Event::Pass(time) => now += time,
                    Event::Terminal => policy.latch("dead"),
                    Event::Transient(seconds, jitter) => {
                        policy.back_off("busy", seconds.map(Duration::from_secs), jitter, now);
                    }
                    Event::Fruitless => policy.find_fruitless(now),
                }
                now += Duration::from_secs(3600 * hours);
                prop_assert_eq!(policy.permit(now), Permit::Never(&"dead"));
            }
            policy.unlatch_if(|failure| *failure != "dead");
            prop_assert_eq!(policy.permit(now), Permit::Never(&"dead"));
            policy.reset();
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
                policy.back_off("busy", retry_after, jitter, now);
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
            policy.succeed();
            prop_assert_eq!(policy.permit(now), Permit::Now);
            policy.back_off("busy", None, 1.0, now);
            prop_assert_eq!(policy.permit(now + BACKOFF), Permit::Now);
        }

        /// R12: however rejections come, at most 10 fruitless refreshes are let through in 600 s.
        #[test]
        fn r12_fruitless_refreshes_become_rare(gaps in proptest::collection::vec(1_u64..3_000, 1_000)) {
            let mut policy = Policy::<()>::new();
            let start = Instant::now();
            let mut now = start;
            let mut refreshes = 0;
            for gap in gaps {
                if !policy.is_broken(now) {
                    refreshes += 1;
                    policy.find_fruitless(now);
                }
                now += Duration::from_millis(gap);
                if now - start > Duration::from_secs(600) {
                    break;
                }
            }
            prop_assert!(refreshes <= 10, "{}", refreshes);
            policy.find_fruitful();
            prop_assert!(!policy.is_broken(now));
        }
    }
}
