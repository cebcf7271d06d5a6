//! Plots, on white, so that they are readable on dark pages too.

use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::{
    figures::Table,
    reporting::kept::{Row, distinct, largest, rows, rows_with},
};

/// The slowdown that is the goal.
const SLOWDOWN_GOAL: f64 = 1.10;

const INK: RGBColor = RGBColor(0x1c, 0x23, 0x30);
const FAINT: RGBColor = RGBColor(0x5d, 0x67, 0x78);
const GRID: RGBColor = RGBColor(0xe3, 0xe7, 0xed);
const GOAL: RGBColor = RGBColor(0x11, 0x7a, 0x46);

const FONT: &str = "sans-serif";

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Colours that colour-blind readers can tell apart. This layer has the strongest one.
fn colour(contender: &str) -> RGBColor {
    match contender {
        "layer" | "inject_only" | "default" => RGBColor(0xd5, 0x3e, 0x00),
        "hand_written" | "fixed_header" => RGBColor(0x2f, 0x8f, 0xd0),
        "naive_mutex" => RGBColor(0x00, 0x9e, 0x73),
        "per_caller" => RGBColor(0xb0, 0x5f, 0x96),
        _ => RGBColor(0x76, 0x80, 0x90),
    }
}

fn text(size: u32, colour: RGBColor, horizontal: HPos) -> TextStyle<'static> {
    (FONT, size)
        .into_font()
        .color(&colour)
        .pos(Pos::new(horizontal, VPos::Center))
}

/// Draws into a string of SVG.
fn drawn(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Result<(), DrawingError>) -> String {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&WHITE)
            .and_then(|()| draw(&area))
            .and_then(|()| area.present())
            .expect("a string can be written");
    }
    svg
}

type DrawingError = DrawingAreaErrorKind<std::io::Error>;

// === Storm ===

/// A panel for each transport, a line for each contender.
pub(crate) fn refresh_storm(table: &Table) -> String {
    let transports = distinct(table, "transport");
    drawn((1120, 480), |area| {
        let panels = area.split_evenly((1, transports.len()));
        for (panel, transport) in panels.iter().zip(transports) {
            storm(panel, table, transport)?;
        }
        Ok(())
    })
}

fn storm(panel: &Area<'_>, table: &Table, transport: &str) -> Result<(), DrawingError> {
    let of_transport = rows_with(table, &[("transport", transport)]);
    let most = largest(&of_transport, "callers").unwrap_or(1.0);
    // The same range in all panels. No value is zero, since the axis is logarithmic.
    let ms = || rows(table).filter_map(|row| row.number("ms to the last success"));
    let (shortest, longest) = (ms().fold(1.0, f64::min).max(0.01), ms().fold(1.0, f64::max));
    let mut chart = ChartBuilder::on(panel)
        .margin(12)
        .margin_right(120)
        .x_label_area_size(52)
        .y_label_area_size(72)
        .caption(transport, text(22, INK, HPos::Center))
        .build_cartesian_2d(
            (0.8..most * 1.25).log_scale(),
            (shortest / 2.0..longest * 3.0).log_scale(),
        )?;
    chart
        .configure_mesh()
        .bold_line_style(GRID)
        .max_light_lines(1)
        .light_line_style(WHITE)
        .axis_style(FAINT)
        .x_labels(6)
        .y_labels(7)
        .x_label_formatter(&|callers| grouped(*callers))
        .y_label_formatter(&|ms| grouped(*ms))
        .label_style((FONT, 16).into_font().color(&INK))
        .axis_desc_style((FONT, 17).into_font().color(&INK))
        .x_desc("callers")
        .y_desc("ms to the last success")
        .draw()?;
    let mut labels = Vec::new();
    let mut contenders = distinct(table, "contender");
    // Drawn last, so that the layer's line is above `hand_written`, which it should follow.
    contenders.sort_by_key(|contender| *contender == "layer");
    for contender in contenders {
        let point = |row: Row<'_>| {
            Some((
                row.number("callers")?,
                row.number("ms to the last success")?,
            ))
        };
        let points: Vec<_> = of_transport
            .iter()
            .filter(|row| row.cell("contender") == contender)
            .filter_map(|row| point(*row))
            .collect();
        let colour = colour(contender);
        let width = match contender {
            "layer" => 3,
            "hand_written" => 7,
            _ => 2,
        };
        chart.draw_series(LineSeries::new(
            points.iter().copied(),
            colour.stroke_width(width),
        ))?;
        chart.draw_series(PointSeries::<_, _, Circle<_, _>, _>::new(
            points.iter().copied(),
            width.min(3) + 1,
            colour.filled(),
        ))?;
        if let Some(last) = points.last() {
            labels.push((chart.backend_coord(last), contender));
        }
    }
    let (left, top) = panel.get_base_pixel();
    for ((x, y), contender) in apart(labels) {
        let style = text(17, colour(contender), HPos::Left);
        panel.draw(&Text::new(contender, (x - left + 9, y - top), style))?;
    }
    Ok(())
}

