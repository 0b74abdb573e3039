//! Datagrams of UDP and of Unix sockets.

use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;

use warren_reactor::{
    ConnectedDatagramProtocol, DatagramAddr, DatagramError, DatagramProtocol, DatagramTransport,
    UdpPort, connect_unix_datagram, listen_udp, listen_unix_datagram,
};

use crate::compared::yes;
use crate::heard::{Heard, soon};

scenarios! { on_hub:
    an_answer
    an_empty_one
    it_starts_before_listening_returns
    it_stops_after_the_call_that_stops_it
    it_stops_once
    nothing_is_heard_after_stopping
    a_callback_that_fails
    many_at_once
    nobody_is_there
    nobody_is_told_without_connecting
    connecting_twice
    what_cannot_be_sent
    broadcasts_are_not_allowed_at_first
    between_unix_sockets
    to_a_unix_socket_without_a_name_of_its_own
    no_unix_socket_is_there
    the_unix_socket_goes
}

/// Notes all, and sends back what it gets, unless it is `quiet`; some words do more.
#[derive(Default)]
struct Noted {
    heard: Heard,
    quiet: bool,
}

impl<A: DatagramAddr> DatagramProtocol<A> for Noted {
    fn start_protocol(&mut self, _transport: &DatagramTransport<A>) {
        self.heard.put("start");
    }

    fn datagram_received(&mut self, transport: &DatagramTransport<A>, data: &[u8], from: A) {
        match data {
            b"" => self.heard.put("data nothing"),
            data => self.heard.put(format!("data {}", String::from_utf8_lossy(data))),
        }
        match data {
            b"fail" => panic!("expected by a scenario"),
            b"stop" => transport.stop_listening(),
            _ if self.quiet => {}
            data => drop(transport.write(data, from)),
        }
    }

    fn connection_refused(&mut self, _transport: &DatagramTransport<A>) {
        self.heard.put("refused");
    }

    fn stop_protocol(&mut self) {
        self.heard.put("stop");
    }
}

#[derive(Default)]
struct Client {
    heard: Heard,
}

impl<A: DatagramAddr> ConnectedDatagramProtocol<A> for Client {
    fn start_protocol(&mut self, _transport: &DatagramTransport<A>) {
        self.heard.put("start");
    }

    fn datagram_received(&mut self, _transport: &DatagramTransport<A>, data: &[u8]) {
        self.heard.put(format!("data {}", String::from_utf8_lossy(data)));
    }

    fn connection_refused(&mut self, _transport: &DatagramTransport<A>) {
        self.heard.put("refused");
    }

    fn connection_failed(&mut self, _error: &DatagramError) {
        self.heard.put("failed");
    }

    fn stop_protocol(&mut self) {
        self.heard.put("stop");
    }
}

fn listen() -> (UdpPort, Heard) {
    listen_with(false)
}

fn listen_with(quiet: bool) -> (UdpPort, Heard) {
    let heard = Heard::default();
    let noted = Noted { heard: heard.clone(), quiet };
    (listen_udp("127.0.0.1:0".parse().unwrap(), Box::new(noted)).unwrap(), heard)
}

fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

fn stop<A: DatagramAddr>(port: warren_reactor::DatagramPort<A>, heard: &Heard) {
    port.stop_listening();
    heard.until("stop");
}

fn an_answer() {
    let ((port, server), (own, client)) = (listen(), listen_with(true));
    own.transport().write(b"hello", port.host()).unwrap();
    client.until("data hello");
    stop(port, &server);
    stop(own, &client);
    server.say("server", &[]);
    client.say("client", &[]);
}

fn an_empty_one() {
    let ((port, server), (own, client)) = (listen(), listen_with(true));
    own.transport().write(b"", port.host()).unwrap();
    client.until("data nothing");
    stop(port, &server);
    stop(own, &client);
    server.say("server", &[]);
    // As the other one has it.
    say!("client start");
    say!("client bytes 0");
    say!("client stop");
}

fn it_starts_before_listening_returns() {
    let (port, server) = listen();
    server.put("listens");
    stop(port, &server);
    server.say("server", &[]);
}

fn it_stops_after_the_call_that_stops_it() {
    let (port, server) = listen();
    port.stop_listening();
    server.put("asked to stop");
    server.until("stop");
    server.say("server", &[]);
}

fn it_stops_once() {
    let (port, server) = listen();
    port.transport().stop_listening();
    port.stop_listening();
    soon();
    server.say("server", &[]);
}

fn nothing_is_heard_after_stopping() {
    let (port, server) = listen();
    let client = socket();
    client.send_to(b"stop", port.host()).unwrap();
    client.send_to(b"too late", port.host()).unwrap();
    server.until("stop");
    soon();
    // Twisted goes on with what has come by then: ours is deaf at once, whatever has come.
    assert!(!server.has("data too late"));
    say!("server start");
    say!("server data stop");
    say!("server data too late");
    say!("server stop");
}

