//! Sessions that outlive the process, and are shared by several.

mod conformance;
mod file;
mod hardening;
mod kill;
mod procedure;
mod processes;
mod scripted;
mod secrets;
mod support;
