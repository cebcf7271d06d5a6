//! The crate among its neighbours: the ready client over TLS and proxies, and layers of tower and tower-http.

mod http2;
mod https_client;
mod mutual_tls;
mod proxies;
mod redirected_bodies;
mod runtimes;
mod stack_order;
mod support;
mod task_budget;
mod tls;
#[path = "../support/traced.rs"]
mod traced;
