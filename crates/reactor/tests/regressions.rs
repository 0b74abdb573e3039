//! Corners of sockets, listeners and connectors that once went wrong: a case each.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use warren_hub::net::TcpStream;
use warren_hub::sync::{Event, Queue};
use warren_hub::{call_soon, run, sim, yield_now};
use warren_reactor::testing::serve;
use warren_reactor::{
    ClientFactory, Connector, Consumer, Factory, ListeningPort, PeerAddr, Producer, Protocol,
    Reason, Transport, connect_tcp, listen_tcp,
};

type Log = Rc<Queue<String>>;

/// Notes what it hears, in the order in which it does. Begins as it is told to.
struct Notes {
    log: Log,
    made: fn(&Transport),
    transports: Rc<RefCell<Vec<Transport>>>,
}

impl Protocol for Notes {
    fn connection_made(&mut self, transport: &Transport) {
        self.transports.borrow_mut().push(transport.clone());
        (self.made)(transport);
        self.log.put("made".into()).unwrap();
    }

    fn data_received(&mut self, _transport: &Transport, data: &[u8]) {
        self.log.put(String::from_utf8_lossy(data).into_owned()).unwrap();
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.log.put(format!("lost: {reason}")).unwrap();
    }
}

struct Server {
    port: ListeningPort,
    log: Log,
    transports: Rc<RefCell<Vec<Transport>>>,
}

impl Server {
    fn start(made: fn(&Transport)) -> Self {
        let log = Log::new(Queue::unbounded());
        let transports = Rc::<RefCell<Vec<Transport>>>::default();
        let (notes, all) = (log.clone(), transports.clone());
        let factory = move |_: &PeerAddr| {
            let notes = Notes { log: notes.clone(), made, transports: all.clone() };
            Some(Box::new(notes) as Box<dyn Protocol>)
        };
        let port = listen_tcp("127.0.0.1:0".parse().unwrap(), Box::new(factory)).unwrap();
        Self { port, log, transports }
    }

    fn addr(&self) -> SocketAddr {
        let PeerAddr::Tcp(addr) = self.port.addr() else { unreachable!("a TCP port") };
        *addr
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr()).unwrap();
        assert_eq!(self.log.get().unwrap(), "made");
        stream
    }

    /// Waits until the loop has had the news of what happened before.
    fn catch_up(&self) {
        drop(self.connect());
        self.transports.borrow_mut().pop().unwrap().abort_connection();
        assert!(self.log.get().unwrap().starts_with("lost: "));
    }
}

#[test]
fn the_end_that_came_while_reading_was_paused_is_told_behind_the_bytes() {
    run(|| {
        let server = Server::start(Transport::pause_reading);
        let mut stream = server.connect();
        stream.write_all(b"last words").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        server.catch_up();
        server.transports.borrow()[0].resume_reading();
        assert_eq!(server.log.get().unwrap(), "last words");
        assert_eq!(server.log.get().unwrap(), "lost: closed by the peer");
    });
}

#[test]
fn a_reset_that_came_while_reading_was_paused_is_told_when_it_is_resumed() {
    run(|| {
        let server = Server::start(Transport::pause_reading);
        let stream = server.connect();
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        drop(stream);
        server.catch_up();
        server.transports.borrow()[0].resume_reading();
        assert!(server.log.get().unwrap().starts_with("lost: "));
    });
}

