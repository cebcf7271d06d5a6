//! Any order of requests, refreshes, saves and failures.

use std::time::Duration;

use http::StatusCode;
use proptest::prelude::*;
use tokio::{runtime, time::advance};
use tower_salesforce_auth::{SalesforceAuthLayer, emulator::Fault, observer::StoreOperation};

use crate::{
    events::Events,
    scripted::{Fate, Scripted},
    setup::org_with_session,
    support::{assert_no_reuse, builder, limits},
};

#[derive(Clone, Debug)]
enum Step {
    Request(usize),
    Refresh(usize),
    RefreshBehind(usize),
    Save(usize),
    Expire,
    Lock(Fate),
    SaveFate(Fate),
    Token(Fault),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let fate = |longest: u64| {
        prop_oneof![
            Just(Fate::Done),
            Just(Fate::FailsFor(2)),
            (0..longest).prop_map(|millis| Fate::After(Duration::from_millis(millis))),
        ]
    };
    let fault = prop_oneof![
        Just(Fault::None),
        Just(Fault::Maintenance),
        (0_u64..8).prop_map(|seconds| Fault::Delay(Duration::from_secs(seconds))),
    ];
    prop_oneof![
        (0_usize..3).prop_map(Step::Request),
        (0_usize..3).prop_map(Step::Refresh),
        (0_usize..3).prop_map(Step::RefreshBehind),
        (0_usize..3).prop_map(Step::Save),
        Just(Step::Expire),
        fate(300).prop_map(Step::Lock),
        fate(6_000).prop_map(Step::SaveFate),
        fault.prop_map(Step::Token),
        (0_u64..5_000).prop_map(Step::Wait),
    ]
}

async fn walk(steps: Vec<Step>) {
    let store = Scripted::default();
    let org = org_with_session(&store.store).await;
    let events = Events::default();
    let layers = [(); 3].map(|()| {
        let handle = builder(&org, store.clone()).observer(events.clone());
        SalesforceAuthLayer::from(handle.build())
    });
    for step in steps {
        match step {
            Step::Request(n) => drop(limits(&layers[n], &org).await),
            Step::Refresh(n) => drop(layers[n].handle().refresh().await),
            Step::RefreshBehind(n) => {
                let handle = layers[n].handle();
                tokio::spawn(async move { handle.refresh().await.map(drop) });
            }
            Step::Save(n) => drop(layers[n].handle().save().await),
            Step::Expire => org.expire_sessions(),
            Step::Lock(fate) => store.on(StoreOperation::Lock, fate),
            Step::SaveFate(fate) => store.on(StoreOperation::Save, fate),
            Step::Token(fault) => org.on_token(fault),
            Step::Wait(millis) => advance(Duration::from_millis(millis)).await,
        }
        if events.take().iter().any(|event| event.starts_with("Save")) {
            // Other processes cannot know a token that could not be saved.
            return;
        }
        assert_no_reuse(&org);
    }
    // All running operations end, and every layer works again.
    store.on(StoreOperation::Lock, Fate::Done);
    store.on(StoreOperation::Save, Fate::Done);
    org.on_token(Fault::None);
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(store.held(), 0);
    org.expire_sessions();
    for layer in &layers {
        assert_eq!(limits(layer, &org).await.unwrap(), StatusCode::OK);
    }
    assert_no_reuse(&org);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// R3 and R7 hold for any faults of the store and the server, unless a token cannot be saved at all.
    #[test]
    fn r03_no_refresh_token_is_presented_twice_in_a_random_walk(
        steps in proptest::collection::vec(step(), 1..30),
    ) {
        let rt = runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        rt.block_on(walk(steps));
    }
}
