//! Very many fibers that wait.

use std::rc::Rc;
use std::sync::Arc;

use super::{
    Figure, Kind, Load, Peer, Scenario, Size, Stopwatch, join_all, may_with, tokio_local,
    tokio_multi,
};
use crate::machine::Memory;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "parked",
    title: "Fibers that wait",
    story: "So many fibers are spawned and wait for one event; then it is set and all end. Memory is the growth of \
            the process's resident set until all wait, and of the kernel's page tables for it. A fiber has a stack, \
            of which it uses a page; a future has only what it needs. may's stacks are a mapping each, with a guard \
            page of its own, and the kernel's limit of mappings ends it before 32,750 fibers.",
    figures: &[
        Figure::less("KiB resident per fiber", 2),
        Figure { plot: false, ..Figure::less("bytes of page tables per fiber", 0) },
        Figure::less("ns to create one and let it wait", 0),
        Figure { plot: false, ..Figure::less("ns to wake one and let it end", 0) },
    ],
    sizes: &[
        Size::new("10,000 fibers", 10_000, 1),
        Size::new("100,000 fibers", 100_000, 1),
        Size::new("1,000,000 fibers", 1_000_000, 1),
    ],
    peers: &[Peer::Warren, Peer::Tokio, Peer::TokioMulti, Peer::May, Peer::Gevent, Peer::Go],
    kind: Kind::OneCore(run),
};

/// Where may's stacks reach the kernel's limit of mappings: `vm.max_map_count` of 65,530, two each.
const MAY_MAX: usize = 32_000;

struct Census {
    n: usize,
    before: Memory,
    watch: Stopwatch,
}

impl Census {
    fn begin(n: usize) -> Self {
        Self { n, before: Memory::of("self"), watch: Stopwatch::start() }
    }

    /// When all wait: wakes them and measures that too.
    fn all_wait(&self) -> (Vec<f64>, Stopwatch) {
        let create = self.watch.per(self.n);
        let now = Memory::of("self");
        let each = |now: f64, before: f64| (now - before) / self.n as f64;
        let resident = each(now.resident_bytes, self.before.resident_bytes) / 1024.0;
        let tables = each(now.page_table_bytes, self.before.page_table_bytes);
        (vec![resident, tables, create[0]], Stopwatch::start())
    }
}

fn run(peer: Peer, Load { n, .. }: Load) -> Vec<f64> {
    match peer {
        Peer::Warren => warren_hub::run(move || {
            let go = Rc::new(warren_hub::sync::Event::new());
            // Room for the handles first: they are the scenario's, not the fibers'.
            let mut fibers = Vec::with_capacity(n);
            let census = Census::begin(n);
            fibers.extend((0..n).map(|_| {
                let go = go.clone();
                warren_hub::spawn(move || {
                    go.wait();
                })
            }));
            warren_hub::yield_now();
            let (mut figures, watch) = census.all_wait();
            go.set();
            warren_hub::join_all(fibers);
            figures.extend(watch.per(n));
            figures
        }),
        Peer::Tokio => tokio_local(async move {
            let go = Rc::new(tokio::sync::Notify::new());
            let mut tasks = Vec::with_capacity(n);
            let census = Census::begin(n);
            tasks.extend((0..n).map(|_| {
                let go = go.clone();
                tokio::task::spawn_local(async move { go.notified().await })
            }));
            // The last one spawned is the last one to run.
            tokio::task::spawn_local(async {}).await.expect("no panic");
            let (mut figures, watch) = census.all_wait();
            go.notify_waiters();
            join_all(tasks).await;
            figures.extend(watch.per(n));
            figures
        }),
        Peer::TokioMulti => tokio_multi(async move {
            let go = Arc::new(tokio::sync::Semaphore::new(0));
            let waiting = Arc::new(tokio::sync::Barrier::new(1));
            let mut tasks = Vec::with_capacity(n);
            let census = Census::begin(n);
            tasks.extend((0..n).map(|_| {
                let go = go.clone();
                tokio::spawn(async move { drop(go.acquire().await) })
            }));
            waiting.wait().await;
            tokio::spawn(async {}).await.expect("no panic");
            let (mut figures, watch) = census.all_wait();
            go.close();
            join_all(tasks).await;
            figures.extend(watch.per(n));
            figures
        }),
        _ if n > MAY_MAX => Vec::new(),
        _ => may_with(1, move || {
            let go = Arc::new(may::sync::SyncFlag::new());
            let mut fibers = Vec::with_capacity(n);
            let census = Census::begin(n);
            fibers.extend((0..n).map(|_| {
                let go = go.clone();
                may::go!(move || go.wait())
            }));
            may::go!(|| ()).join().expect("no panic");
            let (mut figures, watch) = census.all_wait();
            go.fire();
            for fiber in fibers {
                fiber.join().expect("no panic");
            }
            figures.extend(watch.per(n));
            figures
        }),
    }
}
