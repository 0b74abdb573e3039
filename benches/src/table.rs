//! Results as a Markdown table.

/// The middle of some measurements; of an even number, the lower of the two.
///
/// # Panics
/// Without any.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

/// A number with separators between thousands.
pub fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `what | ours | theirs | ratio`, the ratio such that more is better for us.
pub fn row(
    what: &str,
    ours: f64,
    theirs: f64,
    more_is_better: bool,
    show: impl Fn(f64) -> String,
) -> String {
    let ratio = if more_is_better { ours / theirs } else { theirs / ours };
    format!("| {what} | {} | {} | {ratio:.1} |", show(ours), show(theirs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_for_people() {
        assert_eq!(thousands(1_234_567.4), "1,234,567");
        assert_eq!(thousands(12.0), "12");
        assert_eq!(thousands(123_456.0), "123,456");
    }

    #[test]
    fn the_median_is_a_measurement() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), 2.0);
    }

    #[test]
    fn ratios_are_in_our_favour_when_above_one() {
        assert_eq!(row("speed", 10.0, 2.0, true, |n| n.to_string()), "| speed | 10 | 2 | 5.0 |");
        assert_eq!(row("time", 2.0, 10.0, false, |n| n.to_string()), "| time | 2 | 10 | 5.0 |");
    }
}
