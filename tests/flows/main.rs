//! The flows and the calls that they are made of, against an org in the same process.

mod app_authentication;
mod assertions;
mod authorization;
mod calls;
mod device;
mod encrypted_keys;
#[cfg(unix)]
mod fake_cli;
mod issuers;
mod keys;
mod login;
mod login_cookie;
mod logins;
mod misleading_answers;
mod mutated_answers;
mod odd_answers;
mod odd_calls;
mod pasted;
mod refusals;
#[cfg(unix)]
mod salesforce_cli;
mod secrets;
mod sfdx_auth_url;
mod soap;
mod support;
mod token_answers;
mod tracing;
mod urls;
