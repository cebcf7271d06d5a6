//! The newest refresh token, with where it came from.
//!
//! With refresh-token rotation each token is valid for one use, and a second use ends the grant. This is the one place that
//! says which token is the newest. A token changes in four ways only:
//!
//! - [`advance`](TokenLineage::advance): a token call returned one, which replaces the one that was presented and no other;
//! - [`log_in`](TokenLineage::log_in): the user set a session with one, which starts a new lineage;
//! - [`adopt`](TokenLineage::adopt): a record has one that follows the one in memory;
//! - [`end`](TokenLineage::end): the session was logged out.

use std::collections::VecDeque;

/// How many replaced tokens are remembered, to recognise a session that is set for a copy of an old one.
const REMEMBERED: usize = 16;

/// Identifies a chain of refresh tokens, each of which replaced the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Lineage(u64);

/// Where the newest refresh token is known to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Origin {
    /// In the record that was seen last. A record that follows that one replaces the token.
    Record,
    /// With the user, who set it or made the flow with it. The store may not have it.
    User,
    /// In this process only: a token call returned it.
    Call,
    /// With the user, who said that it is saved: a token call returned it.
    Marked,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TokenLineage<T> {
    lineage: Lineage,
    /// `None` if no session had one, or after a logout.
    newest: Option<T>,
    /// The last tokens that were replaced, newest last: most are spent. Empty after a login.
    replaced: VecDeque<T>,
    origin: Origin,
    /// Whether a token was rotated out or revoked. A token that a flow was made with must not be presented then.
    has_spent: bool,
}

impl<T: Clone + PartialEq> TokenLineage<T> {
    pub(crate) fn new() -> Self {
        Self {
            lineage: Lineage::default(),
            newest: None,
            replaced: VecDeque::new(),
            origin: Origin::User,
            has_spent: false,
        }
    }

    pub(crate) fn newest(&self) -> Option<&T> {
        self.newest.as_ref()
    }

    pub(crate) fn lineage(&self) -> Lineage {
        self.lineage
    }

    pub(crate) fn has_spent(&self) -> bool {
        self.has_spent
    }

    /// Whether only this process has the newest token (R3).
    pub(crate) fn is_unsaved(&self) -> bool {
        self.newest.is_some() && self.origin == Origin::Call
    }

    /// Whether a token call returned the newest token and no record has it. An older record must not replace it.
    pub(crate) fn is_ahead_of_store(&self) -> bool {
        self.newest.is_some() && matches!(self.origin, Origin::Call | Origin::Marked)
    }

    /// Whether a token call returned the newest token for this one, which is spent.
    pub(crate) fn is_replaced_by_newest(&self, token: &T) -> bool {
        self.is_ahead_of_store() && self.replaced.back() == Some(token)
    }

    /// Whether the newest token is that of the record that was seen last.
    pub(crate) fn is_of_store(&self) -> bool {
        self.newest.is_none() || self.origin == Origin::Record
    }

    /// Replaces `presented` by the token that a call returned for it. Does nothing if `presented` is no longer the newest,
    /// or if the lineage has changed. Returns whether the newest token is another one now.
    pub(crate) fn advance(
        &mut self,
        lineage: Lineage,
        presented: Option<&T>,
        returned: &T,
    ) -> bool {
        if self.lineage != lineage
            || self.newest.as_ref() != presented
            || presented == Some(returned)
        {
            return false;
        }
        self.replace(returned.clone());
        self.origin = Origin::Call;
        true
    }

    /// Records the token that a flow was made with and has presented for the first time.
    pub(crate) fn keep(&mut self, lineage: Lineage, presented: &T) {
        if self.lineage == lineage && self.newest.is_none() {
            self.newest = Some(presented.clone());
            self.origin = Origin::User;
        }
    }

    /// Records that a token of this lineage was rotated out, or revoked.
    pub(crate) fn spend(&mut self) {
        self.has_spent = true;
    }

    /// Whether a session with this token is a copy, and no login: the record that was seen last has the token, or it was
    /// replaced.
    pub(crate) fn is_copied(&self, token: &T) -> bool {
        let is_newest = self.newest.as_ref() == Some(token);
        self.replaced.contains(token) || (is_newest && self.origin == Origin::Record)
    }

    /// Starts a lineage with the token of a session that the user set.
    pub(crate) fn log_in(&mut self, token: &T) {
        if self.newest.as_ref() == Some(token) {
            if self.origin == Origin::Call {
                self.origin = Origin::Marked;
            }
            return;
        }
        self.begin(Some(token.clone()));
    }

