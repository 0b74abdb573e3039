//! Datagrams: UDP, groups and Unix sockets of the system.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use warren_hub::net::{UdpSocket, UnixDatagram};
use warren_hub::sync::Queue;
use warren_hub::{join_all, run, sleep, spawn, yield_now};
use warren_reactor::{
    ConnectedDatagramProtocol, DatagramAddr, DatagramError, DatagramProtocol, DatagramTransport,
    Interface, MulticastOptions, UdpPort, UnixAddr, connect_udp, connect_unix_datagram,
    listen_multicast, listen_udp, listen_unix_datagram,
};

type Log = Rc<Queue<String>>;

fn log() -> Log {
    Rc::new(Queue::unbounded())
}

fn localhost() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Notes everything; `panic` panics, `stop` stops, all else is sent back.
struct Noted(Log);

impl<A: DatagramAddr> DatagramProtocol<A> for Noted {
    fn start_protocol(&mut self, transport: &DatagramTransport<A>) {
        assert!(transport.is_listening());
        self.0.put("start".into()).unwrap();
    }

    fn datagram_received(&mut self, transport: &DatagramTransport<A>, data: &[u8], from: A) {
        let text = String::from_utf8_lossy(data).into_owned();
        self.0.put(text.clone()).unwrap();
        match text.as_str() {
            "panic" => panic!("as asked"),
            "stop" => transport.stop_listening(),
            _ => {
                let _ = transport.write(data, from);
            }
        }
    }

    fn connection_refused(&mut self, _transport: &DatagramTransport<A>) {
        self.0.put("refused".into()).unwrap();
    }

    fn stop_protocol(&mut self) {
        self.0.put("stop".into()).unwrap();
    }
}

/// Notes everything and sends nothing.
struct Client(Log);

impl<A: DatagramAddr> ConnectedDatagramProtocol<A> for Client {
    fn start_protocol(&mut self, transport: &DatagramTransport<A>) {
        assert!(transport.peer().is_some());
        self.0.put("start".into()).unwrap();
    }

    fn datagram_received(&mut self, _transport: &DatagramTransport<A>, data: &[u8]) {
        self.0.put(String::from_utf8_lossy(data).into_owned()).unwrap();
    }

    fn connection_refused(&mut self, _transport: &DatagramTransport<A>) {
        self.0.put("refused".into()).unwrap();
    }

    fn connection_failed(&mut self, error: &DatagramError) {
        self.0.put(format!("failed: {error}")).unwrap();
    }

    fn stop_protocol(&mut self) {
        self.0.put("stop".into()).unwrap();
    }
}

#[track_caller]
fn expect(log: &Log, wanted: &[&str]) {
    for wanted in wanted {
        assert_eq!(log.get_timeout(Duration::from_secs(20)).unwrap(), *wanted);
    }
}

fn noted() -> (UdpPort, Log) {
    let log = log();
    let port = listen_udp(localhost(), Box::new(Noted(log.clone()))).unwrap();
    // Before the call returns, as in Twisted.
    assert_eq!(log.try_get().unwrap(), "start");
    (port, log)
}

#[test]
fn datagrams_are_answered_whole_however_long() {
    run(|| {
        let (port, log) = noted();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut buffer = vec![0; 70_000];
        for bytes in [0, 1, 1500, 65_507] {
            let sent = vec![b'x'; bytes];
            client.send_to(&sent, port.host()).unwrap();
            assert_eq!(client.recv_from(&mut buffer).unwrap(), (bytes, port.host()));
            assert_eq!(log.get().unwrap().len(), bytes);
        }
        let error = port.transport().write(&vec![0; 65_508], port.host()).unwrap_err();
        assert!(matches!(error, DatagramError::TooLong { bytes: 65_508 }), "{error}");
    });
}

#[test]
fn a_callback_that_panics_harms_nobody() {
    run(|| {
        let (port, log) = noted();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"panic", port.host()).unwrap();
        client.send_to(b"on", port.host()).unwrap();
        expect(&log, &["panic", "on"]);
    });
}

