//! Abstract time: it is always now, and what is to come draws nearer.

use std::{sync::OnceLock, time::Duration};

use tokio::time::Instant;

/// All times that are longer ago are alike.
const LONG_AGO: Duration = Duration::from_secs(10);

pub(super) fn now() -> Instant {
    static NOW: OnceLock<Instant> = OnceLock::new();
    *NOW.get_or_init(|| Instant::now() + LONG_AGO)
}

pub(super) fn shift(instant: &mut Instant, by: Duration) {
    let long_ago = now() - LONG_AGO;
    *instant = instant
        .checked_sub(by)
        .map_or(long_ago, |instant| instant.max(long_ago));
}
