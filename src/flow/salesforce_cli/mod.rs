//! Sessions from the Salesforce CLI: the flow, its child processes, and what they print.

mod answer;
mod failure;
mod flow;
mod process;

pub use flow::SalesforceCli;
