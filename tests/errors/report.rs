//! Reports of errors, as anyhow, eyre and a `main` that returns an error print them.

use std::{error::Error as StdError, iter::successors};

use tower_salesforce_auth::{Error, RefreshError, store::StoreError};

/// An error of this crate, of any type.
#[derive(Clone)]
pub(crate) enum Any {
    Layer(Error),
    Refresh(RefreshError),
    Store(StoreError),
}

impl Any {
    fn as_std(&self) -> &(dyn StdError + 'static) {
        match self {
            Self::Layer(error) => error,
            Self::Refresh(error) => error,
            Self::Store(error) => error,
        }
    }

    fn anyhow(&self) -> anyhow::Error {
        match self.clone() {
            Self::Layer(error) => error.into(),
            Self::Refresh(error) => error.into(),
            Self::Store(error) => error.into(),
        }
    }

    fn eyre(&self) -> eyre::Report {
        match self.clone() {
            Self::Layer(error) => error.into(),
            Self::Refresh(error) => error.into(),
            Self::Store(error) => error.into(),
        }
    }
}

macro_rules! any_of {
    ($($variant:ident: $error:ty),*) => {$(
        impl From<$error> for Any {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        }
    )*};
}

any_of!(Layer: Error, Refresh: RefreshError, Store: StoreError);

/// The messages of a chain, as a reporter prints them.
pub(crate) fn messages(error: &(dyn StdError + 'static)) -> Vec<String> {
    let errors = successors(Some(error), |error| StdError::source(*error));
    errors.map(ToString::to_string).collect()
}

/// A report without the backtrace that it has if `RUST_BACKTRACE` is set.
pub(crate) fn without_backtrace(report: &str) -> &str {
    let (report, _) = report
        .split_once("Stack backtrace:")
        .unwrap_or((report, ""));
    report.trim_end()
}

/// Checks an error in each report: it says each of `parts` once, on one line. Returns the line.
pub(crate) fn check(error: impl Into<Any>, parts: &[&str]) -> String {
    let error = error.into();
    let line = error.as_std().to_string();
    assert!(!line.chars().any(char::is_control), "{line:?}");
    assert!(line.chars().count() < 5_000, "{line}");
    // What `main` prints.
    assert_eq!(format!("{:?}", error.as_std()), line);

    let messages = messages(error.as_std());
    for (index, message) in messages.iter().enumerate() {
        let is_said = messages[..index]
            .iter()
            .any(|earlier| earlier.contains(message));
        assert!(!is_said, "{messages:#?}");
    }
    let context = "the export failed";
    let reports = [
        line.clone(),
        format!("{messages:#?}"),
        format!("{:#}", error.anyhow().context(context)),
        format!("{:?}", error.anyhow().context(context)),
        format!("{:#}", error.eyre().wrap_err(context)),
        format!("{:?}", error.eyre().wrap_err(context)),
    ];
    for report in reports.iter().map(|report| without_backtrace(report)) {
        // eyre folds long lines.
        let words = report.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in parts {
            assert_eq!(words.matches(part).count(), 1, "{part:?} in {report}");
        }
    }
    line
}
