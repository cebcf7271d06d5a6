//! The part of SOQL that the org knows: `SELECT`, `WHERE`, `ORDER BY`, `LIMIT` and `OFFSET`.

mod lexer;
mod parser;
mod query;

pub(crate) use self::parser::parse;
pub(crate) use self::query::{
    Comparison, Condition, Joint, Literal, Pattern, PatternPart, Query, Selection, Sorting,
};
