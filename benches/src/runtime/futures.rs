//! Futures that a fiber waits for.

use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::{Figure, Kind, Load, Peer, Scenario, Size, Stopwatch, tokio_local, tokio_multi};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "future",
    title: "Waiting for a future",
    story: "A fiber waits for a future as a task awaits it: one that is ready, or one that is not at first and wakes \
            its waker at once, so that the waiter is parked and woken. Awaiting a ready future is no operation at \
            all for a task, a call for a fiber.",
    figures: &[Figure::less("ns per future", 1)],
    sizes: &[Size::new("ready", READY, 10_000_000), Size::new("woken once", WOKEN, 2_000_000)],
    peers: &[Peer::Warren, Peer::Tokio, Peer::TokioMulti],
    kind: Kind::OneCore(run),
};

const READY: usize = 0;
const WOKEN: usize = 1;

/// Ready when it is polled for the second time.
struct Woken(bool);

impl Future for Woken {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

fn run(peer: Peer, Load { n, operations }: Load) -> Vec<f64> {
    match peer {
        Peer::Warren => warren_hub::run(move || {
            let watch = Stopwatch::start();
            for number in 0..operations {
                if n == READY {
                    black_box(warren_hub::future::wait(std::future::ready(black_box(number))));
                } else {
                    warren_hub::future::wait(Woken(false));
                }
            }
            watch.per(operations)
        }),
        Peer::Tokio => tokio_local(async move {
            // As a task: what `block_on` runs itself is woken in another way.
            tokio::task::spawn_local(tokio_waits(n, operations)).await.expect("no panic")
        }),
        _ => tokio_multi(tokio_waits(n, operations)),
    }
}

async fn tokio_waits(n: usize, operations: usize) -> Vec<f64> {
    let watch = Stopwatch::start();
    for number in 0..operations {
        if n == READY {
            black_box(std::future::ready(black_box(number)).await);
        } else {
            Woken(false).await;
        }
    }
    watch.per(operations)
}
