//! Descriptors of any kind: `read`, `write`, `close`, and locks.
//!
//! Sockets go the way of `recv` and `send`. Plain files and folders are always ready, and are left to the kernel.
//! What is neither (pipes, terminals, eventfds, ...) is tried with `RWF_NOWAIT`, or, where its driver does not know
//! that, asked by `poll` first.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::time::Duration;

use libc::{iovec, msghdr, size_t, ssize_t};
use warren_hub::io::{Readiness, closing};

use super::transfer::rest_of;
use super::{select, transfer};
use crate::call::{Call, errno, is_nonblocking, outcome, set_errno};
use crate::real::{hooks, real};
use crate::state::{self, Part};

/// How soon to look again for a lock, and how late.
const LOCK_PAUSE: Duration = Duration::from_millis(1);
const LOCK_PAUSE_MAX: Duration = Duration::from_millis(50);

/// What a descriptor stands for, as far as waiting goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Socket,
    /// A file or a folder, or nothing at all: there is nothing to wait for.
    Plain,
    /// Anything else.
    Stream,
}

hooks! {
    Either(Some(fd))
    fn read(fd: c_int, buffer: *mut c_void, size: size_t) -> ssize_t, |call| {
        let part = iovec { iov_base: buffer, iov_len: size };
        // SAFETY: what the caller passed.
        read_parts(call, fd, &part, 1, || unsafe { real::read(fd, buffer, size) })
    }

    /// What `read` is in C programs built with `_FORTIFY_SOURCE`.
    Either(Some(fd))
    fn __read_chk(
        fd: c_int, buffer: *mut c_void, size: size_t, room: size_t,
    ) -> ssize_t, |call| {
        let part = iovec { iov_base: buffer, iov_len: size.min(room) };
        // SAFETY: what the caller passed.
        read_parts(call, fd, &part, 1, || unsafe { real::__read_chk(fd, buffer, size, room) })
    }

    Either(Some(fd))
    fn readv(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t, |call| {
        // SAFETY: what the caller passed.
        read_parts(call, fd, parts, count, || unsafe { real::readv(fd, parts, count) })
    }

    Either(Some(fd))
    fn write(fd: c_int, data: *const c_void, size: size_t) -> ssize_t, |call| {
        let part = iovec { iov_base: data.cast_mut(), iov_len: size };
        // SAFETY: what the caller passed.
        unsafe { write_parts(call, fd, &part, 1, || real::write(fd, data, size)) }
    }

    Either(Some(fd))
    fn writev(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t, |call| {
        // SAFETY: what the caller passed.
        unsafe { write_parts(call, fd, parts, count, || real::writev(fd, parts, count)) }
    }

    /// Two fibers of one thread that want the same lock would wait for each other for ever. The kernel does not
    /// tell of the end of a lock, so this looks again and again.
    Locks(Some(fd))
    fn flock(fd: c_int, operation: c_int) -> c_int, |call| {
        // SAFETY: takes no pointers.
        let lock = |flags| unsafe { real::flock(fd, operation | flags) };
        let mut pause = LOCK_PAUSE;
        loop {
            match outcome(lock(libc::LOCK_NB) as isize) {
                Err(libc::EWOULDBLOCK) if operation & libc::LOCK_NB == 0 => {}
                done => break done.map(|done| done as c_int),
            }
            if let Err(errno) = call.sleep(pause) {
                break Err(errno);
            }
            pause = (2 * pause).min(LOCK_PAUSE_MAX);
        }
    }
}

/// `close` by itself: it does not wait, but ends the waits of others.
mod close {
    use super::*;

    real! {
        fn close(fd: c_int) -> c_int;
    }

    /// Fibers of this hub that wait for the descriptor are told.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn close(fd: c_int) -> c_int {
        if !state::is_off() && warren_hub::is_running() {
            let errno = errno();
            closing(fd);
            set_errno(errno);
        }
        // SAFETY: what the caller passed.
        unsafe { real::close(fd) }
    }
}

pub(crate) use close::real as real_close;

/// Reads what there is into the parts; `whole` is the call as it came.
fn read_parts(
    call: &mut Call,
    fd: RawFd,
    parts: *const iovec,
    count: c_int,
    whole: impl Fn() -> ssize_t,
) -> Result<ssize_t, c_int> {
    match pass(call, fd) {
        None => outcome(whole()),
        Some(Kind::Socket) => {
            let mut message = message(parts, count);
            transfer::receive(call, fd, 0, 0, |_, flags| {
                let message = &raw mut message;
                // SAFETY: a message of the caller's parts.
                unsafe { transfer::real::recvmsg(fd, message, flags) }
            })
        }
        Some(_) => call.retry(fd, Readiness::READABLE, None, || {
            // SAFETY: the caller's parts.
            let read = unsafe { libc::preadv2(fd, parts, count, -1, libc::RWF_NOWAIT) };
            if read != -1 || !is_unknown(errno()) {
                return read;
            }
            if is_nonblocking(fd) || select::is_ready(fd, Readiness::READABLE) {
                return whole();
            }
            set_errno(libc::EAGAIN);
            -1
        }),
    }
}

/// Writes the parts, all of them if the descriptor is a blocking one.
///
/// # Safety
/// `parts` are what C's `writev` may be called with.
unsafe fn write_parts(
    call: &mut Call,
    fd: RawFd,
    parts: *const iovec,
    count: c_int,
    whole: impl Fn() -> ssize_t,
) -> Result<ssize_t, c_int> {
    match pass(call, fd) {
        None => outcome(whole()),
        Some(Kind::Socket) => {
            // SAFETY: a message of the caller's parts.
            unsafe { transfer::send_message(call, fd, &message(parts, count), 0) }
        }
        Some(_) => {
            let count = usize::try_from(count).unwrap_or(0);
            // SAFETY: C's contract: as many as it says.
            let parts = unsafe { std::slice::from_raw_parts(parts, count) };
            write_all(call, fd, parts)
        }
    }
}

/// Writes to what is neither a socket nor a file. As the kernel does: a blocking write ends when everything has gone.
fn write_all(call: &mut Call, fd: RawFd, parts: &[iovec]) -> Result<ssize_t, c_int> {
    let size: size_t = parts.iter().map(|part| part.iov_len).sum();
    let mut done = 0;
    loop {
        let written = call.retry(fd, Readiness::WRITABLE, None, || {
            if done == 0 {
                // In one piece, as long as that can be: a pipe takes a short one whole or not at all.
                return try_writing(fd, parts);
            }
            rest_of(parts, done).map_or(0, |rest| try_writing(fd, &[rest]))
        });
        match written {
            Ok(count) => {
                done += count.cast_unsigned();
                if count == 0 || done >= size || is_nonblocking(fd) {
                    return Ok(done.cast_signed());
                }
            }
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => return Ok(done.cast_signed()),
        }
    }
}

/// Writes what can be written without blocking.
fn try_writing(fd: RawFd, parts: &[iovec]) -> ssize_t {
    let (place, count) = (parts.as_ptr(), parts.len() as c_int);
    // SAFETY: the caller's parts.
    let written = unsafe { libc::pwritev2(fd, place, count, -1, libc::RWF_NOWAIT) };
    if written != -1 || !is_unknown(errno()) {
        return written;
    }
    let size: size_t = parts.iter().map(|part| part.iov_len).sum();
    if is_nonblocking(fd) || size == 0 {
        // SAFETY: as above.
        return unsafe { real::writev(fd, place, count) };
    }
    if !select::is_ready(fd, Readiness::WRITABLE) {
        set_errno(libc::EAGAIN);
        return -1;
    }
    // A pipe that has room takes this much at once.
    if size <= libc::PIPE_BUF {
        // SAFETY: as above.
        return unsafe { real::writev(fd, place, count) };
    }
    rest_of(parts, 0).map_or(0, |first| {
        // SAFETY: the beginning of one of the caller's parts.
        unsafe { real::write(fd, first.iov_base, first.iov_len.min(libc::PIPE_BUF)) }
    })
}

/// How the call is to be done; `None`: as it came.
///
/// The standard streams are left alone: the standard library holds a lock of its own while it writes to them, which
/// knows threads and not fibers.
fn pass(call: &mut Call, fd: RawFd) -> Option<Kind> {
    if fd <= libc::STDERR_FILENO {
        return None;
    }
    let kind = kind(fd);
    let part = match kind {
        Kind::Plain => return None,
        Kind::Socket => Part::Sockets,
        Kind::Stream => Part::Pipes,
    };
    call.narrow(part).then_some(kind)
}

pub(super) fn kind(fd: RawFd) -> Kind {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: a place for the answer.
    if unsafe { libc::fstat(fd, stat.as_mut_ptr()) } != 0 {
        return Kind::Plain;
    }
    // SAFETY: filled in, for the call has succeeded.
    match unsafe { stat.assume_init() }.st_mode & libc::S_IFMT {
        libc::S_IFSOCK => Kind::Socket,
        libc::S_IFREG | libc::S_IFDIR | libc::S_IFBLK => Kind::Plain,
        _ => Kind::Stream,
    }
}

fn message(parts: *const iovec, count: c_int) -> msghdr {
    // SAFETY: all zero is a message without an address and without control data.
    let mut message: msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = parts.cast_mut();
    // A count that is no count is too many, and refused.
    message.msg_iovlen = usize::try_from(count).unwrap_or(usize::MAX);
    message
}

/// Says that `RWF_NOWAIT` is not known: to the kernel, or to the descriptor's driver.
fn is_unknown(errno: c_int) -> bool {
    matches!(errno, libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL | libc::ESPIPE)
}
