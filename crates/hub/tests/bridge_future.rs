//! Fibers that wait for futures, and futures that wait for fibers.

mod support;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use support::run;
use warren_hub::sync::{Event, Queue};
use warren_hub::{
    JoinError, TimedOut, call_soon, future, join_all, sleep, spawn, try_run, yield_now,
};

/// Ready once a value was put in, by whatever thread.
#[derive(Clone, Default)]
struct Slot<T>(Arc<Mutex<(Option<T>, Vec<Waker>)>>);

impl<T> Slot<T> {
    fn new() -> Self {
        Self(Arc::new(Mutex::new((None, Vec::new()))))
    }

    fn put(&self, value: T) {
        self.0.lock().unwrap().0 = Some(value);
        self.wake();
    }

    /// Wakes whoever has polled since the last time.
    fn wake(&self) {
        let wakers = std::mem::take(&mut self.0.lock().unwrap().1);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn waker(&self) -> Option<Waker> {
        self.0.lock().unwrap().1.first().cloned()
    }
}

impl<T> Future for Slot<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let mut state = self.0.lock().unwrap();
        match state.0.take() {
            Some(value) => Poll::Ready(value),
            None => {
                state.1.push(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// The simplest runtime there is: this thread blocks until the future is ready.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

fn panic_text(payload: Box<dyn std::any::Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => {
            payload.downcast_ref::<&str>().map_or_else(String::new, |text| (*text).into())
        }
    }
}

#[test]
fn a_ready_future_does_not_park() {
    run(|| {
        let ran = Rc::new(Cell::new(false));
        let other = spawn({
            let ran = ran.clone();
            move || ran.set(true)
        });
        assert_eq!(future::wait(async { 1 }), 1);
        assert!(!ran.get());
        other.join().unwrap();
    });
}

#[test]
fn a_future_may_borrow_and_need_not_be_send() {
    run(|| {
        let words = Rc::new(RefCell::new(vec!["a"]));
        let slot = Slot::new();
        let putter = spawn({
            let slot = slot.clone();
            move || slot.put("b")
        });
        let length = future::wait(async {
            let word = slot.await;
            words.borrow_mut().push(word);
            words.borrow().len()
        });
        assert_eq!(length, 2);
        putter.join().unwrap();
    });
}

#[test]
fn another_thread_wakes() {
    run(|| {
        for n in 0..100 {
            let slot = Slot::new();
            let thread = thread::spawn({
                let slot = slot.clone();
                move || slot.put(n)
            });
            assert_eq!(future::wait(slot), n);
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_wake_before_the_fiber_parks_is_not_lost() {
    run(|| {
        // On this thread, within the poll.
        let mut polls = 0;
        let polls = future::wait(poll_fn(|cx| {
            polls += 1;
            if polls == 10 {
                return Poll::Ready(polls);
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        }));
        assert_eq!(polls, 10);
        // On another one, which is through before the poll returns.
        let mut polls = 0;
        future::wait(poll_fn(|cx| {
            polls += 1;
            if polls == 10 {
                return Poll::Ready(());
            }
            let waker = cx.waker().clone();
            thread::spawn(move || waker.wake()).join().unwrap();
            Poll::Pending
        }));
    });
}

#[test]
fn a_future_that_wakes_itself_lets_others_run_and_can_be_killed() {
    run(|| {
        let restless = spawn(|| {
            future::wait(poll_fn(|cx| -> Poll<()> {
                cx.waker().wake_by_ref();
                Poll::Pending
            }))
        });
        for _ in 0..3 {
            yield_now();
        }
        sleep(Duration::from_millis(2));
        restless.kill();
        assert!(restless.join().unwrap_err().is_killed());
        let timed_out = future::wait_timeout(
            poll_fn(|cx| -> Poll<()> {
                cx.waker().wake_by_ref();
                Poll::Pending
            }),
            Duration::from_millis(2),
        );
        assert_eq!(timed_out, Err(TimedOut));
    });
}

#[test]
fn a_spurious_wake_up_only_polls_again() {
    run(|| {
        let slot = Slot::new();
        let polls = Rc::new(Cell::new(0));
        let waiter = spawn({
            let (mut slot, polls) = (slot.clone(), polls.clone());
            move || {
                future::wait(poll_fn(|cx| {
                    polls.set(polls.get() + 1);
                    Pin::new(&mut slot).poll(cx)
                }))
            }
        });
        yield_now();
        assert_eq!(polls.get(), 1);
        for before in 1..4 {
            slot.wake();
            yield_now();
            assert_eq!(polls.get(), before + 1);
            assert!(!waiter.is_finished());
        }
        slot.put(7);
        assert_eq!(waiter.join().unwrap(), 7);
    });
}

#[test]
fn a_waker_used_after_the_end_disturbs_no_other_wait() {
    run(|| {
        let slot = Slot::new();
        let queue = Rc::new(Queue::unbounded());
        let got = spawn({
            let (slot, queue) = (slot.clone(), queue.clone());
            move || {
                future::wait(slot);
                let got: i32 = queue.get().unwrap();
                sleep(Duration::from_millis(1));
                got
            }
        });
        yield_now();
        let waker = slot.waker().unwrap();
        slot.put(());
        yield_now();
        for _ in 0..3 {
            waker.wake_by_ref();
            let remote = waker.clone();
            thread::spawn(move || remote.wake()).join().unwrap();
            yield_now();
            assert!(!got.is_finished());
        }
        queue.put(5).unwrap();
        yield_now();
        waker.wake_by_ref();
        assert_eq!(got.join().unwrap(), 5);
        // Nor a fiber that has the place of one that has ended; it is polled once too often at most.
        let other = spawn(|| future::wait(future::sleep(Duration::from_millis(2))));
        yield_now();
        waker.wake();
        other.join().unwrap();
    });
}

#[test]
fn a_waker_outlives_its_hub() {
    let slot = Slot::new();
    let waker = run({
        let slot = slot.clone();
        move || {
            let _ = future::wait_timeout(slot.clone(), Duration::from_millis(1));
            slot.waker().unwrap()
        }
    });
    waker.wake_by_ref();
    // Another hub on this thread is not the one.
    run(move || {
        waker.wake_by_ref();
        sleep(Duration::from_millis(1));
        drop(waker);
    });
    slot.put(());
}

#[test]
fn a_hub_on_which_nobody_has_the_waker_says_that_it_waits_for_ever() {
    let waited = catch_unwind(|| run(|| future::wait(std::future::pending::<()>())));
    let text = panic_text(waited.unwrap_err());
    assert!(text.contains("waits for ever"), "{text}");
}

#[test]
fn a_waker_on_another_thread_keeps_the_hub_waiting() {
    let (send, receive) = mpsc::channel::<(Waker, Slot<i32>)>();
    let thread = thread::spawn(move || {
        let (waker, slot) = receive.recv().unwrap();
        thread::sleep(Duration::from_millis(20));
        slot.put(3);
        drop(waker);
    });
    let got = run(move || {
        let slot = Slot::new();
        let mut sent = false;
        let mut waiting = slot.clone();
        future::wait(poll_fn(move |cx| {
            if !sent {
                sent = true;
                send.send((cx.waker().clone(), slot.clone())).unwrap();
            }
            Pin::new(&mut waiting).poll(cx)
        }))
    });
    assert_eq!(got, 3);
    thread.join().unwrap();
}

#[test]
fn a_call_that_would_park_within_a_poll_panics() {
    run(|| {
        let refused = catch_unwind(AssertUnwindSafe(|| {
            future::wait(async { sleep(Duration::from_millis(1)) });
        }));
        let text = panic_text(refused.unwrap_err());
        assert!(text.contains("must not wait") && text.contains("future's poll"), "{text}");
        let refused = catch_unwind(AssertUnwindSafe(|| {
            future::wait(async { future::wait(future::sleep(Duration::from_millis(1))) });
        }));
        assert!(panic_text(refused.unwrap_err()).contains("must not wait"));
        // The fiber may wait again.
        sleep(Duration::from_millis(1));
        future::wait(future::sleep(Duration::from_millis(1)));
    });
}

/// The unsoundness that the rule above keeps out: two fibers within the scope of one thread-local.
#[test]
fn a_scoped_thread_local_round_a_poll_is_whole_at_each_poll() {
    thread_local! {
        static SCOPED: Cell<Option<u32>> = const { Cell::new(None) };
    }
    /// As `tracing` and `scoped-tls` do it: set for the time of a poll.
    struct Scoped<F>(u32, F);
    impl<F: Future + Unpin> Future for Scoped<F> {
        type Output = F::Output;
        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
            let before = SCOPED.replace(Some(self.0));
            let polled = Pin::new(&mut self.1).poll(cx);
            assert_eq!(SCOPED.replace(before), Some(self.0));
            assert_eq!(before, None);
            polled
        }
    }
    run(|| {
        let fibers = (0..10).map(|number| {
            spawn(move || {
                let body = Box::pin(async move {
                    for _ in 0..3 {
                        future::sleep(Duration::from_millis(1)).await;
                        assert_eq!(SCOPED.get(), Some(number));
                    }
                });
                future::wait(Scoped(number, body));
            })
        });
        for ended in join_all(fibers) {
            ended.unwrap();
        }
        assert_eq!(SCOPED.get(), None);
    });
}

/// Notes that it was dropped.
struct Dropped(Rc<Cell<bool>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

#[test]
fn a_killed_fiber_drops_the_future() {
    run(|| {
        let dropped = Rc::new(Cell::new(false));
        let waiter = spawn({
            let dropped = Dropped(dropped.clone());
            move || {
                future::wait(async move {
                    let _dropped = dropped;
                    std::future::pending::<()>().await;
                })
            }
        });
        yield_now();
        assert!(!dropped.get());
        waiter.kill();
        assert!(waiter.join().unwrap_err().is_killed());
        assert!(dropped.get());
    });
}

#[test]
fn a_wait_that_times_out_drops_the_future() {
    run(|| {
        let dropped = Rc::new(Cell::new(false));
        let inner = Dropped(dropped.clone());
        let never = async move {
            let _inner = inner;
            std::future::pending::<()>().await;
        };
        assert_eq!(future::wait_timeout(never, Duration::from_millis(2)), Err(TimedOut));
        assert!(dropped.get());
        assert_eq!(future::wait_timeout(async { 1 }, Duration::ZERO), Ok(1));
    });
}

#[test]
fn a_panic_of_the_future_is_the_waiters() {
    run(|| {
        let ended = spawn(|| future::wait(async { panic!("from within") })).join();
        let error: JoinError = ended.unwrap_err();
        assert_eq!(error.message(), Some("from within"));
    });
}

#[test]
fn waiting_on_the_loop_is_refused() {
    run(|| {
        let text = Rc::new(RefCell::new(String::new()));
        let noted = text.clone();
        call_soon(move || {
            let refused = catch_unwind(|| future::wait(async {}));
            *noted.borrow_mut() = panic_text(refused.unwrap_err());
        });
        sleep(Duration::from_millis(1));
        assert!(text.borrow().contains("block the event loop"), "{}", text.borrow());
    });
}

#[test]
fn a_destructor_of_a_fiber_that_unwinds_may_wait_for_a_future() {
    struct Waits(Rc<Cell<i32>>);
    impl Drop for Waits {
        fn drop(&mut self) {
            future::wait(spawn(|| sleep(Duration::from_millis(1)))).unwrap();
            let timed = future::wait_timeout(std::future::pending::<()>(), Duration::from_secs(60));
            assert_eq!(timed, Err(TimedOut));
            self.0.set(1);
        }
    }
    run(|| {
        let done = Rc::new(Cell::new(0));
        let waits = Waits(done.clone());
        let victim = spawn(move || {
            let _waits = waits;
            Event::new().wait();
        });
        yield_now();
        victim.kill();
        assert!(victim.join().unwrap_err().is_killed());
        assert_eq!(done.get(), 1);
    });
}

#[test]
fn async_code_awaits_fibers_and_fibers_await_async_code() {
    run(|| {
        let task = future::spawn(async {
            let slow = spawn(|| {
                sleep(Duration::from_millis(1));
                20
            });
            let inner = future::spawn(async { 22 });
            slow.await.unwrap() + inner.await.unwrap()
        });
        assert_eq!(task.join().unwrap(), 42);
    });
}

#[test]
fn a_sleep_is_ready_at_its_time_and_not_before() {
    run(|| {
        let start = std::time::Instant::now();
        future::wait(future::sleep(Duration::from_millis(5)));
        assert!(start.elapsed() >= Duration::from_millis(5));
        // The first of two; the other is cancelled with it.
        let mut short = pin!(future::sleep(Duration::from_millis(1)));
        let mut long = pin!(future::sleep(Duration::from_secs(600)));
        let first = future::wait(poll_fn(|cx| {
            if short.as_mut().poll(cx).is_ready() {
                return Poll::Ready("short");
            }
            long.as_mut().poll(cx).map(|()| "long")
        }));
        assert_eq!(first, "short");
        // What is dropped leaves no timer behind.
        let timers = warren_hub::run_info().timers;
        let given_up =
            future::wait_timeout(future::sleep(Duration::from_secs(600)), Duration::from_millis(1));
        assert_eq!(given_up, Err(TimedOut));
        assert_eq!(warren_hub::run_info().timers, timers);
        // Some libraries want to send timers.
        let sent = future::sleep(Duration::ZERO);
        thread::spawn(move || drop(sent)).join().unwrap();
    });
}

#[test]
fn a_thread_without_a_hub_awaits_a_fiber() {
    let (send, receive) = mpsc::channel();
    let hub = thread::spawn(move || {
        try_run(move || {
            let stop = Slot::new();
            send.send((warren_hub::handle(), stop.clone())).unwrap();
            future::wait(stop);
        })
    });
    let (handle, stop) = receive.recv().unwrap();
    let answer = handle.spawn(|| {
        sleep(Duration::from_millis(2));
        6 * 7
    });
    assert_eq!(block_on(answer.unwrap()).unwrap(), 42);
    let panics = handle.spawn(|| -> i32 { panic!("over there") });
    assert_eq!(block_on(panics.unwrap()).unwrap_err().message(), Some("over there"));
    // A hub awaits what another one does.
    let from_here = handle.clone();
    let answer = run(move || future::wait(from_here.spawn(|| 1).unwrap()).unwrap());
    assert_eq!(answer, 1);
    stop.put(());
    hub.join().unwrap().unwrap();
    assert!(handle.spawn(|| ()).is_err());
}

#[test]
fn many_threads_wake_many_fibers() {
    const FIBERS: usize = 50;
    const ROUNDS: usize = 40;
    run(|| {
        let done = Arc::new(AtomicUsize::new(0));
        let (send, receive) = mpsc::channel::<Slot<usize>>();
        let receive = Arc::new(Mutex::new(receive));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let receive = receive.clone();
                thread::spawn(move || {
                    loop {
                        let Ok(slot) = receive.lock().unwrap().recv() else { return };
                        // Once in vain, once for good.
                        slot.wake();
                        slot.put(1);
                    }
                })
            })
            .collect();
        let fibers = (0..FIBERS).map(|_| {
            let (send, done) = (send.clone(), done.clone());
            spawn(move || {
                for _ in 0..ROUNDS {
                    let slot = Slot::new();
                    send.send(slot.clone()).unwrap();
                    let one = future::wait(slot);
                    done.fetch_add(one, Ordering::Relaxed);
                }
            })
        });
        for ended in join_all(fibers) {
            ended.unwrap();
        }
        drop(send);
        assert_eq!(done.load(Ordering::Relaxed), FIBERS * ROUNDS);
        warren_hub::offload(move || threads.into_iter().for_each(|thread| thread.join().unwrap()));
    });
}
