//! Sockets: receiving and sending.
//!
//! Each attempt is made with `MSG_DONTWAIT`, so the descriptor's own flags stay as they are.

use std::ffi::{c_int, c_void};
use std::os::fd::RawFd;

use libc::{iovec, msghdr, off_t, size_t, sockaddr, socklen_t, ssize_t};
use warren_hub::io::Readiness;

use super::files::{Kind, kind};
use crate::call::{Call, is_nonblocking, outcome, socket_option};
use crate::real::hooks;

/// With one of these the call does not block, or is nothing we know how to wait for.
const AT_ONCE: c_int = libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE | libc::MSG_OOB;

hooks! {
    Sockets(Some(fd))
    fn recv(fd: c_int, buffer: *mut c_void, size: size_t, flags: c_int) -> ssize_t, |call| {
        receive(call, fd, size, flags, |done, flags| {
            // SAFETY: the rest of the caller's buffer.
            unsafe { real::recv(fd, buffer.byte_add(done), size - done, flags) }
        })
    }

    /// What `recv` is in C programs built with `_FORTIFY_SOURCE`.
    Sockets(Some(fd))
    fn __recv_chk(
        fd: c_int, buffer: *mut c_void, size: size_t, room: size_t, flags: c_int,
    ) -> ssize_t, |call| {
        receive(call, fd, size, flags, |done, flags| {
            // SAFETY: the rest of the caller's buffer.
            unsafe { real::__recv_chk(fd, buffer.byte_add(done), size - done, room - done, flags) }
        })
    }

    Sockets(Some(fd))
    fn recvfrom(
        fd: c_int, buffer: *mut c_void, size: size_t, flags: c_int,
        address: *mut sockaddr, address_size: *mut socklen_t,
    ) -> ssize_t, |call| {
        receive(call, fd, size, flags, |done, flags| {
            // SAFETY: the rest of the caller's buffer, and its other pointers.
            unsafe {
                real::recvfrom(
                    fd, buffer.byte_add(done), size - done, flags, address, address_size,
                )
            }
        })
    }

    /// What `recvfrom` is in C programs built with `_FORTIFY_SOURCE`.
    Sockets(Some(fd))
    fn __recvfrom_chk(
        fd: c_int, buffer: *mut c_void, size: size_t, room: size_t, flags: c_int,
        address: *mut sockaddr, address_size: *mut socklen_t,
    ) -> ssize_t, |call| {
        receive(call, fd, size, flags, |done, flags| {
            // SAFETY: the rest of the caller's buffer, and its other pointers.
            unsafe {
                real::__recvfrom_chk(
                    fd, buffer.byte_add(done), size - done, room - done, flags, address, address_size,
                )
            }
        })
    }

    Sockets(Some(fd))
    fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t, |call| {
        // SAFETY: what the caller passed.
        let attempt = |_, flags| unsafe { real::recvmsg(fd, message, flags) };
        if flags & libc::MSG_WAITALL == 0 {
            receive(call, fd, 0, flags, attempt)
        } else {
            // Left to the kernel: it takes no message that says "the rest".
            outcome(attempt(0, flags))
        }
    }

    Sockets(Some(fd))
    fn send(fd: c_int, data: *const c_void, size: size_t, flags: c_int) -> ssize_t, |call| {
        transmit(call, fd, size, flags, |done, flags| {
            // SAFETY: the rest of the caller's data.
            unsafe { real::send(fd, data.byte_add(done), size - done, flags) }
        })
    }

    Sockets(Some(fd))
    fn sendto(
        fd: c_int, data: *const c_void, size: size_t, flags: c_int,
        address: *const sockaddr, address_size: socklen_t,
    ) -> ssize_t, |call| {
        transmit(call, fd, size, flags, |done, flags| {
            // SAFETY: the rest of the caller's data, and its other pointers.
            unsafe {
                real::sendto(fd, data.byte_add(done), size - done, flags, address, address_size)
            }
        })
    }

    Sockets(Some(fd))
    fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t, |call| {
        // SAFETY: what the caller passed: a message, or a pointer that the kernel refuses.
        unsafe { send_message(call, fd, message, flags) }
    }

    /// Asks its caller to fall back to reading and writing, which park: sendfile(2) says that callers should
    /// when they are told `EINVAL`.
    Sockets(Some(to))
    fn sendfile(to: c_int, from: c_int, offset: *mut off_t, count: size_t) -> ssize_t, |_call| {
        if may_block(to) {
            Err(libc::EINVAL)
        } else {
            // SAFETY: what the caller passed.
            outcome(unsafe { real::sendfile(to, from, offset, count) })
        }
    }

    /// As `sendfile`.
    Sockets(Some(to))
    fn sendfile64(to: c_int, from: c_int, offset: *mut off_t, count: size_t) -> ssize_t, |_call| {
        if may_block(to) {
            Err(libc::EINVAL)
        } else {
            // SAFETY: what the caller passed.
            outcome(unsafe { real::sendfile64(to, from, offset, count) })
        }
    }

    /// As `sendfile`: splice(2) has callers fall back, too.
    Sockets(Some(from))
    fn splice(
        from: c_int, from_offset: *mut off_t, to: c_int, to_offset: *mut off_t,
        count: size_t, flags: u32,
    ) -> ssize_t, |_call| {
        if may_block(to) || may_block(from) {
            Err(libc::EINVAL)
        } else {
            // SAFETY: what the caller passed.
            outcome(unsafe { real::splice(from, from_offset, to, to_offset, count, flags) })
        }
    }
}

