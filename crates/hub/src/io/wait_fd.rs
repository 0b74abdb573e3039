//! Waiting for any descriptor from a fiber: gevent's `wait_read` and `wait_write`.
//!
//! Our own sockets are registered with the hub for life. Here the descriptor is somebody else's: it may be a
//! blocking one, be watched by the hub already, or be closed behind our back. So these waits have an epoll set
//! of their own, in which a descriptor is armed for one event by the one system call that a wait costs; the
//! hub watches that set.
//!
//! ```text
//!   hub's epoll --(readable)--> Watches --(one-shot)--> fd 5: readers, writers
//!                                                       fd 9: readers
//! ```
//! An entry stays in the set, disarmed, when its wait is over; the kernel takes it out with the last handle
//! on the open file. That is why a number that comes again for another file needs no care: arming it is
//! refused with `ENOENT`, and then it is added.

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::driver::{EpollSet, EventFlags, readiness};
use crate::fiber::{WaitsFor, Woke};
use crate::hub;
use crate::io::{IoHandler, Readiness, Registration, register};
use crate::sync::WaitList;

/// Events taken from the set by one call.
const EVENTS_MAX: usize = 64;
/// Calls in one turn of the loop, so that others have theirs.
const CALLS_PER_TURN: usize = 8;

/// Parks the fiber until `fd` is ready for what `interest` names, `READABLE` or `WRITABLE` or both, and tells
/// for what it is ready. The descriptor may be blocking or not, and may be registered with the hub besides;
/// any number of fibers may wait for it.
///
/// Readiness is a hint: whoever else uses the descriptor may have used it up before this fiber runs.
///
/// ```
/// use std::io::Write;
/// use std::os::fd::AsFd;
/// use warren_hub::io::{Readiness, wait_fd};
///
/// warren_hub::run(|| -> std::io::Result<()> {
///     let (reader, mut writer) = std::io::pipe()?;
///     writer.write_all(b"x")?;
///     assert!(wait_fd(reader.as_fd(), Readiness::READABLE, None)?.contains(Readiness::READABLE));
///     Ok(())
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Suspends
/// Always, be it for one turn of the loop.
///
/// # Errors
/// `TimedOut` when `deadline` comes first. `PermissionDenied` for a plain file or a folder, which is always
/// ready. `EBADF` for a descriptor that is not open, or that [`closing`] named meanwhile.
///
/// # Panics
/// Outside a fiber.
pub fn wait_fd(
    fd: BorrowedFd<'_>,
    interest: Readiness,
    deadline: Option<Instant>,
) -> io::Result<Readiness> {
    let number = fd.as_raw_fd();
    let watches = Watches::of_this_hub()?;
    let others = watches.find(number).map_or(EventFlags::empty(), |watch| watch.wanted());
    watches.arm(fd, others | flags(interest))?;
    let watch = watches.watch(number);
    let (list, what) = match interest & (Readiness::READABLE | Readiness::WRITABLE) {
        Readiness::WRITABLE => (&watch.writers, WaitsFor::Write(number)),
        Readiness::READABLE => (&watch.readers, WaitsFor::Read(number)),
        _ => (&watch.either, WaitsFor::Read(number)),
    };
    let _waiting = Waiting::begin(&watches);
    match list.wait_for(deadline, what) {
        Woke::TimedOut => Err(io::ErrorKind::TimedOut.into()),
        _ if watch.closed.get() => Err(Errno::BADF.into()),
        _ => Ok(watch.ready.get()),
    }
}

/// Says that `fd` is about to be closed: fibers of this hub that [wait](wait_fd) for it are woken with
/// `EBADF`. Without it they would wait for ever, as a thread does in the kernel.
pub fn closing(fd: RawFd) {
    let Some(set) = hub::try_with(|hub| hub.local(Set::default)) else { return };
    let watches = set.0.borrow().clone();
    if let Some(watch) = watches.and_then(|watches| watches.take(fd)) {
        watch.closed.set(true);
        watch.wake(Readiness::all());
    }
}

/// Whether a set is registered with this thread's hub in which nothing is waited for: it wakes nobody.
pub(crate) fn is_idle() -> bool {
    hub::try_with(|hub| hub.local(Set::default)).is_some_and(|set| {
        set.0.borrow().as_ref().is_some_and(|watches| watches.waiting.get() == 0)
    })
}

/// The hub's set, once it has one.
#[derive(Default)]
struct Set(RefCell<Option<Rc<Watches>>>);

/// The descriptors that fibers of one hub wait for.
struct Watches {
    set: EpollSet,
    /// By number. What was waited for once keeps its place, so that a wait costs no allocation.
    watches: RefCell<Vec<Option<Rc<Watch>>>>,
    /// Fibers that wait.
    waiting: Cell<usize>,
    registration: OnceCell<Registration>,
}

