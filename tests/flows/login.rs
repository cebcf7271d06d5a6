//! The login that the environment has (R45): which variables count, and what each login lacks.

use std::{ffi::OsString, fs, io::Write};

use tower_salesforce_auth::{
    RefreshError, RefreshErrorKind, RefreshFn, SalesforceAuthLayer, emulator::Org, flow::Login,
};

use crate::support::get_limits;

/// The login of these variables.
fn login(org: &Org, vars: &[(&str, &str)]) -> Result<Login<Org>, RefreshError> {
    let lookup = |name: &str| Some(vars.iter().find(|(var, _)| *var == name)?.1);
    Login::from_lookup(org.clone(), lookup)
}

#[track_caller]
fn refusal(vars: &[(&str, &str)]) -> String {
    let error = login(&Org::new(), vars).unwrap_err();
    assert_eq!(error.kind(), RefreshErrorKind::Configuration);
    assert!(error.is_terminal());
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("SECRET-5Aep"), "{shown}");
    error.to_string()
}

/// All variables, of which the flow named by the first still unset one is chosen.
#[tokio::test]
async fn r45_the_first_complete_login_counts() {
    let org = Org::new();
    let host = org.instance_url().replace("https://", "");
    let (id, secret) = (org.client_id(), org.client_secret());
    let grant = org.authorize();
    let url = format!("force://{id}:{secret}:{}@{host}", grant.refresh_token());
    let mut key = tempfile::NamedTempFile::new().unwrap();
    key.write_all(org.jwt_private_key().as_bytes()).unwrap();
    let key = key.path().to_str().unwrap();
    let (login_url, instance_url) = (org.login_url(), org.instance_url());
    let mut vars = vec![
        ("SFDX_AUTH_URL", url.as_str()),
        ("SF_JWT_KEY_FILE", key),
        ("SF_CLIENT_SECRET", secret),
        ("SF_CLIENT_ID", id),
        ("SF_USERNAME", org.username()),
        ("SF_LOGIN_URL", login_url.as_str()),
        ("SF_ACCESS_TOKEN", grant.access_token()),
        ("SF_ORG_INSTANCE_URL", instance_url.as_str()),
    ];
    let jwt = "urn:ietf:params:oauth:grant-type:jwt-bearer";
    for grant_type in ["refresh_token", jwt, "client_credentials", "access_token"] {
        let login = login(&org, &vars).unwrap();
        let context = tower_salesforce_auth::RefreshContext::new(
            tower_salesforce_auth::observer::RefreshReason::FirstLogin,
        );
        assert_eq!(login.describe(&context).unwrap().grant(), grant_type);
        let shown = format!("{login:?}");
        for (name, value) in &vars {
            let is_secret = ["SF_CLIENT_SECRET", "SF_ACCESS_TOKEN", "SFDX_AUTH_URL"].contains(name);
            assert!(!(is_secret && shown.contains(value)), "{shown}");
        }
        let layer = SalesforceAuthLayer::new(login);
        assert_eq!(get_limits(&layer, &org).await.unwrap().0, 200);
        vars.remove(0);
    }
}

#[tokio::test]
async fn r45_an_access_token_ends_with_its_session() {
    let org = Org::new();
    let grant = org.authorize();
    let vars = [
        ("SF_ACCESS_TOKEN", grant.access_token()),
        ("SF_ORG_INSTANCE_URL", grant.instance_url()),
    ];
    let layer = SalesforceAuthLayer::new(login(&org, &vars).unwrap());
    layer.handle().refresh().await.unwrap();
    assert_eq!(get_limits(&layer, &org).await.unwrap().0, 200);
    org.expire_sessions();
    for _ in 0..3 {
        let error = get_limits(&layer, &org).await.unwrap_err();
        let error = error
            .downcast_ref::<tower_salesforce_auth::Error>()
            .unwrap();
        let error = error.refresh_error().unwrap();
        assert!(error.is_terminal());
        assert!(
            error.to_string().contains("set a new access token"),
            "{error}"
        );
    }
}

#[test]
fn r45_a_login_that_is_begun_says_what_it_lacks() {
    for (vars, told) in [
        (
            &[("SF_CLIENT_ID", "3MVG9")][..],
            "an app with a key or a secret: SF_LOGIN_URL, SF_JWT_KEY_FILE or SF_CLIENT_SECRET are not set",
        ),
        (
            &[
                ("SF_CLIENT_ID", "3MVG9"),
                ("SF_LOGIN_URL", "https://acme.my.salesforce.com"),
                ("SF_CLIENT_SECRET", " "),
            ],
            "secret: SF_JWT_KEY_FILE or SF_CLIENT_SECRET is not set",
        ),
        (
            &[
                ("SF_CLIENT_ID", "3MVG9"),
                ("SF_LOGIN_URL", "https://acme.my.salesforce.com"),
                ("SF_JWT_KEY_FILE", "key"),
            ],
            "secret: SF_USERNAME is not set",
        ),
        (
            &[("SF_CLIENT_SECRET", "SECRET-5Aep")],
            "SF_CLIENT_ID, SF_LOGIN_URL are not set",
        ),
        (
            &[("SF_ACCESS_TOKEN", "SECRET-5Aep")],
            "an access token: SF_ORG_INSTANCE_URL is not set",
        ),
    ] {
        let message = refusal(vars);
        assert!(message.contains(told), "{message}");
        assert!(
            message.contains("an SFDX auth URL: SFDX_AUTH_URL is not set"),
            "{message}"
        );
        assert!(
            message.contains("the Salesforce CLI: not tried, since"),
            "{message}"
        );
    }
}

