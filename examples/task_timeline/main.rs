//! Three tasks that mostly wait, run one after another, on a thread each, and event-driven on one thread: who runs and
//! who waits when, as a picture.
//!
//! `cargo run --example task_timeline [FILE.svg]`
//!
//! A task works for some milliseconds, asks a slow server something, and so on. One after another, each wait is lost
//! time. Threads wait at the same time, and so do protocols of a reactor and fibers, of which never two run at once: the
//! whole takes about as long as the longest task.

mod journal;
mod picture;
mod protocol;
mod server;
mod straight;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use warren::hub::{self, join_all, run};
use warren::reactor::{Deferred, gather_results};

use journal::Journal;

/// What one task does.
#[derive(Clone, Copy)]
struct Task {
    name: &'static str,
    /// Milliseconds of work before each request, and how long the server takes to answer it.
    steps: &'static [(u64, u64)],
}

const TASKS: [Task; 3] = [
    Task { name: "A", steps: &[(6, 60), (9, 40), (6, 0)] },
    Task { name: "B", steps: &[(9, 30), (6, 70), (9, 0)] },
    Task { name: "C", steps: &[(6, 50), (6, 20), (9, 0)] },
];

/// Keeps the processor busy.
fn work(milliseconds: u64) {
    let end = Instant::now() + Duration::from_millis(milliseconds);
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

fn single_threaded(server: SocketAddr, journal: &Journal) -> io::Result<()> {
    for task in TASKS {
        straight::run(task, std::net::TcpStream::connect(server)?, journal)?;
    }
    Ok(())
}

fn multi_threaded(server: SocketAddr, journal: &Journal) -> io::Result<()> {
    let one = |task| straight::run(task, std::net::TcpStream::connect(server)?, journal);
    thread::scope(|scope| {
        let threads = TASKS.map(|task| scope.spawn(move || one(task)));
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })
}

/// Protocols of the reactor.
fn event_driven(server: SocketAddr, journal: &Journal) -> io::Result<()> {
    let journal = journal.clone();
    run(move || {
        let tasks: Vec<Deferred<()>> =
            TASKS.iter().map(|&task| protocol::start(task, server, journal.clone())).collect();
        let done = gather_results(tasks).wait();
        done.map(drop).map_err(|failure| io::Error::other(failure.to_string()))
    })
}

/// The same code as on threads.
fn fibers(server: SocketAddr, journal: &Journal) -> io::Result<()> {
    let journal = journal.clone();
    run(move || {
        let one = move |task, journal: &Journal| {
            straight::run(task, hub::net::TcpStream::connect(server)?, journal)
        };
        let tasks = TASKS.map(|task| {
            let journal = journal.clone();
            hub::spawn(move || one(task, &journal))
        });
        join_all(tasks).into_iter().try_for_each(|task| task.map_err(io::Error::other)?)
    })
}

type Way = fn(SocketAddr, &Journal) -> io::Result<()>;
const WAYS: [(&str, Way); 4] = [
    ("single-threaded", single_threaded),
    ("multi-threaded", multi_threaded),
    ("event-driven, protocols", event_driven),
    ("event-driven, fibers", fibers),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args_os().nth(1).map_or("task_timeline.svg".into(), PathBuf::from);
    let server = server::start()?;
    let mut runs = Vec::new();
    for (name, way) in WAYS {
        let journal = Journal::begin();
        way(server, &journal)?;
        let spans = journal.spans();
        println!("{name}: {}", journal::summary(&spans));
        runs.push((name, spans));
    }
    picture::draw(&file, &runs)?;
    println!("the picture is in {}", file.display());
    Ok(())
}
