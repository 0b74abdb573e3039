//! Hubs and other threads: handles, groups, blocking calls, signals.

mod support;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use support::run;
use warren_hub::signal::{Signal, on_signals};
use warren_hub::sync::{Event, Queue};
use warren_hub::{
    HubGone, HubGroup, JoinError, handle, join_all, offload, sleep, spawn, yield_now,
};

#[test]
fn another_thread_wakes_a_sleeping_hub() {
    thread_local! {
        static QUEUE: Rc<Queue<usize>> = Rc::new(Queue::unbounded());
    }
    let sum = run(|| {
        let hub = handle();
        let thread = thread::spawn(move || {
            for n in 0..1000 {
                hub.post(move || QUEUE.with(|queue| queue.put(n).unwrap())).unwrap();
            }
        });
        let queue = QUEUE.with(Rc::clone);
        let sum: usize = (0..1000)
            .map(|expected| {
                let n = queue.get().unwrap();
                assert_eq!(n, expected);
                n
            })
            .sum();
        offload(move || thread.join().unwrap());
        sum
    });
    assert_eq!(sum, 499_500);
}

#[test]
fn a_hub_that_has_ended_takes_nothing() {
    let hub = run(handle);
    assert_eq!(hub.post(|| ()), Err(HubGone));
    assert!(hub.spawn(|| ()).is_err());
}

#[test]
fn blocking_calls_run_side_by_side_and_do_not_stop_the_hub() {
    run(|| {
        // Two calls that wait for each other on their threads, while a fiber counts on this one.
        let barrier = Arc::new(std::sync::Barrier::new(2));
        let counted = Rc::new(Cell::new(0));
        let counting = spawn({
            let counted = counted.clone();
            move || loop {
                counted.set(counted.get() + 1);
                yield_now();
            }
        });
        let calls = (0..2).map(|n| {
            let barrier = barrier.clone();
            spawn(move || {
                offload(move || {
                    barrier.wait();
                    n
                })
            })
        });
        let results: Vec<i32> = join_all(calls).into_iter().map(Result::unwrap).collect();
        assert_eq!(results, [0, 1]);
        assert!(counted.get() > 0);
        counting.kill();
    });
}

#[test]
fn a_panic_of_a_blocking_call_is_its_callers() {
    run(|| {
        let caller = spawn(|| offload(|| -> u32 { panic!("over there") }));
        assert_eq!(caller.join().unwrap_err().message(), Some("over there"));
    });
}

#[test]
fn a_killed_caller_does_not_wait_for_its_call() {
    run(|| {
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let caller = spawn(move || offload(move || gate.recv().is_ok()));
        yield_now();
        caller.kill();
        assert!(matches!(caller.join(), Err(JoinError::Killed)));
        drop(release);
    });
}

#[test]
fn fibers_of_a_group_run_on_their_own_threads() {
    let group = HubGroup::start(3).unwrap();
    let joins: Vec<_> = (0..3)
        .map(|n| {
            group.spawn_on(n, || {
                sleep(Duration::from_millis(1));
                thread::current().id()
            })
        })
        .collect();
    let mut threads: Vec<_> = joins.into_iter().map(|join| join.unwrap().join().unwrap()).collect();
    threads.dedup();
    assert_eq!(threads.len(), 3);
    let panicking = group.spawn_on(1, || panic!("on hub one")).unwrap();
    assert_eq!(panicking.join().unwrap_err().message(), Some("on hub one"));
    let handle = group.handle(0).clone();
    // A fiber of this thread's hub waits for one of the group's.
    let answer = run(move || {
        let remote = handle
            .spawn(|| {
                sleep(Duration::from_millis(1));
                42
            })
            .unwrap();
        remote.join().unwrap()
    });
    assert_eq!(answer, 42);
    group.shutdown();
}

#[test]
fn shutting_a_group_down_kills_its_fibers() {
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let group = HubGroup::start(2).unwrap();
    let joins: Vec<_> = (0..2)
        .map(|n| {
            let counted = Counted(dropped.clone());
            group
                .spawn_on(n, move || {
                    let _counted = counted;
                    Event::new().wait()
                })
                .unwrap()
        })
        .collect();
    group.shutdown();
    assert_eq!(dropped.load(Ordering::SeqCst), 2);
    for join in joins {
        assert!(matches!(join.join(), Err(JoinError::Killed)));
    }
}

#[test]
fn signals_are_told_on_the_loop() {
    run(|| {
        let told = Rc::new(Queue::unbounded());
        let watch = on_signals(&[Signal::USR1, Signal::USR2], {
            let told = told.clone();
            move |signal| told.put(signal).unwrap()
        })
        .unwrap();
        for signal in [Signal::USR2, Signal::USR1] {
            rustix::process::kill_process(rustix::process::getpid(), signal).unwrap();
            assert_eq!(told.get(), Ok(signal));
        }
        drop(watch);
    });
}

#[test]
fn hubs_of_a_group_may_be_pinned_each_to_a_core() {
    let group = HubGroup::pinned().unwrap();
    let cores: Vec<usize> = (0..group.len())
        .map(|n| group.spawn_on(n, rustix::thread::sched_getcpu).unwrap().join().unwrap())
        .collect();
    let distinct: std::collections::BTreeSet<&usize> = cores.iter().collect();
    assert_eq!(distinct.len(), group.len());
    let infos = group.run_info();
    assert_eq!(infos.len(), group.len());
    assert!(infos.iter().all(|info| info.fibers.iter().any(|fiber| fiber.state == "runs")));
    group.shutdown();
    let refused = HubGroup::start_with(1, |_| warren_hub::Options::new().pin_to(1 << 20));
    assert!(refused.is_err());
}