/// Receives up to `size` bytes by `attempt`, which is told how many are there already and with which flags.
pub(super) fn receive(
    call: &mut Call,
    fd: RawFd,
    size: size_t,
    flags: c_int,
    mut attempt: impl FnMut(size_t, c_int) -> ssize_t,
) -> Result<ssize_t, c_int> {
    let all = flags & libc::MSG_WAITALL != 0;
    // To look at all of it without taking it would mean to wait for bytes beside those that are there.
    if flags & AT_ONCE != 0 || all && flags & libc::MSG_PEEK != 0 {
        return outcome(attempt(0, flags));
    }
    let mut done: size_t = 0;
    loop {
        let timeout = Some(libc::SO_RCVTIMEO);
        let received = call
            .retry(fd, Readiness::READABLE, timeout, || attempt(done, flags | libc::MSG_DONTWAIT));
        match received {
            Ok(count) => {
                done += count.cast_unsigned();
                if count == 0 || !all || done >= size || !is_stream(fd) || is_nonblocking(fd) {
                    return Ok(done.cast_signed());
                }
            }
            Err(_) if done > 0 => return Ok(done.cast_signed()),
            Err(errno) => return Err(errno),
        }
    }
}

/// Sends `size` bytes by `attempt`, which is told how many have gone already and with which flags. As the kernel
/// does: a blocking send ends when everything has gone.
pub(super) fn transmit(
    call: &mut Call,
    fd: RawFd,
    size: size_t,
    flags: c_int,
    attempt: impl Fn(size_t, c_int) -> ssize_t,
) -> Result<ssize_t, c_int> {
    if flags & libc::MSG_DONTWAIT != 0 {
        return outcome(attempt(0, flags));
    }
    let mut done: size_t = 0;
    loop {
        // No signal for the rest: whoever has sent a part is told so by the result.
        let quiet = if done == 0 { 0 } else { libc::MSG_NOSIGNAL };
        let sent = call.retry(fd, Readiness::WRITABLE, Some(libc::SO_SNDTIMEO), || {
            attempt(done, flags | quiet | libc::MSG_DONTWAIT)
        });
        match sent {
            Ok(count) => {
                done += count.cast_unsigned();
                if count == 0 || done >= size || is_nonblocking(fd) {
                    return Ok(done.cast_signed());
                }
            }
            Err(_) if done > 0 => return Ok(done.cast_signed()),
            Err(errno) => return Err(errno),
        }
    }
}

/// `sendmsg`: what has not gone at the first attempt follows piece by piece, without the control data, which went
/// with the first byte.
///
/// # Safety
/// `message` is what C's `sendmsg` may be called with.
pub(super) unsafe fn send_message(
    call: &mut Call,
    fd: RawFd,
    message: *const msghdr,
    flags: c_int,
) -> Result<ssize_t, c_int> {
    let parts: &[iovec] = if message.is_null() {
        &[]
    } else {
        // SAFETY: the caller's message, which is there.
        let message = unsafe { &*message };
        if message.msg_iov.is_null() {
            &[]
        } else {
            // SAFETY: C's contract: as many as it says.
            unsafe { std::slice::from_raw_parts(message.msg_iov, message.msg_iovlen) }
        }
    };
    let size = parts.iter().map(|part| part.iov_len).sum();
    transmit(call, fd, size, flags, |done, flags| {
        if done == 0 {
            // SAFETY: what the caller passed.
            return unsafe { real::sendmsg(fd, message, flags) };
        }
        rest_of(parts, done).map_or(0, |rest| {
            // SAFETY: within the caller's data.
            unsafe { real::send(fd, rest.iov_base, rest.iov_len, flags) }
        })
    })
}

/// What is left, after `done` bytes, of the first part that has not gone whole.
pub(super) fn rest_of(parts: &[iovec], done: size_t) -> Option<iovec> {
    let mut skip = done;
    for part in parts {
        if skip < part.iov_len {
            // SAFETY: within the part.
            let iov_base = unsafe { part.iov_base.byte_add(skip) };
            return Some(iovec { iov_base, iov_len: part.iov_len - skip });
        }
        skip -= part.iov_len;
    }
    None
}

fn is_stream(fd: RawFd) -> bool {
    let mut kind: c_int = 0;
    socket_option(fd, libc::SO_TYPE, &mut kind) == Some(libc::SOCK_STREAM)
}

/// A descriptor to wait for, in the blocking way.
fn may_block(fd: RawFd) -> bool {
    kind(fd) != Kind::Plain && !is_nonblocking(fd)
}
