//! Ten tasks that wait, one after the other and all at once.
//!
//! `cargo run --example sync_async`

use std::time::{Duration, Instant};

use warren::hub::{join_all, run, sleep, spawn};

fn task(number: u64) {
    sleep(Duration::from_millis(10 + number % 3));
    println!("Task {number} done");
}

fn timed(name: &str, work: impl FnOnce()) {
    println!("{name}:");
    let start = Instant::now();
    work();
    println!("{name} took {} ms", start.elapsed().as_millis());
}

fn main() {
    run(|| {
        timed("Synchronous", || (0..10).for_each(task));
        timed("Asynchronous", || drop(join_all((0..10).map(|number| spawn(move || task(number))))));
    });
}