    /// Starts a lineage with the session of another user. `None` if it has no token.
    pub(crate) fn change_user(&mut self, token: Option<T>) {
        if self.newest != token {
            self.begin(token);
        }
    }

    /// Takes over the token of a record, which is newer than the one in memory. `None` if the record has no token.
    /// `is_of_login` if the record descends from the one that was seen last.
    pub(crate) fn adopt(&mut self, token: Option<&T>, has_rotated: bool, is_of_login: bool) {
        self.has_spent |= has_rotated;
        if let Some(token) = token {
            if self.newest.as_ref() != Some(token) {
                self.replace(token.clone());
            }
            self.origin = Origin::Record;
        } else if self.origin == Origin::Record && !is_of_login {
            // Another process logged out, and in again without a refresh token. It may have used up the one in memory.
            self.end();
        }
    }

    /// Records that a record with this token was saved.
    pub(crate) fn saved(&mut self, token: Option<&T>) {
        if self.newest.as_ref() == token {
            self.origin = Origin::Record;
        }
    }

    /// Records that the user keeps this token. Does nothing if it is not the newest.
    pub(crate) fn mark_saved(&mut self, token: &T) {
        if self.newest.as_ref() == Some(token) && self.origin == Origin::Call {
            self.origin = Origin::Marked;
        }
    }

    /// Ends the lineage at a logout, and returns its last token.
    pub(crate) fn end(&mut self) -> Option<T> {
        let last = self.newest.take();
        self.begin(None);
        last
    }

    /// Goes on with `token` in place of the newest.
    fn replace(&mut self, token: T) {
        if let Some(replaced) = self.newest.replace(token) {
            // Most sessions have few, and there are many sessions.
            self.replaced.reserve_exact(1);
            self.replaced.push_back(replaced);
        }
        if self.replaced.len() > REMEMBERED {
            self.replaced.pop_front();
        }
    }

