//! Behaviour compared with another library's: what `tests/gevent` and `tests/twisted` share.
//!
//! A scenario is a function that says lines. The same function in Python, under the same name, is in the file of
//! the same name beside it; `scenarios.py` ran it in the real library and wrote what it said to `expected.txt`.
//! The test names that text `crate::EXPECTED`, and has a module `said` with what runs a scenario.

use std::cell::RefCell;
use std::fmt::Display;

thread_local! {
    /// A scenario, and all its fibers, run on the thread of its test.
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Says a line.
macro_rules! say {
    ($($words:tt)*) => { $crate::compared::say(format!($($words)*)) };
}

/// The scenarios of a module, in the order of the other library's: a test for each, run as `said::$run` does.
macro_rules! scenarios {
    ($run:ident: $($name:ident)*) => {
        /// What this module has.
        pub(crate) const NAMES: &[&str] = &[$(stringify!($name)),*];

        mod tests {
            $(
                #[test]
                fn $name() {
                    $crate::said::$run(super::$name);
                    $crate::compared::check(module_path!(), stringify!($name));
                }
            )*
        }
    };
}

pub(crate) fn say(line: String) {
    LINES.with_borrow_mut(|lines| lines.push(line));
}

/// Compares what was said with what the other library said.
#[track_caller]
pub(crate) fn check(module: &str, name: &str) {
    // `gevent::fibers::tests`, say.
    let module = module.rsplit("::").nth(1).unwrap_or(module);
    let said = LINES.take();
    assert_eq!(said, expected(&format!("{module}.{name}")), "left: ours, right: expected.txt");
}

/// What the other library said in a scenario.
pub(crate) fn expected(name: &str) -> Vec<&'static str> {
    sections()
        .find_map(|(found, lines)| (found == name).then(|| lines.lines().collect()))
        .unwrap_or_default()
}

/// The other library has the scenarios that are here, module by module, and no others.
#[track_caller]
pub(crate) fn check_names(modules: &[(&str, &[&str])]) {
    let here: Vec<String> = modules
        .iter()
        .flat_map(|(module, names)| names.iter().map(move |name| format!("{module}.{name}")))
        .collect();
    let there = sections().map(|(name, _)| name);
    let missing: Vec<&str> = there.filter(|name| !here.iter().any(|here| here == name)).collect();
    assert_eq!(missing, [""; 0], "scenarios of expected.txt that are not here");
    let unknown = here.iter().filter(|name| !sections().any(|(there, _)| there == *name));
    assert_eq!(unknown.collect::<Vec<_>>(), [""; 0], "scenarios that expected.txt does not have");
}

/// Names and lines.
fn sections() -> impl Iterator<Item = (&'static str, &'static str)> {
    let sections = crate::EXPECTED.split("\n== ").skip(1);
    sections.filter_map(|section| {
        let (name, lines) = section.split_once('\n')?;
        Some((name, lines.trim_end()))
    })
}

pub(crate) fn yes(answer: bool) -> &'static str {
    if answer { "yes" } else { "no" }
}

pub(crate) fn list<T: Display>(values: impl IntoIterator<Item = T>) -> String {
    let words: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
    format!("[{}]", words.join(", "))
}
