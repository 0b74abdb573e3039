//! Fibers that do nothing but let the next one run.

use super::{
    Figure, Kind, Load, Peer, Scenario, Size, Stopwatch, join_all, may_with, tokio_local,
    tokio_multi,
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "yield",
    title: "Yielding",
    story: "So many fibers, each of which lets the others run, again and again. One operation is one yield of one \
            fiber. With 10,000 fibers the stacks no longer fit the processor's caches: a future without a stack \
            has less to touch.",
    figures: &[Figure::less("ns per yield", 0)],
    sizes: &[
        Size::new("2 fibers", 2, 2_000_000),
        Size::new("1,000 fibers", 1_000, 2_000_000),
        Size::new("10,000 fibers", 10_000, 5_000_000),
    ],
    peers: &[Peer::Warren, Peer::Tokio, Peer::TokioMulti, Peer::May, Peer::Gevent, Peer::Go],
    kind: Kind::OneCore(run),
};

fn run(peer: Peer, Load { n, operations }: Load) -> Vec<f64> {
    let each = operations / n;
    match peer {
        Peer::Warren => warren_hub::run(move || {
            let watch = Stopwatch::start();
            warren_hub::join_all((0..n).map(|_| {
                warren_hub::spawn(move || (0..each).for_each(|_| warren_hub::yield_now()))
            }));
            watch.per(each * n)
        }),
        Peer::Tokio => tokio_local(async move {
            let watch = Stopwatch::start();
            let tasks = (0..n).map(|_| tokio::task::spawn_local(tokio_yields(each)));
            join_all(tasks.collect()).await;
            watch.per(each * n)
        }),
        Peer::TokioMulti => tokio_multi(async move {
            let watch = Stopwatch::start();
            join_all((0..n).map(|_| tokio::spawn(tokio_yields(each))).collect()).await;
            watch.per(each * n)
        }),
        _ => may_with(1, move || {
            let watch = Stopwatch::start();
            let yields = move || (0..each).for_each(|_| may::coroutine::yield_now());
            let fibers: Vec<_> = (0..n).map(|_| may::go!(yields)).collect();
            for fiber in fibers {
                fiber.join().expect("no panic");
            }
            watch.per(each * n)
        }),
    }
}

async fn tokio_yields(count: usize) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}
