//! Protocols on real sockets.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use warren_hub::net::{TcpStream, UnixStream};
use warren_hub::sync::Queue;
use warren_hub::{Phase, TurnHook, join_all, offload, on_turn_end, run, sleep, spawn};
use warren_reactor::{
    Factory, ListeningPort, PeerAddr, Protocol, Reason, Transport, WriteLimits, listen_tcp,
    listen_unix,
};

type Log = Rc<Queue<String>>;

/// Echoes; `!` panics, `q` closes, `a` aborts, `g` answers with a megabyte, `p` pauses reading until woken.
struct Echo {
    log: Log,
    transports: Rc<RefCell<Vec<Transport>>>,
}

impl Protocol for Echo {
    fn connection_made(&mut self, transport: &Transport) {
        assert!(transport.peer().is_loopback());
        self.transports.borrow_mut().push(transport.clone());
        self.log.put("made".into()).unwrap();
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        match data[0] {
            b'q' => {
                transport.write(b"bye");
                transport.lose_connection();
            }
            b'a' => transport.abort_connection(),
            b'g' => transport.write(&vec![b'g'; 8_000_000]),
            b'p' => transport.pause_reading(),
            b'!' => panic!("asked for by a test"),
            _ => transport.write(data),
        }
    }

    fn pause_producing(&mut self, _transport: &Transport) {
        self.log.put("pause".into()).unwrap();
    }

    fn resume_producing(&mut self, _transport: &Transport) {
        self.log.put("resume".into()).unwrap();
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
    fn start() -> Self {
        let (log, transports) = (Log::new(Queue::unbounded()), Rc::default());
        let factory = echo_factory(&log, &transports);
        let port = listen_tcp("127.0.0.1:0".parse().unwrap(), factory).unwrap();
        Self { port, log, transports }
    }

    fn connect(&self) -> TcpStream {
        let PeerAddr::Tcp(addr) = self.port.addr() else { unreachable!("a TCP port") };
        let stream = TcpStream::connect(*addr).unwrap();
        assert_eq!(self.log.get().unwrap(), "made");
        stream
    }
}

fn echo_factory(log: &Log, transports: &Rc<RefCell<Vec<Transport>>>) -> Box<dyn Factory> {
    let (log, transports) = (log.clone(), transports.clone());
    Box::new(move |_: &PeerAddr| {
        let echo = Echo { log: log.clone(), transports: transports.clone() };
        Some(Box::new(echo) as Box<dyn Protocol>)
    })
}

#[test]
fn many_connections_are_echoed() {
    run(|| {
        let server = Server::start();
        let streams: Vec<TcpStream> = (0..40).map(|_| server.connect()).collect();
        let clients = streams.into_iter().enumerate().map(|(n, mut stream)| {
            spawn(move || {
                for round in 0..20 {
                    let text = format!("{n} in round {round}");
                    stream.write_all(text.as_bytes()).unwrap();
                    let mut answer = vec![0; text.len()];
                    stream.read_exact(&mut answer).unwrap();
                    assert_eq!(answer, text.as_bytes());
                }
            })
        });
        for client in join_all(clients) {
            client.unwrap();
        }
        for _ in 0..40 {
            assert_eq!(server.log.get().unwrap(), "lost: closed by the peer");
        }
    });
}

#[test]
fn the_last_words_arrive_though_the_peer_still_talks() {
    run(|| {
        let server = Server::start();
        let mut stream = server.connect();
        // Far more than the server reads: an early close would reset the connection and lose the answer.
        stream.write_all(b"q").unwrap();
        let mut talking = stream.try_clone().unwrap();
        spawn(move || while talking.write_all(&[b'x'; 10_000]).is_ok() {});
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "bye");
        assert_eq!(server.log.get().unwrap(), "lost: closed here");
    });
}

