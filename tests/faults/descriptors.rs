//! No descriptor is left for another connection.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use warren::amqp::client::{Connection, QueueOptions};
use warren::hub::run;

use super::{cpu, descriptors, dial, greet, is_well, round_trip, serve, wait_until};

#[test]
fn a_server_without_descriptors_serves_those_it_has_and_accepts_again_later() {
    /// Those who wait outside.
    const WAITING: usize = 6;
    let folder = tempfile::tempdir().unwrap();
    let (server, url) = serve(folder.path(), &[]);
    let pid = server.pid();
    run(move || {
        let standing = Connection::open(&url).unwrap();
        let channel = standing.channel().unwrap();
        channel.queue_declare("q", QueueOptions::default()).unwrap();
        round_trip(&channel, "q");
        let before = descriptors(pid);
        // The limit is of their numbers.
        let most = before.max(16) + 4;
        let limit = Rlimit { current: Some(most as u64), maximum: Some(most as u64) };
        prlimit(Pid::from_raw(pid.cast_signed()), Resource::Nofile, limit).unwrap();
        let mut accepted: Vec<_> = (before..most).map(|_| dial(&url)).collect();
        accepted.iter_mut().for_each(greet);
        let mut waiting: Vec<_> = (0..WAITING).map(|_| dial(&url)).collect();
        // Those who are connected notice nothing, and the server does not run in circles.
        let (used, begin) = (cpu(pid), Instant::now());
        let mut turns = 0;
        while begin.elapsed() < Duration::from_secs(2) {
            round_trip(&channel, "q");
            turns += 1;
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(10 < turns, "{turns} messages went through");
        let used = cpu(pid) - used;
        assert!(used < Duration::from_millis(600), "{used:?} of the processor in two seconds");
        // Some numbers may have been above the limit already.
        assert!(descriptors(pid) < most + WAITING);
        // Room for some is room for some.
        drop(accepted.drain(..2));
        waiting[..2].iter_mut().for_each(greet);
        drop(accepted);
        drop(waiting.drain(..2));
        waiting.iter_mut().for_each(greet);
        drop(waiting);
        wait_until("their descriptors are free", || descriptors(pid) <= before);
        is_well_beside(&url);
        round_trip(&channel, "q");
        standing.close().unwrap();
    });
}

/// On a thread with a loop of its own.
fn is_well_beside(url: &str) {
    let url = url.to_owned();
    std::thread::spawn(move || is_well(&url)).join().unwrap();
}
