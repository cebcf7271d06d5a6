//! The crate among its neighbours: what the examples show, held to what they say.

mod axum_login;
mod axum_proxy;
mod bulk_upload;
mod https_client;
mod pubsub_grpc;
mod reqwest_client;
mod stack_order;
#[path = "../support/traced.rs"]
mod traced;
