//! One stack to another and back, without a scheduler.

use std::cell::OnceCell;
use std::hint::black_box;
use std::rc::Rc;

use corosensei::Coroutine;
use warren_fiber::{Generator, Greenlet};

use super::{Figure, Kind, Load, Peer, Scenario, Size, Stopwatch};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "switch",
    title: "Switching stacks",
    story: "One round trip: into a generator and back with a value; from the root into a greenlet and back; \
            between two greenlets. No scheduler, no event loop. Python's own generators have no stack.",
    figures: &[Figure::less("ns per round trip", 1)],
    sizes: &[
        Size::new("generator: next", GENERATOR, 20_000_000),
        Size::new("greenlet: switch to it and back", ROOT, 20_000_000),
        Size::new("greenlet: two in turn", PAIR, 10_000_000),
    ],
    peers: &[Peer::Warren, Peer::Corosensei, Peer::Gevent],
    kind: Kind::OneCore(run),
};

const GENERATOR: usize = 0;
const ROOT: usize = 1;
const PAIR: usize = 2;

fn run(peer: Peer, Load { n, operations }: Load) -> Vec<f64> {
    match (peer, n) {
        (Peer::Warren, GENERATOR) => {
            let mut numbers = Generator::<usize>::new(|generator| {
                for number in 0.. {
                    generator.yield_(number);
                }
            });
            let watch = Stopwatch::start();
            for _ in 0..operations {
                black_box(numbers.next());
            }
            watch.per(operations)
        }
        (Peer::Warren, ROOT) => {
            let pong = Greenlet::new(|mut number: usize| {
                loop {
                    number = Greenlet::parent_switch(number);
                }
            });
            let watch = Stopwatch::start();
            for number in 0..operations {
                black_box(pong.switch(number));
            }
            watch.per(operations)
        }
        (Peer::Warren, _) => {
            // Each has to know the other.
            let ping = Rc::new(OnceCell::<Greenlet<usize>>::new());
            let back = ping.clone();
            let pong = Greenlet::new(move |mut number: usize| {
                let ping = back.get().expect("set below");
                loop {
                    number = ping.switch(number);
                }
            });
            let own = ping.get_or_init(|| {
                Greenlet::new(move |_| {
                    for number in 0..operations {
                        black_box(pong.switch(number));
                    }
                    0
                })
            });
            let watch = Stopwatch::start();
            own.switch(0);
            let figures = watch.per(operations);
            // The endless one keeps both alive.
            std::mem::forget(ping);
            figures
        }
        (_, GENERATOR | ROOT) => {
            let mut coroutine = Coroutine::<usize, usize, ()>::new(|yielder, mut number| {
                loop {
                    number = yielder.suspend(number);
                }
            });
            let watch = Stopwatch::start();
            for number in 0..operations {
                black_box(coroutine.resume(number));
            }
            let figures = watch.per(operations);
            // Endless: it is not unwound, the process ends.
            std::mem::forget(coroutine);
            figures
        }
        _ => Vec::new(),
    }
}
