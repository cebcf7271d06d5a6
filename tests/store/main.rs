//! Sessions that outlive the process, and are shared by several.

mod conformance;
