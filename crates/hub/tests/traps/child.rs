//! Traps in which the process has to die: each runs in a child.

use std::cell::RefCell;
use std::hint::black_box;
use std::os::unix::process::ExitStatusExt;
use std::panic::{catch_unwind, resume_unwind};
use std::process::{Command, Output};
use std::rc::Rc;

use warren_fiber::{Generator, Yielder};
use warren_hub::{Builder, run, scope, sleep, spawn, yield_now};

use crate::{LONG, OnDrop, on_the_loop};

/// Set in the child: which case it runs.
const CASE: &str = "WARREN_TEST_TRAP";
const SIGABRT: i32 = 6;

fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    if depth == u64::MAX { 0 } else { recurse(depth + 1) + black_box(frame)[3] }
}

/// A generator that is suspended in a scope whose fiber borrows from it. Using that later would be the end of it.
fn scoped() -> Generator<u32> {
    let mut generator = Generator::new(|g: Yielder<'_, u32>| {
        let text = String::from("borrowed");
        scope(|s| {
            s.spawn(|| {
                sleep(LONG);
                println!("{text}");
            });
            g.yield_(1);
        });
        println!("the scope has returned");
    });
    generator.next();
    yield_now();
    generator
}

/// What the child does.
fn die(case: &str) {
    match case {
        "a scope ends on the loop" => run(|| {
            let generator = scoped();
            on_the_loop(move || drop(generator));
        }),
        "a scope ends where nothing may wait" => run(|| {
            let generator = scoped();
            warren_hub::no_wait(move || drop(generator));
        }),
        "a kill kept for later" => run(|| {
            let kept = Rc::new(RefCell::new(None));
            let keep = kept.clone();
            let fiber = spawn(move || *keep.borrow_mut() = catch_unwind(|| sleep(LONG)).err());
            yield_now();
            fiber.kill_wait(None);
            let mut generator = scoped();
            let kill = kept.take().unwrap();
            on_the_loop(move || _ = generator.throw(kill));
        }),
        "a destructor panics during a kill" => run(|| {
            let fiber = spawn(|| {
                let _at_end = OnDrop(|| resume_unwind(Box::new("second")));
                sleep(LONG);
            });
            yield_now();
            fiber.kill_wait(None);
        }),
        "an overflow" => run(|| {
            let deep = Builder::new().name("the deep one").spawn(|| recurse(0)).unwrap();
            let _ = deep.join();
        }),
        "an overflow on another hub" => {
            let group = warren_hub::HubGroup::start(1).unwrap();
            let _ = group.spawn_on(0, || recurse(0)).unwrap().join();
        }
        other => unreachable!("{other}"),
    }
    std::process::exit(0);
}

#[test]
fn child_of_the_other_tests() {
    if let Ok(case) = std::env::var(CASE) {
        die(&case);
    }
}

#[track_caller]
fn check(case: &str, texts: &[&str]) {
    let Output { status, stderr, stdout } = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child::child_of_the_other_tests", "--nocapture"])
        .env(CASE, case)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&stderr);
    assert_eq!(status.signal(), Some(SIGABRT), "{case}: {said}");
    for text in texts {
        assert!(said.contains(text), "{case}: no {text:?} in {said}");
    }
    assert!(!String::from_utf8_lossy(&stdout).contains("the scope has returned"), "{case}");
}

#[test]
fn a_scope_that_cannot_wait_for_its_fibers_never_returns() {
    let aborts = ["which borrow from it: aborting"];
    check("a scope ends on the loop", &aborts);
    check("a scope ends where nothing may wait", &aborts);
    check("a kill kept for later", &aborts);
}

#[test]
fn a_panic_out_of_a_destructor_during_a_kill_ends_the_process() {
    check("a destructor panics during a kill", &[]);
}

#[test]
fn an_overflow_on_a_hub_names_the_fiber() {
    check(
        "an overflow",
        &["fiber 2 \"the deep one\", spawned at ", "child.rs:", "stack of 256 KiB"],
    );
    check("an overflow on another hub", &["fiber ", ", spawned at ", "overflown its stack"]);
}
