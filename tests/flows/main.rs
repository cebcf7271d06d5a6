//! The flows and the calls that they are made of, against an org in the same process.

mod assertions;
mod authorization;
mod calls;
mod device;
mod hardening;
mod logins;
mod logout;
mod secrets;
mod settings;
mod soap;
mod support;
mod tracing;
