//! The registry `Sessions`: its bound, and which handles it evicts (R27).

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Barrier, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::sync::Notify;
use tower_salesforce_auth::{
    ErrorKind, LoginUrl, RefreshContext, RefreshError, Secret, Session, SessionHandle, Sessions,
    flow::RefreshToken, handle::SessionState, oauth::App,
};

use crate::support::{Answering, INSTANCE, session};

/// A handle whose refreshes return `T1` with `R1` and so on.
fn rotating() -> SessionHandle {
    let refreshes = AtomicUsize::new(0);
    SessionHandle::new(move |_: RefreshContext| {
        let n = refreshes.fetch_add(1, Ordering::SeqCst) + 1;
        let session = session(&format!("T{n}")).with_refresh_token(format!("R{n}"));
        std::future::ready(Ok(session))
    })
}

/// A registry whose handles begin with a session, and the count of handles made.
fn counted(capacity: usize) -> (Sessions<u32>, Arc<AtomicUsize>) {
    let made = Arc::new(AtomicUsize::new(0));
    let sessions = {
        let made = made.clone();
        Sessions::new(capacity, move |_: &u32| {
            made.fetch_add(1, Ordering::SeqCst);
            let handle = rotating();
            handle.set(session("T0").with_refresh_token("R0"));
            handle
        })
    };
    (sessions, made)
}

/// Whether two handles share their session.
fn is_same(one: &SessionHandle, other: &SessionHandle) -> bool {
    let generation = one.set(session("same"));
    let current = other.try_session().unwrap();
    current.generation() == generation && current.access_token().expose() == "same"
}

#[test]
fn r27_a_full_registry_evicts_the_least_recently_used() {
    let (sessions, made) = counted(3);
    assert!(sessions.is_empty());
    for key in [1, 2, 3] {
        sessions.get(&key).unwrap();
    }
    sessions.get(&1).unwrap();
    assert_eq!((sessions.len(), made.load(Ordering::SeqCst)), (3, 3));
    sessions.get(&4).unwrap();
    assert_eq!(sessions.len(), 3);
    assert!(sessions.find(&2).is_none());
    // `find` does not count as a use.
    assert!(sessions.find(&3).is_some());
    sessions.get(&5).unwrap();
    assert!(sessions.find(&3).is_none());
    for key in 0..1_000 {
        sessions.get(&key).unwrap();
        assert_eq!(sessions.len(), 3);
    }
    assert_eq!(
        format!("{sessions:?}"),
        "Sessions { len: 3, capacity: 3, .. }"
    );
}

#[test]
fn a_key_is_looked_up_in_its_borrowed_form() {
    let sessions = Sessions::new(1, |tenant: &String| {
        let handle = rotating();
        handle.set(session(tenant));
        handle
    });
    let acme = sessions.get("acme").unwrap();
    assert_eq!(acme.try_session().unwrap().access_token().expose(), "acme");
    assert!(is_same(&acme, &sessions.find("acme").unwrap()));
    assert!(is_same(&acme, &sessions.remove("acme").unwrap()));
    assert!(sessions.is_empty());
}

#[test]
fn a_handle_in_use_is_not_evicted() {
    let (sessions, _) = counted(2);
    let first = sessions.get(&1).unwrap();
    sessions.get(&2).unwrap();
    let third = sessions.get(&3).unwrap();
    assert!(is_same(&first, &sessions.get(&1).unwrap()));
    let error = sessions.get(&4).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SessionsFull);
    assert_eq!(sessions.len(), 2);
    // A handle in the registry is still returned, and a dropped one makes room.
    assert!(is_same(&third, &sessions.get(&3).unwrap()));
    drop(first);
    sessions.get(&4).unwrap();
    assert!(sessions.find(&1).is_none());
    assert!(sessions.find(&3).is_some());
    assert_eq!(
        Sessions::<u32>::new(0, |_| rotating())
            .get(&1)
            .unwrap_err()
            .kind(),
        ErrorKind::SessionsFull
    );
}

#[tokio::test]
async fn a_handle_with_a_pending_request_is_in_use() {
    let (sessions, _) = counted(1);
    let mut request = Request::new(());
    request.extensions_mut().insert(sessions.get(&1).unwrap());
    assert_eq!(
        sessions.get(&2).unwrap_err().kind(),
        ErrorKind::SessionsFull
    );
    drop(request);
    sessions.get(&2).unwrap();
}

