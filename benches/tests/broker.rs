//! The cases of `cargo xtask bench broker` do what they are to do: a thousandth of it, on Warren alone.

use std::fs;
use std::process::Command;

use warren_benches::broker::CASES;

#[test]
fn each_case_tells_its_figures() {
    let folder = tempfile::tempdir().unwrap();
    let (report, readme) = (folder.path().join("report.md"), folder.path().join("README.md"));
    fs::write(&readme, "before\n<!-- cargo xtask bench broker -->\n<!-- end -->\nafter\n").unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_broker"));
    program.args(["--quick", "--alone", "--output"]).arg(&report).arg("--readme").arg(&readme);
    let output = program.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = fs::read_to_string(report).unwrap();
    assert!(report.contains("whose figures mean nothing"), "{report}");
    for case in CASES {
        assert!(report.contains(&format!("## ({}) {}", case.letter, case.title)), "{report}");
    }
    let readme = fs::read_to_string(readme).unwrap();
    assert!(readme.starts_with("before\n") && readme.ends_with("after\n"), "{readme}");
    assert!(readme.contains("\n| (h) ms, empty | "), "{readme}");
}