#[test]
fn r45_a_malformed_variable_is_refused_by_its_name() {
    let (id, secret) = (
        ("SF_CLIENT_ID", "3MVG9"),
        ("SF_CLIENT_SECRET", "SECRET-5Aep"),
    );
    let at = ("SF_LOGIN_URL", "https://acme.my.salesforce.com");
    let user = ("SF_USERNAME", "user@example.com");
    for (vars, told) in [
        (
            &[("SFDX_AUTH_URL", "force://SECRET-5Aep"), id, secret, at][..],
            "SFDX_AUTH_URL cannot be used: the SFDX auth URL has no @",
        ),
        (
            &[id, secret, ("SF_LOGIN_URL", "acme")],
            "SF_LOGIN_URL cannot be used: the login URL has no scheme",
        ),
        (
            &[id, user, at, ("SF_JWT_KEY_FILE", "/nonexistent")],
            "SF_JWT_KEY_FILE names a file that cannot be read",
        ),
        (
            &[id, user, at, ("SF_JWT_KEY_FILE", "/dev/null")],
            "SF_JWT_KEY_FILE cannot be used: the private key",
        ),
        (
            &[
                ("SF_ACCESS_TOKEN", "SECRET-5Aep\"!"),
                ("SF_ORG_INSTANCE_URL", at.1),
            ],
            "SF_ACCESS_TOKEN with SF_ORG_INSTANCE_URL cannot be used",
        ),
        (
            &[
                ("SF_ACCESS_TOKEN", "SECRET-5Aep"),
                ("SF_ORG_INSTANCE_URL", "http://acme"),
            ],
            "https only",
        ),
    ] {
        let message = refusal(vars);
        assert!(message.contains(told), "{message}");
    }
}

#[cfg(unix)]
#[test]
fn r45_a_variable_that_is_no_text_is_refused() {
    use std::os::unix::ffi::OsStringExt;

    let lookup = |name: &str| (name == "SFDX_AUTH_URL").then(|| OsString::from_vec(vec![0xff]));
    let error = Login::from_lookup(Org::new(), lookup).unwrap_err();
    assert!(
        error.to_string().contains("SFDX_AUTH_URL is not in UTF-8"),
        "{error}"
    );
}

/// The program's own environment, with the CLI on the `PATH`: in a process of its own.
#[cfg(unix)]
mod environment {
    use std::process::{Command, Output};

    use super::*;
    use crate::fake_cli::{DISPLAY, FakeCli, INSTANCE, SHOW, TOKEN, fails, org, prints, token};

    const PART: &str = "LOGIN_PART";

    /// Runs the ignored test below with this `PATH` and these variables.
    fn run(path: &str, vars: &[(&str, &str)]) -> Output {
        let mut program = Command::new(std::env::current_exe().unwrap());
        for (name, _) in std::env::vars_os() {
            let is_ours = name.to_str().is_some_and(|name| name.starts_with("SF"));
            if is_ours {
                program.env_remove(name);
            }
        }
        program
            .args([
                "--exact",
                "login::environment::log_in_by_environment",
                "--ignored",
                "--nocapture",
            ])
            .env("PATH", path)
            .env(PART, "1")
            .env("FORCE_COLOR", "3")
            .envs(vars.iter().copied())
            .output()
            .unwrap()
    }

    #[tokio::test]
    #[ignore = "a part of the tests below, which start it"]
    async fn log_in_by_environment() {
        if std::env::var_os(PART).is_none() {
            return;
        }
        match Login::from_env(Org::new()).unwrap().log_in().await {
            Ok(session) => println!("at {}", session.instance_url()),
            Err(error) => println!("failed: {error}"),
        }
    }

    #[test]
    fn r45_the_cli_on_the_path_is_the_last_login() {
        let show = format!(
            "echo \"${{NO_COLOR-none}} ${{FORCE_COLOR-none}}\" > \"$here/colours\"\n{}",
            prints(&token(TOKEN))
        );
        let cli = FakeCli::new(&[(SHOW, show), (DISPLAY, prints(&org()))]);
        let path = format!("{}:/usr/bin:/bin", cli.directory().display());
        let output = run(
            &path,
            &[
                ("SF_TARGET_ORG", " acme "),
                ("SF_CLIENT_ID", ""),
                ("SF_LOGIN_URL", " "),
            ],
        );
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains(&format!("at {INSTANCE}")), "{said}");
        assert_eq!(cli.calls()[0], format!("{SHOW} --json --target-org acme"));
        let colours = fs::read_to_string(cli.file("colours")).unwrap();
        assert_eq!(colours.trim(), "1 none");
    }

    #[test]
    fn r45_an_environment_without_a_login_lists_what_was_tried() {
        let unknown = FakeCli::new(&[(
            SHOW,
            fails("NoDefaultEnvError", "No default environment found."),
        )]);
        let with_cli = format!("{}:/usr/bin:/bin", unknown.directory().display());
        for (path, told) in [
            (
                "/nonexistent",
                "was not found: there is no `sf` on the PATH; install it",
            ),
            (
                &*with_cli,
                "NoDefaultEnvError (No default environment found.): name an org",
            ),
        ] {
            let output = run(path, &[]);
            let said = String::from_utf8(output.stdout).unwrap();
            for told in [
                "the environment has no login (an SFDX auth URL: SFDX_AUTH_URL is not set; an app",
                "an access token: SF_ACCESS_TOKEN, SF_ORG_INSTANCE_URL are not set; the Salesforce CLI",
                told,
            ] {
                assert!(said.contains(told), "{said}");
            }
        }
    }
}