#[test]
fn a_port_stops_from_within_and_when_dropped() {
    run(|| {
        let (port, log) = noted();
        let addr = port.host();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"stop", addr).unwrap();
        client.send_to(b"never heard", addr).unwrap();
        expect(&log, &["stop", "stop"]);
        assert!(!port.transport().is_listening());
        let error = port.transport().write(b"x", addr).unwrap_err();
        assert!(matches!(error, DatagramError::Stopped), "{error}");
        assert!(port.transport().set_broadcast_allowed(true).is_err());
        // The number is free again.
        let again = listen_udp(addr, Box::new(Noted(log.clone()))).unwrap();
        expect(&log, &["start"]);
        again.stop_listening();
        // From the loop, not from within the call.
        assert!(log.is_empty());
        expect(&log, &["stop"]);
        drop(port);
        yield_now();
        assert!(log.is_empty(), "told once");
    });
}

#[test]
fn a_port_in_use_is_refused() {
    run(|| {
        let (port, log) = noted();
        let error = listen_udp(port.host(), Box::new(Noted(log.clone()))).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&port.host().to_string()) && text.contains("in use"), "{text}");
        assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::AddrInUse);
        assert!(log.is_empty(), "the protocol was not started");
    });
}

#[test]
fn what_a_transport_cannot_reach_is_said() {
    run(|| {
        let (port, _log) = noted();
        let transport = port.transport();
        let error = transport.write(b"x", None).unwrap_err();
        assert!(matches!(error, DatagramError::NoAddress), "{error}");
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 9));
        let error = transport.write(b"x", v6).unwrap_err();
        assert!(error.to_string().contains("[::1]:9"), "{error}");
        let everybody = SocketAddr::from((Ipv4Addr::BROADCAST, 9));
        let error = transport.write(b"x", everybody).unwrap_err();
        // A machine without any network says that there is no way.
        let told = matches!(error, DatagramError::Broadcast { .. } | DatagramError::System { .. });
        assert!(told, "{error}");
        assert!(!transport.broadcast_allowed().unwrap());
        transport.set_broadcast_allowed(true).unwrap();
        assert!(transport.broadcast_allowed().unwrap());
    });
}

#[test]
fn a_connected_transport_has_one_peer() {
    run(|| {
        let (server, heard) = noted();
        let log = log();
        let port = listen_udp(localhost(), Box::new(Noted(log.clone()))).unwrap();
        expect(&log, &["start"]);
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        // Waits in the socket when it is connected, and is not from the peer.
        stranger.send_to(b"from a stranger", port.host()).unwrap();
        let transport = port.transport();
        transport.connect(server.host()).unwrap();
        assert_eq!(transport.peer(), Some(server.host()));
        let error = transport.connect(stranger.local_addr().unwrap()).unwrap_err();
        assert!(matches!(error, DatagramError::Connected { .. }), "{error}");
        let error = transport.write(b"x", stranger.local_addr().unwrap()).unwrap_err();
        assert!(matches!(error, DatagramError::Connected { .. }), "{error}");
        transport.write(b"stop", None).unwrap();
        expect(&heard, &["stop", "stop"]);
        assert!(log.is_empty());
        // Nobody is there any more.
        transport.write(b"one", server.host()).unwrap();
        expect(&log, &["refused"]);
        // Each is sent, although the system tells of the last one first.
        transport.write(b"two", None).unwrap();
        expect(&log, &["refused"]);
    });
}

#[test]
fn a_connected_protocol_needs_no_address() {
    run(|| {
        let (server, heard) = noted();
        let log = log();
        let port = connect_udp(server.host(), Box::new(Client(log.clone()))).unwrap();
        assert!(port.host().ip().is_loopback(), "where it is reached from: {}", port.host());
        port.transport().write(b"hello", None).unwrap();
        expect(&heard, &["hello"]);
        expect(&log, &["start", "hello"]);
        drop(server);
        expect(&heard, &["stop"]);
        port.transport().write(b"hello", None).unwrap();
        expect(&log, &["refused"]);
        port.stop_listening();
        expect(&log, &["stop"]);
        let error = connect_udp("0.0.0.0:0".parse().unwrap(), Box::new(Client(log.clone())));
        if let Err(error) = error {
            expect(&log, &[&format!("failed: {error}")]);
        }
    });
}

