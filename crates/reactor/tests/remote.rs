//! Sockets on one hub whose protocols are on another.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, ThreadId};
use std::time::Duration;

use warren_hub::HubGroup;
use warren_reactor::{
    ListeningPort, PeerAddr, Protocol, Reason, RemoteFactory, Transport, WriteLimits, bind_tcp,
    relayed,
};

/// How long a server that hangs is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// More than the system holds of a connection.
const ANSWER_BYTES: usize = 60_000_000;

/// Echoes, or does what the first letter of a piece says: `q` closes, `a` aborts, `e` ends the output, `!` panics, `p`
/// stops reading until it is told to go on, `g` answers with more than the system
/// holds.
struct Echo {
    told: Sender<String>,
    paused: Rc<RefCell<Vec<Transport>>>,
    home: ThreadId,
}

impl Echo {
    fn tell(&self, what: impl Into<String>) {
        // A test that has seen enough hears no more.
        let _ = self.told.send(what.into());
    }
}

impl Protocol for Echo {
    fn connection_made(&mut self, transport: &Transport) {
        assert_eq!(thread::current().id(), self.home);
        transport.set_write_buffer_limits(WriteLimits { high_bytes: 100_000, low_bytes: 10_000 });
        assert!(transport.peer().is_loopback() && matches!(transport.host(), PeerAddr::Tcp(_)));
        self.tell("made");
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        match data[0] {
            b'q' => {
                transport.write(b"bye");
                transport.lose_connection();
            }
            b'a' => transport.abort_connection(),
            b'e' => {
                transport.write(b"end");
                transport.lose_write_connection();
            }
            b'!' => panic!("asked for by a test"),
            b'p' => {
                transport.pause_reading();
                self.paused.borrow_mut().push(transport.clone());
                self.tell("paused");
            }
            b'g' => {
                for _ in 0..ANSWER_BYTES / 100_000 {
                    transport.write(&[b'g'; 100_000]);
                }
                assert!(transport.is_full());
            }
            _ => transport.write(data),
        }
    }

    fn read_connection_lost(&mut self, transport: &Transport) {
        self.tell("ended");
        transport.lose_connection();
    }

    fn write_connection_lost(&mut self, _transport: &Transport) {
        self.tell("write ended");
    }

    fn resume_producing(&mut self, _transport: &Transport) {
        self.tell("resumed");
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.tell(format!("lost: {reason}"));
    }
}

/// Protocols on the first hub, sockets on the others.
struct Server {
    group: HubGroup,
    address: SocketAddr,
    told: Receiver<String>,
}

thread_local! {
    static PORT: RefCell<Option<ListeningPort>> = const { RefCell::new(None) };
    static PAUSED: Rc<RefCell<Vec<Transport>>> = Rc::default();
}

impl Server {
    fn start(outposts: usize) -> Self {
        let group = HubGroup::start(1 + outposts).unwrap();
        let (telling, told) = channel();
        let home = group.spawn_on(0, move || {
            RemoteFactory::here(Box::new(move |_: &PeerAddr| {
                let (told, home) = (telling.clone(), thread::current().id());
                let paused = PAUSED.with(Rc::clone);
                Some(Box::new(Echo { told, paused, home }) as Box<dyn Protocol>)
            }))
        });
        let home = home.unwrap().join().unwrap();
        let outpost = |number| {
            let home = home.clone();
            group
                .spawn_on(number, move || RemoteFactory::here(home.relay()))
                .unwrap()
                .join()
                .unwrap()
        };
        let outposts: Vec<_> = (1..=outposts).map(outpost).collect();
        let listen = move || {
            let port =
                bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap().listen_at(outposts).unwrap();
            let PeerAddr::Tcp(address) = *port.addr() else { panic!("listens elsewhere") };
            PORT.set(Some(port));
            address
        };
        let address = group.spawn_on(0, listen).unwrap().join().unwrap();
        drop(home);
        // The factory lives on where it is: it was named by the relays alone.
        Self { group, address, told }
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    }

    #[track_caller]
    fn expect(&self, what: &str) {
        let told = self.told.recv_timeout(PATIENCE).unwrap();
        assert_eq!(told, what);
    }

    fn end(self) {
        self.group.spawn_on(0, || PORT.set(None)).unwrap().join().unwrap();
        self.group.shutdown();
    }
}

#[test]
fn what_is_said_on_one_hub_is_answered_on_another() {
    let server = Server::start(2);
    let mut clients: Vec<_> = (0..6).map(|_| server.connect()).collect();
    for round in 0..20u8 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.write_all(&[b'x', round, number as u8]).unwrap();
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let mut answer = [0; 3];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(answer, [b'x', round, number as u8]);
        }
    }
    (0..6).for_each(|_| server.expect("made"));
    // In turn.
    for number in [1, 2] {
        assert_eq!(server.group.spawn_on(number, relayed).unwrap().join().unwrap(), 3);
    }
    drop(clients);
    let mut told: Vec<_> = (0..12).map(|_| server.told.recv_timeout(PATIENCE).unwrap()).collect();
    told.sort();
    assert!(told[..6].iter().all(|what| what == "ended"), "{told:?}");
    assert!(told[6..].iter().all(|what| what == "lost: closed by the peer"), "{told:?}");
    server.end();
}