#[test]
fn an_abort_is_a_reset_in_a_simulation_too() {
    sim::check(0..5, |world| {
        struct Aborts;
        impl Protocol for Aborts {
            fn connection_made(&mut self, _transport: &Transport) {}
            fn data_received(&mut self, transport: &Transport, _data: &[u8]) {
                transport.abort_connection();
            }
            fn connection_lost(&mut self, _reason: &Reason) {}
        }
        let aborts = |_: &PeerAddr| Some(Box::new(Aborts) as Box<dyn Protocol>);
        serve(world, "server", 7, move || aborts);
        let mut stream = TcpStream::connect("server:7").unwrap();
        stream.write_all(b"x").unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn no_descriptor_left_for_a_connection_is_waited_out() {
    sim::check(0..20, |world| {
        let hello = |transport: &Transport| {
            transport.write(b"hello");
            transport.lose_connection();
        };
        let log = Log::new(Queue::unbounded());
        let node = serve(world, "server", 7, move || {
            move |_: &PeerAddr| {
                let notes = Notes { log: log.clone(), made: hello, transports: Rc::default() };
                Some(Box::new(notes) as Box<dyn Protocol>)
            }
        });
        world.net().out_of_descriptors(&node, true);
        let waiting = warren_hub::spawn(|| {
            let mut text = String::new();
            TcpStream::connect("server:7").unwrap().read_to_string(&mut text).unwrap();
            text
        });
        warren_hub::sleep(Duration::from_secs(1));
        assert!(!waiting.ready());
        world.net().out_of_descriptors(&node, false);
        assert_eq!(waiting.join().unwrap(), "hello");
    });
}

/// Notes its life, and does something to its connector or port when it is to build a protocol.
struct Client {
    log: Log,
    connector: Rc<RefCell<Option<Connector>>>,
    leaves: Leaves,
}

#[derive(Clone, Copy, PartialEq)]
enum Leaves {
    Never,
    WhenBuilding,
    WhenMade,
}

impl Factory for Client {
    fn build_protocol(&mut self, _peer: &PeerAddr) -> Option<Box<dyn Protocol>> {
        let connector = self.connector.borrow().clone().expect("set before the loop goes on");
        if self.leaves == Leaves::WhenBuilding {
            connector.disconnect();
        }
        Some(Box::new(ClientProtocol { connector, leaves: self.leaves == Leaves::WhenMade }))
    }
}

impl ClientFactory for Client {
    fn started_connecting(&mut self, _connector: &Connector) {
        self.log.put("connecting".into()).unwrap();
    }

    fn client_connection_failed(&mut self, _connector: &Connector, reason: &Reason) {
        self.log.put(format!("failed: {reason}")).unwrap();
    }

    fn client_connection_lost(&mut self, _connector: &Connector, reason: &Reason) {
        self.log.put(format!("lost: {reason}")).unwrap();
    }
}

struct ClientProtocol {
    connector: Connector,
    leaves: bool,
}

impl Protocol for ClientProtocol {
    fn connection_made(&mut self, _transport: &Transport) {
        if self.leaves {
            self.connector.disconnect();
        }
    }
    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) {}
    fn connection_lost(&mut self, _reason: &Reason) {}
}

fn connect(addr: SocketAddr, log: &Log, leaves: Leaves) -> Connector {
    let place = Rc::<RefCell<Option<Connector>>>::default();
    let client = Client { log: log.clone(), connector: place.clone(), leaves };
    let connector = connect_tcp(addr, Box::new(client));
    *place.borrow_mut() = Some(connector.clone());
    connector
}

#[test]
fn a_connector_that_is_disconnected_while_it_gets_its_connection_obeys() {
    run(|| {
        let server = Server::start(|_| ());
        for leaves in [Leaves::WhenBuilding, Leaves::WhenMade] {
            let log = Log::new(Queue::unbounded());
            connect(server.addr(), &log, leaves);
            assert_eq!(log.get().unwrap(), "connecting");
            assert_eq!(log.get().unwrap(), "lost: closed here");
        }
    });
}

#[test]
fn connecting_can_be_given_up_when_the_answer_is_already_there() {
    run(|| {
        let bound = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let log = Log::new(Queue::unbounded());
        let connector = connect(bound.local_addr().unwrap(), &log, Leaves::Never);
        assert_eq!(log.get().unwrap(), "connecting");
        // The system has made the connection; the loop has not heard of it, for this blocks it.
        let (mut stream, _) = bound.accept().unwrap();
        connector.stop_connecting();
        assert_eq!(log.get().unwrap(), "failed: aborted here");
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn a_port_that_its_own_factory_drops_stops_the_factory() {
    /// Serves one connection.
    struct Once {
        port: Rc<Cell<Option<ListeningPort>>>,
        stopped: Rc<Event>,
    }
    impl Factory for Once {
        fn build_protocol(&mut self, _peer: &PeerAddr) -> Option<Box<dyn Protocol>> {
            drop(self.port.take());
            None
        }
        fn stop_factory(&mut self) {
            self.stopped.set();
        }
    }
    run(|| {
        let (place, stopped) = (Rc::new(Cell::new(None)), Rc::new(Event::new()));
        let once = Once { port: place.clone(), stopped: stopped.clone() };
        let port = listen_tcp("127.0.0.1:0".parse().unwrap(), Box::new(once)).unwrap();
        let PeerAddr::Tcp(addr) = port.addr().clone() else { unreachable!("a TCP port") };
        place.set(Some(port));
        let mut stream = TcpStream::connect(addr).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        stopped.wait();
        assert!(TcpStream::connect(addr).is_err());
    });
}

#[test]
fn connections_that_are_open_when_the_hub_ends_are_closed() {
    let mut stream = run(|| {
        let server = Server::start(|_| ());
        let stream = std::net::TcpStream::connect(server.addr()).unwrap();
        assert_eq!(server.log.get().unwrap(), "made");
        call_soon(|| ());
        yield_now();
        stream
    });
    // The protocol's own clones of the transport do not keep the socket.
    assert!(stream.read(&mut [0]).map_or(true, |count| count == 0));
}

/// What went to the system without a copy did not count as written.
#[test]
fn a_pull_producer_of_large_pieces_is_asked_for_the_next() {
    /// Writes so many pieces.
    struct Pieces {
        left: Cell<usize>,
        transport: Transport,
    }
    impl Producer for Pieces {
        fn resume_producing(&self) {
            match self.left.get().checked_sub(1) {
                Some(left) => {
                    self.left.set(left);
                    self.transport.write(&[b'x'; 20_000]);
                }
                None => self.transport.unregister_producer(),
            }
        }
        fn stop_producing(&self) {}
    }
    run(|| {
        let server = Server::start(|transport| {
            let pieces = Pieces { left: Cell::new(50), transport: transport.clone() };
            transport.register_producer(Rc::new(pieces), false);
            transport.lose_connection();
        });
        let mut stream = server.connect();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), 1_000_000);
    });
}
