//! A header value that many threads clone at once.
//!
//! Clones of a header value share a reference count, and threads that clone it at once fight over the cache line that it is
//! on: two of them take a quarter longer for a whole request. Here each of a few threads has its own to clone.

use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::HeaderValue;

/// One in so many threads clones the value itself, and the others have copies. More threads share.
const PLACES: usize = 3;

/// A longer value is not copied: in many sessions, the copies would be most of what these hold.
const LARGEST: usize = 512;

static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Whether this thread has a copy to clone, and which.
    static MINE: Option<usize> = (NEXT.fetch_add(1, Ordering::Relaxed) % PLACES).checked_sub(1);
}

/// A header value, and the copies of it that were asked for.
#[derive(Clone)]
pub(crate) struct ShardedHeader {
    value: HeaderValue,
    copies: [OnceLock<HeaderValue>; PLACES - 1],
}

impl ShardedHeader {
    /// A clone of the value.
    #[inline]
    pub(crate) fn get(&self) -> HeaderValue {
        // A thread that is about to end has forgotten which is its own.
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
            copies: [const { OnceLock::new() }; PLACES - 1],
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
            let threads: Vec<_> = (0..2 * PLACES).map(|_| scope.spawn(place)).collect();
            threads.into_iter().map(|it| it.join().unwrap()).collect()
        });
        let mut different = places.clone();
        different.sort_unstable();
        different.dedup();
        // Threads of other tests may have taken their turns in between.
        assert!((2..=PLACES).contains(&different.len()), "{different:?}");
        assert_eq!(sharded.get(), value);
        assert!(sharded.get().is_sensitive());
        assert_eq!(format!("{sharded:?}"), "Sensitive");
    }
}
