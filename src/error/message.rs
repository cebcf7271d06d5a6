//! What an error says: one line with what failed, why, and what to do.

use std::{
    borrow::Cow,
    error::Error as StdError,
    fmt::{self, Display, Write as _},
    iter::successors,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::shared::{SharedError, as_source};
use crate::text::pasted::is_invisible;

/// The longest message of an error of this crate, in characters.
const LONGEST_MESSAGE: usize = 2_000;

/// The longest text of all causes in a line, in characters.
const LONGEST_CAUSES: usize = 1_500;

/// How many causes are looked at: an error may be its own source.
pub(super) const MOST_CAUSES: usize = 64;

/// What failed, why, and what to do.
#[derive(Clone)]
pub(super) struct Message {
    pub(super) what: Cow<'static, str>,
    /// What to do, if `what` does not say it. `None` if it does.
    pub(super) remedy: Option<&'static str>,
    pub(super) source: Option<SharedError>,
}

/// A message with its causes.
struct Line<'a> {
    text: String,
    /// The first cause that the line has no room for. `None` if it has all.
    unsaid: Option<&'a (dyn StdError + 'static)>,
}

impl Message {
    pub(super) fn new(what: impl Into<Cow<'static, str>>) -> Self {
        Self {
            what: what.into(),
            remedy: None,
            source: None,
        }
    }

    /// The direct cause.
    pub(super) fn cause(&self) -> Option<&(dyn StdError + 'static)> {
        as_source(self.source.as_ref())
    }

    /// The first cause that the message does not say. What it says must not be in a chain again, or reporters print it twice.
    pub(super) fn unsaid(&self) -> Option<&(dyn StdError + 'static)> {
        self.line().unsaid
    }

    fn line(&self) -> Line<'_> {
        let mut text = one_line(&self.what, LONGEST_MESSAGE);
        let mut said = vec![text.clone()];
        let mut room = LONGEST_CAUSES;
        let mut unsaid = None;
        for cause in successors(self.cause(), |cause| StdError::source(*cause)).take(MOST_CAUSES) {
            let why = one_line(cause, LONGEST_CAUSES);
            // Many errors repeat their source.
            if said.iter().any(|said| said.contains(&why)) {
                continue;
            }
            if room == 0 {
                unsaid = Some(cause);
                break;
            }
            match why.strip_prefix(&text) {
                Some(rest) => text += &one_line(rest, room),
                None => {
                    text += ": ";
                    text += &one_line(&why, room);
                }
            }
            room = room.saturating_sub(why.chars().count());
            said.push(why);
        }
        if let Some(remedy) = self.remedy.filter(|remedy| !text.contains(remedy)) {
            text += ": ";
            text += remedy;
        }
        Line { text, unsaid }
    }
}

impl Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line().text)
    }
}

// === OneLine ===

/// Writes a text on one line, and cuts it after `longest` characters.
pub(super) fn one_line(text: impl Display, longest: usize) -> String {
    let mut line = OneLine {
        text: String::new(),
        room: longest,
    };
    // It fails when there is no room, or if the error itself fails to print, or panics. An error is printed where nothing
    // of a user's may panic.
    let written = catch_unwind(AssertUnwindSafe(|| write!(line, "{text}")));
    let is_whole = matches!(written, Ok(Ok(())));
    let end = line.text.trim_end().len();
    line.text.truncate(end);
    if !is_whole {
        line.text.push('…');
    }
    line.text
}

struct OneLine {
    text: String,
    /// How many more characters it takes.
    room: usize,
}

impl fmt::Write for OneLine {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        for char in part.chars().filter(|char| !is_invisible(*char)) {
            let is_blank = char.is_whitespace() || char.is_control();
            if is_blank && (self.text.is_empty() || self.text.ends_with(' ')) {
                continue;
            }
            self.room = self.room.checked_sub(1).ok_or(fmt::Error)?;
            self.text.push(if is_blank { ' ' } else { char });
        }
        Ok(())
    }
}