    /// Begins a lineage.
    fn begin(&mut self, token: Option<T>) {
        self.lineage = Lineage(self.lineage.0 + 1);
        self.newest = token;
        self.replaced.clear();
        self.origin = Origin::User;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OLD: u8 = 1;
    const NEW: u8 = 2;

    fn set(token: u8) -> TokenLineage<u8> {
        let mut tokens = TokenLineage::new();
        tokens.log_in(&token);
        tokens
    }

    #[derive(Clone, Debug)]
    enum Event {
        LogIn(u8),
        ChangeUser(Option<u8>),
        Adopt(Option<u8>, bool),
        Saved(Option<u8>),
        MarkSaved(u8),
        Keep(u8),
        End,
    }

    fn event() -> impl Strategy<Value = Event> {
        let token = 0_u8..4;
        prop_oneof![
            token.clone().prop_map(Event::LogIn),
            proptest::option::of(token.clone()).prop_map(Event::ChangeUser),
            (proptest::option::of(token.clone()), any::<bool>())
                .prop_map(|(token, is_of_login)| Event::Adopt(token, is_of_login)),
            proptest::option::of(token.clone()).prop_map(Event::Saved),
            token.clone().prop_map(Event::MarkSaved),
            token.prop_map(Event::Keep),
            Just(Event::End),
        ]
    }

    proptest! {
        /// The answer of a call replaces the token that was presented and no other, after any changes during the call.
        #[test]
        fn r03_a_returned_token_replaces_the_presented_one_only(
            events in proptest::collection::vec(event(), 0..6),
            returned in 10_u8..12,
        ) {
            let mut tokens = set(0);
            let (lineage, presented) = (tokens.lineage(), tokens.newest().copied());
            for event in events {
                match event {
                    Event::LogIn(token) => tokens.log_in(&token),
                    Event::ChangeUser(token) => tokens.change_user(token),
                    Event::Adopt(token, is_of_login) => {
                        tokens.adopt(token.as_ref(), false, is_of_login);
                    }
                    Event::Saved(token) => tokens.saved(token.as_ref()),
                    Event::MarkSaved(token) => tokens.mark_saved(&token),
                    Event::Keep(token) => tokens.keep(lineage, &token),
                    Event::End => drop(tokens.end()),
                }
            }
            let before = tokens.clone();
            let is_same = tokens.lineage() == lineage && tokens.newest().copied() == presented;
            prop_assert_eq!(tokens.advance(lineage, presented.as_ref(), &returned), is_same);
            if is_same {
                prop_assert_eq!(tokens.newest(), Some(&returned));
                prop_assert!(tokens.is_unsaved());
            } else {
                prop_assert_eq!(tokens, before);
            }
        }
    }

    #[test]
    fn r03_a_token_that_was_replaced_cannot_advance_again() {
        let mut tokens = set(OLD);
        let lineage = tokens.lineage();
        assert!(tokens.advance(lineage, Some(&OLD), &NEW));
        assert!(!tokens.advance(lineage, Some(&OLD), &3));
        assert_eq!(tokens.newest(), Some(&NEW));
    }

    #[test]
    fn r03_a_token_returned_unchanged_stays_where_it_is_kept() {
        let mut tokens = set(OLD);
        tokens.adopt(Some(&OLD), false, true);
        assert!(!tokens.advance(tokens.lineage(), Some(&OLD), &OLD));
        assert!(tokens.is_of_store());
    }

    #[test]
    fn r03_a_token_is_unsaved_until_it_is_saved_or_marked() {
        let mut tokens = set(OLD);
        assert!(!tokens.is_unsaved());
        tokens.advance(tokens.lineage(), Some(&OLD), &NEW);
        tokens.saved(Some(&OLD));
        tokens.mark_saved(&OLD);
        assert!(tokens.is_unsaved());
        let mut marked = tokens.clone();
        marked.mark_saved(&NEW);
        assert!(!marked.is_unsaved() && marked.is_ahead_of_store());
        tokens.saved(Some(&NEW));
        assert!(!tokens.is_unsaved() && tokens.is_of_store());
    }

    #[test]
    fn r03_a_token_set_twice_stays_in_its_lineage() {
        let mut tokens = set(OLD);
        let lineage = tokens.lineage();
        tokens.advance(lineage, Some(&OLD), &NEW);
        tokens.log_in(&NEW);
        assert_eq!(tokens.lineage(), lineage);
        assert!(!tokens.is_unsaved() && tokens.is_ahead_of_store());
        tokens.log_in(&3);
        assert_ne!(tokens.lineage(), lineage);
    }

    #[test]
    fn r03_the_token_of_a_flow_is_kept_only_where_there_is_none() {
        let mut tokens = TokenLineage::new();
        tokens.keep(tokens.lineage(), &OLD);
        tokens.keep(tokens.lineage(), &NEW);
        assert_eq!(tokens.newest(), Some(&OLD));
    }

    #[test]
    fn r03_a_session_of_another_user_takes_the_token_away() {
        let mut tokens = set(OLD);
        let lineage = tokens.lineage();
        tokens.change_user(None);
        assert_eq!(tokens.newest(), None);
        assert!(!tokens.advance(lineage, Some(&OLD), &NEW));
    }

    #[test]
    fn r03_a_record_without_a_token_leaves_that_of_the_user() {
        for is_of_login in [false, true] {
            let mut tokens = set(OLD);
            tokens.adopt(None, true, is_of_login);
            assert_eq!(tokens.newest(), Some(&OLD));
            assert!(tokens.has_spent());
        }
    }

    #[test]
    fn r03_another_login_without_a_token_ends_that_of_the_store() {
        let mut tokens = set(OLD);
        tokens.adopt(Some(&NEW), false, true);
        tokens.adopt(None, false, true);
        assert_eq!(tokens.newest(), Some(&NEW));
        tokens.adopt(None, false, false);
        assert_eq!(tokens.newest(), None);
    }

    #[test]
    fn r03_any_token_that_was_replaced_lately_is_a_copy() {
        let mut tokens = set(0);
        for newest in 1..=20 {
            assert!(!tokens.is_copied(&newest));
            tokens.advance(tokens.lineage(), Some(&(newest - 1)), &newest);
        }
        let copies: Vec<u8> = (0..=20).filter(|token| tokens.is_copied(token)).collect();
        assert_eq!(copies, (4..20).collect::<Vec<_>>());
        tokens.log_in(&100);
        assert!(!tokens.is_copied(&20));
    }

    #[test]
    fn r30_a_logout_ends_the_lineage_and_returns_its_last_token() {
        let mut tokens = set(OLD);
        let lineage = tokens.lineage();
        assert_eq!(tokens.end(), Some(OLD));
        assert!(!tokens.advance(lineage, Some(&OLD), &NEW));
        tokens.keep(lineage, &OLD);
        assert_eq!(tokens.newest(), None);
    }
}
