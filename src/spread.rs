//! A header value that many threads clone at once.
//!
//! Clones of a header value share a reference count, and threads that clone it at once fight over the cache line that it is
//! on: two of them take a quarter longer for a whole request. Here each of a few threads has a copy to clone.

use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::HeaderValue;

/// More threads than this share copies. A session that is hardly used has hardly any, and what a copy takes is not much.
const COPIES: usize = 4;

static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Which copy this thread clones.
    static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % COPIES;
}

/// A header value, and the copies of it that were asked for.
#[derive(Clone)]
pub(crate) struct Spread {
    value: HeaderValue,
    copies: [OnceLock<HeaderValue>; COPIES],
}

impl Spread {
    /// A clone of the value.
    #[inline]
    pub(crate) fn get(&self) -> HeaderValue {
        // A thread that is about to end has forgotten which copy is its own.
        let mine = MINE.try_with(|mine| *mine).unwrap_or_default();
        self.copies[mine].get_or_init(|| self.copy()).clone()
    }

    #[cold]
    fn copy(&self) -> HeaderValue {
        let copy = HeaderValue::from_bytes(self.value.as_bytes());
        // What was a value is one.
        let mut copy = copy.unwrap_or_else(|_| self.value.clone());
        copy.set_sensitive(self.value.is_sensitive());
        copy
    }
}

impl From<HeaderValue> for Spread {
    fn from(value: HeaderValue) -> Self {
        Self {
            value,
            copies: [const { OnceLock::new() }; COPIES],
        }
    }
}

impl fmt::Debug for Spread {
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
        let spread = Spread::from(value.clone());
        let place = || spread.get().as_bytes().as_ptr() as usize;
        let places: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..2 * COPIES).map(|_| scope.spawn(place)).collect();
            threads.into_iter().map(|it| it.join().unwrap()).collect()
        });
        let mut different = places.clone();
        different.sort_unstable();
        different.dedup();
        // Threads of other tests may have taken their turns in between.
        assert!((2..=COPIES).contains(&different.len()), "{different:?}");
        assert_eq!(spread.get(), value);
        assert!(spread.get().is_sensitive());
        assert_eq!(format!("{spread:?}"), "Sensitive");
    }
}
