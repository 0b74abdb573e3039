//! From one thread to another and back.

use std::hint::black_box;
use std::thread;

use warren_hub::{HubGroup, channel};

use super::channels::{
    STREAM_ROOM, may_stream, may_to_and_fro, tokio_echo, tokio_get, tokio_play, tokio_put,
};
use super::{
    Figure, Kind, Load, Peer, Scenario, Size, Stopwatch, join_all, may_with, tokio_local,
    tokio_multi,
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "hubs",
    title: "Between threads",
    story: "Two threads, a core each. A call starts a fiber on the other hub, which returns a number, and waits for \
            it: one after the other, so that each call wakes two threads, or a hundred at the same time. A number \
            goes to and fro between a fiber here and one there over two channels that hold one item each, or a \
            stream goes there through one that holds 128. tokio's current thread is two runtimes on two threads; \
            tokio's multi thread, may and Go choose the thread themselves, and often stay on the same.",
    figures: &[Figure::less("ns per call or hop", 0)],
    sizes: &[
        Size::new("calls, one at a time", CALL, 50_000),
        Size::new("calls, 100 at a time", CALLS, 500_000),
        Size::new("to and fro", TO_AND_FRO, 100_000),
        Size::new("stream", STREAM, 2_000_000),
    ],
    peers: &[Peer::Warren, Peer::Tokio, Peer::TokioMulti, Peer::May, Peer::Go],
    kind: Kind::AllCores(run),
};

const CALL: usize = 0;
const CALLS: usize = 1;
const TO_AND_FRO: usize = 2;
const STREAM: usize = 3;

fn run(peer: Peer, Load { n, operations }: Load) -> Vec<f64> {
    match peer {
        Peer::Warren => warren_hub::run(move || {
            let other = HubGroup::start(1).expect("a hub");
            let figures = warren(&other, n, operations);
            other.shutdown();
            figures
        }),
        Peer::Tokio => tokio_two(n, operations),
        Peer::TokioMulti => tokio_multi(async move {
            let handle = tokio::runtime::Handle::current();
            tokio_case(handle, n, operations).await
        }),
        _ => may_with(2, move || match n {
            TO_AND_FRO => may_to_and_fro(operations),
            STREAM => may_stream(operations),
            _ => may_calls(batch(n), operations),
        }),
    }
}

/// Calls at the same time.
fn batch(n: usize) -> usize {
    if n == CALL { 1 } else { 100 }
}

fn warren(other: &HubGroup, n: usize, operations: usize) -> Vec<f64> {
    match n {
        TO_AND_FRO => {
            let ((there, from), (to, back)) = (channel(1), channel(1));
            let echo = other.spawn_on(0, move || {
                while let Ok(number) = from.recv() {
                    if to.send(number).is_err() {
                        break;
                    }
                }
            });
            let watch = Stopwatch::start();
            for number in 0..operations / 2 {
                there.send(number).expect("open");
                black_box(back.recv().expect("open"));
            }
            let figures = watch.per(operations);
            drop((there, echo));
            figures
        }
        STREAM => {
            let (to, from) = channel(STREAM_ROOM);
            let watch = Stopwatch::start();
            let sink = other.spawn_on(0, move || from.iter().map(black_box).count());
            (0..operations).for_each(|number| to.send(number).expect("open"));
            drop(to);
            assert_eq!(sink.expect("the hub runs").join().expect("no panic"), operations);
            watch.per(operations)
        }
        _ => {
            let (at_once, rounds) = (batch(n), operations / batch(n));
            let watch = Stopwatch::start();
            for _ in 0..rounds {
                let calls: Vec<_> = (0..at_once).map(|_| other.spawn_on(0, || 1)).collect();
                for call in calls {
                    black_box(call.expect("the hub runs").join().expect("no panic"));
                }
            }
            watch.per(rounds * at_once)
        }
    }
}

/// Here and on a runtime of another thread.
fn tokio_two(n: usize, operations: usize) -> Vec<f64> {
    let (say, handle) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let other = thread::spawn(move || {
        tokio_local(async move {
            say.send(tokio::runtime::Handle::current()).expect("it is awaited");
            let _ = stopped.await;
        });
    });
    let handle = handle.recv().expect("the thread starts");
    let figures = tokio_local(tokio_case(handle, n, operations));
    drop(stop);
    other.join().expect("no panic");
    figures
}

async fn tokio_case(other: tokio::runtime::Handle, n: usize, operations: usize) -> Vec<f64> {
    match n {
        TO_AND_FRO => {
            let (there, from) = tokio::sync::mpsc::channel(1);
            let (to, back) = tokio::sync::mpsc::channel(1);
            other.spawn(tokio_echo(from, to));
            tokio_play(there, back, operations).await
        }
        STREAM => {
            let (to, from) = tokio::sync::mpsc::channel(STREAM_ROOM);
            let watch = Stopwatch::start();
            let sink = other.spawn(tokio_get(from));
            tokio_put(to, operations).await;
            sink.await.expect("no panic");
            watch.per(operations)
        }
        _ => {
            let (at_once, rounds) = (batch(n), operations / batch(n));
            let watch = Stopwatch::start();
            for _ in 0..rounds {
                join_all((0..at_once).map(|_| other.spawn(async { 1 })).collect()).await;
            }
            watch.per(rounds * at_once)
        }
    }
}

fn may_calls(at_once: usize, operations: usize) -> Vec<f64> {
    let rounds = operations / at_once;
    let watch = Stopwatch::start();
    for _ in 0..rounds {
        let fibers: Vec<_> = (0..at_once).map(|_| may::go!(|| 1)).collect();
        for fiber in fibers {
            black_box(fiber.join().expect("no panic"));
        }
    }
    watch.per(rounds * at_once)
}
