//! Running over the end of a stack hits its guard: the process dies and no neighbour is overwritten.

use std::hint::black_box;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use warren_fiber::{Generator, StackSize, Yielder};

/// Set in the child, which overflows.
const CHILD: &str = "WARREN_TEST_OVERFLOW";
const SIGSEGV: i32 = 11;

fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    if depth == u64::MAX { 0 } else { recurse(depth + 1) + black_box(frame)[3] }
}

#[test]
fn an_overflow_ends_the_process_at_the_guard() {
    if std::env::var_os(CHILD).is_some() {
        let body = |g: Yielder<'_, u64>| {
            g.yield_(recurse(0));
        };
        Generator::<u64>::with_stack_size(StackSize::Small, body).next();
        std::process::exit(0);
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "an_overflow_ends_the_process_at_the_guard"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert_eq!(child.status.signal(), Some(SIGSEGV), "{child:?}");
}
