//! Unmodified crates of others on Warren's fibers and sockets.

mod budget;
mod example;
mod futures;
mod http;
mod postgres;
mod sidecar;
mod simulated;
mod ssh;
mod tls;
mod tokio_io;
mod websocket;

/// The servers that other tests start too.
#[allow(dead_code, unreachable_pub, reason = "these tests need only some of them")]
#[path = "../../../../crates/patch/tests/support/servers.rs"]
mod servers;

use warren_hub::net::{TcpListener, TcpStream};
use warren_hub::spawn;

/// Two ends of a TCP connection.
fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let other = spawn(move || TcpStream::connect(addr).unwrap());
    let (one, _) = listener.accept().unwrap();
    (one, other.join().unwrap())
}

/// Bytes that do not repeat soon.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 1u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..count).map(next).collect()
}
