//! Waiting for one of many descriptors.
//!
//! The question is asked without waiting; if there is no answer yet, the fiber waits for the descriptor, or for an
//! epoll set of them, and asks again.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use libc::{epoll_event, fd_set, nfds_t, pollfd, sigset_t, size_t, timespec, timeval};
use rustix::event::epoll;
use rustix::io::Errno;
use warren_hub::io::Readiness;

use super::time::{duration_of_timespec, duration_of_timeval};
use crate::call::{Call, Unready, VERY_LONG, after, errno, outcome};
use crate::real::hooks;

const NOW: timespec = timespec { tv_sec: 0, tv_nsec: 0 };

hooks! {
    Select(None)
    fn poll(fds: *mut pollfd, count: nfds_t, timeout_ms: c_int) -> c_int, |call| {
        // SAFETY: what the caller passed.
        let ask = || unsafe { real::poll(fds, count, 0) };
        // SAFETY: C's contract: as many as it says; looked at only when the kernel could read them.
        let wanted = || unsafe { pollfds(fds, count) };
        ask_again(call, millis(timeout_ms), wanted, ask)
    }

    /// What `poll` is in C programs built with `_FORTIFY_SOURCE`.
    Select(None)
    fn __poll_chk(
        fds: *mut pollfd, count: nfds_t, timeout_ms: c_int, room: size_t,
    ) -> c_int, |call| {
        // SAFETY: what the caller passed.
        let ask = || unsafe { real::__poll_chk(fds, count, 0, room) };
        // SAFETY: as in `poll`.
        let wanted = || unsafe { pollfds(fds, count) };
        ask_again(call, millis(timeout_ms), wanted, ask)
    }

    /// The signal mask holds for the questions, not for the wait between them.
    Select(None)
    fn ppoll(
        fds: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t,
    ) -> c_int, |call| {
        // SAFETY: what the caller passed.
        let ask = || unsafe { real::ppoll(fds, count, &NOW, mask) };
        // SAFETY: as in `poll`.
        let wanted = || unsafe { pollfds(fds, count) };
        // SAFETY: what the caller passed.
        match unsafe { duration_of_timespec(timeout) } {
            Ok(timeout) => ask_again(call, timeout, wanted, ask),
            Err(errno) => Err(errno),
        }
    }

    Select(None)
    fn select(
        count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set,
        timeout: *mut timeval,
    ) -> c_int, |call| {
        // SAFETY: what the caller passed.
        match unsafe { duration_of_timeval(timeout) } {
            Ok(duration) => {
                // SAFETY: what the caller passed.
                let sets = unsafe { Sets::take(count, [read, write, except]) };
                let started = Instant::now();
                let result = ask_again(call, duration, || sets.wanted(), || {
                    let mut now = timeval { tv_sec: 0, tv_usec: 0 };
                    sets.restore();
                    // SAFETY: what the caller passed.
                    unsafe { real::select(count, read, write, except, &mut now) }
                });
                if let Some(duration) = duration {
                    // As Linux does: what is left.
                    let left = duration.saturating_sub(started.elapsed());
                    // SAFETY: not null, for it gave a duration.
                    unsafe {
                        (*timeout).tv_sec = left.as_secs() as libc::time_t;
                        (*timeout).tv_usec = left.subsec_micros().into();
                    }
                }
                result
            }
            Err(errno) => Err(errno),
        }
    }

    /// As `ppoll` with the mask.
    Select(None)
    fn pselect(
        count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set,
        timeout: *const timespec, mask: *const sigset_t,
    ) -> c_int, |call| {
        // SAFETY: what the caller passed.
        match unsafe { duration_of_timespec(timeout) } {
            Ok(duration) => {
                // SAFETY: what the caller passed.
                let sets = unsafe { Sets::take(count, [read, write, except]) };
                ask_again(call, duration, || sets.wanted(), || {
                    sets.restore();
                    // SAFETY: what the caller passed.
                    unsafe { real::pselect(count, read, write, except, &NOW, mask) }
                })
            }
            Err(errno) => Err(errno),
        }
    }

    Select(Some(epoll))
    fn epoll_wait(
        epoll: c_int, events: *mut epoll_event, count: c_int, timeout_ms: c_int,
    ) -> c_int, |call| {
        ask_again(call, millis(timeout_ms), || vec![readable(epoll)], || {
            // SAFETY: what the caller passed.
            unsafe { real::epoll_wait(epoll, events, count, 0) }
        })
    }

    /// As `ppoll` with the mask.
    Select(Some(epoll))
    fn epoll_pwait(
        epoll: c_int, events: *mut epoll_event, count: c_int, timeout_ms: c_int,
        mask: *const sigset_t,
    ) -> c_int, |call| {
        ask_again(call, millis(timeout_ms), || vec![readable(epoll)], || {
            // SAFETY: what the caller passed.
            unsafe { real::epoll_pwait(epoll, events, count, 0, mask) }
        })
    }
}

