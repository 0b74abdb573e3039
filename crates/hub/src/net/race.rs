//! Connecting to a host of several addresses: "happy eyeballs" (RFC 8305 §5).
//!
//! The families take turns, beginning with that of the first address. Each attempt has a quarter of a second before
//! the next one starts beside it; one that fails starts the next at once. The first that stands wins, and the others are
//! closed. So a family without a route, or a server that is down, costs little.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use super::socket::Socket;
use crate::fiber::{Waiter, WaitsFor};
use crate::hub;

/// "Connection Attempt Delay" (RFC 8305 §8).
const HEAD_START: Duration = Duration::from_millis(250);

/// Connects to the first of `addrs` that answers.
///
/// # Suspends
/// Until connected, or `deadline`.
pub(super) fn connect(
    addrs: Vec<SocketAddr>,
    from: Option<SocketAddr>,
    deadline: Option<Instant>,
) -> io::Result<Socket> {
    let from = from.map(Into::into);
    let mut left = interleave(addrs).into_iter();
    if left.len() == 1
        && let Some(addr) = left.next()
    {
        return Socket::connect(&addr.into(), from.as_ref(), deadline);
    }
    let now = || hub::with(|hub| hub.driver.now());
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, "no address");
    let mut running: Vec<Socket> = Vec::with_capacity(left.len());
    let mut next_start = now();
    loop {
        while (running.is_empty() || next_start <= now())
            && let Some(addr) = left.next()
        {
            match Socket::start_connect(&addr.into(), from.as_ref()) {
                Ok(socket) => {
                    running.push(socket);
                    next_start = now() + HEAD_START;
                }
                Err(error) => last = error,
            }
        }
        match finished(&mut running) {
            Some((socket, Ok(()))) => return Ok(socket),
            Some((_, Err(error))) => {
                last = error;
                next_start = now();
                continue;
            }
            None if running.is_empty() => return Err(last),
            None => {}
        }
        if deadline.is_some_and(|deadline| deadline <= now()) || std::thread::panicking() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let until = (left.len() > 0).then_some(next_start);
        wait(&running, until.into_iter().chain(deadline).min());
    }
}

/// Takes out an attempt that has ended, in whatever way.
fn finished(running: &mut Vec<Socket>) -> Option<(Socket, io::Result<()>)> {
    for index in 0..running.len() {
        match running[index].is_connected() {
            Ok(true) => return Some((running.swap_remove(index), Ok(()))),
            Ok(false) => {}
            Err(error) => return Some((running.remove(index), Err(error))),
        }
    }
    None
}

/// Parks until one of the attempts has news.
fn wait(running: &[Socket], deadline: Option<Instant>) {
    let waiter = Waiter::current();
    let places: Vec<_> =
        running.iter().map(|socket| socket.writers().enlist_waiter(waiter)).collect();
    let fd = running.first().and_then(|socket| socket.source().kernel());
    let what = WaitsFor::Write(fd.map_or(-1, |fd| fd.as_raw_fd()));
    hub::park_for(&waiter, deadline, what);
    drop(places);
}

/// The order in which a host's addresses should be tried: the families by turns, beginning with that of the first, each in
/// its own order (RFC 8305 §4).
pub fn interleave(addrs: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = addrs.first().map(SocketAddr::is_ipv6) else { return addrs };
    let count = addrs.len();
    let (same, other): (Vec<_>, Vec<_>) =
        addrs.into_iter().partition(|addr| addr.is_ipv6() == first);
    let (mut same, mut other) = (same.into_iter(), other.into_iter());
    let mut ordered = Vec::with_capacity(count);
    while ordered.len() < count {
        ordered.extend(same.next());
        ordered.extend(other.next());
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let addrs = |list: &[&str]| -> Vec<SocketAddr> {
            list.iter().map(|addr| addr.parse().unwrap()).collect()
        };
        let given = addrs(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"]);
        let wanted = addrs(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"]);
        assert_eq!(interleave(given), wanted);
        assert_eq!(interleave(Vec::new()), []);
    }
}
