//! Deferreds.

use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;

use warren_reactor::Deferred;

use super::{Figure, Kind, Load, PEERS, Peer, ProcessorWatch, Scenario, Size, tokio_local};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "deferred",
    title: "Deferred: a chain of callbacks",
    story: "A Deferred is made, so many callbacks are added, each of which adds one to what it is given, and it is \
            fired. One operation is one callback. tokio has no callbacks: for scale, a `oneshot` channel and a chain \
            of boxed futures, each of which awaits the one before, in a task that waits when it is fired. asyncio's future calls its \
            callbacks at the next turn of the loop.",
    figures: &[Figure::more("callbacks per CPU second")],
    sizes: &[
        Size::new("1 callback", 1, 4_000_000),
        Size::new("10 callbacks", 10, 10_000_000),
        Size::new("100 callbacks", 100, 10_000_000),
    ],
    peers: PEERS,
    kind: Kind::OneCore(run),
};

fn run(peer: Peer, Load { n, operations }: Load) -> Vec<f64> {
    let chains = operations.div_ceil(n);
    if peer == Peer::Tokio {
        return tokio_local(async move {
            let watch = ProcessorWatch::start();
            for _ in 0..chains {
                let (sender, receiver) = tokio::sync::oneshot::channel();
                let mut chain: Pin<Box<dyn Future<Output = usize>>> =
                    Box::pin(async { receiver.await.expect("a sender") });
                for _ in 0..n {
                    chain = Box::pin(async move { chain.await + black_box(1) });
                }
                // The chain waits first, as the callbacks do.
                let (sum, sent) = tokio::join!(chain, async move { sender.send(0) });
                assert_eq!((sum, sent), (n, Ok(())));
            }
            watch.per_second(chains * n)
        });
    }
    warren_hub::run(move || {
        let watch = ProcessorWatch::start();
        for _ in 0..chains {
            let (mut deferred, resolver) = Deferred::<usize>::pending();
            for _ in 0..n {
                deferred = deferred.add_callback(|number| Ok(number + black_box(1)));
            }
            resolver.callback(0);
            assert_eq!(deferred.wait().expect("a value"), n);
        }
        watch.per_second(chains * n)
    })
}
