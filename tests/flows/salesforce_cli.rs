//! The Salesforce CLI as a source of sessions (R45): old and new, and what it says when it has none.

use std::{error::Error as StdError, fs, time::Duration};

use serde_json::json;
use tokio::task::JoinSet;
use tower_salesforce_auth::{
    RefreshContext, RefreshError, RefreshErrorKind, RefreshFn, SalesforceAuthLayer, Session,
    emulator::Org, flow::SalesforceCli, observer::RefreshReason,
};

use crate::{
    fake_cli::{
        DISPLAY, FakeCli, INSTANCE, REDACTED, SHOW, TOKEN, fails, no_such_command, org, org_with,
        prints, says, stays, token,
    },
    support::{LIMITS, get_limits},
};

const STALE: &str = "Unable to refresh auth for org. Access token may be stale.";

async fn failure(cli: &FakeCli) -> RefreshError {
    cli.flow().log_in().await.unwrap_err()
}

/// Checks an error: its kind, whether it is terminal, what it says, and that it has no token.
#[track_caller]
fn assert_told(error: &RefreshError, kind: RefreshErrorKind, is_terminal: bool, told: &[&str]) {
    let message = error.to_string();
    assert_eq!(error.kind(), kind, "{message}");
    assert_eq!(error.is_terminal(), is_terminal, "{message}");
    for part in told {
        assert!(message.contains(part), "{part} in: {message}");
    }
    let all = format!("{error:?} {:?}", StdError::source(error));
    assert!(!all.contains("fakeToken"), "{all}");
    assert!(!message.chars().any(char::is_control), "{message}");
}

// === A CLI that is logged in ===

#[tokio::test]
async fn r45_a_new_cli_gives_its_token_and_its_instance() {
    let cli = FakeCli::logged_in();
    let session = cli.flow().target_org(" acme\n").log_in().await.unwrap();
    assert_eq!(session.access_token().expose(), TOKEN);
    assert_eq!(session.instance_url().to_string(), INSTANCE);
    assert_eq!(session.refresh_token(), None);
    let calls = [SHOW, DISPLAY].map(|command| format!("{command} --json --target-org acme"));
    assert_eq!(cli.calls(), calls);
}

#[tokio::test]
async fn r45_an_old_cli_gives_its_token_with_the_org() {
    let missing = [
        no_such_command("org auth show-access-token"),
        "echo ' ›   Error: Command org:auth:show-access-token not found.' >&2\nexit 2".to_owned(),
        fails(
            "CommandNotFound",
            "org auth show-access-token is not a sf command.",
        ),
    ];
    for missing in missing {
        let cli = FakeCli::new(&[
            (SHOW, missing),
            (DISPLAY, prints(&org_with(TOKEN, "Connected"))),
        ]);
        let session = cli.flow().log_in().await.unwrap();
        assert_eq!(session.access_token().expose(), TOKEN);
        assert_eq!(session.instance_url().to_string(), INSTANCE);
        assert_eq!(cli.calls().len(), 2);
    }
}

#[tokio::test]
async fn r45_colours_and_warnings_around_the_json_are_read() {
    let coloured = format!(
        "\u{1b}[33m›   Warning:\u{1b}[39m @salesforce/cli update {{available}}\n\u{1b}[97m{{\u{1b}[39m\n  \
         \u{1b}[94m\"status\"\u{1b}[39m\u{1b}[93m:\u{1b}[39m \u{1b}[33m0\u{1b}[39m,\n  \
         \"result\": {{\u{1b}[94m\"accessToken\"\u{1b}[39m: \u{1b}[92m\"{TOKEN}\"\u{1b}[39m}}\n}}\nDone."
    );
    let display = format!("Warning: something {{ is }} odd\n{}", org());
    let cli = FakeCli::new(&[(SHOW, says(&coloured)), (DISPLAY, says(&display))]);
    let session = cli.flow().log_in().await.unwrap();
    assert_eq!(session.access_token().expose(), TOKEN);
    assert_eq!(session.instance_url().to_string(), INSTANCE);
}

#[tokio::test]
async fn r45_the_instance_is_asked_for_once() {
    let cli = FakeCli::logged_in();
    let handle = tower_salesforce_auth::SessionHandle::new(cli.flow());
    let live = handle.session().await.unwrap();
    assert_eq!(cli.calls().len(), 2);
    handle.invalidate(live.generation());
    handle.session().await.unwrap();
    assert_eq!(cli.calls()[2..], [format!("{SHOW} --json")]);
    // A person who asks for a refresh may know of a change.
    handle.refresh().await.unwrap();
    assert_eq!(cli.calls().len(), 5);
}

