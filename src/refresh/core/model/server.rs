//! A strict server: each refresh token is valid once, and a second use ends its grant.

use crate::refresh::core::model::values::{Error, Session, Token};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Server {
    /// Whether a second use of a token ends its grant. It is refused in any case.
    pub(super) is_strict: bool,
    grants: Vec<Grant>,
    /// The access tokens that were issued, by number, with their grants. `None` once they have ended.
    issued: Vec<Option<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Grant {
    newest: u8,
    is_revoked: bool,
    /// Numbers of the tokens whose successor was lost, or is known to one process only: no client can know that they are
    /// spent.
    lost: Vec<u8>,
    /// Whether the user has saved a token whose record was gone: it may be spent.
    is_saved_again: bool,
}

/// How the server answers a token call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Good,
    /// A session of an instance that is not trusted, with a rotated refresh token.
    Untrusted,
    /// The access token is the one before.
    Unchanged,
    Busy,
    BusyForLong,
    /// No answer: the call does not reach the server.
    Unreachable,
    Terminal,
}

/// What the server saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    First,
    /// The grant had ended before, or the user has asked for a second use.
    Dead,
    /// A second use, which a client could not know of.
    Lost,
    /// A second use.
    Second,
}

impl Server {
    pub(super) fn new() -> Self {
        Self {
            is_strict: true,
            grants: Vec::new(),
            issued: Vec::new(),
        }
    }

    /// The user logs in.
    pub(super) fn log_in(&mut self) -> Session {
        let grant = number_of(&self.grants);
        self.grants.push(Grant {
            newest: 0,
            is_revoked: false,
            lost: Vec::new(),
            is_saved_again: false,
        });
        self.issue(grant)
    }

    /// Issues an access token of a grant.
    fn issue(&mut self, grant: u8) -> Session {
        let access = number_of(&self.issued);
        self.issued.push(Some(grant));
        let number = self.grants[usize::from(grant)].newest;
        Session {
            access,
            refresh_token: Some(Token { grant, number }),
            is_rotated: number > 0,
            is_trusted: true,
            has_time: true,
        }
    }

    /// A token call arrives. `before` is the access token of the client.
    pub(super) fn call(
        &mut self,
        presented: Option<Token>,
        before: Option<u8>,
        answer: Answer,
    ) -> (Result<Session, Error>, Use) {
        match answer {
            Answer::Busy => {
                return (
                    Err(Error::Busy {
                        asks_for_time: false,
                    }),
                    Use::Dead,
                );
            }
            Answer::BusyForLong => {
                return (
                    Err(Error::Busy {
                        asks_for_time: true,
                    }),
                    Use::Dead,
                );
            }
            Answer::Unreachable => return (Err(Error::Unreachable), Use::Dead),
            Answer::Terminal => return (Err(Error::Terminal), Use::Dead),
            Answer::Good | Answer::Untrusted | Answer::Unchanged => {}
        }
        let Some(token) = presented else {
            return (Ok(self.log_in()), Use::First);
        };
        let grant = &mut self.grants[usize::from(token.grant)];
        if grant.is_revoked {
            return (Err(Error::InvalidGrant), Use::Dead);
        }
        if token.number < grant.newest {
            let seen = match grant.lost.contains(&token.number) {
                _ if grant.is_saved_again => Use::Dead,
                true => Use::Lost,
                false => Use::Second,
            };
            if self.is_strict {
                self.revoke(token.grant);
            }
            return (Err(Error::InvalidGrant), seen);
        }
        grant.newest += 1;
        let mut session = self.issue(token.grant);
        session.is_trusted = answer != Answer::Untrusted;
        if let (Answer::Unchanged, Some(before)) = (answer, before) {
            self.issued.pop();
            session.access = before;
        }
        (Ok(session), Use::First)
    }

    pub(super) fn accepts(&self, access: u8) -> bool {
        self.issued[usize::from(access)].is_some()
    }

    /// Ends all access tokens, but no grant.
    pub(super) fn expire(&mut self) {
        self.issued.fill(None);
    }

    pub(super) fn has_valid_session(&self) -> bool {
        self.issued.iter().any(Option::is_some)
    }

    pub(super) fn end_session(&mut self, access: u8) {
        self.issued[usize::from(access)] = None;
    }

    /// Ends a grant and its access tokens.
    pub(super) fn revoke(&mut self, grant: u8) {
        self.grants[usize::from(grant)].is_revoked = true;
        for issued in &mut self.issued {
            issued.take_if(|issued| *issued == grant);
        }
    }

    /// Only one process knows the token that followed this one, or none does.
    pub(super) fn lose(&mut self, token: Token) {
        let lost = &mut self.grants[usize::from(token.grant)].lost;
        if !lost.contains(&token.number) {
            lost.push(token.number);
            lost.sort_unstable();
        }
    }

    /// The user saves a token, though its record is gone.
    pub(super) fn save_again(&mut self, token: Token) {
        self.grants[usize::from(token.grant)].is_saved_again = true;
    }

    pub(super) fn is_dead(&self, token: Token) -> bool {
        let grant = &self.grants[usize::from(token.grant)];
        grant.is_revoked || token.number < grant.newest
    }

    /// The grants that have not ended.
    pub(super) fn grants(&self) -> impl Iterator<Item = u8> {
        let grants = (0..).zip(&self.grants);
        grants
            .filter(|(_, grant)| !grant.is_revoked)
            .map(|(index, _)| index)
    }
}

/// The number of the next element.
fn number_of<T>(elements: &[T]) -> u8 {
    elements.len().try_into().unwrap()
}
