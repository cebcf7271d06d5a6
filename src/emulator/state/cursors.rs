//! The rest of long query results, for clients that fetch them page by page.

use std::collections::VecDeque;

use serde_json::Value;

/// How many results the org keeps. Salesforce keeps ten for a user too.
const KEPT: usize = 10;

/// The newest results with more than one page.
#[derive(Default)]
pub(crate) struct Cursors {
    created: u64,
    /// Each result with its locator, the oldest first.
    results: VecDeque<(String, Vec<Value>)>,
}

impl Cursors {
    /// Keeps all records of a result, and returns its locator.
    pub(crate) fn keep(&mut self, records: Vec<Value>) -> String {
        self.created += 1;
        let locator = format!("01gxx{:0>10}AAA", self.created);
        if self.results.len() == KEPT {
            self.results.pop_front();
        }
        self.results.push_back((locator.clone(), records));
        locator
    }

    /// All records of the result with this locator.
    pub(crate) fn get(&self, locator: &str) -> Option<&[Value]> {
        let mut results = self.results.iter();
        let (_, records) = results.find(|(kept, _)| kept == locator)?;
        Some(records)
    }
}
