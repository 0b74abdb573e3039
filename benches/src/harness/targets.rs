//! What was to be reached, and whether it was.

use std::fmt::Write as _;

use super::measure::Outcome;
use super::plot::number;
use super::{Peer, Suite};

/// What one figure was to reach.
pub struct Target {
    /// In words.
    pub what: &'static str,
    /// The scenario's name.
    pub scenario: &'static str,
    /// The row.
    pub n: usize,
    /// Of the scenario's figures.
    pub figure: usize,
    /// What was to be reached.
    pub goal: Goal,
}

/// What is to be reached.
pub enum Goal {
    /// So many times better than tokio's current thread.
    TimesTokio(f64),
    /// At most this.
    AtMost(f64, &'static str),
}

/// What the first figure of every row was to reach.
pub struct Aim {
    /// Beside whom.
    pub rival: Peer,
    /// So many times better.
    pub times: f64,
}

/// All of them as text.
pub(super) fn targets(suite: &Suite, outcomes: &[Outcome]) -> String {
    let mut rows = String::new();
    for target in suite.targets {
        rows += &row_of_target(suite, target, outcomes).unwrap_or_default();
    }
    let mut text = String::new();
    if !rows.is_empty() {
        text += &format!(
            "## Targets\n\n| what | wanted | reached | met |\n|---|---:|---:|---|\n{rows}\n"
        );
    }
    if !suite.aims.is_empty() {
        text += &ratios(suite, outcomes);
    }
    text
}

fn row_of_target(suite: &Suite, target: &Target, outcomes: &[Outcome]) -> Option<String> {
    let outcome = outcomes.iter().find(|each| each.scenario.name == target.scenario)?;
    let figure = |peer| outcome.figure(target.n, peer, target.figure);
    let ours = figure(suite.ours)?;
    let (wanted, reached, met) = match target.goal {
        Goal::TimesTokio(times) => {
            let more_is_better = outcome.scenario.figures[target.figure].more_is_better;
            let ratio = times_better(more_is_better, ours, figure(Peer::Tokio)?);
            (format!("{times:.1} times"), format!("{ratio:.2} times"), times <= ratio)
        }
        Goal::AtMost(most, unit) => {
            let shown = |value| format!("{} {unit}", number(value, 2));
            (format!("at most {}", shown(most)), shown(ours), ours <= most)
        }
    };
    let met = if met { "yes" } else { "no" };
    Some(format!("| {} | {wanted} | {reached} | {met} |\n", target.what))
}

/// Every row beside each rival.
fn ratios(suite: &Suite, outcomes: &[Outcome]) -> String {
    let aims: Vec<_> = suite
        .aims
        .iter()
        .map(|aim| format!("{:.1} times {}", aim.times, aim.rival.title()))
        .collect();
    let mut text = format!(
        "## {} beside each\n\nThe first figure of each row. Above 1, {} is better; the aim is {}. Bold is what has \
         reached it.\n\n| what | unit | {} |",
        suite.ours.title(),
        suite.ours.title(),
        aims.join(" and "),
        suite.ours.title(),
    );
    for aim in suite.aims {
        let _ = write!(text, " {} | ratio |", aim.rival.title());
    }
    text += "\n|---|---|---:|";
    text += &"---:|---:|".repeat(suite.aims.len());
    text.push('\n');
    for outcome in outcomes {
        let figure = &outcome.scenario.figures[0];
        for (size, _) in &outcome.rows {
            let Some(ours) = outcome.figure(size.n, suite.ours, 0) else { continue };
            let shown = |value| number(value, figure.digits);
            let _ = write!(
                text,
                "| {}, {} | {} | {} |",
                outcome.scenario.title,
                size.label,
                figure.title,
                shown(ours)
            );
            for aim in suite.aims {
                let _ = match outcome.figure(size.n, aim.rival, 0) {
                    Some(theirs) => {
                        let ratio = times_better(figure.more_is_better, ours, theirs);
                        let mark = if aim.times <= ratio { "**" } else { "" };
                        write!(text, " {} | {mark}{ratio:.2}{mark} |", shown(theirs))
                    }
                    None => write!(text, " – | – |"),
                };
            }
            text.push('\n');
        }
    }
    text.push('\n');
    text
}

fn times_better(more_is_better: bool, ours: f64, theirs: f64) -> f64 {
    if more_is_better { ours / theirs } else { theirs / ours }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_above_one_is_in_our_favour() {
        assert_eq!(times_better(true, 30.0, 10.0), 3.0);
        assert_eq!(times_better(false, 10.0, 30.0), 3.0);
    }
}