fn a_callback_that_fails() {
    let (port, server) = listen();
    let client = socket();
    client.send_to(b"fail", port.host()).unwrap();
    client.send_to(b"on", port.host()).unwrap();
    server.until("data on");
    stop(port, &server);
    server.say("server", &[]);
}

fn many_at_once() {
    let (port, server) = listen();
    let client = socket();
    for number in 0..50 {
        client.send_to(number.to_string().as_bytes(), port.host()).unwrap();
    }
    server.until("data 49");
    stop(port, &server);
    server.say("server", &[]);
}

fn nobody_is_there() {
    let (port, client) = listen();
    let nobody = socket().local_addr().unwrap();
    port.transport().connect(nobody).unwrap();
    port.transport().write(b"hello", None).unwrap();
    // Twisted's epoll reactor takes the refusal for the end of the port; its select reactor does as ours.
    client.until("refused");
    say!("client start");
    say!("client stop");
}

fn nobody_is_told_without_connecting() {
    let (port, client) = listen();
    let nobody = socket().local_addr().unwrap();
    port.transport().write(b"hello", nobody).unwrap();
    soon();
    stop(port, &client);
    client.say("client", &[]);
}

fn connecting_twice() {
    let (port, _client) = listen();
    port.transport().connect("127.0.0.1:9".parse().unwrap()).unwrap();
    let again = port.transport().connect("127.0.0.1:10".parse().unwrap());
    if matches!(again, Err(DatagramError::Connected { .. })) {
        say!("is connected");
    }
}

fn what_cannot_be_sent() {
    let (port, _client) = listen();
    let (transport, nine) = (port.transport(), "127.0.0.1:9".parse::<SocketAddr>().unwrap());
    if let Err(DatagramError::TooLong { .. }) = transport.write(&[b'x'; 70_000], nine) {
        say!("too long");
    }
    if let Err(DatagramError::NoAddress) = transport.write(b"x", None) {
        say!("no address");
    }
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 9));
    if let Err(DatagramError::Unreachable { .. }) = transport.write(b"x", v6) {
        say!("another family");
    }
    transport.connect(nine).unwrap();
    let ten = "127.0.0.1:10".parse::<SocketAddr>().unwrap();
    if let Err(DatagramError::Connected { .. }) = transport.write(b"x", ten) {
        say!("another peer");
    }
}

fn broadcasts_are_not_allowed_at_first() {
    let (port, _) = listen();
    say!("allowed {}", yes(port.transport().broadcast_allowed().unwrap()));
    port.transport().set_broadcast_allowed(true).unwrap();
    say!("allowed {}", yes(port.transport().broadcast_allowed().unwrap()));
}

fn between_unix_sockets() {
    let folder = tempfile::tempdir().unwrap();
    let (path, bind) = (folder.path().join("server"), folder.path().join("client"));
    let (server, client) = (Noted::default(), Client::default());
    let (heard_there, heard_here) = (server.heard.clone(), client.heard.clone());
    let port = listen_unix_datagram(&path, Box::new(server)).unwrap();
    let own = connect_unix_datagram(&path, Some(&bind), Box::new(client)).unwrap();
    own.transport().write(b"hello", None).unwrap();
    heard_here.until("data hello");
    stop(own, &heard_here);
    stop(port, &heard_there);
    heard_there.say("server", &[]);
    heard_here.say("client", &[]);
}

fn to_a_unix_socket_without_a_name_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server");
    let (server, client) = (Noted::default(), Client::default());
    let (heard_there, heard_here) = (server.heard.clone(), client.heard.clone());
    let port = listen_unix_datagram(&path, Box::new(server)).unwrap();
    let own = connect_unix_datagram(&path, None, Box::new(client)).unwrap();
    own.transport().write(b"hello", None).unwrap();
    heard_there.until("data hello");
    stop(own, &heard_here);
    stop(port, &heard_there);
    heard_there.say("server", &[]);
    heard_here.say("client", &[]);
}

fn no_unix_socket_is_there() {
    let client = Client::default();
    let heard = client.heard.clone();
    let path = std::path::PathBuf::from(format!("/no/such/{}", std::process::id()));
    assert!(connect_unix_datagram(&path, None, Box::new(client)).is_err());
    heard.put("called");
    soon();
    heard.say("client", &[]);
}

fn the_unix_socket_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server");
    let client = Client::default();
    let heard = client.heard.clone();
    let server = UnixDatagram::bind(&path).unwrap();
    let own = connect_unix_datagram(&path, None, Box::new(client)).unwrap();
    drop(server);
    assert!(own.transport().write(b"hello", None).is_err());
    heard.until("refused");
    stop(own, &heard);
    heard.say("client", &[]);
}
