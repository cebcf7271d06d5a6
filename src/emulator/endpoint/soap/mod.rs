//! The SOAP API: `login()`, and what a session from it is good for here.

mod answer;
mod call;
mod endpoint;
mod operation;

pub(crate) use endpoint::SoapEndpoint;
pub(crate) use operation::answer;
