//! Counts of passed, failed and skipped tests, read from what the test harness prints.

use std::collections::BTreeSet;
use std::fmt;
use std::iter::Sum;
use std::ops::AddAssign;

/// How tests ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    /// Ignored by attribute, or said by themselves that they cannot run here.
    pub(crate) skipped: usize,
    /// What failed, to be named once more at the end.
    pub(crate) failures: Vec<String>,
}

impl Tally {
    /// One failure.
    pub(crate) fn failure(what: String) -> Self {
        Self { failed: 1, failures: vec![what], ..Self::default() }
    }

    /// One thing left out.
    pub(crate) fn skip() -> Self {
        Self { skipped: 1, ..Self::default() }
    }

    /// Whether nothing was run at all.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.failures.extend(other.failures);
    }
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), |mut sum, tally| {
            sum += tally;
            sum
        })
    }
}

/// What one run of a harness has said.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    tally: Tally,
    results: usize,
    skipped: BTreeSet<String>,
}

impl Reader {
    /// Takes a line of the harness's own output.
    pub(crate) fn output(&mut self, line: &str) {
        if let Some(result) = parse_result(line) {
            self.tally += result;
            self.results += 1;
        } else if let Some(name) =
            line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            self.tally.failures.push(name.to_owned());
        }
    }

    /// Takes a line that the tests themselves wrote past the harness, where `SKIPPED NAME: REASON` comes from one that
    /// cannot run here. The harness has no word for that and lets it pass.
    pub(crate) fn aside(&mut self, line: &str) {
        if let Some((name, _)) = line.strip_prefix("SKIPPED ").and_then(|rest| rest.split_once(": ")) {
            self.skipped.insert(name.to_owned());
        }
    }

    /// The counts, once the harness has ended. One that died on the way has counted nothing: that is a failure too.
    pub(crate) fn finish(self, program: &str, succeeded: bool) -> Tally {
        let mut tally = self.tally;
        tally.passed = tally.passed.saturating_sub(self.skipped.len());
        tally.skipped += self.skipped.len();
        if self.results == 0 || (!succeeded && tally.failed == 0) {
            tally += Tally::failure(format!("{program} did not run to its end"));
        }
        tally
    }
}

/// Reads `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s`.
fn parse_result(line: &str) -> Option<Tally> {
    let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let count = |what: &str| {
        counts.split("; ").find_map(|part| part.strip_suffix(what)?.strip_suffix(' ')?.parse().ok())
    };
    let failures = Vec::new();
    Some(Tally { passed: count("passed")?, failed: count("failed")?, skipped: count("ignored")?, failures })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str =
        "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s";

    fn read(text: &str) -> Reader {
        let mut reader = Reader::default();
        text.lines().for_each(|line| reader.output(line));
        reader
    }

    fn tally(passed: usize, failed: usize, skipped: usize) -> Tally {
        Tally { passed, failed, skipped, failures: Vec::new() }
    }

    #[test]
    fn a_result_line_is_counted() {
        assert_eq!(parse_result(OK), Some(tally(3, 0, 1)));
        let failed = OK.replace("ok. 3 passed; 0 failed", "FAILED. 1 passed; 2 failed");
        assert_eq!(parse_result(&failed), Some(tally(1, 2, 1)));
        assert_eq!(parse_result("test result_is_shown ... ok"), None);
        assert_eq!(parse_result("test result: ok. many passed"), None);
    }

    #[test]
    fn a_test_that_says_it_is_skipped_has_not_passed() {
        let mut reader = read(OK);
        for line in ["SKIPPED load: wrk is not installed", "SKIPPED load: said twice", "noise: SKIPPED b: no"]
        {
            reader.aside(line);
        }
        assert_eq!(reader.finish("suite", true), tally(2, 0, 2));
    }

    #[test]
    fn results_of_several_harnesses_add_up() {
        assert_eq!(read(&format!("{OK}\n{OK}\n")).finish("suite", true), tally(6, 0, 2));
    }

    #[test]
    fn failures_are_named() {
        let failed = OK.replace("ok. 3 passed; 0 failed", "FAILED. 1 passed; 1 failed");
        let tally = read(&format!("test a::b ... FAILED\ntest c ... ok\n{failed}\n")).finish("suite", false);
        assert_eq!((tally.failed, tally.failures), (1, vec!["a::b".to_owned()]));
    }

    #[test]
    fn a_harness_that_dies_has_failed() {
        let died = read("running 3 tests\ntest a ... ok\n").finish("suite", false);
        assert_eq!((died.failed, died.failures), (1, vec!["suite did not run to its end".to_owned()]));
        assert_eq!(read(OK).finish("suite", false).failed, 1);
    }

    #[test]
    fn the_closing_line_has_its_fixed_form() {
        assert_eq!(tally(12, 0, 3).to_string(), "12 passed, 0 failed, 3 skipped");
    }
}
