//! Errors of a user's code as causes: their texts are foreign.

use std::{error::Error as StdError, fmt, io};

use tower_salesforce_auth::{
    Error, RefreshContext, RefreshError, RefreshErrorKind, Session, SessionHandle,
    store::{StoreError, StoreErrorKind},
};

use crate::report::{check, messages};

/// An error with a text and a source.
#[derive(Debug)]
struct Link {
    text: String,
    source: Option<Box<Link>>,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl StdError for Link {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&**self.source.as_ref()?)
    }
}

/// A chain of these texts, the outermost first.
fn link(texts: &[&str]) -> Link {
    let (text, rest) = texts.split_first().unwrap();
    Link {
        text: (*text).to_owned(),
        source: (!rest.is_empty()).then(|| Box::new(link(rest))),
    }
}

/// The error of a request whose login failed with this error.
async fn through_the_handle(error: RefreshError) -> Error {
    let handle = SessionHandle::new(move |_: RefreshContext| {
        let error = error.clone();
        async { Err::<Session, _>(error) }
    });
    handle.session().await.unwrap_err()
}

#[tokio::test]
async fn a_chain_is_said_once_whether_or_not_its_errors_repeat_it() {
    let parts = [
        "the Salesforce session could not be refreshed",
        "the refresh function failed",
        "no token",
        "vault",
        "sealed",
    ];
    for texts in [
        &["no token", "vault", "sealed"][..],
        &["no token: vault: sealed", "vault: sealed", "sealed"],
        &["no token", "vault (sealed)", "sealed"],
        &["no token: vault", "vault", "sealed"],
        &["", "no token", " ", "vault", "sealed", ""],
        &["no\ntoken", "vault\r\n\t", "\u{7}sealed\u{202e}"],
    ] {
        let line = check(
            through_the_handle(RefreshError::terminal(link(texts))).await,
            &parts,
        );
        let sealed = RefreshError::transient(link(texts));
        assert!(line.ends_with(&sealed.to_string()), "{line}");
        check(sealed, &parts[1..]);
    }
}

#[test]
fn a_cause_that_begins_as_its_error_is_said_once() {
    let error = StoreError::new(StoreErrorKind::Unavailable, "the database is down")
        .with_source(link(&["the database is down: no route", "no route"]));
    assert_eq!(
        check(error, &["the database is down", "no route"]),
        "the database is down: no route"
    );
}

#[tokio::test]
async fn a_cause_is_found_by_its_type_at_any_depth() {
    let inner = io::Error::new(io::ErrorKind::ConnectionReset, link(&["reset"]));
    let error = RefreshError::transient(io::Error::other(inner));
    let handle = SessionHandle::new(move |_: RefreshContext| {
        let error = error.clone();
        async move { Err::<Session, _>(RefreshError::terminal(error)) }
    });
    let error = handle.session().await.unwrap_err();
    assert!(error.source().is_none());
    // `refresh_error` is the outer one.
    assert!(error.refresh_error().unwrap().is_terminal());
    let mut causes = error.causes();
    let inner = causes.find_map(|cause| {
        cause
            .downcast_ref::<RefreshError>()
            .filter(|e| !e.is_terminal())
    });
    let inner = inner.unwrap();
    assert!(inner.causes().any(<dyn StdError>::is::<Link>));
    let kinds = error
        .causes()
        .filter_map(|cause| Some(cause.downcast_ref::<io::Error>()?.kind()));
    let kinds: Vec<_> = kinds.collect();
    assert_eq!(
        kinds,
        [io::ErrorKind::Other, io::ErrorKind::ConnectionReset]
    );
    assert!(error.store_error().is_none());
}

#[tokio::test]
async fn a_long_chain_is_cut_and_source_goes_on_with_the_rest() {
    let texts: Vec<String> = (0..40)
        .map(|n| format!("<{n}> {}", "x".repeat(100)))
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let error = through_the_handle(RefreshError::terminal(link(&texts))).await;
    let line = check(error.clone(), &["<0>", "<5>"]);
    assert!(line.ends_with('…') && !line.contains("<39>"), "{line}");
    // A reporter prints what the line has no room for.
    assert!(
        messages(&error)
            .iter()
            .any(|message| message.contains("<39>"))
    );

    let endless = RefreshError::terminal(link(&[&"y".repeat(1_000_000)]));
    let line = check(endless, &["the refresh function failed: yyy"]);
    assert!(line.len() < 2_000);
}

/// An error that is its own source.
#[derive(Debug)]
struct Ring;

impl fmt::Display for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("round and round")
    }
}

impl StdError for Ring {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(self)
    }
}

/// An error that panics when it is printed.
#[derive(Debug)]
struct Loud;

impl fmt::Display for Loud {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("hush")
    }
}

impl StdError for Loud {}

/// An error that does not print.
#[derive(Debug)]
struct Mute;

impl fmt::Display for Mute {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Err(fmt::Error)
    }
}

impl StdError for Mute {}

#[tokio::test]
async fn an_error_that_is_its_own_source_or_does_not_print_is_no_trap() {
    check(RefreshError::terminal(Ring), &["round and round"]);
    let said = "the Salesforce session could not be refreshed: the refresh function failed: …";
    for error in [RefreshError::terminal(Mute), RefreshError::terminal(Loud)] {
        let error = through_the_handle(error).await;
        assert_eq!(
            error.refresh_error().unwrap().kind(),
            RefreshErrorKind::Other
        );
        assert_eq!(check(error, &["the refresh function failed"]), said);
    }
}

#[tokio::test]
async fn the_alternate_debug_has_the_fields() {
    let error = through_the_handle(RefreshError::terminal(link(&["no token"]))).await;
    let fields = format!("{error:#?}");
    for field in [
        "kind: Refresh",
        "terminal: true",
        "error_code: None",
        "text: \"no token\"",
    ] {
        assert!(fields.contains(field), "{fields}");
    }
}
