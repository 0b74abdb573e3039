//! Forwards a port: who connects here speaks with a server elsewhere.
//!
//! `cargo run --example port_proxy 127.0.0.1:8080 example.org:80`
//!
//! ```text
//!   client <== Near ==> this program <== Far ==> server
//! ```
//! Each of the two connections is the producer of the other: while one peer does not read, nothing is read from the
//! other one, and so a slow reader slows down the writer and fills no memory. When one ends its output, so does the other.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;

use warren::hub::net::ToAddrs;
use warren::hub::run;
use warren::hub::sync::Event;
use warren::reactor::{
    ClientFactory, Connector, Consumer, Factory, PeerAddr, Protocol, Reason, Transport,
    connect_tcp, listen_tcp,
};

/// What the two connections know of one another.
#[derive(Default)]
struct Pair {
    near: RefCell<Option<Transport>>,
    far: RefCell<Option<Transport>>,
    connector: RefCell<Option<Connector>>,
}

#[derive(Clone, Copy)]
enum Side {
    Near,
    Far,
}

/// One of the two connections.
struct Half {
    pair: Rc<Pair>,
    side: Side,
    target: SocketAddr,
}

impl Half {
    fn other(&self) -> Option<Transport> {
        match self.side {
            Side::Near => self.pair.far.borrow().clone(),
            Side::Far => self.pair.near.borrow().clone(),
        }
    }
}

impl Protocol for Half {
    fn connection_made(&mut self, transport: &Transport) {
        match self.side {
            Side::Near => {
                // Until there is somebody to forward to, nothing is read.
                transport.pause_reading();
                *self.pair.near.borrow_mut() = Some(transport.clone());
                let factory = FarFactory { pair: self.pair.clone(), target: self.target };
                let connector = connect_tcp(self.target, Box::new(factory));
                *self.pair.connector.borrow_mut() = Some(connector);
            }
            Side::Far => {
                *self.pair.far.borrow_mut() = Some(transport.clone());
                let Some(near) = self.other() else { return transport.abort_connection() };
                // What is received at one end is produced for the other.
                near.register_producer(Rc::new(transport.clone()), true);
                transport.register_producer(Rc::new(near.clone()), true);
                near.resume_reading();
            }
        }
    }

    fn data_received(&mut self, _transport: &Transport, data: &[u8]) {
        if let Some(other) = self.other() {
            other.write(data);
        }
    }

    /// This peer sends no more, and perhaps still waits for an answer.
    fn read_connection_lost(&mut self, _transport: &Transport) {
        if let Some(other) = self.other() {
            // Its producer has finished.
            other.unregister_producer();
            other.lose_write_connection();
        }
    }

    fn connection_lost(&mut self, reason: &Reason) {
        if let Some(connector) = self.pair.connector.take() {
            connector.stop_connecting();
        }
        if let Some(other) = self.other() {
            other.unregister_producer();
            match reason {
                // What was received in order is delivered in order.
                Reason::Done | Reason::Closed => other.lose_connection(),
                _ => other.abort_connection(),
            }
        }
        match self.side {
            Side::Near => self.pair.near.take(),
            Side::Far => self.pair.far.take(),
        };
    }
}

/// Makes the connection to the server.
struct FarFactory {
    pair: Rc<Pair>,
    target: SocketAddr,
}

impl Factory for FarFactory {
    fn build_protocol(&mut self, _peer: &PeerAddr) -> Option<Box<dyn Protocol>> {
        let half = Half { pair: self.pair.clone(), side: Side::Far, target: self.target };
        Some(Box::new(half))
    }
}

impl ClientFactory for FarFactory {
    fn client_connection_failed(&mut self, connector: &Connector, reason: &Reason) {
        eprintln!("cannot connect to {}: {reason}", connector.destination());
        let near = self.pair.near.borrow().clone();
        if let Some(near) = near {
            near.abort_connection();
        }
    }
}

fn forward(from: &str, to: &str) -> Result<(), String> {
    let listen =
        from.parse().map_err(|_| format!("{from} is no address such as 127.0.0.1:8080"))?;
    let target = to.to_addrs().map_err(|error| format!("cannot forward to {to}: {error}"))?;
    let target = *target.first().ok_or_else(|| format!("{to} has no address"))?;
    let factory = move |_peer: &PeerAddr| {
        let half = Half { pair: Rc::default(), side: Side::Near, target };
        Some(Box::new(half) as Box<dyn Protocol>)
    };
    let port = listen_tcp(listen, Box::new(factory))
        .map_err(|error| format!("cannot listen on {from}: {error}; is it in use?"))?;
    println!("forwarding {} to {target}", port.addr());
    Event::new().wait();
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [from, to] = arguments.as_slice() else {
        eprintln!("which port, and where to? Such as: port_proxy 127.0.0.1:8080 example.org:80");
        return ExitCode::FAILURE;
    };
    let (from, to) = (from.clone(), to.clone());
    match run(move || forward(&from, &to)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}
