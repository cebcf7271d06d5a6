//! The random numbers that keep clients which failed together from trying again together.

use std::{cell::Cell, time::Duration};

thread_local! {
    /// `None` without a source of randomness.
    static SEED: Cell<Option<u64>> = Cell::new(getrandom::u64().ok());
}

/// A random number from 0 to 1. Without randomness, clients that failed together try again together.
///
/// Each transition takes one, so only the first of each thread asks the system: every rejected request would ask it twice.
pub(crate) fn jitter() -> f64 {
    // The thread-local is gone while its thread ends.
    let Some(seed) = SEED.try_with(Cell::get).ok().flatten() else {
        return 0.5;
    };
    // SplitMix64: a counter, and a function that mixes its bits.
    let seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let _ = SEED.try_with(|kept| kept.set(Some(seed)));
    let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let random = u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap_or(u32::MAX);
    f64::from(random) / f64::from(u32::MAX)
}

/// From half of the pause to all of it, at random.
pub(crate) fn with_jitter(pause: Duration) -> Duration {
    shortened(pause, jitter())
}

/// From half of the pause to all of it, by a `jitter` from 0 to 1.
pub(crate) fn shortened(pause: Duration, jitter: f64) -> Duration {
    pause.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn r11_the_jitter_is_random_and_from_0_to_1() {
        let draws: Vec<f64> = (0..100).map(|_| super::jitter()).collect();
        assert!(draws.iter().all(|draw| (0.0..=1.0).contains(draw)));
        assert!(draws.iter().any(|draw| *draw < 0.5) && draws.iter().any(|draw| *draw > 0.5));
    }
}