#[test]
fn thousands_of_datagrams_and_a_turn_for_others() {
    /// Counts, and sends each back.
    struct Count(Rc<Cell<usize>>);
    impl DatagramProtocol for Count {
        fn datagram_received(&mut self, t: &DatagramTransport, data: &[u8], from: SocketAddr) {
            self.0.set(self.0.get() + 1);
            t.write(data, from).unwrap();
        }
    }
    run(|| {
        let count = Rc::new(Cell::new(0));
        let port = listen_udp(localhost(), Box::new(Count(count.clone()))).unwrap();
        let addr = port.host();
        let clients = (0..20).map(|client| {
            spawn(move || {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                let mut buffer = [0; 64];
                for round in 0..50 {
                    // A few at once, which fit into any socket's buffer.
                    for n in 0..8 {
                        let text = format!("{client} {round} {n}");
                        socket.send_to(text.as_bytes(), addr).unwrap();
                    }
                    for n in 0..8 {
                        let (bytes, _) = socket.recv_from(&mut buffer).unwrap();
                        assert_eq!(buffer[..bytes], *format!("{client} {round} {n}").as_bytes());
                    }
                }
            })
        });
        for client in join_all(clients) {
            client.unwrap();
        }
        assert_eq!(count.get(), 20 * 50 * 8);
        assert_eq!(port.transport().dropped(), 0);
    });
}

#[test]
fn a_port_that_never_runs_out_of_datagrams_starves_nobody() {
    run(|| {
        let (port, log) = noted();
        // Each is sent back to where it comes from, for ever.
        port.transport().write(b"to myself", port.host()).unwrap();
        expect(&log, &["to myself"; 300]);
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        other.send_to(b"stop", port.host()).unwrap();
        while log.get().unwrap() != "stop" {}
        while log.get().unwrap() != "stop" {}
    });
}

#[test]
fn a_thousand_ports_come_and_go_on_few_descriptors() {
    run(|| {
        for _ in 0..1000 {
            let (port, log) = noted();
            port.stop_listening();
            expect(&log, &["stop"]);
        }
        let probe = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        use std::os::fd::AsRawFd;
        assert!(probe.as_raw_fd() < 500, "descriptors are leaked");
    });
}

/// What a machine without any route for groups says.
fn no_route(error: &DatagramError) -> bool {
    let DatagramError::System { source, .. } = error else { return false };
    let known =
        [rustix::io::Errno::NODEV, rustix::io::Errno::NETUNREACH, rustix::io::Errno::ADDRNOTAVAIL];
    known.iter().any(|errno| source.raw_os_error() == Some(errno.raw_os_error()))
}

