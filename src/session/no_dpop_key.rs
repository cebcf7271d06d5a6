//! The key that tokens are bound to, without the feature `dpop`: a type with no values.

use std::{sync::Arc, time::SystemTime};

use http::{HeaderMap, HeaderValue, Method, Uri};

use crate::{
    error::{Error, ErrorKind},
    secret::Secret,
};

/// The field is private, so that the code elsewhere does not depend on the lack of values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DpopKey(Never);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Never {}

impl DpopKey {
    pub(crate) fn never<T>(self) -> T {
        match self.0 {}
    }

    pub(crate) fn thumbprint(&self) -> &str {
        match self.0 {}
    }

    pub(crate) fn encode(&self) -> Secret {
        match self.0 {}
    }

    pub(crate) fn decode(_encoded: &str) -> Result<Self, Error> {
        Err(Error::new(
            ErrorKind::InvalidKey,
            "the session is bound to a DPoP key: turn on the feature `dpop` of tower-salesforce-auth",
        ))
    }

    pub(crate) fn now(&self) -> SystemTime {
        match self.0 {}
    }

    pub(crate) fn prove(
        &self,
        _method: &Method,
        _uri: &Uri,
        _access_token: Option<&Secret>,
    ) -> Result<String, Error> {
        match self.0 {}
    }

    pub(crate) fn header(
        &self,
        _method: &Method,
        _uri: &Uri,
        _access_token: Option<&Secret>,
    ) -> Result<HeaderValue, Error> {
        match self.0 {}
    }

    pub(crate) fn nonce(&self, _uri: &Uri) -> Option<Arc<str>> {
        match self.0 {}
    }

    pub(crate) fn keep_nonce(&self, _uri: &Uri, _headers: &HeaderMap) -> Option<Arc<str>> {
        match self.0 {}
    }
}
