//! The report as a page, and as Markdown. Text has `code` in backticks, and no other markup.

use std::fmt::Write;

use crate::figures::Table;

pub(crate) struct Document {
    pub(crate) title: &'static str,
    pub(crate) facts: Vec<(&'static str, String)>,
    pub(crate) goals: Table,
    pub(crate) sections: Vec<Section>,
}

pub(crate) struct Section {
    pub(crate) title: &'static str,
    /// How to read the section.
    pub(crate) reading: &'static str,
    /// The bench that saves these results.
    pub(crate) bench: &'static str,
    pub(crate) tables: Vec<Table>,
    /// The full tables behind `tables`, for the page only.
    pub(crate) in_full: Vec<Table>,
    pub(crate) plot: Option<Plot>,
    /// Links to criterion's pictures and their captions, for the page only.
    pub(crate) pictures: Vec<(String, String)>,
}

pub(crate) struct Plot {
    /// The file name, beside the Markdown.
    pub(crate) file: &'static str,
    pub(crate) shows: &'static str,
    pub(crate) svg: String,
}

// === Markdown ===

pub(crate) fn markdown(document: &Document) -> String {
    let mut text = format!("# {}\n\n", document.title);
    for (name, fact) in &document.facts {
        line(&mut text, &format!("- {name}: {fact}"));
    }
    line(&mut text, "\n## Goals\n");
    line(&mut text, &markdown_table(&document.goals));
    for section in &document.sections {
        line(&mut text, &format!("## {}\n", section.title));
        line(&mut text, &format!("{}\n", section.reading));
        if section.tables.is_empty() {
            line(&mut text, &format!("{}\n", missing(section)));
        }
        for table in &section.tables {
            line(&mut text, &markdown_table(table));
        }
        if let Some(Plot { file, shows, .. }) = &section.plot {
            line(&mut text, &format!("![{shows}]({file})\n"));
        }
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

pub(crate) fn markdown_table(table: &Table) -> String {
    let mut text = format!("| {} |\n", table.columns.join(" | "));
    let rules = (0..table.columns.len()).map(|at| if is_text(table, at) { "---" } else { "---:" });
    line(
        &mut text,
        &format!("|{}|", rules.collect::<Vec<_>>().join("|")),
    );
    for row in &table.rows {
        line(&mut text, &format!("| {} |", row.join(" | ")));
    }
    text
}

/// Whether a column has text, and not figures.
fn is_text(table: &Table, column: usize) -> bool {
    let cells = table.rows.iter().filter_map(|row| row.get(column));
    let is_figure =
        |cell: &String| cell.starts_with(|c: char| c.is_ascii_digit() || "+-–".contains(c));
    column == 0 || !cells.into_iter().all(is_figure)
}

fn missing(section: &Section) -> String {
    format!(
        "Missing: `cargo bench -p benches --bench {}` has saved nothing here.",
        section.bench
    )
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

// === Page ===

const STYLE: &str = include_str!("style.css");

/// The page, complete in one file. `criterion` is the link to criterion's report.
pub(crate) fn page(document: &Document, criterion: Option<&str>) -> String {
    let title = html(document.title);
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n<main>\n<h1>{title}</h1>\n<dl>\n"
    );
    for (name, fact) in &document.facts {
        line(&mut text, &format!("<dt>{name}<dd>{}", html(fact)));
    }
    line(&mut text, "</dl>\n<h2>Goals</h2>");
    line(&mut text, &html_table(&document.goals));
    for section in &document.sections {
        line(&mut text, &format!("<h2>{}</h2>", html(section.title)));
        line(&mut text, &format!("<p>{}</p>", html(section.reading)));
        if section.tables.is_empty() {
            line(&mut text, &format!("<p>{}</p>", html(&missing(section))));
        }
        for table in &section.tables {
            line(&mut text, &html_table(table));
        }
        if !section.in_full.is_empty() {
            line(&mut text, "<details><summary>In full</summary>");
            for table in &section.in_full {
                line(&mut text, &html_table(table));
            }
            line(&mut text, "</details>");
        }
        if let Some(plot) = &section.plot {
            let shows = html(plot.shows);
            let figure = format!("<figure role=\"img\" aria-label=\"{shows}\">");
            line(&mut text, &format!("{figure}\n{}</figure>", plot.svg));
        }
        if !section.pictures.is_empty() {
            line(&mut text, "<div class=\"pictures\">");
            for (link, shows) in &section.pictures {
                let (link, shows) = (html(link), html(shows));
                let picture = format!("<img src=\"{link}\" alt=\"{shows}\" loading=\"lazy\">");
                line(&mut text, &picture);
            }
            line(&mut text, "</div>");
        }
    }
    if let Some(link) = criterion {
        let link = html(link);
        let link = format!("<p><a href=\"{link}\">What criterion has to say about each</a></p>");
        line(&mut text, &link);
    }
    text + "</main>\n</html>\n"
}

fn html_table(table: &Table) -> String {
    let cells = |cells: &[String], tag: &str| {
        cells
            .iter()
            .zip(0..)
            .fold(String::new(), |mut row, (cell, at)| {
                let class = match cell.as_str() {
                    "met" | "missed" => cell,
                    _ if is_text(table, at) => "text",
                    _ => "figure",
                };
                let _ = write!(row, "<{tag} class=\"{class}\">{}", html(cell));
                row
            })
    };
    let mut text = format!(
        "<div class=\"table\"><table>\n<thead><tr>{}</thead>\n<tbody>\n",
        cells(&table.columns, "th")
    );
    for row in &table.rows {
        line(&mut text, &format!("<tr>{}", cells(row, "td")));
    }
    text + "</tbody></table></div>"
}

/// The text escaped, with its code marked up.
fn html(text: &str) -> String {
    let escaped = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;");
    let mut pieces = escaped.split('`');
    let mut marked = pieces.next().unwrap_or_default().to_string();
    while let Some(code) = pieces.next() {
        let after = pieces.next().unwrap_or_default();
        let _ = write!(marked, "<code>{code}</code>{after}");
    }
    marked
}
