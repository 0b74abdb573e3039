//! Delayed calls.

use std::cell::Cell;
use std::hint::black_box;
use std::rc::Rc;
use std::time::Duration;

use warren_reactor::call_later;

use super::{
    Figure, Kind, Load, PEERS, Peer, ProcessorWatch, Scenario, Size, duration, tokio_local,
    tokio_timers,
};

/// Calls between two turns of the loop. Without any, a loop that only notes new calls, and sorts them in at its next
/// turn, would have nothing to do.
const BATCH: usize = 1_000;

pub(super) const CANCELLED: Scenario = Scenario {
    name: "calls-cancelled",
    title: "Calls scheduled and cancelled",
    story: "So many calls are scheduled for about 30 seconds later. One operation schedules another one and cancels it, \
            as a timeout round a request does; the loop turns after each thousand. A call of tokio's is a `sleep` that \
            is polled and dropped.",
    figures: &[Figure::more("calls scheduled and cancelled per second")],
    sizes: &[
        Size::new("1,000 calls", 1_000, 2_000_000),
        Size::new("100,000 calls", 100_000, 2_000_000),
        Size::new("1,000,000 calls", 1_000_000, 2_000_000),
    ],
    peers: PEERS,
    kind: Kind::OneCore(cancelled),
};

pub(super) const FIRED: Scenario = Scenario {
    name: "calls-made",
    title: "Calls scheduled and made",
    story: "So many calls are scheduled for a millisecond later; when all have been made, the next ones. The figure is \
            by processor time, without the wait. A call of tokio's is a task that sleeps and counts.",
    figures: &[Figure::more("calls made per CPU second")],
    sizes: &[
        Size::new("1,000 at a time", 1_000, 1_000_000),
        Size::new("100,000 at a time", 100_000, 1_000_000),
    ],
    peers: PEERS,
    kind: Kind::OneCore(fired),
};

/// What all peers wait for.
const SOON: Duration = Duration::from_millis(1);

fn cancelled(peer: Peer, Load { n, operations }: Load) -> Vec<f64> {
    if peer == Peer::Tokio {
        return tokio_local(tokio_timers(n, operations, false, || {
            let watch = ProcessorWatch::start();
            move |operations| watch.per_second(operations)
        }));
    }
    warren_hub::run(move || {
        let schedule = |number| call_later(duration(number), || ());
        let calls: Vec<_> = (0..n).map(schedule).collect();
        let watch = ProcessorWatch::start();
        for number in 0..operations {
            black_box(schedule(number).cancel());
            if number % BATCH == BATCH - 1 {
                warren_hub::yield_now();
            }
        }
        let figures = watch.per_second(operations);
        drop(calls);
        figures
    })
}

fn fired(peer: Peer, Load { n, operations }: Load) -> Vec<f64> {
    let rounds = operations.div_ceil(n);
    if peer == Peer::Tokio {
        return tokio_local(async move {
            let done = Rc::new(tokio::sync::Notify::new());
            let watch = ProcessorWatch::start();
            for _ in 0..rounds {
                let left = Rc::new(Cell::new(n));
                for _ in 0..n {
                    let (left, done) = (left.clone(), done.clone());
                    tokio::task::spawn_local(async move {
                        tokio::time::sleep(SOON).await;
                        left.set(left.get() - 1);
                        if left.get() == 0 {
                            done.notify_one();
                        }
                    });
                }
                done.notified().await;
            }
            watch.per_second(rounds * n)
        });
    }
    warren_hub::run(move || {
        let watch = ProcessorWatch::start();
        for _ in 0..rounds {
            let left = Rc::new(Cell::new(n));
            let done = Rc::new(warren_hub::sync::Event::new());
            for _ in 0..n {
                let (left, done) = (left.clone(), done.clone());
                call_later(SOON, move || {
                    left.set(left.get() - 1);
                    if left.get() == 0 {
                        done.set();
                    }
                });
            }
            done.wait();
        }
        watch.per_second(rounds * n)
    })
}
