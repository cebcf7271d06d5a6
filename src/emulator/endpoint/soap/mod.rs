//! The SOAP API: `login()`, and the calls that need its session.

mod answer;
mod call;
mod endpoint;
mod operation;

pub(crate) use endpoint::SoapEndpoint;
pub(crate) use operation::answer;
