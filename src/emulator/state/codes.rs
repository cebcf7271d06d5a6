//! Authorization codes: the bookkeeping, without I/O.

use std::collections::{HashMap, HashSet};

/// The lifetime of a code in seconds.
const LIFETIME: u64 = 15 * 60;

/// The authorization codes of one org, and the logins that wait for a decision.
pub(crate) struct Codes {
    /// The number of the org. Codes contain it, so that other orgs do not accept them.
    org: u64,
    issued: u64,
    codes: HashMap<String, CodeStatus>,
    logins: HashSet<String>,
}

enum CodeStatus {
    Valid { grant: CodeGrant, until: u64 },
    Spent,
}

/// The user's consent behind a code, and the values that the app must present.
pub(crate) struct CodeGrant {
    pub(crate) scope: String,
    pub(crate) redirect_uri: String,
    pub(crate) code_challenge: Option<String>,
    pub(crate) nonce: Option<String>,
    /// The thumbprint of the key that the code is bound to (`dpop_jkt`). `None` if it is not bound.
    pub(crate) key: Option<String>,
}

/// The reason why a code cannot be exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CodeRefusal {
    Unknown,
    /// The code was exchanged before, or is too old.
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
        // Real codes end like this too, with characters that a query must escape.
        let code = format!("aPrx{:0>11}.{:0>74}==", self.org, self.issued);
        let until = now + LIFETIME;
        let status = CodeStatus::Valid { grant, until };
        self.codes.insert(code.clone(), status);
        code
    }

    /// Takes the consent behind a code. A code works once, even if the exchange then fails.
    pub(crate) fn take(&mut self, code: &str, now: u64) -> Result<CodeGrant, CodeRefusal> {
        let status = self.codes.get_mut(code).ok_or(CodeRefusal::Unknown)?;
        match std::mem::replace(status, CodeStatus::Spent) {
            CodeStatus::Valid { grant, until } if now < until => Ok(grant),
            _ => Err(CodeRefusal::Expired),
        }
    }

    /// Records a login on the login page, for the consent page that follows.
    pub(crate) fn begin_login(&mut self) -> String {
        self.issued += 1;
        let login = format!("login-{}-{}", self.org, self.issued);
        self.logins.insert(login.clone());
        login
    }

    /// Ends a login of [`begin_login`](Self::begin_login). `false` if there is none with this id.
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
            key: None,
        }
    }

    #[test]
    fn a_code_works_once_within_fifteen_minutes() {
        let mut codes = Codes::new(1);
        assert_eq!(codes.take("aPrx", 0).err(), Some(CodeRefusal::Unknown));
        let code = codes.issue(grant(), 1_000);
        assert!(codes.take(&code, 1_899).is_ok());
        assert_eq!(codes.take(&code, 1_899).err(), Some(CodeRefusal::Expired));
        let code = codes.issue(grant(), 1_000);
        assert_eq!(codes.take(&code, 1_900).err(), Some(CodeRefusal::Expired));
    }
}
