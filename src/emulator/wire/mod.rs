//! The formats of requests and answers. No file here depends on the state of an org.

pub(super) mod answer;
pub(super) mod digest;
pub(super) mod form;
pub(super) mod jwt;
pub(super) mod page;
pub(super) mod proof;
pub(super) mod receive;
pub(super) mod scope;
pub(super) mod signature;
pub(super) mod soql;
pub(super) mod version;
