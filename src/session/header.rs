//! A header value that many threads clone at once.
//!
//! Clones of a header value share one reference count. Threads that clone it at once contend for its cache line: two
//! threads take a quarter longer for a whole request. A sharded header has a few copies, and each thread clones one of
//! them.

use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::HeaderValue;

/// Number of shards: the value and its copies. Threads are assigned round robin.
const SHARDS: usize = 3;

/// Longest value that is copied, in bytes. Copies of a longer one would dominate the memory of many sessions.
const LARGEST: usize = 512;

static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Index of the copy that this thread clones. `None` for the value itself.
    static MINE: Option<usize> = (NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS).checked_sub(1);
}

/// A header value with its copies, each made when a thread first clones it.
#[derive(Clone)]
pub(crate) struct ShardedHeader {
    value: HeaderValue,
    copies: [OnceLock<HeaderValue>; SHARDS - 1],
}

impl ShardedHeader {
    /// A clone of the value.
    #[inline]
    pub(crate) fn get(&self) -> HeaderValue {
        // The thread-local is gone while its thread ends: clone the value itself.
        match MINE.try_with(|mine| *mine).ok().flatten() {
            Some(mine) => self.copies[mine].get_or_init(|| self.copy()).clone(),
            None => self.value.clone(),
        }
    }

    #[cold]
    fn copy(&self) -> HeaderValue {
        match HeaderValue::from_bytes(self.value.as_bytes()) {
            Ok(mut copy) if self.value.len() <= LARGEST => {
                copy.set_sensitive(self.value.is_sensitive());
                copy
            }
            _ => self.value.clone(),
        }
    }
}

impl From<HeaderValue> for ShardedHeader {
    fn from(value: HeaderValue) -> Self {
        Self {
            value,
            copies: [const { OnceLock::new() }; SHARDS - 1],
        }
    }
}

impl fmt::Debug for ShardedHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_clone_copies_of_their_own_that_say_the_same() {
        let mut value = HeaderValue::from_static("Bearer T1");
        value.set_sensitive(true);
        let sharded = ShardedHeader::from(value.clone());
        let place = || sharded.get().as_bytes().as_ptr() as usize;
        let places: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..2 * SHARDS).map(|_| scope.spawn(place)).collect();
            threads.into_iter().map(|it| it.join().unwrap()).collect()
        });
        let mut different = places.clone();
        different.sort_unstable();
        different.dedup();
        // Threads of other tests may have taken their turns in between.
        assert!((2..=SHARDS).contains(&different.len()), "{different:?}");
        assert_eq!(sharded.get(), value);
        assert!(sharded.get().is_sensitive());
        assert_eq!(format!("{sharded:?}"), "Sensitive");
    }
}