type Label<'a> = ((i32, i32), &'a str);

/// Labels moved up and down until none covers another.
fn apart(mut labels: Vec<Label<'_>>) -> Vec<Label<'_>> {
    const HEIGHT: i32 = 18;
    labels.sort_unstable();
    for labels in labels.chunk_by_mut(|((one, _), _), ((other, _), _)| one == other) {
        let mut moved = 0;
        for next in 1..labels.len() {
            let free = labels[next - 1].0.1 + HEIGHT;
            let y = &mut labels[next].0.1;
            moved += (free - *y).max(0);
            *y = free.max(*y);
        }
        let up = moved / i32::try_from(labels.len()).expect("a small number");
        for label in labels {
            label.0.1 -= up;
        }
    }
    labels
}

/// A rounded number with thousands separators.
fn grouped(number: f64) -> String {
    let digits = number.to_string();
    match digits.len() {
        4.. if !digits.contains('.') => {
            let (thousands, rest) = digits.split_at(digits.len() - 3);
            format!("{thousands},{rest}")
        }
        _ => digits,
    }
}

// === Contention ===

/// A line for each contender, from the first to the third quartile, and a point for the median.
pub(crate) fn read_contention(table: &Table) -> String {
    const LINE: u32 = 36;
    let contenders = u32::try_from(table.rows.len()).expect("a small number");
    drawn((820, 120 + LINE * contenders), |area| {
        contention(area, table, contenders)
    })
}

fn contention(area: &Area<'_>, table: &Table, contenders: u32) -> Result<(), DrawingError> {
    const MARGIN: f64 = 0.05;
    let threads = distinct(table, "threads").join(", ");
    let ranges: Vec<_> = rows(table).filter_map(range).collect();
    let least = ranges.iter().map(|[first, ..]| *first).fold(0.95, f64::min);
    let most = ranges.iter().map(|[.., third]| *third).fold(1.15, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .margin_top(30)
        .margin_right(80)
        .x_label_area_size(52)
        .y_label_area_size(130)
        .build_cartesian_2d(least - MARGIN..most + MARGIN, f64::from(contenders)..0.0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .bold_line_style(GRID)
        .max_light_lines(1)
        .light_line_style(WHITE)
        .axis_style(FAINT)
        .x_labels(8)
        .x_label_formatter(&|slowdown| format!("{slowdown:.1}"))
        .label_style((FONT, 16).into_font().color(&INK))
        .axis_desc_style((FONT, 17).into_font().color(&INK))
        .x_desc(format!(
            "slowdown per thread, {threads} threads (median and quartiles)"
        ))
        .draw()?;
    chart.draw_series([PathElement::new(
        [(SLOWDOWN_GOAL, 0.0), (SLOWDOWN_GOAL, f64::from(contenders))],
        GOAL.stroke_width(2),
    )])?;
    let (goal_at, top) = chart.backend_coord(&(SLOWDOWN_GOAL, 0.0));
    let (left, _) = chart.backend_coord(&(least - MARGIN, 0.0));
    let (right, _) = chart.backend_coord(&(most + MARGIN, 0.0));
    let goal = format!("goal: at most {SLOWDOWN_GOAL:.2}");
    area.draw(&Text::new(
        goal,
        (goal_at, top - 12),
        text(16, GOAL, HPos::Center),
    ))?;
    for (row, line) in rows(table).zip(0..) {
        let Some([first, median, third]) = range(row) else {
            continue;
        };
        let (contender, y) = (row.cell("contender"), f64::from(line) + 0.5);
        let colour = colour(contender);
        chart.draw_series([PathElement::new(
            [(first, y), (third, y)],
            colour.stroke_width(4),
        )])?;
        chart.draw_series([Circle::new((median, y), 7, colour.filled())])?;
        let (_, y) = chart.backend_coord(&(median, y));
        area.draw(&Text::new(
            contender,
            (left - 12, y),
            text(17, INK, HPos::Right),
        ))?;
        let median = format!("{median:.2}");
        area.draw(&Text::new(
            median,
            (right + 16, y),
            text(17, colour, HPos::Left),
        ))?;
    }
    Ok(())
}

/// The first quartile, the median and the third quartile.
fn range(row: Row<'_>) -> Option<[f64; 3]> {
    let (first, third) = row.cell("quartiles").split_once("..")?;
    Some([
        first.parse().ok()?,
        row.number("slowdown per thread")?,
        third.parse().ok()?,
    ])
}