#[test]
fn aborting_closes_at_once() {
    run(|| {
        let server = Server::start();
        let mut stream = server.connect();
        stream.write_all(b"a").unwrap();
        assert_eq!(server.log.get().unwrap(), "lost: aborted here");
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_slow_reader_pauses_the_producer() {
    run(|| {
        let server = Server::start();
        let mut stream = server.connect();
        server.transports.borrow()[0]
            .set_write_buffer_limits(WriteLimits { high_bytes: 1000, low_bytes: 100 });
        stream.write_all(b"g").unwrap();
        assert_eq!(server.log.get().unwrap(), "pause");
        assert!(server.transports.borrow()[0].is_full());
        let mut got = vec![0; 8_000_000];
        stream.read_exact(&mut got).unwrap();
        assert!(got.iter().all(|&byte| byte == b'g'));
        assert_eq!(server.log.get().unwrap(), "resume");
    });
}

/// As a server that hands out work at the end of its turns, and asks first whether there is room.
#[test]
fn what_is_asked_of_others_when_there_is_room_is_done_before_the_loop_sleeps() {
    /// Writes more than the high mark whenever there is room, until it has written it ten times.
    #[derive(Default)]
    struct Dispatcher {
        to: RefCell<Option<Transport>>,
        ready: Cell<bool>,
        written: Cell<usize>,
    }
    impl TurnHook for Dispatcher {
        fn turn_end(&self) {
            let to = self.to.borrow();
            let Some(to) = to.as_ref().filter(|_| self.ready.take()) else { return };
            while !to.is_full() && self.written.get() < 10 {
                self.written.set(self.written.get() + 1);
                to.write(&[b'w'; 5000]);
            }
        }
    }
    struct Taker(Rc<Dispatcher>);
    impl Protocol for Taker {
        fn connection_made(&mut self, transport: &Transport) {
            transport.set_write_buffer_limits(WriteLimits { high_bytes: 1000, low_bytes: 100 });
            *self.0.to.borrow_mut() = Some(transport.clone());
            self.0.ready.set(true);
        }
        fn data_received(&mut self, _transport: &Transport, _data: &[u8]) {}
        fn resume_producing(&mut self, _transport: &Transport) {
            self.0.ready.set(true);
        }
        fn connection_lost(&mut self, _reason: &Reason) {
            self.0.to.take();
        }
    }
    run(|| {
        let dispatcher = Rc::new(Dispatcher::default());
        let _hook = on_turn_end(Phase::Work, dispatcher.clone());
        let shared = dispatcher.clone();
        let factory =
            Box::new(
                move |_: &PeerAddr| Some(Box::new(Taker(shared.clone())) as Box<dyn Protocol>),
            );
        let port = listen_tcp("127.0.0.1:0".parse().unwrap(), factory).unwrap();
        let PeerAddr::Tcp(addr) = *port.addr() else { unreachable!("a TCP port") };
        // On a thread, so that nothing but the dispatcher's own work wakes the loop again.
        let read = offload(move || {
            let mut stream = std::net::TcpStream::connect(addr)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            stream.read_exact(&mut [0; 50_000])
        });
        read.expect("all ten pieces");
    });
}

#[test]
fn writes_of_all_sizes_leave_in_their_order() {
    struct Writes(Vec<Vec<u8>>);
    impl Protocol for Writes {
        fn connection_made(&mut self, _transport: &Transport) {}
        fn data_received(&mut self, transport: &Transport, data: &[u8]) {
            let each = self.0.iter().enumerate();
            each.for_each(|(n, piece)| match n % 3 {
                0 | 1 => transport.write(piece),
                _ => transport.write_bytes(piece.clone().into()),
            });
            transport.write(data);
            transport.lose_connection();
        }
        fn connection_lost(&mut self, _reason: &Reason) {}
    }
    // The large ones first, while the system still takes them as they are; together more than it holds.
    let sizes = [20_000, 9_000, 8_192, 3, 8_191, 5_000, 100, 300_000, 10_000, 4_000_000, 1, 30_000];
    let pieces: Vec<Vec<u8>> =
        sizes.iter().enumerate().map(|(n, &size)| vec![n as u8; size]).collect();
    let mut wanted = pieces.concat();
    wanted.push(b'.');
    run(move || {
        let factory =
            move |_: &PeerAddr| Some(Box::new(Writes(pieces.clone())) as Box<dyn Protocol>);
        let port = listen_tcp("127.0.0.1:0".parse().unwrap(), Box::new(factory)).unwrap();
        let PeerAddr::Tcp(addr) = port.addr() else { unreachable!("a TCP port") };
        let mut stream = TcpStream::connect(*addr).unwrap();
        stream.write_all(b".").unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        assert!(got == wanted);
    });
}

#[test]
fn reading_can_be_paused_and_resumed() {
    run(|| {
        let server = Server::start();
        let mut stream = server.connect();
        stream.write_all(b"p").unwrap();
        // Wait until the pause has been seen, by a connection that comes later.
        let mut other = server.connect();
        other.write_all(b"x").unwrap();
        other.read_exact(&mut [0]).unwrap();
        stream.write_all(b"later").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(20)));
        stream.read(&mut [0]).unwrap_err();
        stream.set_read_timeout(None);
        server.transports.borrow()[0].resume_reading();
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"later");
    });
}

#[test]
fn a_port_that_stops_keeps_its_connections() {
    run(|| {
        let server = Server::start();
        let mut stream = server.connect();
        let PeerAddr::Tcp(addr) = server.port.addr().clone() else { unreachable!("a TCP port") };
        server.port.stop_listening();
        assert!(TcpStream::connect(addr).is_err());
        stream.write_all(b"still").unwrap();
        stream.read_exact(&mut [0; 5]).unwrap();
    });
}

