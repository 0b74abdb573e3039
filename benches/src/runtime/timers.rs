//! Timers that are set and cancelled: what nearly all timers of a server are.

use std::hint::black_box;
use std::task::Poll;
use std::time::Duration;

use super::{Figure, Kind, Load, Peer, Scenario, Size, Stopwatch, tokio_local, tokio_multi};

/// Any of those that are set is cancelled and set anew, as the idle timeouts of connections are.
pub(super) const ANY: Scenario = Scenario {
    name: "timers-any",
    title: "Timers, any of them",
    story: "The same, but one operation cancels one of those that are set, here and there, and sets it anew, as a \
            server does with the timeout of a connection on which something has come. Among a million it is mostly \
            in memory that no cache has, and so are its neighbours: that takes longer than the work.",
    kind: Kind::OneCore(any),
    ..SCENARIO
};

/// One more is set and cancelled.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "timers",
    title: "Timers",
    story: "So many timers of about 30 seconds are set. One operation sets another one and cancels it, as a timeout \
            round a call does. may's timers cannot be cancelled.",
    figures: &[Figure::less("ns per timer set and cancelled", 0)],
    sizes: &[
        Size::new("1,000 timers", 1_000, 2_000_000),
        Size::new("100,000 timers", 100_000, 2_000_000),
        Size::new("1,000,000 timers", 1_000_000, 2_000_000),
    ],
    peers: &[Peer::Warren, Peer::Tokio, Peer::TokioMulti, Peer::Gevent, Peer::Go],
    kind: Kind::OneCore(run),
};

/// How long the timer of this number is to last.
pub(crate) fn duration(number: usize) -> Duration {
    Duration::from_millis(30_000 + (number % 1024) as u64)
}

/// Which timers are replaced: all over the place, and the same for every peer.
fn indices(n: usize, operations: usize) -> impl Iterator<Item = usize> {
    (0..operations).map(move |number| number.wrapping_mul(7_919) % n)
}

fn run(peer: Peer, load: Load) -> Vec<f64> {
    measure(peer, load, false)
}

fn any(peer: Peer, load: Load) -> Vec<f64> {
    measure(peer, load, true)
}

fn measure(peer: Peer, Load { n, operations }: Load, any: bool) -> Vec<f64> {
    match peer {
        Peer::Warren => warren_hub::run(move || {
            let set = |number| warren_hub::call_later(duration(number), || ());
            let mut timers: Vec<_> = (0..n).map(set).collect();
            let watch = Stopwatch::start();
            for (number, index) in indices(n, operations).enumerate() {
                if any {
                    black_box(timers[index].cancel());
                    timers[index] = set(number);
                } else {
                    black_box(set(number).cancel());
                }
            }
            watch.per(operations)
        }),
        Peer::Tokio => tokio_local(tokio_timers(n, operations, any, stopwatch)),
        _ => tokio_multi(tokio_timers(n, operations, any, stopwatch)),
    }
}

fn stopwatch() -> impl FnOnce(usize) -> Vec<f64> {
    let watch = Stopwatch::start();
    move |operations| watch.per(operations)
}

/// Figures of the watch that `start` starts and whose answer stops it.
pub(crate) async fn tokio_timers<W: FnOnce(usize) -> Vec<f64>>(
    n: usize,
    operations: usize,
    any: bool,
    start: fn() -> W,
) -> Vec<f64> {
    // A timer is set when it is first polled, and cancelled when it is dropped. Unconstrained, because tokio lets
    // a task poll no more than 128 of them in a row.
    let all = std::future::poll_fn(|context| {
        let mut set = |number| {
            let mut timer = Box::pin(tokio::time::sleep(duration(number)));
            let _ = black_box(timer.as_mut().poll(context));
            timer
        };
        let mut timers: Vec<_> = (0..n).map(&mut set).collect();
        let stop = start();
        for (number, index) in indices(n, operations).enumerate() {
            if any {
                timers[index] = set(number);
            } else {
                drop(set(number));
            }
        }
        Poll::Ready(stop(operations))
    });
    tokio::task::unconstrained(all).await
}