#[test]
fn masses_pass_both_ways_in_order_through_windows_that_are_smaller() {
    const BYTES: usize = 20_000_000;
    let server = Server::start(1);
    let mut client = server.connect();
    let pattern = |at: usize| b'A' + (at % 7) as u8;
    let mut writing = client.try_clone().unwrap();
    let writer = thread::spawn(move || {
        let bytes: Vec<u8> = (0..BYTES).map(pattern).collect();
        let mut rest = &bytes[..];
        let mut piece = 1;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(piece.min(rest.len()));
            writing.write_all(now).unwrap();
            rest = later;
            piece = piece * 3 % 100_003 + 1;
        }
    });
    let mut buffer = vec![0; 1 << 16];
    let mut at = 0;
    while at < BYTES {
        let count = client.read(&mut buffer).unwrap();
        assert!(
            count != 0
                && buffer[..count].iter().enumerate().all(|(n, byte)| *byte == pattern(at + n))
        );
        at += count;
    }
    writer.join().unwrap();
    server.end();
}

#[test]
fn a_client_that_does_not_read_is_waited_for() {
    let server = Server::start(1);
    let mut client = server.connect();
    client.write_all(b"g").unwrap();
    server.expect("made");
    assert!(server.told.recv_timeout(Duration::from_millis(100)).is_err());
    let mut all = vec![0; ANSWER_BYTES];
    client.read_exact(&mut all).unwrap();
    assert!(all.iter().all(|byte| *byte == b'g'));
    server.expect("resumed");
    client.write_all(b"x").unwrap();
    client.read_exact(&mut all[..1]).unwrap();
    server.end();
}

#[test]
fn a_protocol_that_pauses_holds_its_client_back() {
    let server = Server::start(1);
    let mut client = server.connect();
    client.write_all(b"p").unwrap();
    server.expect("made");
    server.expect("paused");
    client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    // More than the system and both windows hold.
    let mut sent = 0;
    while let Ok(count) = client.write(&[b'z'; 50_000]) {
        sent += count;
        assert!(sent < 100_000_000, "nobody holds the client back");
    }
    let go_on = || PAUSED.with(|paused| paused.borrow().iter().for_each(Transport::resume_reading));
    server.group.spawn_on(0, go_on).unwrap().join().unwrap();
    let mut all = vec![0; sent];
    client.read_exact(&mut all).unwrap();
    assert!(all.iter().all(|byte| *byte == b'z'));
    server.end();
}

#[test]
fn either_side_ends_a_connection_or_half_of_it() {
    let server = Server::start(1);
    let mut rest = Vec::new();

    let mut client = server.connect();
    client.write_all(b"q").unwrap();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"bye");
    server.expect("made");
    server.expect("lost: closed here");

    let mut client = server.connect();
    client.write_all(b"a").unwrap();
    assert!(client.read(&mut [0]).is_err());
    server.expect("made");
    server.expect("lost: aborted here");

    let mut client = server.connect();
    client.write_all(b"x").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    rest.clear();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"x");
    server.expect("made");
    server.expect("ended");
    server.expect("lost: closed by the peer");

    let mut client = server.connect();
    client.write_all(b"e").unwrap();
    rest.clear();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"end");
    server.expect("made");
    server.expect("write ended");
    drop(client);
    server.expect("ended");
    server.expect("lost: closed by the peer");
    server.end();
}

#[test]
fn a_panic_ends_its_connection_only() {
    let server = Server::start(1);
    let (mut one, mut other) = (server.connect(), server.connect());
    one.write_all(b"!").unwrap();
    assert!(matches!(one.read(&mut [0]), Ok(0) | Err(_)));
    other.write_all(b"x").unwrap();
    other.read_exact(&mut [0]).unwrap();
    server.expect("made");
    server.expect("made");
    server.expect("lost: the protocol panicked: asked for by a test");
    server.end();
}

#[test]
fn a_factory_may_refuse_or_be_gone() {
    let group = HubGroup::start(2).unwrap();
    let refuses = || RemoteFactory::here(Box::new(|_: &PeerAddr| None));
    let home = group.spawn_on(0, refuses).unwrap().join().unwrap();
    let relay = |home: RemoteFactory| RemoteFactory::here(home.relay());
    let outpost = group.spawn_on(1, move || relay(home)).unwrap().join().unwrap();
    let listen = move || {
        let port =
            bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap().listen_at(vec![outpost]).unwrap();
        let PeerAddr::Tcp(address) = *port.addr() else { panic!("listens elsewhere") };
        PORT.set(Some(port));
        address
    };
    let address = group.spawn_on(0, listen).unwrap().join().unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    group.spawn_on(0, || PORT.set(None)).unwrap().join().unwrap();
    group.shutdown();
}
