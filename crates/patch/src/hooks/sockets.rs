//! Sockets: connecting and accepting. What moves bytes is in `transfer`.

use std::ffi::c_int;
use std::os::fd::RawFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use libc::{sockaddr, socklen_t};
use warren_hub::io::Readiness;

use super::select;
use crate::call::{Call, after, is_nonblocking, outcome, socket_option, socket_timeout};
use crate::real::hooks;

/// How soon to try again to connect to a Unix socket whose queue is full: the kernel tells of no room there.
const KNOCK: Duration = Duration::from_millis(1);

hooks! {
    Sockets(Some(fd))
    fn connect(fd: c_int, address: *const sockaddr, size: socklen_t) -> c_int, |call| {
        // SAFETY: what the caller passed.
        let connect = || unsafe { real::connect(fd, address, size) };
        match start_connecting(fd, connect) {
            Ok(()) => Ok(0),
            Err(libc::EINPROGRESS | libc::EALREADY) if !is_nonblocking(fd) => {
                finish_connecting(call, fd).map(|()| 0)
            }
            Err(libc::EAGAIN) if !is_nonblocking(fd) => knock(call, fd, connect).map(|()| 0),
            Err(errno) => Err(errno),
        }
    }

    Sockets(Some(fd))
    fn accept(fd: c_int, address: *mut sockaddr, size: *mut socklen_t) -> c_int, |call| {
        // SAFETY: what the caller passed.
        take_connection(call, fd, || unsafe { real::accept(fd, address, size) })
    }

    Sockets(Some(fd))
    fn accept4(
        fd: c_int, address: *mut sockaddr, size: *mut socklen_t, flags: c_int,
    ) -> c_int, |call| {
        // SAFETY: what the caller passed.
        take_connection(call, fd, || unsafe { real::accept4(fd, address, size, flags) })
    }
}

/// Connects without blocking. There is no flag for that in the call, so the descriptor is made non-blocking just
/// for it: nobody else can have a use for a socket that is not connected.
fn start_connecting(fd: RawFd, connect: impl Fn() -> c_int) -> Result<(), c_int> {
    // SAFETY: F_GETFL and F_SETFL take no pointers.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    let blocking = flags != -1 && flags & libc::O_NONBLOCK == 0;
    if blocking {
        // SAFETY: as above.
        unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) };
    }
    let result = outcome(connect() as isize);
    if blocking {
        // SAFETY: as above.
        unsafe { libc::fcntl(fd, libc::F_SETFL, flags) };
    }
    result.map(drop)
}

fn finish_connecting(call: &mut Call, fd: RawFd) -> Result<(), c_int> {
    let deadline = deadline(fd, libc::SO_SNDTIMEO);
    while !select::is_ready(fd, Readiness::WRITABLE) {
        // A connect that runs out of its SO_SNDTIMEO goes on behind the caller's back; socket(7).
        call.wait(fd, Readiness::WRITABLE, deadline)
            .map_err(|unready| unready.errno(libc::EINPROGRESS))?;
    }
    let mut error = 0;
    match socket_option(fd, libc::SO_ERROR, &mut error) {
        Some(0) | None => Ok(()),
        Some(error) => Err(error),
    }
}

/// A Unix socket whose queue is full.
fn knock(call: &mut Call, fd: RawFd, connect: impl Fn() -> c_int) -> Result<(), c_int> {
    let deadline = deadline(fd, libc::SO_SNDTIMEO);
    loop {
        call.sleep(KNOCK)?;
        match start_connecting(fd, &connect) {
            Err(libc::EAGAIN) if deadline.is_none_or(|deadline| Instant::now() < deadline) => {}
            done => return done,
        }
    }
}

/// Accepts when there is something to accept. Only one thread at a time looks and takes, so that hubs that share
/// a listener do not block on a connection that another has just taken.
fn take_connection(call: &mut Call, fd: RawFd, accept: impl Fn() -> c_int) -> Result<c_int, c_int> {
    static TAKING: Mutex<()> = Mutex::new(());
    let attempt = || {
        let _taking = TAKING.lock().unwrap_or_else(PoisonError::into_inner);
        if is_nonblocking(fd) || select::is_ready(fd, Readiness::READABLE) {
            return accept() as isize;
        }
        crate::call::set_errno(libc::EAGAIN);
        -1
    };
    let accepted = call.retry(fd, Readiness::READABLE, Some(libc::SO_RCVTIMEO), attempt)?;
    Ok(accepted as c_int)
}

fn deadline(fd: RawFd, option: c_int) -> Option<Instant> {
    socket_timeout(fd, option).and_then(after)
}
