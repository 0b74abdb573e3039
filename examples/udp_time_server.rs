//! Tells the time to whoever asks by UDP, with `udp_time_client`.
//!
//! `cargo run --example udp_time_server 127.0.0.1:1037`
//!
//! ```text
//! question  | what the client likes, 8 bytes | 12 bytes of 0                              |
//! answer    | the same 8 bytes               | seconds since 1970, u64 | nanoseconds, u32 |
//! ```
//! A question is as long as its answer: so nobody gains by asking in the name of somebody else, to have him flooded.

use std::io;
use std::net::SocketAddr;
use std::time::UNIX_EPOCH;

use warren::hub::sync::Event;
use warren::hub::{run, system_time};
use warren::reactor::{DatagramProtocol, DatagramTransport, listen_udp};

struct TimeServer;

impl DatagramProtocol for TimeServer {
    fn start_protocol(&mut self, transport: &DatagramTransport) {
        println!("listening on {}", transport.host());
    }

    fn datagram_received(&mut self, transport: &DatagramTransport, data: &[u8], from: SocketAddr) {
        let Ok(mut answer) = <[u8; 20]>::try_from(data) else { return };
        let since_1970 = system_time().duration_since(UNIX_EPOCH).unwrap_or_default();
        answer[8..16].copy_from_slice(&since_1970.as_secs().to_be_bytes());
        answer[16..].copy_from_slice(&since_1970.subsec_nanos().to_be_bytes());
        match transport.write(&answer, from) {
            Ok(()) => println!("told {from} the time"),
            // The client asks again.
            Err(error) => println!("{error}"),
        }
    }
}

fn main() -> io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1037".into());
    let addr = addr
        .parse()
        .map_err(|_| io::Error::other(format!("{addr:?} is no address: 127.0.0.1:1037 is one")))?;
    run(move || {
        let _port = listen_udp(addr, Box::new(TimeServer))?;
        // For ever: the port works on the loop.
        Event::new().wait();
        Ok(())
    })
}
