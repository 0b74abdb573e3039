//! gevent's first example: two fibers that give way to each other explicitly.
//!
//! `cargo run --example foo_bar`

use std::time::Duration;

use warren::hub::{join_all, run, sleep, spawn};

fn foo() {
    println!("Running in foo");
    sleep(Duration::ZERO);
    println!("Explicit context switch to foo again");
}

fn bar() {
    println!("Explicit context to bar");
    sleep(Duration::ZERO);
    println!("Implicit context switch back to bar");
}

fn main() {
    run(|| join_all([spawn(foo), spawn(bar)]));
}