/// Asks until the answer is not "none", or `timeout` has passed.
fn ask_again(
    call: &mut Call,
    timeout: Option<Duration>,
    wanted: impl Fn() -> Vec<pollfd>,
    ask: impl Fn() -> c_int,
) -> Result<c_int, c_int> {
    let answer = outcome(ask() as isize)? as c_int;
    if answer != 0 || timeout.is_some_and(|timeout| timeout.is_zero()) {
        return Ok(answer);
    }
    let deadline = timeout.and_then(after);
    let wanted = wanted();
    let set;
    let (fd, interest) = match &*wanted {
        [] => {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            return call.sleep(left.unwrap_or(VERY_LONG)).map(|()| 0);
        }
        [one] if one.events & !(libc::POLLIN | libc::POLLOUT) == 0 && one.events != 0 => {
            (one.fd, interest(one.events))
        }
        many => {
            set = set_of(many).map_err(Errno::raw_os_error)?;
            (set.as_fd().as_raw_fd(), Readiness::READABLE)
        }
    };
    loop {
        let waited = call.wait(fd, interest, deadline);
        match (outcome(ask() as isize)? as c_int, waited) {
            (0, Ok(())) => {}
            (0, Err(Unready::Error(errno))) => return Err(errno),
            (answer, _) => return Ok(answer),
        }
    }
}

/// An epoll set of what is wanted.
fn set_of(wanted: &[pollfd]) -> Result<std::os::fd::OwnedFd, Errno> {
    let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for one in wanted {
        // SAFETY: the caller of the hook keeps its descriptors open for the call.
        let fd = unsafe { BorrowedFd::borrow_raw(one.fd) };
        let data = epoll::EventData::new_u64(0);
        match epoll::add(&set, fd, data, flags(one.events)) {
            Err(Errno::EXIST) => {
                // Named more than once.
                let all = wanted.iter().filter(|other| other.fd == one.fd);
                let events = all.fold(0, |events, other| events | other.events);
                epoll::modify(&set, fd, data, flags(events))?;
            }
            // Not to be waited for, and not ready, or closed meanwhile: the kernel would go by the others.
            Err(Errno::PERM | Errno::BADF) => {}
            added => added?,
        }
    }
    Ok(set)
}

/// The events of `poll` have the bits that those of epoll have.
fn flags(events: i16) -> epoll::EventFlags {
    epoll::EventFlags::from_bits_truncate(events.cast_unsigned().into())
}

fn interest(events: i16) -> Readiness {
    let mut interest = Readiness::empty();
    interest.set(Readiness::READABLE, events & libc::POLLIN != 0);
    interest.set(Readiness::WRITABLE, events & libc::POLLOUT != 0);
    interest
}

fn readable(fd: RawFd) -> pollfd {
    pollfd { fd, events: libc::POLLIN, revents: 0 }
}

/// The descriptors of a `poll`; negative ones do not count.
///
/// # Safety
/// There are `count` of them, or none at all.
unsafe fn pollfds(fds: *const pollfd, count: nfds_t) -> Vec<pollfd> {
    if count == 0 {
        return Vec::new();
    }
    // SAFETY: our caller vouches for it.
    let fds = unsafe { std::slice::from_raw_parts(fds, count as usize) };
    fds.iter().copied().filter(|one| one.fd >= 0).collect()
}

