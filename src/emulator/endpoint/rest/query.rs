//! Queries and the pages of their results.

use http::{HeaderMap, Method, Uri};
use serde_json::{Value, json};

use super::answer::RestAnswer;
use super::columns;
use super::filter::{self, Problem};
use super::resource::reads;
use super::sobjects::represent;
use crate::emulator::state::OrgState;
use crate::emulator::state::records::Records;
use crate::emulator::state::schema::{Field, RecordType};
use crate::emulator::wire::soql::{self, Query, Selection};

/// How many records a page has, unless the client asks for fewer.
const PAGE_SIZE: usize = 2_000;

/// The smallest page that a client gets.
const SMALLEST_PAGE: usize = 200;

/// The largest offset.
const LARGEST_OFFSET: usize = 2_000;

/// Runs the query in the parameter `q`, or describes its columns with `columns=true`.
pub(super) fn run(
    (method, uri, headers): (&Method, &Uri, &HeaderMap),
    version: &str,
    state: &mut OrgState,
) -> RestAnswer {
    if !reads(method) {
        return RestAnswer::method_not_allowed(method, "GET,HEAD");
    }
    let parameter = |wanted: &str| {
        let encoded = uri.query().unwrap_or_default().as_bytes();
        form_urlencoded::parse(encoded).find_map(|(name, value)| (name == wanted).then_some(value))
    };
    let text = parameter("q").unwrap_or_default();
    let query = match soql::parse(&text) {
        Ok(query) => query,
        Err(message) => return RestAnswer::bad_request("MALFORMED_QUERY", &message),
    };
    let checked = match CheckedQuery::check(&query) {
        Ok(checked) => checked,
        Err((code, message)) => return RestAnswer::bad_request(code, &message),
    };
    if parameter("columns").is_some_and(|columns| columns == "true") {
        return RestAnswer::ok(columns::describe(checked.object, &checked.fields));
    }
    let found = checked.find(&state.records, version);
    if query.selection == Selection::Count {
        let count = found.len();
        return RestAnswer::ok(json!({ "totalSize": count, "done": true, "records": [] }));
    }
    let size = page_size(headers);
    if found.len() <= size {
        let count = found.len();
        return RestAnswer::ok(json!({ "totalSize": count, "done": true, "records": found }));
    }
    let locator = state.cursors.keep(found);
    let found = state.cursors.get(&locator).unwrap_or_default();
    RestAnswer::ok(page(version, &locator, found, 0, size))
}

/// The page of a result that begins at the offset after the locator: `01g…-2000`.
pub(super) fn more(
    method: &Method,
    headers: &HeaderMap,
    version: &str,
    locator: &str,
    state: &OrgState,
) -> RestAnswer {
    if !reads(method) {
        return RestAnswer::method_not_allowed(method, "GET,HEAD");
    }
    let found = locator.split_once('-').and_then(|(locator, begin)| {
        let records = state.cursors.get(locator)?;
        let begin: usize = begin.parse().ok()?;
        (begin < records.len()).then_some((locator, records, begin))
    });
    match found {
        Some((locator, records, begin)) => {
            let size = page_size(headers);
            RestAnswer::ok(page(version, locator, records, begin, size))
        }
        None => RestAnswer::bad_request("INVALID_QUERY_LOCATOR", "invalid query locator"),
    }
}

fn page(version: &str, locator: &str, records: &[Value], begin: usize, size: usize) -> Value {
    let end = (begin + size).min(records.len());
    let done = end == records.len();
    let mut page = json!({
        "totalSize": records.len(),
        "done": done,
        "records": records.get(begin..end).unwrap_or_default(),
    });
    if !done {
        page["nextRecordsUrl"] = next_url(version, locator, end).into();
    }
    page
}

fn next_url(version: &str, locator: &str, begin: usize) -> String {
    format!("/services/data/{version}/query/{locator}-{begin}")
}

/// The page size that `Sforce-Query-Options: batchSize=200` asks for.
fn page_size(headers: &HeaderMap) -> usize {
    let options = headers.get("sforce-query-options");
    let options = options.and_then(|options| options.to_str().ok());
    let size = options.and_then(|options| {
        let mut pairs = options
            .split([',', ';'])
            .filter_map(|pair| pair.split_once('='));
        let (_, size) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("batchSize"))?;
        size.trim().parse().ok()
    });
    size.unwrap_or(PAGE_SIZE).clamp(SMALLEST_PAGE, PAGE_SIZE)
}

/// A query whose names all exist.
struct CheckedQuery<'a> {
    query: &'a Query,
    object: &'static RecordType,
    /// The selected fields. Empty for `COUNT()`.
    fields: Vec<&'static Field>,
}

impl<'a> CheckedQuery<'a> {
    fn check(query: &'a Query) -> Result<Self, Problem> {
        let Some(object) = RecordType::named(&query.object) else {
            let message = format!("sObject type '{}' is not supported.", query.object);
            return Err(("INVALID_TYPE", message));
        };
        let field = |name: &String| filter::field(object, name);
        let fields = match &query.selection {
            Selection::Count => Vec::new(),
            Selection::Fields(names) => names.iter().map(field).collect::<Result<_, _>>()?,
        };
        if let Some(condition) = &query.condition {
            filter::check(object, condition)?;
        }
        let mut sorting = query.sorting.iter();
        sorting.try_for_each(|sorting| field(&sorting.field).map(|_| ()))?;
        if query.offset.is_some_and(|offset| offset > LARGEST_OFFSET) {
            let message = format!("Maximum SOQL offset allowed is {LARGEST_OFFSET}");
            return Err(("NUMBER_OUTSIDE_VALID_RANGE", message));
        }
        Ok(Self {
            query,
            object,
            fields,
        })
    }

    /// The records, with the selected fields.
    fn find(&self, records: &Records, version: &str) -> Vec<Value> {
        let condition = self.query.condition.as_ref();
        let mut found: Vec<_> = records
            .all(self.object)
            .filter(|(_, record)| {
                condition.is_none_or(|condition| filter::holds(self.object, condition, record))
            })
            .collect();
        let sorting = &self.query.sorting;
        found.sort_by(|(_, a), (_, b)| filter::order(self.object, sorting, a, b));
        found
            .into_iter()
            .skip(self.query.offset.unwrap_or(0))
            .take(self.query.limit.unwrap_or(usize::MAX))
            .map(|(id, record)| represent(self.object, version, id, record, &self.fields))
            .collect()
    }
}
