//! Ending fibers that wait.

use std::hint::black_box;
use std::time::Duration;

use super::{Figure, Kind, Load, Peer, Scenario, Size, Stopwatch, tokio_local, tokio_multi};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "kill",
    title: "Killing",
    story: "A fiber that sleeps is killed and joined. One is woken from one call, the other from within ten \
            nested calls with a destructor each. A fiber unwinds through its frames, a future is dropped. A \
            coroutine of may can only be cancelled by unsafe code, a goroutine not at all.",
    figures: &[Figure::less("ns per kill", 0)],
    sizes: &[
        Size::new("1 frame", 1, 200_000),
        Size::new("10 frames with destructors", 10, 200_000),
    ],
    peers: &[Peer::Warren, Peer::Tokio, Peer::TokioMulti, Peer::Gevent],
    kind: Kind::OneCore(run),
};

/// So many at once: their making is not measured.
const BATCH: usize = 1_000;
const LONG: Duration = Duration::from_secs(3_600);

/// A destructor that does a little.
struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        black_box(self);
    }
}

#[inline(never)]
fn sleep_within(frames: usize) {
    let _guard = Guard;
    if frames > 1 {
        sleep_within(black_box(frames - 1));
    } else {
        warren_hub::sleep(LONG);
    }
    black_box(());
}

async fn tokio_sleep_within(frames: usize) {
    let _guard = Guard;
    if frames > 1 {
        Box::pin(tokio_sleep_within(frames - 1)).await;
    } else {
        tokio::time::sleep(LONG).await;
    }
}

fn run(peer: Peer, Load { n, operations }: Load) -> Vec<f64> {
    let rounds = operations.div_ceil(BATCH);
    match peer {
        Peer::Warren => warren_hub::run(move || {
            let mut spent = Duration::ZERO;
            for _ in 0..rounds {
                let fibers: Vec<_> =
                    (0..BATCH).map(|_| warren_hub::spawn(move || sleep_within(n))).collect();
                warren_hub::yield_now();
                let watch = Stopwatch::start();
                for fiber in fibers {
                    fiber.kill();
                    black_box(fiber.join().is_err());
                }
                spent += watch.elapsed();
            }
            per_kill(spent, rounds)
        }),
        Peer::Tokio => tokio_local(async move {
            let mut spent = Duration::ZERO;
            for _ in 0..rounds {
                let spawn = |_| tokio::task::spawn_local(tokio_sleep_within(n));
                let tasks = (0..BATCH).map(spawn).collect();
                tokio::task::yield_now().await;
                spent += tokio_kill(tasks).await;
            }
            per_kill(spent, rounds)
        }),
        _ => tokio_multi(async move {
            let mut spent = Duration::ZERO;
            for _ in 0..rounds {
                let tasks = (0..BATCH).map(|_| tokio::spawn(tokio_sleep_within(n))).collect();
                tokio::task::yield_now().await;
                spent += tokio_kill(tasks).await;
            }
            per_kill(spent, rounds)
        }),
    }
}

async fn tokio_kill(tasks: Vec<tokio::task::JoinHandle<()>>) -> Duration {
    let watch = Stopwatch::start();
    for task in tasks {
        task.abort();
        black_box(task.await.is_err());
    }
    watch.elapsed()
}

fn per_kill(spent: Duration, rounds: usize) -> Vec<f64> {
    vec![spent.as_nanos() as f64 / (rounds * BATCH) as f64]
}