#[test]
fn a_port_in_use_is_refused() {
    run(|| {
        let server = Server::start();
        let PeerAddr::Tcp(addr) = server.port.addr() else { unreachable!("a TCP port") };
        let error = listen_tcp(*addr, echo_factory(&server.log, &server.transports)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    });
}

#[test]
fn a_factory_may_refuse() {
    run(|| {
        let refuse = |_: &PeerAddr| None;
        let port = listen_tcp("127.0.0.1:0".parse().unwrap(), Box::new(refuse)).unwrap();
        let PeerAddr::Tcp(addr) = port.addr() else { unreachable!("a TCP port") };
        let mut stream = TcpStream::connect(*addr).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn answers_reach_a_peer_that_only_ended_its_output() {
    run(|| {
        let server = Server::start();
        let mut stream = server.connect();
        stream.write_all(b"g").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        assert_eq!(got.len(), 8_000_000);
        // Whether it was paused on the way depends on the system's buffers.
        let last = loop {
            match server.log.get().unwrap().as_str() {
                "pause" | "resume" => {}
                last => break last.to_owned(),
            }
        };
        assert_eq!(last, "lost: closed by the peer");
    });
}

#[test]
fn a_reset_is_seen_though_the_peer_had_ended_its_output() {
    struct Stays(Log);
    impl Protocol for Stays {
        fn connection_made(&mut self, _transport: &Transport) {}
        fn data_received(&mut self, _transport: &Transport, _data: &[u8]) {}
        fn read_connection_lost(&mut self, _transport: &Transport) {
            self.0.put("read lost".into()).unwrap();
        }
        fn connection_lost(&mut self, reason: &Reason) {
            self.0.put(format!("lost: {reason}")).unwrap();
        }
    }
    run(|| {
        let log = Log::new(Queue::unbounded());
        let kept = log.clone();
        let factory = move |_: &PeerAddr| Some(Box::new(Stays(kept.clone())) as Box<dyn Protocol>);
        let port = listen_tcp("127.0.0.1:0".parse().unwrap(), Box::new(factory)).unwrap();
        let PeerAddr::Tcp(addr) = port.addr() else { unreachable!("a TCP port") };
        let stream = TcpStream::connect(*addr).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(log.get().unwrap(), "read lost");
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        drop(stream);
        // Which of its errors the system reports depends on who had ended what.
        let lost = log.get().unwrap();
        assert!(lost.contains("reset") || lost.contains("Broken pipe"), "{lost}");
    });
}

#[test]
fn a_callback_that_panics_ends_its_own_connection_only() {
    run(|| {
        let server = Server::start();
        let (mut bad, mut good) = (server.connect(), server.connect());
        bad.write_all(b"!").unwrap();
        assert_eq!(server.log.get().unwrap(), "lost: the protocol panicked: asked for by a test");
        let error = bad.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        good.write_all(b"x").unwrap();
        good.read_exact(&mut [0]).unwrap();
    });
}

#[test]
fn options_of_the_socket_can_be_set_and_read() {
    run(|| {
        let server = Server::start();
        let _stream = server.connect();
        let transport = server.transports.borrow()[0].clone();
        assert!(transport.tcp_nodelay().unwrap() && !transport.tcp_keep_alive().unwrap());
        transport.set_tcp_nodelay(false).unwrap();
        transport.set_tcp_keep_alive(true).unwrap();
        assert!(!transport.tcp_nodelay().unwrap() && transport.tcp_keep_alive().unwrap());
        assert!(transport.with_socket(|_| ()).is_some());
        transport.abort_connection();
        assert_eq!(server.log.get().unwrap(), "lost: aborted here");
        assert!(transport.with_socket(|_| ()).is_none());
    });
}

#[test]
fn a_unix_socket_that_nobody_serves_is_replaced_and_a_live_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    run(move || {
        let (log, transports) = (Log::new(Queue::unbounded()), Rc::default());
        let port = listen_unix(&path, echo_factory(&log, &transports)).unwrap();
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(b"x").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        let error = listen_unix(&path, echo_factory(&log, &transports)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
        drop(port);
        assert!(!path.exists());
        sleep(Duration::ZERO);
    });
}

#[test]
fn a_lost_connection_leaves_nothing_behind() {
    run(|| {
        let server = Server::start();
        let mut stream = server.connect();
        let transport = server.transports.borrow_mut().remove(0);
        let weak = transport.downgrade();
        drop(transport);
        stream.write_all(b"q").unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
        drop(stream);
        assert_eq!(server.log.get().unwrap(), "lost: closed here");
        while weak.upgrade().is_some() {
            sleep(Duration::from_millis(1));
        }
    });
}
