//! Authorization codes: the bookkeeping, without I/O.

use std::collections::{HashMap, HashSet};

/// How long a code may be exchanged, in seconds.
const LIFETIME: u64 = 15 * 60;

/// Every authorization code of one org, and the logins that have not led to one yet.
pub(crate) struct Codes {
    /// Written into every code, so that one org's code is unknown to the other.
    org: u64,
    issued: u64,
    codes: HashMap<String, CodeStatus>,
    logins: HashSet<String>,
}

enum CodeStatus {
    Good { grant: CodeGrant, until: u64 },
    Spent,
}

/// What the user has allowed, and what the app must show to get it.
pub(crate) struct CodeGrant {
    pub(crate) scope: String,
    pub(crate) redirect_uri: String,
    pub(crate) code_challenge: Option<String>,
    pub(crate) nonce: Option<String>,
}

/// Why a code cannot be exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CodeRefusal {
    Unknown,
    /// Exchanged before, or too old.
    Expired,
}

impl Codes {
    pub(crate) fn new(org: u64) -> Self {
        Self {
            org,
            issued: 0,
            codes: HashMap::new(),
            logins: HashSet::new(),
        }
    }

    pub(crate) fn issue(&mut self, grant: CodeGrant, now: u64) -> String {
        self.issued += 1;
        // As real ones do, it ends in what a query must escape.
        let code = format!("aPrx{:0>11}.{:0>74}==", self.org, self.issued);
        let until = now + LIFETIME;
        let status = CodeStatus::Good { grant, until };
        self.codes.insert(code.clone(), status);
        code
    }

    /// Takes what the code stands for. A code works once, whatever becomes of it.
    pub(crate) fn take(&mut self, code: &str, now: u64) -> Result<CodeGrant, CodeRefusal> {
        let status = self.codes.get_mut(code).ok_or(CodeRefusal::Unknown)?;
        match std::mem::replace(status, CodeStatus::Spent) {
            CodeStatus::Good { grant, until } if now < until => Ok(grant),
            _ => Err(CodeRefusal::Expired),
        }
    }

    /// Remembers that the user has logged in on the login page, for the consent page.
    pub(crate) fn begin_login(&mut self) -> String {
        self.issued += 1;
        let login = format!("login-{}-{}", self.org, self.issued);
        self.logins.insert(login.clone());
        login
    }

    /// Ends what [`begin_login`](Self::begin_login) began; `false` if nobody has logged in so.
    pub(crate) fn end_login(&mut self, login: &str) -> bool {
        self.logins.remove(login)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant() -> CodeGrant {
        CodeGrant {
            scope: "api".to_owned(),
            redirect_uri: "https://app.example.com/callback".to_owned(),
            code_challenge: None,
            nonce: None,
        }
    }

    #[test]
    fn a_code_works_once_and_for_fifteen_minutes() {
        let mut codes = Codes::new(1);
        assert_eq!(codes.take("aPrx", 0).err(), Some(CodeRefusal::Unknown));
        let code = codes.issue(grant(), 1_000);
        assert!(codes.take(&code, 1_899).is_ok());
        assert_eq!(codes.take(&code, 1_899).err(), Some(CodeRefusal::Expired));
        let code = codes.issue(grant(), 1_000);
        assert_eq!(codes.take(&code, 1_900).err(), Some(CodeRefusal::Expired));
    }
}
