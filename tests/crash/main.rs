//! The server is killed at random moments under a mixed load, and started again on what is left: no promise is broken.
//!
//! A promise is a confirm, a commit, a declaration, or an acknowledgement that a later confirm has covered. After a restart
//! every message that is promised to be there is there, in order, whole, once, and flagged when a client had it before; none
//! that is promised to be gone is there; a transaction is there as a whole or not at all. What waits comes in its time, what
//! comes back is counted, an offset of a stream stays its message's. [`places`] says what is promised of which queue.
//!
//! `cargo xtask crash --for 2h` goes on for that long; `WARREN_CRASH_SEED` repeats the choices of a run, though not the
//! moments of the system.

#[path = "../support/mod.rs"]
mod support;

mod chance;
mod check;
mod ledger;
mod load;
mod moves;
mod places;
mod streams;

use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chance::Chance;
use ledger::{Book, Ledger};
use rustix::process::{Pid, Signal, kill_process};
use support::{PATIENCE, Server, resident_kib, warren};
use warren::hub::{join_all, run, with_timeout};

/// Kills of the ordinary test.
const KILLS: u64 = 150;
/// Loads between two looks into all queues, at most.
const LOADS_MAX: u64 = 12;
/// What a server may need that has nothing in its queues: built without optimization.
const RESIDENT_KIB_MAX: u64 = 200 * 1024;

#[test]
fn no_promise_is_broken_by_a_kill() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = number("WARREN_CRASH_SEED").unwrap_or(time % 1_000_000_007);
    let limit = number("WARREN_CRASH_SECONDS").map(Duration::from_secs);
    eprintln!("the seed is {seed}: WARREN_CRASH_SEED={seed} repeats it");
    let folder = tempfile::tempdir().unwrap();
    let mut chance = Chance::new(seed);
    let mut book = Book::default();
    let start = Instant::now();
    let mut kills = 0;
    {
        let _server = Server::start(folder.path());
        for words in ["vhosts add two", "permissions set -p two guest .* .* .*"] {
            let mut words = words.split(' ');
            let mut command = warren();
            command.args(words.next()).args(["--data-dir"]).arg(folder.path()).args(words);
            assert!(command.stdout(Stdio::null()).status().unwrap().success());
        }
    }
    while limit.map_or(kills < KILLS, |limit| start.elapsed() < limit) {
        for _ in 0..=chance.below(LOADS_MAX) {
            if chance.one_in(6) {
                kill_while_it_starts(folder.path(), &mut chance);
                kills += 1;
            }
            let faults;
            (book, faults) = load(folder.path(), book, &mut chance);
            kills += 1;
            report(faults, seed, kills, &folder);
        }
        let faults;
        (book, faults) = look(folder.path(), book);
        report(faults, seed, kills, &folder);
        if limit.is_some() {
            let seconds = start.elapsed().as_secs();
            eprintln!(
                "{seconds} s: {kills} kills, {} published, {} confirmed, {} acknowledged",
                book.published, book.confirmed, book.acked
            );
        }
    }
    assert!(100 < book.confirmed, "there was hardly a load: {} confirms", book.confirmed);
    eprintln!("{kills} kills, {} messages, {} confirmed", book.published, book.confirmed);
}

/// Fails with all that is wrong, and keeps what the server has on disk.
fn report(faults: Vec<String>, seed: u64, kills: u64, folder: &tempfile::TempDir) {
    if faults.is_empty() {
        return;
    }
    let kept = std::env::temp_dir().join(format!("warren-crash-{seed}"));
    let copied = std::process::Command::new("cp").arg("-a").arg(folder.path()).arg(&kept).status();
    let place = if copied.is_ok_and(|status| status.success()) { &kept } else { folder.path() };
    let shown = faults.iter().take(30).map(|fault| format!("\n  {fault}")).collect::<String>();
    panic!(
        "seed {seed}, after {kills} kills, {} faults; the data directory is {}:{shown}",
        faults.len(),
        place.display()
    );
}

/// A server under load, until it is killed.
fn load(folder: &Path, book: Book, chance: &mut Chance) -> (Book, Vec<String>) {
    let mut server = Server::start(folder);
    let url = server.url.clone();
    let pid = Pid::from_raw(server.program.pid().cast_signed()).unwrap();
    // Most live for a moment only: a kill costs a start, and what is torn is torn early or late.
    let delay = match chance.below(20) {
        0 => 300 + chance.below(500),
        1..5 => 100 + chance.below(200),
        _ => chance.below(100),
    };
    let mut chance = chance.fork();
    let outcome = in_hub(book, move |ledger| {
        if let Err(error) = load::declare(&url) {
            kill_process(pid, Signal::KILL).unwrap();
            return vec![format!("the queues: {error}")];
        }
        let faults = load::Faults::default();
        let fibers = load::start(&url, ledger, &faults, &mut chance);
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(delay));
            kill_process(pid, Signal::KILL).unwrap();
        });
        if with_timeout(PATIENCE, || join_all(fibers)).is_err() {
            return vec!["clients of a dead server wait".into()];
        }
        faults.take()
    });
    server.program.wait();
    outcome
}

/// Starts a server and kills it before it has come far.
fn kill_while_it_starts(folder: &Path, chance: &mut Chance) {
    let mut command = warren();
    command.args(["serve", "--log", "error", "--listen", "amqp://127.0.0.1:0", "--data-dir"]);
    let mut child = command.arg(folder).stdout(Stdio::null()).stdin(Stdio::null()).spawn().unwrap();
    thread::sleep(Duration::from_millis(chance.below(120)));
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Looks at all that is there. The server ends in order, or is killed: it makes no difference.
fn look(folder: &Path, book: Book) -> (Book, Vec<String>) {
    let server = Server::start(folder);
    let (url, pid) = (server.url.clone(), server.program.pid());
    in_hub(book, move |ledger| {
        let looked = check::definitions(&url, ledger).and_then(|mut faults| {
            faults.extend(check::drain(&url, ledger)?);
            // Whatever has been through it.
            let resident = resident_kib(pid);
            if RESIDENT_KIB_MAX < resident {
                faults.push(format!("the server has {resident} KiB in memory, and empty queues"));
            }
            Ok(faults)
        });
        looked.unwrap_or_else(|error| vec![format!("looking: {error}")])
    })
}

/// Runs fibers with the ledger. Gives it back, and what was wrong.
fn in_hub(book: Book, work: impl FnOnce(&Ledger) -> Vec<String> + 'static) -> (Book, Vec<String>) {
    run(move || {
        let ledger = Ledger::new(book);
        let faults = work(&ledger);
        (ledger.take(), faults)
    })
}
