//! Calls from threads into the loop, and jobs on threads.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use warren_hub::sync::Event;
use warren_hub::{ThreadPool, call_soon, hub_local, run, spawn};
use warren_reactor::{
    AnyError, Deferred, Failure, Resolver, call_from_thread, call_in_thread,
    call_multiple_in_thread, defer_to_thread, defer_to_thread_pool, reactor_handle,
    suggest_thread_pool_size, thread_pool,
};

/// Runs `body` on a thread of its own while the hub turns, and gives its result.
fn elsewhere<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    ThreadPool::new(1).apply(body)
}

#[test]
fn calls_of_one_thread_come_in_order_on_the_loop() {
    let order = run(|| {
        let reactor = reactor_handle();
        let seen = Arc::<Mutex<Vec<u32>>>::default();
        let into = seen.clone();
        elsewhere(move || {
            assert!(!reactor.is_here());
            for number in 0..1000 {
                let into = into.clone();
                let call = move || {
                    assert!(!warren_hub::can_wait());
                    into.lock().unwrap().push(number);
                };
                reactor.call_from_thread(call).unwrap();
            }
            // It arrives after all of them.
            reactor.blocking_call_from_thread(|| Ok::<_, Failure>(())).unwrap();
        });
        std::mem::take(&mut *seen.lock().unwrap())
    });
    assert_eq!(order, (0..1000).collect::<Vec<_>>());
}

#[test]
fn the_loop_calls_itself_later() {
    run(|| {
        let (done, seen) = (Rc::new(Event::new()), Arc::new(AtomicBool::new(false)));
        let flag = seen.clone();
        call_from_thread(move || flag.store(true, Ordering::SeqCst));
        assert!(!seen.load(Ordering::SeqCst));
        call_soon({
            let done = done.clone();
            move || done.set()
        });
        done.wait();
        warren_hub::yield_now();
        assert!(seen.load(Ordering::SeqCst));
    });
}