#[test]
fn groups_are_joined_and_left() {
    run(|| {
        let group: IpAddr = "239.7.7.7".parse().unwrap();
        let lo = Interface::Addr(Ipv4Addr::LOCALHOST);
        let options = MulticastOptions { listen_multiple: true };
        let (one, other) = (log(), log());
        let any: SocketAddr = "0.0.0.0:0".parse().unwrap();
        let first = listen_multicast(any, options, Box::new(Client2(one.clone()))).unwrap();
        let addr = first.host();
        let second = listen_multicast(addr, options, Box::new(Client2(other.clone()))).unwrap();
        let alone = listen_multicast(addr, MulticastOptions::default(), Box::new(Client2(log())));
        assert!(alone.is_err(), "only with those who share");

        let transport = first.transport();
        assert_eq!(transport.ttl().unwrap(), 1);
        transport.set_ttl(0).unwrap();
        assert_eq!(transport.ttl().unwrap(), 0);
        assert!(transport.loopback_mode().unwrap());
        assert_eq!(transport.outgoing_interface().unwrap(), Interface::Any);
        transport.set_outgoing_interface(&lo).unwrap();
        assert_eq!(transport.outgoing_interface().unwrap(), lo);
        transport.set_outgoing_interface(&Interface::Name("lo".into())).unwrap();
        let error = transport.join_group("10.0.0.1".parse().unwrap(), &lo).unwrap_err();
        assert!(error.to_string().contains("10.0.0.1"), "{error}");
        let error = transport.join_group("ff02::1".parse().unwrap(), &Interface::Any).unwrap_err();
        assert!(matches!(error, DatagramError::Unreachable { .. }), "{error}");
        let error = transport.leave_group(group, &lo).unwrap_err();
        assert!(error.to_string().contains("leave the group 239.7.7.7"), "{error}");

        if let Err(error) = transport.join_group(group, &lo) {
            assert!(no_route(&error), "{error}");
            eprintln!("this machine has no multicast on `lo`: {error}");
            return;
        }
        second.transport().join_group(group, &Interface::Name("lo".into())).unwrap();
        let sent = transport.write(b"to all", SocketAddr::new(group, addr.port()));
        if let Err(error) = sent {
            assert!(no_route(&error), "{error}");
            eprintln!("this machine has no route for groups: {error}");
            return;
        }
        expect(&one, &["to all"]);
        expect(&other, &["to all"]);
        // What was left is not heard; what comes after it is.
        second.transport().leave_group(group, &Interface::Name("lo".into())).unwrap();
        transport.write(b"to one", SocketAddr::new(group, addr.port())).unwrap();
        expect(&one, &["to one"]);
        assert!(other.is_empty());
        // On `lo` itself everything comes back.
        transport.set_loopback_mode(false).unwrap();
        assert!(!transport.loopback_mode().unwrap());
    });
}

/// Notes data only.
struct Client2(Log);

impl DatagramProtocol for Client2 {
    fn datagram_received(
        &mut self,
        _transport: &DatagramTransport,
        data: &[u8],
        _from: SocketAddr,
    ) {
        self.0.put(String::from_utf8_lossy(data).into_owned()).unwrap();
    }
}

#[test]
fn groups_of_ipv6_are_joined_and_left() {
    run(|| {
        let any: SocketAddr = "[::]:0".parse().unwrap();
        let heard = log();
        let options = MulticastOptions::default();
        let port = match listen_multicast(any, options, Box::new(Client2(heard.clone()))) {
            Ok(port) => port,
            Err(error) => return eprintln!("this machine has no IPv6: {error}"),
        };
        let transport = port.transport();
        transport.set_ttl(3).unwrap();
        assert_eq!(transport.ttl().unwrap(), 3);
        transport.set_loopback_mode(true).unwrap();
        assert!(transport.loopback_mode().unwrap());
        let lo = Interface::Name("lo".into());
        let group: Ipv6Addr = "ff01::7:7".parse().unwrap();
        let by_addr = Interface::Addr(Ipv4Addr::LOCALHOST);
        assert!(transport.join_group(group.into(), &by_addr).is_err(), "IPv6 knows no such");
        transport.set_outgoing_interface(&lo).unwrap();
        assert!(matches!(transport.outgoing_interface().unwrap(), Interface::Index(1..)));
        if let Err(error) = transport.join_group(group.into(), &lo) {
            assert!(no_route(&error), "{error}");
            return eprintln!("this machine has no multicast of IPv6 on `lo`: {error}");
        }
        match transport.write(b"to all", SocketAddr::new(group.into(), port.host().port())) {
            Ok(()) => expect(&heard, &["to all"]),
            Err(error) => {
                assert!(no_route(&error), "{error}");
                eprintln!("this machine has no route for groups of IPv6: {error}");
            }
        }
        transport.leave_group(group.into(), &lo).unwrap();
        assert!(transport.leave_group(group.into(), &lo).is_err());
    });
}

