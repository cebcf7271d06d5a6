//! The header names of recent replays, by thread.
//!
//! The replays of a program have the same few header names, mostly in the same order. To find a name here takes a fraction of
//! the time of parsing it, and a parsed name that is not standard has memory of its own.

use std::cell::RefCell;

use http::{HeaderName, header::InvalidHeaderName};

/// How many names a thread keeps.
const MOST: usize = 32;

/// Longest name that is kept, in bytes.
const LONGEST: usize = 64;

thread_local! {
    static RECENT: RefCell<Names> = const { RefCell::new(Names::new()) };
}

/// Header names that were parsed before.
pub(super) struct Names {
    known: Vec<HeaderName>,
    /// Where the next name is looked for first: at the beginning, and then after the last one that was found.
    next: usize,
}

impl Names {
    const fn new() -> Self {
        Self {
            known: Vec::new(),
            next: 0,
        }
    }

    /// Lends the names of this thread.
    pub(super) fn recent<T>(mut parse: impl FnMut(&mut Self) -> T) -> T {
        let parsed = RECENT.try_with(|recent| {
            let mut recent = recent.try_borrow_mut().ok()?;
            recent.next = 0;
            Some(parse(&mut recent))
        });
        match parsed {
            Ok(Some(parsed)) => parsed,
            // They are gone while the thread ends.
            _ => parse(&mut Self::new()),
        }
    }

    /// Parses a header name.
    #[inline]
    pub(super) fn parse(&mut self, text: &[u8]) -> Result<HeaderName, InvalidHeaderName> {
        match self.known.get(self.next) {
            Some(name) if name.as_str().as_bytes() == text => {
                self.next += 1;
                Ok(name.clone())
            }
            _ => self.search(text),
        }
    }

    /// Parses a header name that does not follow the one before in the replays so far.
    #[cold]
    fn search(&mut self, text: &[u8]) -> Result<HeaderName, InvalidHeaderName> {
        let mut known = self.known.iter().enumerate();
        if let Some((at, name)) = known.find(|(_, name)| name.as_str().as_bytes() == text) {
            self.next = at + 1;
            return Ok(name.clone());
        }
        let name = HeaderName::from_bytes(text)?;
        if text.len() <= LONGEST {
            self.keep(name.clone());
        }
        Ok(name)
    }

    /// Keeps a name, in place of another one if there are many.
    fn keep(&mut self, name: HeaderName) {
        if self.known.len() < MOST {
            self.known.push(name);
            self.next = self.known.len();
        } else {
            let at = self.next % MOST;
            self.known[at] = name;
            self.next = at + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_whether_it_is_known_or_not() {
        let mut names = Names::new();
        let long = "x-".repeat(LONGEST);
        let many: Vec<_> = (0..3 * MOST).map(|number| format!("x-{number}")).collect();
        let texts = ["accept", "x-request-id", &long, "", "a b", "Accept"];
        let texts: Vec<_> = texts
            .into_iter()
            .chain(many.iter().map(|name| &**name))
            .collect();
        for text in texts.iter().chain(&texts).chain(texts.iter().rev()) {
            let parsed = HeaderName::from_bytes(text.as_bytes());
            assert_eq!(names.parse(text.as_bytes()).ok(), parsed.ok(), "{text}");
            assert!(names.known.len() <= MOST);
        }
    }
}