/// `select`'s sets as the caller filled them, and where they are.
struct Sets {
    count: c_int,
    places: [*mut fd_set; 3],
    filled: [fd_set; 3],
}

impl Sets {
    /// # Safety
    /// Each place is null or a set with room for `count` descriptors, `FD_SETSIZE` at most.
    unsafe fn take(count: c_int, places: [*mut fd_set; 3]) -> Self {
        let filled = places.map(|place| {
            let mut set = MaybeUninit::<fd_set>::zeroed();
            if !place.is_null() {
                let size = Self::bytes(count);
                // SAFETY: within both: our caller vouches for the one, `bytes` for the other.
                unsafe { place.cast::<u8>().copy_to(set.as_mut_ptr().cast(), size) };
            }
            // SAFETY: all zero is an empty set.
            unsafe { set.assume_init() }
        });
        Self { count, places, filled }
    }

    /// What of a set `count` descriptors fill; the kernel reads whole words.
    fn bytes(count: c_int) -> usize {
        let words = usize::try_from(count).unwrap_or(0).div_ceil(64);
        (words * 8).min(size_of::<fd_set>())
    }

    fn restore(&self) {
        for (place, filled) in self.places.iter().zip(&self.filled) {
            if !place.is_null() {
                // SAFETY: as in `take`.
                unsafe {
                    (&raw const *filled)
                        .cast::<u8>()
                        .copy_to(place.cast(), Self::bytes(self.count));
                }
            }
        }
    }

    fn wanted(&self) -> Vec<pollfd> {
        let kinds = [libc::POLLIN, libc::POLLOUT, libc::POLLPRI];
        let count = self.count.clamp(0, libc::FD_SETSIZE as c_int);
        let events = |fd: c_int| {
            let named = kinds.iter().zip(&self.filled);
            named.fold(0, |events, (kind, set)| {
                // SAFETY: a number below FD_SETSIZE.
                if unsafe { libc::FD_ISSET(fd, set) } { events | kind } else { events }
            })
        };
        (0..count)
            .map(|fd| pollfd { fd, events: events(fd), revents: 0 })
            .filter(|one| one.events != 0)
            .collect()
    }
}

fn millis(timeout: c_int) -> Option<Duration> {
    u64::try_from(timeout).ok().map(Duration::from_millis)
}

/// Whether `fd` is ready now.
pub(crate) fn is_ready(fd: RawFd, interest: Readiness) -> bool {
    let mut one = pollfd { fd, events: events(interest), revents: 0 };
    // SAFETY: one descriptor, and no waiting. What is not open is an error to be found by trying.
    unsafe { real::poll(&mut one, 1, 0) != 0 }
}

/// Waits for `fd` by blocking the thread.
pub(crate) fn block(
    fd: RawFd,
    interest: Readiness,
    deadline: Option<Instant>,
) -> Result<(), Unready> {
    let mut one = pollfd { fd, events: events(interest), revents: 0 };
    let left = deadline.map(|deadline| {
        let left = deadline.saturating_duration_since(Instant::now());
        timespec { tv_sec: left.as_secs() as libc::time_t, tv_nsec: left.subsec_nanos().into() }
    });
    let timeout = left.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: one descriptor, a time or none, and no signal mask.
    match unsafe { real::ppoll(&mut one, 1, timeout, std::ptr::null()) } {
        -1 => Err(Unready::Error(errno())),
        0 => Err(Unready::TimedOut),
        _ => Ok(()),
    }
}

fn events(interest: Readiness) -> i16 {
    let mut events = 0;
    if interest.contains(Readiness::READABLE) {
        events |= libc::POLLIN | libc::POLLRDHUP;
    }
    if interest.contains(Readiness::WRITABLE) {
        events |= libc::POLLOUT;
    }
    events
}
