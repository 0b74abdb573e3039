//! Telling of calls that block a hub's thread.

use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use warren_hub::FiberId;

use crate::state;

type Hearer = Rc<dyn Fn(&BlockingCall)>;

/// Detections of all threads.
static DETECTIONS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static HEARERS: RefCell<Vec<(u64, Hearer)>> = const { RefCell::new(Vec::new()) };
    static LAST_NUMBER: Cell<u64> = const { Cell::new(0) };
    /// Set while somebody is told: what they do is not told again.
    static TELLING: Cell<bool> = const { Cell::new(false) };
}

/// A call that has blocked a hub's thread, and all its fibers with it.
#[derive(Debug)]
pub struct BlockingCall {
    /// The name of the function of the C library.
    pub function: &'static str,
    /// The descriptor it was about, if it was about one.
    pub fd: Option<RawFd>,
    /// How long it blocked.
    pub blocked: Duration,
    /// The fiber that called; `None` for a callback of the loop.
    pub fiber: Option<FiberId>,
    /// Where it was called. Names are looked up when it is printed.
    pub backtrace: Backtrace,
}

impl fmt::Display for BlockingCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.function)?;
        if let Some(fd) = self.fd {
            write!(f, " on descriptor {fd}")?;
        }
        write!(f, " blocked its hub for {:?}", self.blocked)?;
        match self.fiber {
            Some(fiber) => write!(f, ", called by fiber {fiber}:")?,
            None => f.write_str(", called by a callback of the loop:")?,
        }
        write!(f, "\n{}", self.backtrace)
    }
}

/// Calls `hear` for each call that blocks the hub of this thread, right after the call. Nothing parks because of
/// this; what is [patched](crate::Patch) does not block, and is not told of. For tests: a program that is made of
/// fibers shows that nothing in it stops them all.
///
/// Heard of: the functions that [`Patch::ALL`](crate::Patch::ALL) names, when they had to wait. Not: plain files,
/// locks between threads, computations.
///
/// ```
/// use std::cell::RefCell;
/// use std::rc::Rc;
/// use std::time::Duration;
///
/// let calls = Rc::new(RefCell::new(Vec::new()));
/// let heard = calls.clone();
/// let _detection = warren_patch::detect(move |call| heard.borrow_mut().push(call.function));
/// warren_hub::run(|| {
///     std::thread::sleep(Duration::from_millis(1));
///     warren_hub::sleep(Duration::from_millis(1));
/// });
/// assert_eq!(*calls.borrow(), ["clock_nanosleep"]);
/// ```
#[must_use = "dropping it ends the detection"]
pub fn detect(hear: impl Fn(&BlockingCall) + 'static) -> Detection {
    let number = LAST_NUMBER.get() + 1;
    LAST_NUMBER.set(number);
    HEARERS.with_borrow_mut(|hearers| hearers.push((number, Rc::new(hear))));
    DETECTIONS.fetch_add(1, Ordering::Relaxed);
    state::set_detecting(true);
    Detection { number, _of_this_thread: PhantomData }
}

/// Ends the detection when dropped.
#[derive(Debug)]
pub struct Detection {
    number: u64,
    _of_this_thread: PhantomData<*const ()>,
}

impl Drop for Detection {
    fn drop(&mut self) {
        let hearer = HEARERS.with_borrow_mut(|hearers| {
            let index = hearers.iter().position(|(number, _)| *number == self.number)?;
            Some(hearers.remove(index))
        });
        drop(hearer);
        if DETECTIONS.fetch_sub(1, Ordering::Relaxed) == 1 {
            state::set_detecting(false);
        }
    }
}

/// Whether somebody hears of this thread.
pub(crate) fn is_heard() -> bool {
    !TELLING.get() && HEARERS.with_borrow(|hearers| !hearers.is_empty())
}

pub(crate) fn report(function: &'static str, fd: Option<RawFd>, blocked: Duration) {
    struct Telling;
    impl Drop for Telling {
        fn drop(&mut self) {
            TELLING.set(false);
        }
    }
    TELLING.set(true);
    let _telling = Telling;
    let hearers = HEARERS.with_borrow(Clone::clone);
    let call = BlockingCall {
        function,
        fd,
        blocked,
        fiber: warren_hub::current(),
        backtrace: Backtrace::force_capture(),
    };
    for (_, hear) in hearers {
        hear(&call);
    }
}
