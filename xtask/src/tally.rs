//! How many tests passed and failed, and how to read that off a runner's output.

use std::fmt;

/// Tests counted by one step, or by all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    passed: usize,
    failed: usize,
}

impl Tally {
    /// One test with the given outcome.
    pub(crate) fn one(passed: bool) -> Self {
        Self { passed: usize::from(passed), failed: usize::from(!passed) }
    }

    /// Reads cargo's `test result: ok. 3 passed; 0 failed; ...`; `None` for any other line.
    pub(crate) fn parse_cargo(line: &str) -> Option<Self> {
        let counts = line.strip_prefix("test result: ")?;
        let count = |word: &str| {
            let before = counts.split(word).next()?.trim_end();
            before.rsplit([' ', ';']).next()?.parse().ok()
        };
        Some(Self { passed: count("passed")?, failed: count("failed")? })
    }

    /// Reads pytest's last line, `2 failed, 3 passed, 1 error in 0.12s`; `None` for any other line.
    pub(crate) fn parse_pytest(line: &str) -> Option<Self> {
        let (counts, time) = line.trim_matches(['=', ' ']).rsplit_once(" in ")?;
        time.split(' ').next()?.strip_suffix('s')?.parse::<f32>().ok()?;
        let mut tally = Self::default();
        for part in counts.split(", ") {
            let (count, word) = part.split_once(' ')?;
            let count: usize = count.parse().ok()?;
            match word {
                "passed" => tally.passed += count,
                "failed" | "error" | "errors" => tally.failed += count,
                _ => {}
            }
        }
        Some(tally)
    }

    /// Adds the counts of another step.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }

    /// Whether nothing failed.
    pub(crate) fn is_green(self) -> bool {
        self.failed == 0
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_off_cargos_result_lines_only() {
        let ok = "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(Tally::parse_cargo(ok), Some(Tally { passed: 12, failed: 0 }));
        let bad = "test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured";
        assert_eq!(Tally::parse_cargo(bad), Some(Tally { passed: 3, failed: 1 }));
        assert_eq!(Tally::parse_cargo("test wire::tests::cut ... ok"), None);
        assert_eq!(Tally::parse_cargo("test result: nonsense"), None);
    }

    #[test]
    fn counts_are_read_off_pytests_last_line_only() {
        let bad = "2 failed, 94 passed, 1 error in 7.18s";
        assert_eq!(Tally::parse_pytest(bad), Some(Tally { passed: 94, failed: 3 }));
        let long = "====== 3 passed, 1 warning in 65.02s (0:01:05) ======";
        assert_eq!(Tally::parse_pytest(long), Some(Tally { passed: 3, failed: 0 }));
        assert_eq!(Tally::parse_pytest("tests passed in time"), None);
        assert_eq!(Tally::parse_pytest("........ [100%]"), None);
    }

    #[test]
    fn one_failure_turns_the_tally_red() {
        let mut tally = Tally::one(true);
        assert!(tally.is_green());
        tally.add(Tally::one(false));
        assert!(!tally.is_green());
        assert_eq!(tally.to_string(), "1 passed, 1 failed");
    }
}
