//! The figures as Markdown: one table for each case, and one of all that have a target for the README.

use std::fmt::Write as _;

use super::{Both, CASES, Case, Effort};
use crate::machine::description;
use crate::table::{digits, thousands};

/// A figure.
#[derive(Clone, Debug)]
pub struct Cell {
    /// What is compared.
    pub value: f64,
    /// What is shown.
    pub shown: String,
}

/// What was to be reached.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// So many times better than RabbitMQ.
    Times(f64),
    /// At most so much.
    AtMost(f64),
    /// At least so much.
    AtLeast(f64),
}

/// One line of a table.
#[derive(Clone, Debug)]
pub struct Row {
    what: String,
    cells: Both<Cell>,
    more_is_better: bool,
    /// Whether the two are to be compared.
    compares: bool,
    goals: Vec<Goal>,
}

impl Row {
    /// Of which more is better: messages per second.
    pub fn rate(what: impl Into<String>, values: Both<f64>) -> Self {
        let cells = values.map(|value| value.map(|value| Cell { value, shown: thousands(value) }));
        Self { more_is_better: true, ..Self::cells(what, cells) }
    }

    /// Of which less is better.
    pub fn cost(what: impl Into<String>, values: Both<f64>) -> Self {
        let cells = values.map(|value| value.map(|value| Cell { value, shown: digits(value) }));
        Self::cells(what, cells)
    }

    /// Of which less is better, shown as one likes.
    pub fn cells(what: impl Into<String>, cells: Both<Cell>) -> Self {
        let what = what.into();
        Self { what, cells, more_is_better: false, compares: true, goals: Vec::new() }
    }

    /// What is said of the measurement itself.
    pub fn note(what: impl Into<String>, values: Both<f64>) -> Self {
        Self { compares: false, ..Self::cost(what, values) }
    }

    /// What is to be reached.
    pub fn goal(mut self, goal: Goal) -> Self {
        self.goals.push(goal);
        self
    }

    fn ratio(&self) -> Option<f64> {
        let [ours, theirs] = self.cells.each_ref().map(|cell| cell.as_ref().map(|cell| cell.value));
        let ratio = if self.more_is_better { ours? / theirs? } else { theirs? / ours? };
        (self.compares && ratio.is_finite()).then_some(ratio)
    }

    /// Whether a goal was reached, if that can be told.
    fn reaches(&self, goal: Goal) -> Option<bool> {
        let ours = self.cells[0].as_ref()?.value;
        match goal {
            Goal::Times(times) => Some(times <= self.ratio()?),
            Goal::AtMost(most) => Some(ours <= most),
            Goal::AtLeast(least) => Some(least <= ours),
        }
    }

    fn line(&self, prefix: &str) -> String {
        let shown = |at: usize| self.cells[at].as_ref().map_or("–", |cell| &cell.shown);
        let ratio = self.ratio().map_or_else(|| "–".into(), digits);
        let goals: Vec<String> = self.goals.iter().map(|goal| goal.told()).collect();
        let reached: Vec<&str> = self
            .goals
            .iter()
            .map(|goal| match self.reaches(*goal) {
                Some(true) => "yes",
                Some(false) => "**no**",
                None => "–",
            })
            .collect();
        format!(
            "| {prefix}{} | {} | {} | {ratio} | {} | {} |\n",
            self.what,
            shown(0),
            shown(1),
            goals.join("; "),
            reached.join("; ")
        )
    }
}

impl Goal {
    fn told(self) -> String {
        match self {
            Self::Times(times) => format!("{times} times"),
            Self::AtMost(most) => format!("at most {most}"),
            Self::AtLeast(least) => format!("at least {least}"),
        }
    }
}

/// What one case has found.
#[derive(Debug)]
pub struct Section {
    /// Which.
    pub letter: char,
    /// Its figures.
    pub rows: Vec<Row>,
}

impl Section {
    /// Under a heading, with its story.
    ///
    /// # Panics
    /// When there is no case of this letter.
    pub fn text(&self) -> String {
        let of_letter = |case: &&Case| case.letter == self.letter;
        let Case { letter, title, story, .. } =
            CASES.iter().find(of_letter).expect("a section is of a case");
        let mut text = format!("## ({letter}) {title}\n\n{story}\n\n{}", columns(""));
        for row in &self.rows {
            text += &row.line("");
        }
        text + "\n"
    }
}

fn columns(first: &str) -> String {
    format!(
        "| {first} | Warren | RabbitMQ | ratio | target | reached |\n|---|---:|---:|---:|---:|---|\n"
    )
}

/// What a report begins with.
pub fn heading(effort: Effort) -> String {
    let quick = match effort.divisor {
        1 => "",
        _ => "**A quick run, whose figures mean nothing.** ",
    };
    format!(
        "# The broker beside RabbitMQ\n\n\
         Written by\n\n```sh\ncargo xtask bench broker\n```\n\n\
         {quick}{}. RabbitMQ is Debian's 3.10.8. Release builds; `warren perf` loads both, as a library, and shares the machine with \
         them. Each case has servers that were started for it. A rate is measured for {:.1} s, after a quarter of that to run in. \
         Rates depend on what else the machine did; the server's processor time for each million messages, user and system, hardly \
         does. Ratios above 1 are in Warren's favour. The targets were set before anything was measured.\n\n",
        description(),
        effort.time.as_secs_f64(),
    )
}

/// What has a target, in one table.
pub fn readme(sections: &[Section]) -> String {
    let mut text = columns("case");
    for section in sections {
        for row in section.rows.iter().filter(|row| !row.goals.is_empty()) {
            let _ = write!(text, "{}", row.line(&format!("({}) ", section.letter)));
        }
    }
    text
}

const BEGIN: &str = "<!-- cargo xtask bench broker -->\n";
const END: &str = "<!-- end -->\n";

/// A text with another table between the marks; `None` when it has no marks.
pub fn with_table(text: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{table}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_what_was_reached() {
        let rate = Row::rate("messages/s", [Some(3000.0), Some(100.0)]);
        let rate = rate.goal(Goal::Times(13.0));
        assert_eq!(rate.line("(a) "), "| (a) messages/s | 3,000 | 100 | 30.0 | 13 times | yes |\n");
        let cost = Row::cost("s", [Some(0.5), Some(5.0)]);
        let cost = cost.goal(Goal::Times(25.0)).goal(Goal::AtMost(0.6));
        let want = "| s | 0.50 | 5.00 | 10.0 | 25 times; at most 0.6 | **no**; yes |\n";
        assert_eq!(cost.line(""), want);
        let alone = Row::cost("MB", [Some(5.0), None]).goal(Goal::Times(2.0));
        assert_eq!(alone.line(""), "| MB | 5.00 | – | – | 2 times | – |\n");
    }

    #[test]
    fn the_table_is_put_between_the_marks() {
        let text = format!("one\n{BEGIN}old\n{END}two\n");
        let want = format!("one\n{BEGIN}new\n{END}two\n");
        assert_eq!(with_table(&text, "new\n"), Some(want));
        assert_eq!(with_table("one\n", "new\n"), None);
    }
}