#[tokio::test]
async fn r45_an_alias_that_now_names_another_org_is_noticed() {
    let other = "00Dyy0000009zZZ!AQEAQtoken";
    let mut other_org = org();
    other_org["result"]["instanceUrl"] = json!("https://other.my.salesforce.com");
    // Between the two commands: the token would go to an org that has not issued it.
    let cli = FakeCli::new(&[(SHOW, prints(&token(other))), (DISPLAY, prints(&other_org))]);
    let error = failure(&cli).await;
    assert_told(&error, RefreshErrorKind::Other, false, &["two orgs"]);

    other_org["result"]["id"] = json!("00Dyy0000009zZZAAA");
    let cli = FakeCli::new(&[(SHOW, prints(&token(other))), (DISPLAY, prints(&other_org))]);
    let before = Session::new(TOKEN, INSTANCE).unwrap();
    let handle = tower_salesforce_auth::SessionHandle::builder(cli.flow())
        .initial_session(before)
        .build();
    let live = handle.session().await.unwrap();
    handle.invalidate(live.generation());
    let live = handle.session().await.unwrap();
    assert_eq!(live.instance_url().host(), "other.my.salesforce.com");
    assert_eq!(cli.calls().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn r45_many_callers_at_an_expired_session_cost_one_cli_call() {
    let org = Org::new();
    let grant = org.authorize();
    let display = json!({"status": 0, "result": {"instanceUrl": grant.instance_url()}});
    let show = r#"read token < "$here/token"; echo "{\"status\":0,\"result\":{\"accessToken\":\"$token\"}}""#;
    let cli = FakeCli::new(&[(SHOW, show.to_owned()), (DISPLAY, prints(&display))]);
    let logs_in = |token: &str| fs::write(cli.file("token"), format!("{token}\n")).unwrap();
    logs_in(grant.access_token());
    let layer = SalesforceAuthLayer::new(cli.flow());
    assert_eq!(get_limits(&layer, &org).await.unwrap().0, 200);

    org.expire_sessions();
    logs_in(org.authorize().access_token());
    let mut callers = JoinSet::new();
    for _ in 0..200 {
        let (layer, org) = (layer.clone(), org.clone());
        callers.spawn(async move { get_limits(&layer, &org).await.unwrap().0 });
    }
    assert!(callers.join_all().await.iter().all(|status| *status == 200));
    assert_eq!(cli.calls()[2..], [format!("{SHOW} --json")]);
}

#[tokio::test]
async fn r45_the_same_rejected_token_again_is_bounded() {
    let org = Org::new();
    let display = json!({"status": 0, "result": {"instanceUrl": org.instance_url()}});
    let cli = FakeCli::new(&[(SHOW, prints(&token(TOKEN))), (DISPLAY, prints(&display))]);
    let layer = SalesforceAuthLayer::new(cli.flow());
    for _ in 0..20 {
        let (status, _) = get_limits(&layer, &org).await.unwrap();
        assert_eq!(status, 401, "{LIMITS}");
    }
    let calls = cli.calls().len();
    assert!(calls <= 4, "{calls} calls");
}

// === A CLI that gives no session ===

#[tokio::test]
async fn r45_a_cli_that_is_missing_says_how_to_install_it() {
    let error = SalesforceCli::new()
        .program("/nonexistent/sf")
        .log_in()
        .await
        .unwrap_err();
    let told = [
        "`/nonexistent/sf` on the PATH",
        "npm install --global @salesforce/cli",
        "sf org login web",
    ];
    assert_told(&error, RefreshErrorKind::Configuration, true, &told);

    // `node` is missing: it is the shell that says so.
    let cli = FakeCli::new(&[(
        SHOW,
        "echo 'env: node: No such file or directory' >&2; exit 127".to_owned(),
    )]);
    let told = ["env: node: No such file", "in a terminal"];
    assert_told(
        &failure(&cli).await,
        RefreshErrorKind::Configuration,
        true,
        &told,
    );
}

#[tokio::test]
async fn r45_an_unknown_alias_is_told() {
    let message = "Parsing --target-org \n\tNo authorization information found for acme.\nSee more help with --help";
    let cli = FakeCli::new(&[(SHOW, fails("NamedOrgNotFoundError", message))]);
    let error = failure(&cli).await;
    let told = [
        "No authorization information found for acme.):",
        "sf org list",
        "--alias",
    ];
    assert_told(&error, RefreshErrorKind::Configuration, true, &told);
    assert_eq!(error.error_code(), Some("NamedOrgNotFoundError"));
}

#[tokio::test]
async fn r45_a_cli_without_a_default_org_says_how_to_set_one() {
    let message = "No default environment found. Use -o or --target-org to specify an environment.";
    // Some commands write the error to the other stream.
    let cli = FakeCli::new(&[(
        SHOW,
        format!("exec >&2\n{}", fails("NoDefaultEnvError", message)),
    )]);
    let told = ["sf config set target-org", "sf org login web --set-default"];
    assert_told(
        &failure(&cli).await,
        RefreshErrorKind::Configuration,
        true,
        &told,
    );
}

#[tokio::test]
async fn r45_an_alias_that_no_org_can_have_is_refused() {
    let cli = FakeCli::logged_in();
    for (alias, told) in [
        ("", "is empty"),
        ("--verbose", "hyphen"),
        ("my org", "blank"),
    ] {
        let error = cli.flow().target_org(alias).log_in().await.unwrap_err();
        assert_told(&error, RefreshErrorKind::Configuration, true, &[told]);
    }
    assert!(cli.calls().is_empty());
}

#[tokio::test]
async fn r45_a_cli_that_is_logged_out_says_how_to_log_in() {
    let mut stale = token(TOKEN);
    stale["warnings"] = json!(["something", STALE]);
    let name = "RefreshTokenAuthError";
    let message =
        "Error authenticating with the refresh token due to: expired access/refresh token";
    let sentence = format!("Unable to refresh session due to: {message}");
    let mut old = org_with(TOKEN, name);
    old["warnings"] = json!(["unable to refresh auth for org"]);
    for (show, display, code) in [
        (prints(&stale), prints(&org_with(REDACTED, &sentence)), None),
        (
            prints(&stale),
            prints(&org_with(REDACTED, name)),
            Some(name),
        ),
        (no_such_command(SHOW), prints(&old), Some(name)),
        (fails(name, message), String::new(), Some(name)),
    ] {
        let cli = FakeCli::new(&[(SHOW, show), (DISPLAY, display)]);
        let error = failure(&cli).await;
        let told = ["log in again with `sf org login web`"];
        assert_told(&error, RefreshErrorKind::Refused, true, &told);
        assert_eq!(error.error_code(), code);
    }
}

#[tokio::test]
async fn r45_a_cli_without_a_network_is_asked_again() {
    let mut stale = token(TOKEN);
    stale["warnings"] = json!([STALE]);
    let message = "request to https://login.salesforce.com failed, reason: connect ECONNREFUSED";
    for commands in [
        [
            (SHOW, prints(&stale)),
            (DISPLAY, prints(&org_with(REDACTED, "ENOTFOUND"))),
        ],
        [
            (SHOW, prints(&stale)),
            (DISPLAY, prints(&org_with(REDACTED, "Down (Maintenance)"))),
        ],
        // It came back meanwhile.
        [(SHOW, prints(&stale)), (DISPLAY, prints(&org()))],
        [
            (SHOW, fails("FetchError", message)),
            (DISPLAY, String::new()),
        ],
    ] {
        let error = failure(&FakeCli::new(&commands)).await;
        assert_told(&error, RefreshErrorKind::Transport, false, &[]);
    }
}

#[tokio::test]
async fn r45_a_cli_that_hides_its_token_has_to_be_updated() {
    let cli = FakeCli::new(&[(SHOW, no_such_command(SHOW)), (DISPLAY, prints(&org()))]);
    let told = ["hides its access token", "sf update"];
    assert_told(
        &failure(&cli).await,
        RefreshErrorKind::Configuration,
        true,
        &told,
    );
}

#[tokio::test]
async fn r45_an_unknown_error_of_the_cli_is_told_without_secrets() {
    let message =
        format!("\u{1b}[31mcannot read\u{1b}[39m {TOKEN}\nof force://PlatformCLI::5Aep861@acme");
    let cli = FakeCli::new(&[(SHOW, fails("OddError", &message))]);
    let error = failure(&cli).await;
    let told = ["show-access-token`) failed: OddError (cannot read [redacted] of [redacted])"];
    assert_told(&error, RefreshErrorKind::Refused, true, &told);
    assert!(!error.to_string().contains("5Aep"), "{error}");
}

#[tokio::test]
async fn r45_output_that_is_no_json_is_told_without_secrets() {
    for (output, told) in [
        (
            format!("Access Token  {TOKEN}"),
            "\"Access Token [redacted]\"",
        ),
        (
            format!("{{\"result\": {{\"accessToken\": \"{TOKEN}"),
            "no JSON",
        ),
        ("<html>".to_owned(), "\"<html>\""),
        ("[1, 2]".to_owned(), "\"[1, 2]\""),
    ] {
        let cli = FakeCli::new(&[(SHOW, says(&output))]);
        let told = [told, "check that this program is the Salesforce CLI"];
        assert_told(
            &failure(&cli).await,
            RefreshErrorKind::InvalidResponse,
            false,
            &told,
        );
    }
    let cli = FakeCli::new(&[(SHOW, ":".to_owned())]);
    assert_told(
        &failure(&cli).await,
        RefreshErrorKind::InvalidResponse,
        false,
        &["nothing"],
    );
}

#[tokio::test]
async fn r45_an_answer_without_a_usable_token_is_refused() {
    let no_instance = json!({"status": 0, "result": {"id": "00Dxx0000001gEFEAY"}});
    let mut at_lightning = org();
    at_lightning["result"]["instanceUrl"] = json!("https://acme.lightning.force.com");
    for (show, display, told) in [
        (
            json!({"status": 0, "result": {"other": 1}}),
            org(),
            "showed no access token",
        ),
        (
            token(&format!("{TOKEN} {TOKEN}")),
            org(),
            "has a blank in it",
        ),
        (token(TOKEN), no_instance, "no `instanceUrl`"),
        (
            token(TOKEN),
            at_lightning,
            "use the org's My Domain, https://acme.my.salesforce.com",
        ),
    ] {
        let cli = FakeCli::new(&[(SHOW, prints(&show)), (DISPLAY, prints(&display))]);
        assert_told(
            &failure(&cli).await,
            RefreshErrorKind::InvalidResponse,
            true,
            &[told],
        );
    }
}

// === The child process ===

#[tokio::test]
async fn r45_a_cli_that_hangs_is_killed_with_its_children() {
    let cli = FakeCli::new(&[(SHOW, stays())]);
    let timeout = Duration::from_secs(25);
    let refresh = tokio::spawn({
        let flow = cli.flow();
        async move { flow.log_in().await }
    });
    let alive = cli.begun().await;
    tokio::time::pause();
    tokio::time::advance(timeout).await;
    let error = refresh.await.unwrap().unwrap_err();
    let told = ["within 25 s, and was stopped", "SalesforceCli::timeout"];
    assert_told(&error, RefreshErrorKind::TimedOut, false, &told);
    tokio::time::resume();
    alive.ended().await;
}

#[tokio::test]
async fn r45_a_refresh_that_is_dropped_leaves_no_process() {
    for command in [SHOW, DISPLAY] {
        let mut commands = [(SHOW, prints(&token(TOKEN))), (DISPLAY, prints(&org()))];
        for (name, part) in &mut commands {
            if *name == command {
                *part = stays();
            }
        }
        let cli = FakeCli::new(&commands);
        let flow = cli.flow();
        let alive = tokio::select! {
            alive = cli.begun() => alive,
            session = flow.refresh(RefreshContext::new(RefreshReason::Rejected)) => {
                panic!("{session:?}")
            }
        };
        alive.ended().await;
    }
}

#[tokio::test]
async fn r45_what_the_cli_leaves_behind_ends_with_it() {
    // The child holds the output open, and would keep the flow waiting.
    let leaves =
        "exec 9> \"$here/alive\"\nsh -c 'read line < \"$1\"' sh \"$here/never\" &\necho begun >&9";
    let show = format!("{leaves}\n{}", prints(&token(TOKEN)));
    let cli = FakeCli::new(&[(SHOW, show), (DISPLAY, prints(&org()))]);
    let flow = cli.flow();
    let (alive, session) = tokio::join!(cli.begun(), flow.log_in());
    assert_eq!(session.unwrap().access_token().expose(), TOKEN);
    alive.ended().await;
}

#[tokio::test]
async fn r45_a_cli_that_asks_a_question_gets_no_answer() {
    let asks = "printf '? Continue? (y/N) ' >&2\nread answer || answer=none\necho \"answer: $answer\" >&2\nexit 1";
    let cli = FakeCli::new(&[(SHOW, asks.to_owned())]);
    let told = ["? Continue? (y/N) answer: none"];
    assert_told(
        &failure(&cli).await,
        RefreshErrorKind::InvalidResponse,
        false,
        &told,
    );
}

#[tokio::test]
async fn r45_endless_output_is_cut_off() {
    for stream in [1, 2] {
        let endless = format!(
            "exec 9> \"$here/alive\"\necho begun >&9\nwhile :; do echo {TOKEN} >&{stream}; done"
        );
        let cli = FakeCli::new(&[(SHOW, endless)]);
        let flow = cli.flow();
        let (alive, session) = tokio::join!(cli.begun(), flow.log_in());
        let told = ["printed more than the CLI does"];
        assert_told(
            &session.unwrap_err(),
            RefreshErrorKind::InvalidResponse,
            false,
            &told,
        );
        alive.ended().await;
    }
}
