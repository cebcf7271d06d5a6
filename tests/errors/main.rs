//! What errors say: one line, with the cause and the remedy, and nothing twice in a report of the chain.

#[path = "../support/answering.rs"]
mod answering;
mod chains;
mod first_login;
mod guide;
mod kinds;
mod report;
#[path = "../ecosystem/tls.rs"]
mod tls;
