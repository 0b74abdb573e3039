//! Work on other threads.

use std::hint::black_box;

use super::{Figure, Kind, Load, Peer, Scenario, Size, Stopwatch, tokio_local, tokio_multi};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "offload",
    title: "Work on another thread",
    story: "A job that returns a number goes to the pool of threads, and its result comes back: one after the other, \
            so each trip wakes two threads; or from a hundred fibers at once. Go has no such pool: its own threads \
            may block.",
    figures: &[Figure::less("ns per job", 0)],
    sizes: &[Size::new("one at a time", 1, 50_000), Size::new("100 at a time", 100, 200_000)],
    peers: &[Peer::Warren, Peer::Tokio, Peer::TokioMulti, Peer::Gevent],
    kind: Kind::AllCores(run),
};

fn run(peer: Peer, Load { n, operations }: Load) -> Vec<f64> {
    let each = operations / n;
    match peer {
        Peer::Warren => warren_hub::run(move || {
            let watch = Stopwatch::start();
            warren_hub::join_all((0..n).map(|_| {
                warren_hub::spawn(move || {
                    (0..each).for_each(|_| {
                        black_box(warren_hub::offload(|| 1));
                    });
                })
            }));
            watch.per(each * n)
        }),
        Peer::Tokio => tokio_local(tokio_jobs(n, each)),
        _ => tokio_multi(tokio_jobs(n, each)),
    }
}

async fn tokio_jobs(n: usize, each: usize) -> Vec<f64> {
    let watch = Stopwatch::start();
    let tasks: Vec<_> = (0..n)
        .map(|_| {
            tokio::spawn(async move {
                for _ in 0..each {
                    black_box(tokio::task::spawn_blocking(|| 1).await.expect("no panic"));
                }
            })
        })
        .collect();
    super::join_all(tasks).await;
    watch.per(each * n)
}