#[test]
fn a_panic_in_a_call_harms_nobody() {
    run(|| {
        let reactor = reactor_handle();
        elsewhere(move || {
            reactor.call_from_thread(|| panic!("expected by a test")).unwrap();
            let failed = reactor.blocking_call_from_thread(|| -> Result<(), Failure> {
                panic!("expected by a test, too")
            });
            match failed {
                Err(Failure::Panicked(panic)) => {
                    assert_eq!(panic.message(), Some("expected by a test, too"));
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(reactor.blocking_call_from_thread(|| Ok::<_, Failure>(1)).unwrap(), 1);
        });
    });
}

#[test]
fn a_blocking_call_gives_what_becomes_of_the_deferred() {
    run(|| {
        let reactor = reactor_handle();
        elsewhere(move || {
            let later = reactor.blocking_call_from_thread(|| {
                let (deferred, resolver) = Deferred::<_, AnyError>::pending();
                call_soon(|| resolver.callback("later"));
                deferred
            });
            assert_eq!(later.unwrap(), "later");
            let failed = reactor.blocking_call_from_thread(|| {
                Err::<(), _>(Failure::<AnyError>::TimedOut(Duration::from_secs(1)))
            });
            assert!(failed.unwrap_err().is_timed_out());
            let dropped =
                reactor.blocking_call_from_thread(|| Deferred::<(), AnyError>::pending().0);
            assert!(matches!(dropped, Err(Failure::Dropped)));
        });
    });
}

#[test]
fn a_fiber_of_another_hub_parks_for_a_blocking_call() {
    run(|| {
        let reactor = reactor_handle();
        let sum = elsewhere(move || {
            run(move || {
                let asking = spawn(move || {
                    reactor.blocking_call_from_thread(|| {
                        let (deferred, resolver) = Deferred::<u32, AnyError>::pending();
                        call_soon(|| resolver.callback(20));
                        deferred
                    })
                });
                let other = spawn(|| 3);
                other.join().unwrap() + asking.join().unwrap().unwrap()
            })
        });
        assert_eq!(sum, 23);
    });
}

#[test]
fn the_loops_own_thread_must_not_block() {
    let text = run(|| {
        let reactor = reactor_handle();
        let asked = spawn(move || reactor.blocking_call_from_thread(|| Ok::<_, Failure>(())));
        asked.join().unwrap_err().message().map(str::to_owned)
    });
    assert!(text.unwrap().contains("is for other threads"));
}

#[test]
fn a_hub_that_has_ended_says_so() {
    let reactor = run(reactor_handle);
    let gone = thread::spawn(move || {
        assert!(reactor.call_from_thread(|| ()).is_err());
        reactor.blocking_call_from_thread(|| Ok::<_, Failure>(()))
    });
    assert!(matches!(gone.join().unwrap(), Err(Failure::Dropped)));
}

#[test]
fn a_hub_that_ends_meanwhile_lets_the_caller_go() {
    /// What nobody resolves; it goes with the hub.
    type Held = RefCell<Vec<Resolver<()>>>;
    let (asked, is_asked) = mpsc::channel();
    let asking = run(move || {
        let reactor = reactor_handle();
        let asking = thread::spawn(move || {
            reactor.blocking_call_from_thread(move || {
                let (deferred, resolver) = Deferred::pending();
                hub_local(Held::default).borrow_mut().push(resolver);
                asked.send(()).unwrap();
                deferred
            })
        });
        while is_asked.try_recv().is_err() {
            warren_hub::yield_now();
        }
        asking
    });
    assert!(matches!(asking.join().unwrap(), Err(Failure::Dropped)));
}

#[test]
fn results_of_threads_come_back_on_the_loop() {
    run(|| {
        let here = thread::current().id();
        let deferred = defer_to_thread(move || {
            assert_ne!(thread::current().id(), here);
            Ok::<_, AnyError>(6)
        });
        let doubled = deferred.add_callback(move |n| {
            assert_eq!(thread::current().id(), here);
            Ok(2 * n)
        });
        assert_eq!(doubled.wait().unwrap(), 12);
        let failed = defer_to_thread(|| Err::<(), _>("no such thing".parse::<u32>().unwrap_err()));
        assert_eq!(failed.wait().unwrap_err().to_string(), "invalid digit found in string");
        let panicked = defer_to_thread(|| -> Result<(), AnyError> { panic!("expected by a test") });
        assert_eq!(panicked.wait().unwrap_err().to_string(), "panicked: expected by a test");
    });
}

#[test]
fn a_job_that_is_cancelled_before_its_turn_never_runs() {
    run(|| {
        let pool = ThreadPool::new(1);
        let (release, gate) = mpsc::channel::<()>();
        let first = defer_to_thread_pool(&pool, move || {
            let _ = gate.recv();
            Ok::<_, AnyError>(1)
        });
        let ran = Arc::new(AtomicBool::new(false));
        let flag = ran.clone();
        let second = defer_to_thread_pool(&pool, move || {
            flag.store(true, Ordering::SeqCst);
            Ok::<_, AnyError>(2)
        });
        second.cancel();
        assert!(second.wait().unwrap_err().is_cancelled());
        drop(release);
        assert_eq!(first.wait().unwrap(), 1);
        pool.join();
        assert!(!ran.load(Ordering::SeqCst));
    });
}

#[test]
fn jobs_of_a_pool_that_is_killed_fail() {
    run(|| {
        let pool = ThreadPool::new(1);
        let (release, gate) = mpsc::channel::<()>();
        let (started, has_started) = mpsc::channel();
        let running = defer_to_thread_pool(&pool, move || {
            started.send(()).unwrap();
            Ok::<_, AnyError>(gate.recv().is_err())
        });
        has_started.recv().unwrap();
        let waiting = defer_to_thread_pool(&pool, || Ok::<_, AnyError>(()));
        pool.kill();
        assert!(matches!(waiting.wait(), Err(Failure::Dropped)));
        drop(release);
        assert!(running.wait().unwrap());
    });
}

#[test]
fn jobs_run_in_threads_one_after_the_other() {
    run(|| {
        suggest_thread_pool_size(1);
        assert_eq!(thread_pool().threads_max(), 1);
        let seen = Arc::<Mutex<Vec<u32>>>::default();
        let say = |n| {
            let seen = seen.clone();
            move || seen.lock().unwrap().push(n)
        };
        call_in_thread(say(1));
        call_in_thread(|| panic!("expected by a test"));
        call_multiple_in_thread([
            Box::new(say(2)) as Box<dyn FnOnce() + Send>,
            Box::new(say(3)),
            Box::new(|| panic!("expected by a test, too")),
            Box::new(say(4)),
        ]);
        thread_pool().join();
        assert_eq!(*seen.lock().unwrap(), [1, 2, 3]);
    });
}
