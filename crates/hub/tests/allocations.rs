//! Waiting allocates nothing, once as many have waited before.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use warren_hub::sync::{
    BaseQueue, Channel, Condvar, Event, LifoQueue, Mutex, PriorityQueue, Queue, RwLock, Semaphore,
    Storage,
};
use warren_hub::{JoinHandle, future, run, sleep, spawn, with_timeout, yield_now};

/// Counts the allocations of each thread: tests run side by side.
struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: all is done by the system's allocator; counting neither allocates nor panics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const WARM: usize = 300;
const ROUNDS: usize = 1000;

/// Runs `step` of two fibers over and over, and counts what is allocated once it is warm.
#[track_caller]
fn check<S: 'static>(make: impl FnOnce() -> S + 'static, here: fn(&S), there: fn(&S)) {
    let allocated = run(move || {
        let shared = Rc::new(make());
        let other: JoinHandle<()> = spawn({
            let shared = shared.clone();
            move || {
                loop {
                    there(&shared);
                }
            }
        });
        (0..WARM).for_each(|_| here(&shared));
        let before = COUNT.get();
        (0..ROUNDS).for_each(|_| here(&shared));
        let allocated = COUNT.get() - before;
        other.kill();
        allocated
    });
    assert_eq!(allocated, 0, "in {ROUNDS} rounds");
}

#[test]
fn the_counter_counts() {
    let before = COUNT.get();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(COUNT.get() - before, 1);
}

#[test]
fn taking_turns() {
    check(|| (), |()| yield_now(), |()| yield_now());
}

#[test]
fn waiting_for_futures() {
    /// A future that is ready once it was told so.
    fn told(turn: &(Cell<bool>, Cell<Option<Waker>>)) {
        future::wait(poll_fn(|cx| {
            if turn.0.take() {
                return Poll::Ready(());
            }
            turn.1.set(Some(cx.waker().clone()));
            Poll::Pending
        }));
        future::wait(async {});
    }
    fn tell(turn: &(Cell<bool>, Cell<Option<Waker>>)) {
        if let Some(waker) = turn.1.take() {
            turn.0.set(true);
            waker.wake();
        }
        yield_now();
    }
    check(Default::default, told, tell);
}

#[test]
fn parking_and_waking() {
    fn wait_and_set(mine: &Event, other: &Event) {
        other.set();
        mine.wait();
        mine.clear();
    }
    check(
        || (Event::new(), Event::new()),
        |(one, other)| wait_and_set(one, other),
        |(one, other)| wait_and_set(other, one),
    );
}

#[test]
fn sleeping() {
    let allocated = run(|| {
        (0..5).for_each(|_| sleep(Duration::from_millis(1)));
        let before = COUNT.get();
        (0..20).for_each(|_| sleep(Duration::from_millis(1)));
        COUNT.get() - before
    });
    assert_eq!(allocated, 0);
}

#[test]
fn a_wait_with_a_timeout() {
    check(
        Event::new,
        |event| {
            event.clear();
            event.wait_timeout(Duration::from_secs(60)).unwrap();
        },
        |event| {
            event.set();
            yield_now();
        },
    );
    check(|| (), |()| with_timeout(Duration::from_secs(60), yield_now).unwrap(), |()| yield_now());
}

#[test]
fn hops_through_queues() {
    fn put<S: Storage<Item = u32>>(queue: &BaseQueue<S>) {
        queue.put(1).unwrap();
    }
    fn get<S: Storage<Item = u32>>(queue: &BaseQueue<S>) {
        queue.get().unwrap();
    }
    check(Queue::unbounded, get, |queue| {
        put(queue);
        yield_now();
    });
    check(|| Queue::bounded(1), put, get);
    check(|| Queue::bounded(1), get, put);
    check(Channel::new, get, put);
    check(|| LifoQueue::bounded(2), get, put);
    check(|| PriorityQueue::bounded(2), get, put);
}

#[test]
fn permits_and_locks() {
    fn acquire(semaphore: &Semaphore) {
        let _permit = semaphore.acquire();
        yield_now();
    }
    check(|| Semaphore::new(1), acquire, acquire);
    fn lock(mutex: &Mutex<u32>) {
        let _guard = mutex.lock();
        yield_now();
    }
    check(|| Mutex::new(1), lock, lock);
    check(
        || RwLock::new(1),
        |lock| {
            let _reading = lock.read();
            yield_now();
        },
        |lock| {
            let _writing = lock.write();
            yield_now();
        },
    );
    check(
        || (Mutex::new(false), Condvar::new()),
        |(flag, changed)| *changed.wait_while(flag.lock(), |flag| !*flag) = false,
        |(flag, changed)| {
            *flag.lock() = true;
            changed.notify_one();
            yield_now();
        },
    );
}
