//! Values from fiber to fiber on one thread.

use std::hint::black_box;
use std::rc::Rc;

use super::{
    Figure, Kind, Load, Peer, Scenario, Size, Stopwatch, may_with, tokio_local, tokio_multi,
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "channels",
    title: "Queues between fibers",
    story: "Two fibers of one thread. Either a number goes to and fro over two queues that hold one item each, so \
            that each hop is a wake-up and a switch; or a stream of numbers goes through one queue that holds 128. \
            One operation is one number put and got. may's queues are not bounded.",
    figures: &[Figure::less("ns per hop", 0)],
    sizes: &[
        Size::new("to and fro", TO_AND_FRO, 1_000_000),
        Size::new("stream", STREAM, 5_000_000),
    ],
    peers: &[Peer::Warren, Peer::Tokio, Peer::TokioMulti, Peer::May, Peer::Gevent, Peer::Go],
    kind: Kind::OneCore(run),
};

const TO_AND_FRO: usize = 0;
const STREAM: usize = 1;
/// Items that a stream's queue holds.
pub(super) const STREAM_ROOM: usize = 128;

fn run(peer: Peer, Load { n, operations }: Load) -> Vec<f64> {
    match (peer, n) {
        (Peer::Warren, TO_AND_FRO) => warren_hub::run(move || {
            let there = Rc::new(warren_hub::sync::Queue::bounded(1));
            let back = Rc::new(warren_hub::sync::Queue::bounded(1));
            let (from, to) = (there.clone(), back.clone());
            warren_hub::spawn(move || {
                while let Ok(number) = from.get() {
                    if to.put(number).is_err() {
                        break;
                    }
                }
            });
            let watch = Stopwatch::start();
            for number in 0..operations / 2 {
                there.put(number).expect("open");
                black_box(back.get().expect("open"));
            }
            watch.per(operations)
        }),
        (Peer::Warren, _) => warren_hub::run(move || {
            let queue = Rc::new(warren_hub::sync::Queue::bounded(STREAM_ROOM));
            let to = queue.clone();
            let watch = Stopwatch::start();
            warren_hub::spawn(move || {
                (0..operations).for_each(|number| to.put(number).expect("open"));
            });
            for _ in 0..operations {
                black_box(queue.get().expect("open"));
            }
            watch.per(operations)
        }),
        (Peer::Tokio, TO_AND_FRO) => tokio_local(async move {
            let (there, from) = tokio::sync::mpsc::channel(1);
            let (to, back) = tokio::sync::mpsc::channel(1);
            tokio::task::spawn_local(tokio_echo(from, to));
            tokio_play(there, back, operations).await
        }),
        (Peer::Tokio, _) => tokio_local(async move {
            let (to, from) = tokio::sync::mpsc::channel(STREAM_ROOM);
            let watch = Stopwatch::start();
            tokio::task::spawn_local(tokio_put(to, operations));
            tokio_get(from).await;
            watch.per(operations)
        }),
        (Peer::TokioMulti, TO_AND_FRO) => tokio_multi(async move {
            let (there, from) = tokio::sync::mpsc::channel(1);
            let (to, back) = tokio::sync::mpsc::channel(1);
            tokio::spawn(tokio_echo(from, to));
            tokio_play(there, back, operations).await
        }),
        (Peer::TokioMulti, _) => tokio_multi(async move {
            let (to, from) = tokio::sync::mpsc::channel(STREAM_ROOM);
            let watch = Stopwatch::start();
            tokio::spawn(tokio_put(to, operations));
            tokio_get(from).await;
            watch.per(operations)
        }),
        (_, TO_AND_FRO) => may_with(1, move || may_to_and_fro(operations)),
        _ => may_with(1, move || may_stream(operations)),
    }
}

pub(super) async fn tokio_echo(
    mut from: tokio::sync::mpsc::Receiver<usize>,
    to: tokio::sync::mpsc::Sender<usize>,
) {
    while let Some(number) = from.recv().await {
        if to.send(number).await.is_err() {
            break;
        }
    }
}

pub(super) async fn tokio_play(
    there: tokio::sync::mpsc::Sender<usize>,
    mut back: tokio::sync::mpsc::Receiver<usize>,
    operations: usize,
) -> Vec<f64> {
    let watch = Stopwatch::start();
    for number in 0..operations / 2 {
        there.send(number).await.expect("open");
        black_box(back.recv().await.expect("open"));
    }
    watch.per(operations)
}

pub(super) async fn tokio_put(to: tokio::sync::mpsc::Sender<usize>, count: usize) {
    for number in 0..count {
        to.send(number).await.expect("open");
    }
}

pub(super) async fn tokio_get(mut from: tokio::sync::mpsc::Receiver<usize>) {
    while let Some(number) = from.recv().await {
        black_box(number);
    }
}

pub(super) fn may_to_and_fro(operations: usize) -> Vec<f64> {
    let (there, from) = may::sync::spsc::channel();
    let (to, back) = may::sync::spsc::channel();
    may::go!(move || {
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
    watch.per(operations)
}

pub(super) fn may_stream(operations: usize) -> Vec<f64> {
    let (to, from) = may::sync::spsc::channel();
    let watch = Stopwatch::start();
    may::go!(move || {
        (0..operations).for_each(|number| to.send(number).expect("open"));
    });
    for _ in 0..operations {
        black_box(from.recv().expect("open"));
    }
    watch.per(operations)
}
