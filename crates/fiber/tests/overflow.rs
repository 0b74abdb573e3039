//! Running over the end of a stack hits its guard: the process names the culprit and dies, and no neighbour is
//! overwritten. Each case runs in a child process.

use std::hint::black_box;
use std::os::unix::process::ExitStatusExt;
use std::panic::Location;
use std::process::{Command, Output};

use warren_fiber::{Generator, Greenlet, Owner, RawFiber, StackPool, StackSize, grow};

/// Set in the child: which case it runs.
const CASE: &str = "WARREN_TEST_OVERFLOW";
const SIGABRT: i32 = 6;
const SIGSEGV: i32 = 11;

fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    if depth == u64::MAX { 0 } else { recurse(depth + 1) + black_box(frame)[3] }
}

fn named_fiber() {
    let stack = StackPool::local().take(StackSize::Normal).unwrap();
    // SAFETY: a static name.
    unsafe { stack.set_owner(Owner::new("fiber", 7, Location::caller()).named("the deep one")) };
    let mut fiber = RawFiber::<(), (), u64>::with_stack(stack, |_, ()| recurse(0));
    fiber.resume(());
}

extern "C" fn on_foreign_thread(_: *mut libc::c_void) -> *mut libc::c_void {
    named_fiber();
    std::ptr::null_mut()
}

/// What the child does.
fn overflow(case: &str) {
    match case {
        "fiber" => named_fiber(),
        "unowned" => {
            let stack = StackPool::local().take(StackSize::Small).unwrap();
            RawFiber::<(), (), u64>::with_stack(stack, |_, ()| recurse(0)).resume(());
        }
        "generator" => {
            let deep = |g: warren_fiber::Yielder<'_, u64>| {
                g.yield_(recurse(0));
            };
            Generator::<u64>::with_stack_size(StackSize::Small, deep).next();
        }
        "greenlet" => {
            Greenlet::with_stack_size(StackSize::Large, recurse).switch(0);
        }
        "grown" => {
            let fiber = |_: u64| grow(usize::MAX, StackSize::Large, || recurse(0));
            Greenlet::with_stack_size(StackSize::Small, fiber).switch(0);
        }
        "grown in the root" => {
            grow(usize::MAX, StackSize::Small, || recurse(0));
        }
        "std thread" => std::thread::spawn(named_fiber).join().unwrap(),
        "foreign thread" => {
            let mut thread = 0;
            // SAFETY: the function takes no argument and is joined before anything ends.
            unsafe {
                let null = std::ptr::null_mut::<libc::c_void>();
                assert_eq!(
                    libc::pthread_create(&mut thread, null.cast(), on_foreign_thread, null),
                    0
                );
                libc::pthread_join(thread, null.cast());
            }
        }
        "after trimming" => {
            // The guard is still there when the rest of the stack has been given back.
            let pool = StackPool::local();
            drop(pool.take(StackSize::Normal).unwrap());
            assert_eq!(pool.trim(0), 1);
            named_fiber();
        }
        "own stack" => {
            drop(StackPool::local().take(StackSize::Small).unwrap());
            black_box(recurse(0));
        }
        "stray pointer" => {
            let stack = StackPool::local().take(StackSize::Small).unwrap();
            let guard = std::ptr::with_exposed_provenance_mut::<u8>(stack.limit() - 1);
            // SAFETY: none: this is the mistake that the child dies of.
            unsafe { guard.write_volatile(1) };
        }
        "elsewhere" => {
            drop(StackPool::local().take(StackSize::Small).unwrap());
            // SAFETY: none: this is the mistake that the child dies of.
            unsafe { std::ptr::without_provenance_mut::<u8>(64).write_volatile(1) };
        }
        other => unreachable!("{other}"),
    }
    std::process::exit(0);
}

/// Runs a case in a child, with the kernel's guards or those of older kernels.
fn child(case: &str, guard: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_of_the_other_tests", "--nocapture"])
        .env(CASE, case)
        .env("WARREN_STACK_GUARD", guard)
        .output()
        .unwrap()
}

#[test]
fn child_of_the_other_tests() {
    if let Ok(case) = std::env::var(CASE) {
        overflow(&case);
    }
}

#[track_caller]
fn check(case: &str, signal: i32, texts: &[&str]) {
    for guard in ["install", "mprotect"] {
        let output = child(case, guard);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(signal), "{case}, {guard}: {said}");
        for text in texts {
            assert!(said.contains(text), "{case}, {guard}: no {text:?} in {said}");
        }
        if texts.is_empty() {
            assert!(!said.contains("overflown its stack"), "{case}, {guard}: {said}");
        }
    }
}

#[test]
fn an_overflow_names_the_fiber_and_what_to_do() {
    let texts =
        ["fiber 7 \"the deep one\", spawned at ", "overflow.rs:", "its stack of 256 KiB", "`grow`"];
    check("fiber", SIGABRT, &texts);
    check("std thread", SIGABRT, &texts);
    check("foreign thread", SIGABRT, &texts);
    check("after trimming", SIGABRT, &texts);
}

#[test]
fn whatever_runs_on_a_stack_is_named() {
    check("unowned", SIGABRT, &["a coroutine has overflown its stack of 64 KiB"]);
    check("generator", SIGABRT, &["generator, spawned at ", "overflow.rs:", "stack of 64 KiB"]);
    check("greenlet", SIGABRT, &["greenlet", ", spawned at ", "overflow.rs:", "stack of 1024 KiB"]);
    check("grown", SIGABRT, &["greenlet", "stack of 1024 KiB"]);
    check("grown in the root", SIGABRT, &["code in `grow`, spawned at ", "stack of 64 KiB"]);
}

#[test]
fn other_faults_go_to_the_handler_before() {
    // The standard library's message for a thread's own stack.
    check("own stack", SIGABRT, &["has overflowed its stack"]);
    check("elsewhere", SIGSEGV, &[]);
    check("stray pointer", SIGSEGV, &[]);
}