/// One descriptor and who waits for it.
struct Watch {
    readers: WaitList,
    writers: WaitList,
    either: WaitList,
    /// What the last event told.
    ready: Cell<Readiness>,
    closed: Cell<bool>,
}

impl Watches {
    fn of_this_hub() -> io::Result<Rc<Self>> {
        let set = hub::with(|hub| hub.local(Set::default));
        if let Some(watches) = &*set.0.borrow() {
            return Ok(watches.clone());
        }
        let watches = Rc::new(Self {
            set: EpollSet::new(EVENTS_MAX)?,
            watches: RefCell::default(),
            waiting: Cell::new(0),
            registration: OnceCell::new(),
        });
        // The hub has two handles, which go with it: this one, and the handler.
        let registration = register(watches.set.as_fd(), watches.clone())?;
        let _ = watches.registration.set(registration);
        *set.0.borrow_mut() = Some(watches.clone());
        Ok(watches)
    }

    /// The descriptor of this number, which somebody is about to wait for.
    fn watch(&self, fd: RawFd) -> Rc<Watch> {
        let index = usize::try_from(fd).unwrap_or_default();
        let mut watches = self.watches.borrow_mut();
        if watches.len() <= index {
            watches.resize(index + 1, None);
        }
        watches[index].get_or_insert_with(|| Rc::new(Watch::new())).clone()
    }

    /// The descriptor of this number, if it was ever waited for.
    fn find(&self, fd: RawFd) -> Option<Rc<Watch>> {
        self.watches.borrow().get(usize::try_from(fd).ok()?)?.clone()
    }

    /// As [`find`](Self::find); the next who waits for the number waits for another file.
    fn take(&self, fd: RawFd) -> Option<Rc<Watch>> {
        self.watches.borrow_mut().get_mut(usize::try_from(fd).ok()?)?.take()
    }

    /// Asks for the next event of `fd`; when there is one already, it comes in this turn.
    fn arm(&self, fd: BorrowedFd<'_>, wanted: EventFlags) -> io::Result<()> {
        let wanted = wanted | EventFlags::ONESHOT;
        let key = fd.as_raw_fd().cast_unsigned().into();
        match self.set.modify(fd, key, wanted) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.set.add(fd, key, wanted),
            modified => modified,
        }
    }

    /// Wakes those who waited for this event, and arms the descriptor anew for the others.
    fn event(&self, fd: RawFd, happened: EventFlags) {
        let Some(watch) = self.find(fd) else { return };
        watch.wake(readiness(happened));
        let wanted = watch.wanted();
        if !wanted.is_empty() {
            // SAFETY: fibers wait for this number, and each has borrowed the descriptor for its wait.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            if self.arm(fd, wanted).is_err() {
                // It was closed all the same: they find out by trying.
                watch.wake(Readiness::all());
            }
        }
    }
}

impl IoHandler for Watches {
    fn io_ready(&self, _: Readiness) {
        for _ in 0..CALLS_PER_TURN {
            let event = |key: u64, flags| self.event((key as u32).cast_signed(), flags);
            if !matches!(self.set.wait(Some(Duration::ZERO), event), Ok(true)) {
                return;
            }
        }
        if let Some(registration) = self.registration.get() {
            registration.again(Readiness::READABLE);
        }
    }
}

impl Watch {
    fn new() -> Self {
        Self {
            readers: WaitList::new(),
            writers: WaitList::new(),
            either: WaitList::new(),
            ready: Cell::new(Readiness::empty()),
            closed: Cell::new(false),
        }
    }

    /// What those who wait want to hear of.
    fn wanted(&self) -> EventFlags {
        let mut interest = Readiness::empty();
        let either = !self.either.is_empty();
        interest.set(Readiness::READABLE, either || !self.readers.is_empty());
        interest.set(Readiness::WRITABLE, either || !self.writers.is_empty());
        flags(interest)
    }

    /// An event may serve several: all are woken, and try.
    fn wake(&self, ready: Readiness) {
        self.ready.set(ready);
        if ready.contains(Readiness::READABLE) {
            self.readers.wake_all();
        }
        if ready.contains(Readiness::WRITABLE) {
            self.writers.wake_all();
        }
        self.either.wake_all();
    }
}

/// Counts a fiber that waits, until the wait is over, also by unwinding.
struct Waiting<'a>(&'a Watches);

impl<'a> Waiting<'a> {
    fn begin(watches: &'a Watches) -> Self {
        watches.waiting.set(watches.waiting.get() + 1);
        Self(watches)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

fn flags(interest: Readiness) -> EventFlags {
    let mut flags = EventFlags::empty();
    let reads = interest.contains(Readiness::READABLE);
    flags.set(EventFlags::IN | EventFlags::RDHUP, reads);
    flags.set(EventFlags::OUT, interest.contains(Readiness::WRITABLE));
    flags
}
