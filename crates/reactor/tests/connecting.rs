//! Client factories and their connectors, on real sockets.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use warren_hub::net::TcpListener;
use warren_hub::run;
use warren_hub::sync::Queue;
use warren_reactor::{
    ClientFactory, ConnectOptions, Connector, ConnectorState, Factory, PeerAddr, Protocol, Reason,
    Transport, bind_tcp, connect_tcp, connect_tcp_with, connect_unix, listen_unix,
};

type Log = Rc<Queue<String>>;

/// Notes everything; connects as often as it is told to.
struct Clients {
    log: Log,
    tries: u32,
    refuse: bool,
}

impl Clients {
    fn new(log: &Log) -> Self {
        Self { log: log.clone(), tries: 1, refuse: false }
    }

    fn again(&mut self, connector: &Connector) {
        self.tries -= 1;
        if self.tries > 0 {
            connector.connect();
        }
    }
}

impl Factory for Clients {
    fn build_protocol(&mut self, _peer: &PeerAddr) -> Option<Box<dyn Protocol>> {
        let client = Client(self.log.clone());
        (!self.refuse).then_some(Box::new(client))
    }

    fn start_factory(&mut self) {
        self.log.put("start".into()).unwrap();
    }

    fn stop_factory(&mut self) {
        self.log.put("stop".into()).unwrap();
    }
}

impl ClientFactory for Clients {
    fn started_connecting(&mut self, connector: &Connector) {
        assert_eq!(connector.state(), ConnectorState::Connecting);
        self.log.put("connecting".into()).unwrap();
    }

    fn client_connection_failed(&mut self, connector: &Connector, reason: &Reason) {
        assert_eq!(connector.state(), ConnectorState::Disconnected);
        self.log.put(format!("failed: {reason}")).unwrap();
        self.again(connector);
    }

    fn client_connection_lost(&mut self, connector: &Connector, reason: &Reason) {
        self.log.put(format!("client lost: {reason}")).unwrap();
        self.again(connector);
    }
}

struct Client(Log);

impl Protocol for Client {
    fn connection_made(&mut self, transport: &Transport) {
        self.0.put("made".into()).unwrap();
        transport.write(b"hello");
    }

    fn data_received(&mut self, _transport: &Transport, data: &[u8]) {
        self.0.put(String::from_utf8_lossy(data).into_owned()).unwrap();
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.0.put(format!("lost: {reason}")).unwrap();
    }
}

fn log() -> Log {
    Log::new(Queue::unbounded())
}

/// Takes what has been noted up to `last`.
fn until(log: &Log, last: &str) -> Vec<String> {
    let mut lines = vec![log.get().unwrap()];
    while lines.last().is_some_and(|line| line != last) {
        lines.push(log.get().unwrap());
    }
    lines
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

#[test]
fn a_factory_hears_the_whole_life_of_its_connections() {
    run(|| {
        let (listener, addr) = listener();
        let log = log();
        let connector = connect_tcp(addr, Box::new(Clients { tries: 2, ..Clients::new(&log) }));
        assert_eq!(connector.destination(), PeerAddr::Tcp(addr));
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; 5]).unwrap();
            stream.write_all(b"hi").unwrap();
        }
        let once = ["connecting", "made", "hi", "lost: closed by the peer"];
        let lost = ["client lost: closed by the peer"];
        let whole = [&["start"][..], &once, &lost, &once, &lost, &["stop"]].concat();
        assert_eq!(until(&log, "stop"), whole);
        assert_eq!(connector.state(), ConnectorState::Disconnected);
    });
}

#[test]
fn a_refused_connection_fails_and_may_be_tried_again() {
    run(|| {
        let (listener, addr) = listener();
        drop(listener);
        let log = log();
        connect_tcp(addr, Box::new(Clients { tries: 2, ..Clients::new(&log) }));
        let lines = until(&log, "stop");
        assert_eq!(lines.len(), 6, "{lines:?}");
        assert_eq!((&*lines[0], &*lines[1], &*lines[3]), ("start", "connecting", "connecting"));
        assert!(lines[2].starts_with("failed: ") && lines[2].contains("refused"), "{lines:?}");
    });
}

#[test]
fn connecting_can_be_given_up_and_times_out() {
    run(|| {
        // A full backlog leaves those who connect without an answer.
        let bound = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        rustix::net::listen(&bound, 0).unwrap();
        let addr = bound.local_addr().unwrap();
        let _filling: Vec<_> = (0..4)
            .filter_map(|_| {
                std::net::TcpStream::connect_timeout(&addr, Duration::from_millis(50)).ok()
            })
            .collect();
        let log = log();
        let connector = connect_tcp(addr, Box::new(Clients::new(&log)));
        connector.stop_connecting();
        let failed = until(&log, "stop");
        assert_eq!(failed.last_chunk::<2>().unwrap(), &["failed: aborted here", "stop"]);
        let mut options = ConnectOptions::default();
        options.timeout = Duration::from_millis(1);
        connect_tcp_with(addr, Box::new(Clients::new(&log)), options);
        let failed = until(&log, "stop");
        assert_eq!(failed, ["start", "connecting", "failed: timed out", "stop"]);
    });
}

#[test]
fn disconnecting_writes_what_waits_first() {
    run(|| {
        let (listener, addr) = listener();
        let log = log();
        let connector = connect_tcp(addr, Box::new(Clients::new(&log)));
        until(&log, "made");
        connector.disconnect();
        let (mut stream, _) = listener.accept().unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        let end = ["lost: closed here", "client lost: closed here", "stop"];
        assert_eq!(until(&log, "stop"), end);
    });
}

#[test]
fn a_client_factory_may_refuse_what_it_has_asked_for() {
    run(|| {
        let (listener, addr) = listener();
        let log = log();
        connect_tcp(addr, Box::new(Clients { refuse: true, ..Clients::new(&log) }));
        let all = ["start", "connecting", "client lost: closed here", "stop"];
        assert_eq!(until(&log, "stop"), all);
        let (mut stream, _) = listener.accept().unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn a_connection_may_be_made_from_a_certain_address() {
    run(|| {
        let (listener, addr) = listener();
        let mut options = ConnectOptions::default();
        options.bind = Some("127.0.0.9:0".parse().unwrap());
        connect_tcp_with(addr, Box::new(Clients::new(&log())), options);
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip().to_string(), "127.0.0.9");
    });
}

#[test]
fn unix_sockets_are_connected_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    run(move || {
        struct Greeter;
        impl Protocol for Greeter {
            fn connection_made(&mut self, transport: &Transport) {
                transport.write(b"hi");
                transport.lose_connection();
            }
            fn data_received(&mut self, _transport: &Transport, _data: &[u8]) {}
            fn connection_lost(&mut self, _reason: &Reason) {}
        }
        let greeters = |_: &PeerAddr| Some(Box::new(Greeter) as Box<dyn Protocol>);
        let _port = listen_unix(&path, Box::new(greeters)).unwrap();
        let log = log();
        connect_unix(&path, Box::new(Clients::new(&log))).unwrap();
        let lines = until(&log, "stop");
        assert_eq!(lines[..4], ["start", "connecting", "made", "hi"]);
    });
}

#[test]
fn ports_start_and_stop_their_factories() {
    run(|| {
        let log = log();
        let bound = bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = bound.listen(Box::new(Clients::new(&log))).unwrap();
        assert_eq!(log.get().unwrap(), "start");
        drop(port);
        assert_eq!(log.get().unwrap(), "stop");
    });
}
