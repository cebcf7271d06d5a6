//! Each property is violated by a mutation of the core: a check that cannot fail is none.

use std::collections::BTreeSet;

use super::{
    explore::explore,
    mutation::Mutation::{self, *},
    properties::Property::{self, *},
    scenarios::SCENARIOS,
};

/// How many states are explored for a violation.
const LIMIT: usize = 50_000;

/// Each property, a mutation that violates it, and the scenario in which that is found.
const MUTANTS: [(Property, Mutation, &str); Property::ALL.len()] = [
    (R02OneTokenCallAtATime, AwaitsNoPredecessor, "runtimes"),
    (
        R03NoRefreshTokenIsPresentedTwice,
        ComparesNoRecord,
        "shared_expiries",
    ),
    (R03ARotatedTokenIsKept, ForgetsRotatedTokens, "expiries"),
    (R04NoIrrevocableStepIsCutOff, CutsOffAnyStep, "runtimes"),
    (
        R05ALateRejectionChangesNothing,
        WithdrawsAnySession,
        "expiries",
    ),
    (R06PublishedAfterSaved, SavesNothing, "shared_expiries"),
    (R07NoCallWithoutTheLock, TakesNoLock, "shared_expiries"),
    (R10LatchedMeansNoCall, IgnoresTheLatch, "expiries"),
    (
        R10ATerminalFailureIsReportedOnce,
        ReportsFailuresTwice,
        "expiries",
    ),
    (R11NoCallDuringABackoff, NeverSleeps, "expiries"),
    (
        R11AFirstLoginWithoutAServerEndsSoon,
        MistakesAnUnreachableServer,
        "first_login_in_vain",
    ),
    (
        R12AnOpenBreakerMeansNoCall,
        RefreshesForEachRejection,
        "breaker",
    ),
    (R14EveryWaiterIsAnswered, ForgetsLateCallers, "runtimes"),
    (R14CallersWaitForWhatRuns, StartsNoDriver, "expiries"),
    (
        R19NoReplayWithTheRejectedToken,
        TrustsEachRefresh,
        "expiries",
    ),
    (
        R24ARefusedTokenIsComparedWithTheStore,
        BelievesEachRefusal,
        "store_rotations",
    ),
    (R28EveryAttemptEndsOnce, ReportsNoFailure, "expiries"),
    (
        R30NothingIsPublishedAfterALogout,
        RefreshesAfterALogout,
        "users",
    ),
    (
        R30ALoggedOutSessionNeverComesBack,
        ForgetsLogouts,
        "store_users",
    ),
    (R32ANewerRecordStays, SavesWithoutComparing, "shared_leases"),
    (R42ServingExactlyIfReady, WithdrawsNothing, "expiries"),
    (R43JoinedRejectionsCount, CountsOnlyWhoStarts, "breaker"),
    (R44EverythingEndsAndTheLockIsFree, NeverEnds, "runtimes"),
];

#[test]
fn r41_each_property_is_violated_by_a_mutation() {
    let properties: BTreeSet<_> = MUTANTS.map(|(property, ..)| property).into();
    assert_eq!(properties, Property::ALL.into());
    for (property, mutation, scenario) in MUTANTS {
        let scenario = SCENARIOS.iter().find(|known| known.name == scenario);
        let mut world = scenario.unwrap().world();
        world.mutation = Some(mutation);
        let report = explore(world, LIMIT, Some(property));
        assert!(
            report.has(property),
            "{property:?} holds in {} states with {mutation:?}",
            report.states
        );
        println!(
            "{mutation:?} violates {property:?} after {} states",
            report.states
        );
    }
}
