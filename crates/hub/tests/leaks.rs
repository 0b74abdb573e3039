//! Memory stays flat, and idle memory goes back. One test: others in this process would be measured too.

use std::rc::Rc;
use std::time::{Duration, Instant};

use warren_hub::sync::Event;
use warren_hub::{run, scope, sleep, spawn, spawn_raw, with_timeout, yield_now};

/// Bytes of memory in use by this process.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size()
}

#[test]
fn a_million_fibers_leave_nothing_behind() {
    const ROUNDS: usize = 1200;
    const FIBERS: usize = 250;
    const SLACK: usize = 8 << 20;
    run(|| {
        let round = || {
            let event = Rc::new(Event::new());
            // Killed where they wait, killed before they began, ended by a timeout, joined, and left alone.
            let waiting: Vec<_> = (0..FIBERS)
                .map(|n| {
                    let event = event.clone();
                    spawn(move || {
                        let held = Box::new([n; 10]);
                        event.wait();
                        held.len()
                    })
                })
                .collect();
            let unstarted: Vec<_> = (0..FIBERS).map(|_| spawn(|| unreachable!("killed"))).collect();
            unstarted.iter().for_each(|fiber| fiber.kill());
            yield_now();
            waiting.iter().for_each(|fiber| fiber.kill());
            for _ in 0..FIBERS {
                spawn_raw(|| ());
            }
            scope(|s| {
                for _ in 0..FIBERS / 2 {
                    s.spawn(yield_now);
                }
            });
            for fiber in waiting {
                assert!(fiber.join().is_err());
            }
            let _ = with_timeout(Duration::ZERO, || sleep(Duration::from_secs(60)));
        };
        (0..ROUNDS / 10).for_each(|_| round());
        let before = resident();
        (0..ROUNDS).for_each(|_| round());
        let after = resident();
        assert!(after < before + SLACK, "from {before} to {after} bytes");

        // A burst of fibers whose stacks hold more than is kept.
        let event = Rc::new(Event::new());
        let burst: Vec<_> = (0..20_000)
            .map(|_| {
                let event = event.clone();
                spawn(move || event.wait())
            })
            .collect();
        yield_now();
        sleep(Duration::from_millis(1));
        let high = resident();
        assert!(before + (40 << 20) < high, "20,000 stacks take {} bytes", high - before);
        event.set();
        drop(burst);
        // An idle hub gives them back.
        let began = Instant::now();
        while before + (20 << 20) < resident() {
            assert!(began.elapsed() < Duration::from_secs(60), "{} bytes stay", resident());
            sleep(Duration::from_millis(700));
        }
    });
}
