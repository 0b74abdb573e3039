//! Pools of threads.

mod support;

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use support::run;
use warren_hub::{JoinError, ThreadPool, TimedOut, spawn, yield_now};

#[test]
fn jobs_run_on_threads_while_fibers_go_on() {
    run(|| {
        let pool = ThreadPool::new(2);
        // Two jobs that wait for each other, and then for a fiber of this hub.
        let barrier = Arc::new(Barrier::new(2));
        let (release, gate) = mpsc::channel();
        let first = pool.spawn({
            let barrier = barrier.clone();
            move || {
                barrier.wait();
                gate.recv().unwrap()
            }
        });
        let second = pool.spawn(move || {
            barrier.wait();
            thread::current().id()
        });
        let Err(first) = first.join_timeout(Duration::from_millis(1)) else { panic!("it waits") };
        let waiting = spawn(|| {
            assert!(first.wait_timeout(Duration::from_secs(60)));
            first.join_timeout(Duration::ZERO).unwrap().unwrap()
        });
        assert_ne!(second.join().unwrap(), thread::current().id());
        yield_now();
        assert!(!waiting.is_finished());
        release.send(7).unwrap();
        assert_eq!(waiting.join().unwrap(), 7);
        pool.join();
        assert!(pool.is_empty() && pool.threads() <= 2);
    });
}

#[test]
fn no_more_threads_than_said() {
    let pool = ThreadPool::new(3);
    let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let threads = pool.map(
        {
            let most = most.clone();
            move |_| {
                most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(1));
                inside.fetch_sub(1, Ordering::SeqCst);
                thread::current().id()
            }
        },
        0..30,
    );
    assert!(most.load(Ordering::SeqCst) <= 3);
    assert!(threads.into_iter().collect::<HashSet<_>>().len() <= 3);
}

#[test]
fn a_pool_can_be_made_larger_and_smaller() {
    let pool = ThreadPool::new(1);
    let (release, gate) = mpsc::channel::<()>();
    let gate = Arc::new(std::sync::Mutex::new(gate));
    let (started, has_started) = mpsc::channel();
    let spawn = |n: u32| {
        let (gate, started) = (gate.clone(), started.clone());
        pool.spawn(move || {
            started.send(n).unwrap();
            drop(gate.lock().map(|gate| gate.recv()));
        })
    };
    let jobs: Vec<_> = (0..3).map(spawn).collect();
    assert_eq!(has_started.recv(), Ok(0));
    assert_eq!((pool.threads(), pool.threads_max()), (1, 1));
    // Those that wait already begin.
    pool.set_threads_max(3);
    let mut others = [has_started.recv().unwrap(), has_started.recv().unwrap()];
    others.sort_unstable();
    assert_eq!((others, pool.threads()), ([1, 2], 3));
    pool.set_threads_max(1);
    drop(release);
    jobs.into_iter().for_each(|job| job.join().unwrap());
    // Two of the threads end, by themselves.
    while pool.threads() > 1 {
        thread::yield_now();
    }
    assert_eq!(pool.apply(|| 7), 7);
    assert_eq!(pool.threads(), 1);
}

#[test]
fn results_keep_the_order_of_the_items_and_panics_reach_the_caller() {
    run(|| {
        let pool = ThreadPool::new(4);
        assert_eq!(pool.map(|n: i32| n + 1, 0..50), (1..=50).collect::<Vec<_>>());
        assert_eq!(pool.apply(|| "applied"), "applied");
        let applying = spawn({
            let pool = pool.clone();
            move || pool.apply(|| -> () { panic!("over there") })
        });
        assert_eq!(applying.join().unwrap_err().message(), Some("over there"));
        let mapping = spawn({
            let pool = pool.clone();
            move || pool.map(|n| assert_ne!(n, 1, "at one"), 0..3)
        });
        assert!(mapping.join().unwrap_err().message().unwrap().contains("at one"));
        // The thread lives on.
        assert_eq!(pool.apply(|| 1), 1);
    });
}

#[test]
fn a_pool_that_is_killed_drops_the_jobs_that_wait() {
    for drop_it in [true, false] {
        let pool = ThreadPool::new(1);
        let (release, gate) = mpsc::channel::<()>();
        let (started, has_started) = mpsc::channel();
        let running = pool.spawn(move || {
            started.send(()).unwrap();
            gate.recv().is_err()
        });
        has_started.recv().unwrap();
        let waiting = pool.spawn(|| ());
        assert_eq!(pool.len(), 2);
        assert_eq!(pool.join_timeout(Duration::from_millis(1)), Err(TimedOut));
        if drop_it {
            drop(pool);
        } else {
            pool.kill();
            let refused = pool.spawn(|| ());
            assert!(matches!(refused.join(), Err(JoinError::Killed)));
        }
        assert!(matches!(waiting.join(), Err(JoinError::Killed)));
        drop(release);
        assert!(running.join().unwrap());
    }
}

#[test]
fn a_fiber_that_is_killed_does_not_wait_for_its_job() {
    run(|| {
        let pool = ThreadPool::new(1);
        let (release, gate) = mpsc::channel::<()>();
        let caller = spawn({
            let pool = pool.clone();
            move || pool.apply(move || gate.recv().is_err())
        });
        yield_now();
        caller.kill();
        assert!(matches!(caller.join(), Err(JoinError::Killed)));
        drop(release);
        pool.join();
    });
}
