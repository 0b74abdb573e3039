//! For protocols in a simulated network.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use warren_hub::sim::{Node, World};
use warren_hub::sleep;
use warren_hub::sync::Event;

use crate::{Factory, listen_tcp};

/// Starts a node of a simulation that listens on `port` with what `make` makes, and waits until it does: others reach it as
/// `name:port`.
///
/// ```
/// use std::io::Read;
/// use warren_hub::{net::TcpStream, sim};
/// use warren_reactor::testing::serve;
/// use warren_reactor::{PeerAddr, Protocol, Reason, Transport};
///
/// struct Greeter;
/// impl Protocol for Greeter {
///     fn connection_made(&mut self, transport: &Transport) {
///         transport.write(b"hello");
///         transport.lose_connection();
///     }
///     fn data_received(&mut self, _transport: &Transport, _data: &[u8]) {}
///     fn connection_lost(&mut self, _reason: &Reason) {}
/// }
///
/// sim::check(0..3, |world| {
///     serve(world, "server", 7, || |_: &PeerAddr| Some(Box::new(Greeter) as Box<dyn Protocol>));
///     let mut text = String::new();
///     TcpStream::connect("server:7").unwrap().read_to_string(&mut text).unwrap();
///     assert_eq!(text, "hello");
/// });
/// ```
///
/// # Suspends
/// Until the node listens.
///
/// # Panics
/// Outside the fibers of a simulation.
pub fn serve<F: Factory + 'static>(
    world: &World,
    name: &str,
    port: u16,
    make: impl FnOnce() -> F + 'static,
) -> Node {
    let listening = Rc::new(Cell::new(false));
    let told = listening.clone();
    let node = world.node(name, move || {
        let addr = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let _port = listen_tcp(addr, Box::new(make())).expect("the node's port is free");
        told.set(true);
        Event::new().wait();
    });
    while !listening.get() {
        sleep(Duration::from_millis(1));
    }
    node
}
