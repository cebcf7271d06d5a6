//! Parsed queries, and how they are written.

use std::fmt::{self, Display, Formatter, Write};

/// A parsed query. Names are as the query has them: the parser does not know the objects.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Query {
    pub(crate) selection: Selection,
    pub(crate) object: String,
    pub(crate) condition: Option<Condition>,
    pub(crate) sorting: Vec<Sorting>,
    pub(crate) limit: Option<usize>,
    pub(crate) offset: Option<usize>,
}

/// What the query asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Selection {
    /// `COUNT()`.
    Count,
    /// At least one field.
    Fields(Vec<String>),
}

/// The condition of a `WHERE`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Condition {
    Compare(String, Comparison, Literal),
    Like(String, Pattern),
    /// `IN`, or `NOT IN` if the flag is `false`.
    In(String, bool, Vec<Literal>),
    Not(Box<Condition>),
    /// At least two conditions.
    Join(Joint, Vec<Condition>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Joint {
    And,
    Or,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Literal {
    Text(String),
    /// A finite number.
    Number(f64),
    Flag(bool),
    Null,
}

/// The pattern of a `LIKE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(pub(crate) Vec<PatternPart>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PatternPart {
    /// `%`: any characters.
    Any,
    /// `_`: one character.
    One,
    Character(char),
}

/// One field of `ORDER BY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sorting {
    pub(crate) field: String,
    pub(crate) descending: bool,
    pub(crate) nulls_last: bool,
}

impl Display for Query {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("SELECT ")?;
        match &self.selection {
            Selection::Count => f.write_str("COUNT()")?,
            Selection::Fields(fields) => f.write_str(&fields.join(", "))?,
        }
        write!(f, " FROM {}", self.object)?;
        if let Some(condition) = &self.condition {
            write!(f, " WHERE {condition}")?;
        }
        if !self.sorting.is_empty() {
            f.write_str(" ORDER BY ")?;
            list(f, &self.sorting)?;
        }
        if let Some(limit) = self.limit {
            write!(f, " LIMIT {limit}")?;
        }
        if let Some(offset) = self.offset {
            write!(f, " OFFSET {offset}")?;
        }
        Ok(())
    }
}

impl Display for Condition {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compare(field, comparison, literal) => {
                write!(f, "{field} {} {literal}", comparison.sign())
            }
            Self::Like(field, pattern) => write!(f, "{field} LIKE {pattern}"),
            Self::In(field, inside, literals) => {
                write!(f, "{field} {} (", if *inside { "IN" } else { "NOT IN" })?;
                list(f, literals)?;
                f.write_char(')')
            }
            Self::Not(condition) => write!(f, "NOT ({condition})"),
            Self::Join(joint, conditions) => {
                let joint = match joint {
                    Joint::And => " AND ",
                    Joint::Or => " OR ",
                };
                for (index, condition) in conditions.iter().enumerate() {
                    if index > 0 {
                        f.write_str(joint)?;
                    }
                    match condition {
                        Self::Join(..) => write!(f, "({condition})")?,
                        _ => write!(f, "{condition}")?,
                    }
                }
                Ok(())
            }
        }
    }
}

impl Comparison {
    fn sign(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

impl Display for Literal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => {
                f.write_char('\'')?;
                text.chars().try_for_each(|c| escape(f, c))?;
                f.write_char('\'')
            }
            Self::Number(number) => write!(f, "{number}"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Null => f.write_str("NULL"),
        }
    }
}

impl Display for Pattern {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_char('\'')?;
        for part in &self.0 {
            match part {
                PatternPart::Any => f.write_char('%')?,
                PatternPart::One => f.write_char('_')?,
                PatternPart::Character(c @ ('%' | '_')) => write!(f, "\\{c}")?,
                PatternPart::Character(c) => escape(f, *c)?,
            }
        }
        f.write_char('\'')
    }
}

impl Display for Sorting {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let direction = if self.descending { "DESC" } else { "ASC" };
        let nulls = if self.nulls_last { "LAST" } else { "FIRST" };
        write!(f, "{} {direction} NULLS {nulls}", self.field)
    }
}

fn escape(f: &mut Formatter<'_>, character: char) -> fmt::Result {
    match character {
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\t' => f.write_str("\\t"),
        '\'' | '\\' => write!(f, "\\{character}"),
        other => f.write_char(other),
    }
}

fn list(f: &mut Formatter<'_>, items: &[impl Display]) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            f.write_str(", ")?;
        }
        item.fmt(f)?;
    }
    Ok(())
}
