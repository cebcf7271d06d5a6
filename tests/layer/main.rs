//! The layer from outside: what it promises to whoever sends requests through it.
#![allow(missing_docs)]

mod refresh;
mod support;
