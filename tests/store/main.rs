//! Sessions that outlive the process, and are shared by several.

mod conformance;
mod kill;
mod processes;
mod support;
