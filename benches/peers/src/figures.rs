//! Medians, and numbers as text.

/// The first quartile of the figures, their median and the third quartile, interpolated between two figures. There must be at least
/// one.
#[expect(clippy::cast_precision_loss, reason = "a part of four")]
pub(crate) fn quartiles(mut figures: Vec<f64>) -> [f64; 3] {
    figures.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| {
        let quarters = (figures.len() - 1) * quarter;
        let (at, part) = (quarters / 4, (quarters % 4) as f64 / 4.0);
        let next = figures[figures.len().min(at + 2) - 1];
        figures[at] + (next - figures[at]) * part
    })
}

/// A number with a comma before each three digits.
pub(crate) fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}
