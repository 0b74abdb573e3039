//! What waiting for a future allocates: nothing, after the first time.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use warren_hub::{future, run, spawn, yield_now};

/// The system's allocator, which counts for each thread.
struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator as it came; the counter is a plain thread-local
// without a destructor, which allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(f: impl FnOnce()) -> usize {
    let before = COUNT.get();
    f();
    COUNT.get() - before
}

/// Waits until the other fiber has woken this one.
fn round(waker: &Rc<Cell<Option<Waker>>>) {
    let mut asked = false;
    future::wait(poll_fn(|cx| {
        if asked {
            return Poll::Ready(());
        }
        asked = true;
        waker.set(Some(cx.waker().clone()));
        Poll::Pending
    }));
}

#[test]
fn waiting_and_waking_on_a_hub_allocate_nothing() {
    run(|| {
        let waker = Rc::new(Cell::new(None::<Waker>));
        let other = spawn({
            let waker = waker.clone();
            move || {
                loop {
                    if let Some(waker) = waker.take() {
                        waker.wake();
                    }
                    yield_now();
                }
            }
        });
        round(&waker);
        let count = allocations(|| {
            for _ in 0..1000 {
                round(&waker);
                future::wait(async {});
            }
        });
        assert_eq!(count, 0);
        other.kill();
    });
}
