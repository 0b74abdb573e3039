//! Fibers that begin and end.

use std::hint::black_box;

use super::{
    Figure, Kind, Load, Peer, Scenario, Size, Stopwatch, join_all, may_with, tokio_local,
    tokio_multi,
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "spawn",
    title: "Spawning and joining",
    story: "A fiber that returns a number, spawned and joined: one after the other, or a thousand spawned and then \
            a thousand joined. One operation is one fiber.",
    figures: &[Figure::less("ns per fiber", 0)],
    sizes: &[
        Size::new("one at a time", 1, 1_000_000),
        Size::new("1,000 at a time", 1_000, 1_000_000),
    ],
    peers: &[Peer::Warren, Peer::Tokio, Peer::TokioMulti, Peer::May, Peer::Gevent, Peer::Go],
    kind: Kind::OneCore(run),
};

fn run(peer: Peer, Load { n, operations }: Load) -> Vec<f64> {
    let rounds = operations / n;
    match peer {
        Peer::Warren => warren_hub::run(move || {
            let watch = Stopwatch::start();
            for _ in 0..rounds {
                if n == 1 {
                    black_box(warren_hub::spawn(|| 1).join().expect("no panic"));
                } else {
                    black_box(warren_hub::join_all((0..n).map(|_| warren_hub::spawn(|| 1))));
                }
            }
            watch.per(rounds * n)
        }),
        Peer::Tokio => tokio_local(async move {
            let watch = Stopwatch::start();
            for _ in 0..rounds {
                join_all((0..n).map(|_| tokio::task::spawn_local(async { 1 })).collect()).await;
            }
            watch.per(rounds * n)
        }),
        Peer::TokioMulti => tokio_multi(async move {
            let watch = Stopwatch::start();
            for _ in 0..rounds {
                join_all((0..n).map(|_| tokio::spawn(async { 1 })).collect()).await;
            }
            watch.per(rounds * n)
        }),
        _ => may_with(1, move || {
            let watch = Stopwatch::start();
            for _ in 0..rounds {
                let fibers: Vec<_> = (0..n).map(|_| may::go!(|| 1)).collect();
                for fiber in fibers {
                    black_box(fiber.join().expect("no panic"));
                }
            }
            watch.per(rounds * n)
        }),
    }
}