#[tokio::test]
async fn a_handle_with_a_running_refresh_is_not_evicted() {
    let (started, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let sessions = {
        let (started, finish) = (started.clone(), finish.clone());
        Sessions::new(1, move |_: &u32| {
            let (started, finish) = (started.clone(), finish.clone());
            SessionHandle::new(move |_: RefreshContext| {
                let (started, finish) = (started.clone(), finish.clone());
                async move {
                    started.notify_one();
                    finish.notified().await;
                    Ok(session("T1").with_refresh_token("R1"))
                }
            })
        })
    };
    let handle = sessions.get(&1).unwrap();
    let mut states = handle.subscribe();
    let caller = tokio::spawn(async move { handle.session().await });
    started.notified().await;
    // The only caller is dropped.
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    assert_eq!(
        sessions.get(&2).unwrap_err().kind(),
        ErrorKind::SessionsFull
    );
    finish.notify_one();
    while !matches!(states.state(), SessionState::Ready(_)) {
        states.changed().await.unwrap();
    }
    // The refresh has ended, with a refresh token that is not saved.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        sessions.get(&2).unwrap_err().kind(),
        ErrorKind::SessionsFull
    );
    sessions.find(&1).unwrap().mark_saved(&Secret::from("R1"));
    sessions.get(&2).unwrap();
    assert!(sessions.find(&1).is_none());
}

#[tokio::test]
async fn r27_a_handle_with_an_unsaved_token_is_never_evicted() {
    let (sessions, _) = counted(3);
    for key in [1, 2] {
        let handle = sessions.get(&key).unwrap();
        assert!(!handle.has_unsaved_refresh_token(), "it was set");
        handle.refresh().await.unwrap();
        assert!(handle.has_unsaved_refresh_token());
    }
    for key in 3..1_000 {
        sessions.get(&key).unwrap();
    }
    assert_eq!(sessions.len(), 3);
    let first = sessions.get(&1).unwrap();
    assert_eq!(first.refresh_token(), Some(Secret::from("R1")));
    // Marking an older token as saved does not save the newest one.
    first.refresh().await.unwrap();
    first.mark_saved(&Secret::from("R1"));
    assert!(first.has_unsaved_refresh_token());
    first.mark_saved(&Secret::from("R2"));
    assert!(!first.has_unsaved_refresh_token());
    drop(first);
    for key in 3..1_000 {
        sessions.get(&key).unwrap();
    }
    assert!(sessions.find(&1).is_none());
    let second = sessions.find(&2).unwrap();
    assert!(second.has_unsaved_refresh_token());
}

#[tokio::test]
async fn r27_a_registry_of_unsaved_tokens_is_full_and_loses_none() {
    let (sessions, _) = counted(10);
    for key in 0..10 {
        sessions.get(&key).unwrap().refresh().await.unwrap();
    }
    for key in 10..100 {
        let error = sessions.get(&key).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SessionsFull);
        assert!(error.to_string().contains("mark_saved"));
    }
    for key in 0..10 {
        let token = sessions.get(&key).unwrap().refresh_token();
        assert_eq!(token, Some(Secret::from("R1")));
    }
    // A removed handle still has its refresh token.
    let removed = sessions.remove(&0).unwrap();
    assert!(removed.has_unsaved_refresh_token());
    assert!(sessions.remove(&0).is_none());
    assert_eq!(sessions.len(), 9);
    assert!(!is_same(&removed, &sessions.get(&0).unwrap()));
}

