//! Session stores: sessions that survive a restart, and that processes share.

mod adopt;
mod conformance;
mod events;
mod file;
mod kill;
mod logout;
mod outage;
mod processes;
mod save;
mod scripted;
mod secrets;
mod set;
mod setup;
mod support;
mod walk;