#[test]
fn unix_datagrams_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    run(move || {
        let path = folder.path().join("file");
        std::fs::write(&path, "no socket").unwrap();
        let refused = listen_unix_datagram(&path, Box::new(Noted(log()))).unwrap_err();
        assert!(refused.to_string().contains("in use"), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), b"no socket", "what is no socket stays");
        let path = folder.path().join("server");
        // One that a dead process has left.
        drop(std::os::unix::net::UnixDatagram::bind(&path).unwrap());
        let heard = log();
        let port = listen_unix_datagram(&path, Box::new(Noted(heard.clone()))).unwrap();
        expect(&heard, &["start"]);
        let error = listen_unix_datagram(&path, Box::new(Noted(log()))).unwrap_err();
        assert!(error.to_string().contains("in use"), "{error}");
        // One without a name can send; an answer has nowhere to go.
        UnixDatagram::unbound().unwrap().send_to(b"from nobody", &path).unwrap();
        expect(&heard, &["from nobody"]);
        assert_eq!(port.transport().dropped(), 0);
        let log = log();
        let own = folder.path().join("client");
        let client =
            connect_unix_datagram(&path, Some(&own), Box::new(Client(log.clone()))).unwrap();
        client.transport().write(b"hello", None).unwrap();
        client.transport().write(&[b'x'; 100_000], None).unwrap();
        expect(&log, &["start", "hello", &"x".repeat(100_000)]);
        expect(&heard, &["hello"]);
        port.stop_listening();
        heard.get().unwrap();
        expect(&heard, &["stop"]);
        assert!(!path.exists());
        let refused = client.transport().write(b"anybody?", None).unwrap_err();
        assert!(matches!(refused, DatagramError::Refused { .. }), "{refused}");
        expect(&log, &["refused"]);
        client.stop_listening();
        expect(&log, &["stop"]);
        assert!(!own.exists());
        let error = connect_unix_datagram(&path, Some(&own), Box::new(Client(log.clone())));
        expect(&log, &[&format!("failed: {}", error.unwrap_err())]);
        assert!(!own.exists());
    });
}

#[test]
fn abstract_names_lie_in_no_folder() {
    run(|| {
        let name = format!("\0warren reactor {}", std::process::id());
        let path = std::path::Path::new(&name);
        let heard = log();
        let _port = listen_unix_datagram(path, Box::new(Noted(heard.clone()))).unwrap();
        let client = connect_unix_datagram(path, None, Box::new(Client(log()))).unwrap();
        client.transport().write(b"hello", None).unwrap();
        expect(&heard, &["start", "hello"]);
    });
}

#[test]
fn what_the_receiver_has_no_room_for_waits_up_to_a_limit() {
    let folder = tempfile::tempdir().unwrap();
    run(move || {
        let path = folder.path().join("server");
        let server = UnixDatagram::bind(&path).unwrap();
        let client = connect_unix_datagram(&path, None, Box::new(Client(log()))).unwrap();
        let transport = client.transport();
        let mut sent = 0u32;
        let full = loop {
            match transport.write(&sent.to_ne_bytes(), None) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(full, DatagramError::Full { waiting_bytes: 1000.. }), "{full}");
        assert_eq!(transport.dropped(), 1);
        assert!(transport.buffered() <= 256 * 1024);
        for wanted in 0..sent {
            let mut number = [0; 4];
            assert_eq!(server.recv(&mut number).unwrap(), 4);
            assert_eq!(u32::from_ne_bytes(number), wanted, "all of them, in order");
        }
        assert_eq!(transport.buffered(), 0);
        transport.write(b"room", None).unwrap();

        // A socket that serves many lets none wait: one who does not read holds up nobody.
        let (stuck, own) = (folder.path().join("stuck"), folder.path().join("own"));
        let _stuck = UnixDatagram::bind(&stuck).unwrap();
        let port = listen_unix_datagram(&own, Box::new(Noted(log()))).unwrap();
        let to = |path| UnixAddr::from_pathname(path).unwrap();
        let full = loop {
            if let Err(error) = port.transport().write(b"x", to(&stuck)) {
                break error;
            }
        };
        assert!(matches!(full, DatagramError::Full { waiting_bytes: 0 }), "{full}");
        let mut buffer = [0; 10];
        assert_eq!(server.recv(&mut buffer).unwrap(), 4);
        port.transport().write(b"others", to(&path)).unwrap();
        assert_eq!(server.recv(&mut buffer).unwrap(), 6);
        sleep(Duration::ZERO);
    });
}