#[tokio::test]
async fn a_refreshed_token_is_unsaved_and_a_set_one_is_saved() {
    let handle = rotating();
    assert!(!handle.has_unsaved_refresh_token());
    handle.session().await.unwrap();
    assert!(handle.has_unsaved_refresh_token(), "a login returned it");
    handle.set(session("T8"));
    assert!(handle.has_unsaved_refresh_token(), "it is still the newest");
    handle.set(session("T9").with_refresh_token("R9"));
    assert!(!handle.has_unsaved_refresh_token());
    handle.refresh().await.unwrap();
    assert!(handle.has_unsaved_refresh_token());

    // The rotated token of an unusable session is unsaved.
    let handle = SessionHandle::new(|_: RefreshContext| async {
        let session = Session::new("T1", "https://example.com").map_err(RefreshError::terminal)?;
        Ok(session.with_refresh_token("R1"))
    });
    handle.set(session("T0").with_refresh_token("R0"));
    handle.refresh().await.unwrap_err();
    assert_eq!(handle.refresh_token(), Some(Secret::from("R1")));
    assert!(handle.has_unsaved_refresh_token());

    // The same token as before is not unsaved.
    let handle = SessionHandle::new(|context: RefreshContext| async move {
        let token = context.refresh_token().unwrap().clone();
        Ok(session("T1").with_refresh_token(token))
    });
    handle.set(session("T0").with_refresh_token("R0"));
    handle.refresh().await.unwrap();
    assert!(!handle.has_unsaved_refresh_token());
}

#[tokio::test]
async fn a_flows_first_refresh_token_is_saved_until_it_rotates() {
    let exchanges = Arc::new(AtomicUsize::new(0));
    let server = Answering(move |_: Request<Full<Bytes>>| {
        let n = exchanges.fetch_add(1, Ordering::SeqCst) + 1;
        let rotated = if n == 2 {
            r#""refresh_token":"R1","#
        } else {
            ""
        };
        Response::new(Full::<Bytes>::from(format!(
            r#"{{"access_token":"T{n}",{rotated}"instance_url":"{INSTANCE}","token_type":"Bearer"}}"#
        )))
    });
    let app = App::new(LoginUrl::production(), "client").client_secret("secret");
    let handle = SessionHandle::new(RefreshToken::new(server, app, "R0"));
    handle.session().await.unwrap();
    assert_eq!(handle.refresh_token(), Some(Secret::from("R0")));
    assert!(!handle.has_unsaved_refresh_token());
    for _ in 0..2 {
        // Presenting the token does not save it.
        handle.refresh().await.unwrap();
        assert_eq!(handle.refresh_token(), Some(Secret::from("R1")));
        assert!(handle.has_unsaved_refresh_token());
    }
}

#[test]
fn concurrent_callers_of_a_key_get_the_same_handle() {
    const CALLERS: usize = 8;
    let barrier = Arc::new(Barrier::new(CALLERS));
    let sessions = {
        let barrier = barrier.clone();
        // All callers make a handle before one is kept.
        Sessions::new(1, move |_: &u32| {
            barrier.wait();
            rotating()
        })
    };
    let handles: Vec<_> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| scope.spawn(|| sessions.get(&1).unwrap()))
            .collect();
        callers
            .into_iter()
            .map(|caller| caller.join().unwrap())
            .collect()
    });
    assert_eq!(sessions.len(), 1);
    assert!(handles.iter().all(|handle| is_same(&handles[0], handle)));
}

#[test]
fn a_panic_while_making_a_handle_changes_nothing() {
    let sessions = Sessions::new(1, |key: &u32| {
        assert_ne!(*key, 2, "there is no such tenant");
        rotating()
    });
    sessions.get(&1).unwrap();
    let get = AssertUnwindSafe(|| sessions.get(&2));
    assert!(catch_unwind(get).is_err());
    assert_eq!(sessions.len(), 1);
    assert!(sessions.find(&1).is_some());
    sessions.get(&3).unwrap();
}

#[test]
fn making_a_handle_may_ask_for_other_handles() {
    let own: Arc<OnceLock<Sessions<u32>>> = Arc::default();
    let sessions = {
        let own = own.clone();
        Sessions::new(3, move |key: &u32| match key {
            0 => rotating(),
            // A handle that asks for its own key is kept once.
            3 if own.get().unwrap().len() < 3 => own
                .get()
                .unwrap()
                .get(&2)
                .and_then(|_| own.get().unwrap().get(&3))
                .unwrap(),
            key => own
                .get()
                .unwrap()
                .get(&(key - 1))
                .map(|_| rotating())
                .unwrap(),
        })
    };
    let sessions = own.get_or_init(|| sessions);
    let handle = sessions.get(&3).unwrap();
    assert!(is_same(&handle, &sessions.find(&3).unwrap()));
    assert_eq!(sessions.len(), 3);
}
