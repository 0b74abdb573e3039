//! Echoes what it is sent, on the reactor: a protocol per connection, no fiber, no thread.
//!
//! `cargo run --example reactor_echo_server 127.0.0.1:1234`, then talk to it with `reactor_echo_client` or `nc 127.0.0.1 1234`.

use std::process::ExitCode;

use warren::hub::run;
use warren::hub::sync::Event;
use warren::reactor::{PeerAddr, Protocol, Reason, Transport, listen_tcp};

/// The state of one connection: here there is none.
struct Echo;

impl Protocol for Echo {
    fn connection_made(&mut self, _transport: &Transport) {}

    /// Bytes have come. What is written leaves at the end of the loop's turn.
    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        transport.write(data);
    }

    /// The peer does not read what it is sent, so nothing more is read from it: else its echo would fill the memory.
    fn pause_producing(&mut self, transport: &Transport) {
        transport.pause_reading();
    }

    fn resume_producing(&mut self, transport: &Transport) {
        transport.resume_reading();
    }

    fn connection_lost(&mut self, reason: &Reason) {
        println!("a connection has ended: {reason}");
    }
}

fn serve(addr: &str) -> Result<(), String> {
    let parsed =
        addr.parse().map_err(|_| format!("{addr} is no address such as 127.0.0.1:1234"))?;
    // A factory: makes the protocol for each connection. A closure will do.
    let factory = |_peer: &PeerAddr| Some(Box::new(Echo) as Box<dyn Protocol>);
    let port = listen_tcp(parsed, Box::new(factory))
        .map_err(|error| format!("cannot listen on {addr}: {error}; is it running already?"))?;
    println!("listening on {}", port.addr());
    // This fiber has nothing more to do. The loop calls the protocols while it waits.
    Event::new().wait();
    Ok(())
}

fn main() -> ExitCode {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1234".into());
    match run(move || serve(&addr)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}
