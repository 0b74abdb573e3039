//! Endpoints on real sockets: what their strings mean, and what is said of those that mean nothing.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::rc::Rc;
use std::time::Duration;

use warren_hub::io::Source;
use warren_hub::net::dns;
use warren_hub::process::{Command, Stdio};
use warren_hub::sync::Event;
use warren_hub::{run, sleep, spawn, with_timeout};
use warren_reactor::endpoints::{
    AdoptedServerEndpoint, HostnameEndpoint, StreamClientEndpoint, StreamServerEndpoint,
    TcpClientEndpoint, TcpServerEndpoint, UnixClientEndpoint, UnixServerEndpoint,
    adopt_stream_connection, adopt_stream_port, client_from_string, connect_protocol,
    quote_string_argument, server_from_string,
};
use warren_reactor::protocols::{for_protocol, wire};
use warren_reactor::{Factory, Failure, ListeningPort, PeerAddr, Protocol, Reason, Transport};

/// Says hello, and notes what comes back.
#[derive(Clone, Default)]
struct Hello(Rc<RefCell<Vec<u8>>>);

impl Protocol for Hello {
    fn connection_made(&mut self, transport: &Transport) {
        transport.write(b"hello");
    }

    fn data_received(&mut self, _transport: &Transport, data: &[u8]) {
        self.0.borrow_mut().extend_from_slice(data);
    }

    fn connection_lost(&mut self, _reason: &Reason) {}
}

fn echo() -> Box<dyn Factory> {
    Box::new(for_protocol(|| wire::Echo))
}

fn until(is_so: impl Fn() -> bool) {
    let waited = with_timeout(Duration::from_secs(60), || {
        while !is_so() {
            sleep(Duration::from_millis(1));
        }
    });
    assert!(waited.is_ok(), "it never came about");
}

/// The two understand each other.
#[track_caller]
fn talk(client: &(impl StreamClientEndpoint + ?Sized)) {
    let hello = Hello::default();
    let transport = connect_protocol(client, hello.clone()).wait().unwrap();
    until(|| *hello.0.borrow() == b"hello");
    transport.lose_connection();
}

fn port(listening: &ListeningPort) -> u16 {
    match listening.addr() {
        PeerAddr::Tcp(addr) => addr.port(),
        other => panic!("no TCP: {other}"),
    }
}

fn text<T>(result: io::Result<T>) -> String {
    match result {
        Ok(_) => panic!("it is not refused"),
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
            error.to_string()
        }
    }
}

fn failure<T>(result: Result<T, Failure<io::Error>>) -> io::Error {
    match result {
        Err(failure) => failure.into_error().expect("an error"),
        Ok(_) => panic!("it was connected"),
    }
}

#[test]
fn tcp_by_string() {
    run(|| {
        let server = server_from_string("tcp:0:interface=127.0.0.1:backlog=5").unwrap();
        let listening = server.listen(echo()).unwrap();
        let port = port(&listening);
        for client in [
            format!("tcp:127.0.0.1:{port}"),
            format!("tcp:localhost:{port}:5"),
            format!("tcp:port={port}:host=localhost:timeout=0.5e1:bindAddress=127.0.0.1"),
        ] {
            talk(&client_from_string(&client).unwrap());
        }
        talk(
            &TcpClientEndpoint::new(([127, 0, 0, 1], port).into()).timeout(Duration::from_secs(9)),
        );
        // All addresses, unless one is named.
        let all = server_from_string("tcp:0").unwrap().listen(echo()).unwrap();
        assert!(all.addr().to_string().starts_with("0.0.0.0:"));
        if let Ok(listening) = server_from_string(r"tcp:0:interface=\:\:1").unwrap().listen(echo())
        {
            let client = format!(r"tcp:[\:\:1]:{}", self::port(&listening));
            talk(&client_from_string(&client).unwrap());
        }
    });
}

#[test]
fn unix_by_string() {
    run(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a:b=c.sock");
        let quoted = quote_string_argument(path.to_str().unwrap());
        let described = format!("unix:{quoted}:mode=660:lockfile=1");
        let server = server_from_string(&described).unwrap();
        let listening = server.listen(echo()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        talk(&client_from_string(&format!("unix:{quoted}")).unwrap());
        talk(&UnixClientEndpoint::new(&path).timeout(Duration::from_secs(5)));
        // Of two, the second finds the first.
        let error = server_from_string(&described).unwrap().listen(echo()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains("holds the lock"), "{error}");
        let error = UnixServerEndpoint::new(&path).listen(echo()).unwrap_err();
        assert!(error.to_string().contains("a:b=c.sock"), "{error}");
        listening.stop_listening();
        assert!(!path.exists());
        server.listen(echo()).unwrap();
    });
}

#[test]
fn sockets_that_others_have_opened() {
    run(|| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpClientEndpoint::new(listener.local_addr().unwrap());
        let described = format!("fd:{}", listener.as_raw_fd());
        let listening = server_from_string(&described).unwrap().listen(echo()).unwrap();
        talk(&client);
        listening.stop_listening();
        // The descriptor was copied: it still listens.
        let endpoint = AdoptedServerEndpoint::new(OwnedFd::from(listener));
        let _listening = endpoint.listen(echo()).unwrap();
        talk(&client);

        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        let hello = Hello::default();
        adopt_stream_connection(one.into(), Box::new(wire::Echo)).unwrap();
        let transport = adopt_stream_connection(other.into(), Box::new(hello.clone())).unwrap();
        until(|| *hello.0.borrow() == b"hello");
        transport.lose_connection();

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let listening = adopt_stream_port(listener.into(), echo()).unwrap();
        talk(&UnixClientEndpoint::new(&path));
        listening.stop_listening();
        assert!(path.exists(), "who has made it removes it");
    });
}

#[test]
fn what_is_no_such_socket_is_not_adopted() {
    run(|| {
        let file = || OwnedFd::from(tempfile::tempfile().unwrap());
        let listener = || OwnedFd::from(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let udp = || OwnedFd::from(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        let pair = || OwnedFd::from(std::os::unix::net::UnixStream::pair().unwrap().0);
        for fd in [file(), udp(), pair()] {
            assert!(text(adopt_stream_port(fd, echo())).contains("a listening socket"));
        }
        for fd in [file(), udp(), listener()] {
            let adopted = adopt_stream_connection(fd, Box::new(wire::Echo));
            assert!(text(adopted).contains("a connection"));
        }
        let error = server_from_string("fd:98765").unwrap_err();
        assert!(error.to_string().contains("cannot use descriptor 98765"), "{error}");
        let error = server_from_string("systemd:domain=INET:index=0").unwrap_err();
        assert!(error.to_string().contains("LISTEN_FDS is not set"), "{error}");
    });
}

#[test]
fn strings_that_mean_nothing_say_why() {
    let server = |description: &str| text(server_from_string(description));
    let client = |description: &str| text(client_from_string(description));
    for (said, parts) in [
        (server("tpc:80"), &["\"tpc\"", "tcp, ssl (or tls), unix, systemd, fd and stdio"][..]),
        (client(""), &["\"\"", "tcp, tls (or ssl) and unix"]),
        (server("tcp"), &["port is missing", "tcp:8007"]),
        (server("tcp:"), &["port is missing"]),
        (server("tcp:http"), &["port=\"http\"", "from 0 to 65535"]),
        (server("tcp:65536"), &["port=\"65536\""]),
        (server("tcp:80:interface=localhost"), &["interface=\"localhost\"", "IPv4 or IPv6"]),
        (server("tcp:80:interface=::1"), &["interface is given twice", r"written \:"]),
        (server("unix:/path:0:1"), &["what \"0\" is for", "mode=660"]),
        (server("tcp:80:backlog=0"), &["backlog=\"0\""]),
        (server("tcp:80:port=81"), &["port is given twice"]),
        (server("tcp:80:interfaces=::"), &["\"interfaces\"", "port, interface, backlog"]),
        (server("unix:/path:mode=rw"), &["mode=\"rw\"", "octal"]),
        (server("unix:/path:mode=7777"), &["mode=\"7777\""]),
        (server("unix:/path:lockfile=maybe"), &["lockfile=\"maybe\"", "0 or 1"]),
        (server("unix:mode=600"), &["address is missing"]),
        (server("fd:stdin"), &["number=\"stdin\""]),
        (server("fd:-1"), &["number=\"-1\""]),
        (server("stdio:now"), &["\"now\""]),
        (server("systemd:domain=INET7"), &["domain=\"INET7\"", "INET, INET6 or UNIX"]),
        (server("systemd:index=0:name=web"), &["by index or by name"]),
        (server(r"tcp:80\"), &["backslash at the end"]),
        (client("tcp:example.org"), &["port is missing", "tcp:host=example.org:port=80"]),
        (client("tcp:port=80"), &["host is missing"]),
        (client("tcp:example.org:80:timeout=0"), &["timeout=\"0\"", "greater than 0"]),
        (client("tcp:example.org:80:timeout=inf"), &["timeout=\"inf\""]),
        (client("tcp:example.org:80:bindAddress=here"), &["bindAddress=\"here\""]),
        (client("unix:"), &["path is missing"]),
        (client("tls:example.org"), &["port is missing", "tls:example.org:443"]),
        (client("tls:example.org:443:verify=no"), &["\"verify\"", "trustRoots"]),
        (client(r"tls:example.org:endpoint=tcp\:host"), &["tcp: port is missing"]),
    ] {
        for part in parts {
            assert!(said.contains(part), "{part:?} is not in {said:?}");
        }
    }
    assert!(server_from_string("stdio:").is_ok() && server_from_string("stdio").is_ok());
}

/// Made when the test runs: a certificate for localhost in `server.pem`, with its key.
fn certificate() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("server.pem", &format!("{key}{certificate}"));
    write("certificate.pem", &certificate);
    folder
}

#[test]
fn tls_by_string() {
    run(|| {
        let folder = certificate();
        let file = |name: &str| quote_string_argument(folder.path().join(name).to_str().unwrap());
        let (both, root) = (file("server.pem"), file("certificate.pem"));
        let server = format!("ssl:0:privateKey={both}:interface=127.0.0.1");
        let listening = server_from_string(&server).unwrap().listen(echo()).unwrap();
        let port = port(&listening);
        // As a file, and among others in a folder.
        let roots = tempfile::tempdir().unwrap();
        std::fs::copy(folder.path().join("certificate.pem"), roots.path().join("one.pem")).unwrap();
        let roots = quote_string_argument(roots.path().to_str().unwrap());
        let inner = quote_string_argument(&format!("tcp:127.0.0.1:{port}"));
        for client in [
            format!("tls:localhost:{port}:trustRoots={root}"),
            format!("tls:127.0.0.1:{port}:hostname=localhost:trustRoots={root}"),
            format!("tls:localhost:endpoint={inner}:trustRoots={root}"),
        ] {
            talk(&client_from_string(&client).unwrap());
        }
        drop(roots);

        // With clients that must show a certificate.
        let server = format!("tls:0:{both}:{root}:interface=127.0.0.1:clientRoots={root}");
        let listening = server_from_string(&server).unwrap().listen(echo()).unwrap();
        let port = self::port(&listening);
        let client = format!("ssl:localhost:{port}:trustRoots={root}:privateKey={both}");
        talk(&client_from_string(&client).unwrap());

        let missing = server_from_string("ssl:0:privateKey=/no/such.pem").unwrap_err();
        assert!(missing.to_string().contains("/no/such.pem"), "{missing}");
    });
}

/// A port on which a server listens at `127.0.0.1` and nobody ever answers at `127.0.0.2`: connections to it are neither
/// made nor refused, for its backlog is full.
struct Silent {
    port: u16,
    listening: ListeningPort,
    _socket: OwnedFd,
    _waiting: Vec<Source>,
}

impl Silent {
    const ADDR: [u8; 4] = [127, 0, 0, 2];

    fn new() -> Self {
        use rustix::net::{AddressFamily, SocketFlags, SocketType};
        loop {
            let server = TcpServerEndpoint::at(([127, 0, 0, 1], 0).into());
            let listening = server.listen(echo()).unwrap();
            let port = port(&listening);
            let flags = SocketFlags::CLOEXEC;
            let socket =
                rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None);
            let socket = socket.unwrap();
            let addr = SocketAddr::from((Self::ADDR, port));
            if rustix::net::bind(&socket, &addr).is_err() {
                // Somebody else has it there.
                continue;
            }
            rustix::net::listen(&socket, 0).unwrap();
            let connect = |_| Source::connect(&addr.into(), None).unwrap();
            let waiting = (0..8).map(connect).collect();
            return Self { port, listening, _socket: socket, _waiting: waiting };
        }
    }

    fn addr(&self) -> SocketAddr {
        SocketAddr::from((Self::ADDR, self.port))
    }
}

/// Has this hub know the host `many`.
fn many(addrs: &[[u8; 4]]) {
    let mut config = dns::Config::parse_resolv_conf("");
    for &addr in addrs {
        config.hosts.insert("many", IpAddr::from(addr));
    }
    dns::set_resolver(dns::Resolver::new(config));
}

/// Counts how often its life begins and ends.
#[derive(Clone, Default)]
struct Counted {
    started: Rc<Cell<u32>>,
    stopped: Rc<Cell<u32>>,
    refuses: bool,
}

impl Factory for Counted {
    fn build_protocol(&mut self, _peer: &PeerAddr) -> Option<Box<dyn Protocol>> {
        (!self.refuses).then(|| Box::new(Hello::default()) as Box<dyn Protocol>)
    }

    fn start_factory(&mut self) {
        self.started.set(self.started.get() + 1);
    }

    fn stop_factory(&mut self) {
        self.stopped.set(self.stopped.get() + 1);
    }
}

#[test]
fn an_address_that_does_not_answer_is_overtaken() {
    run(|| {
        let silent = Silent::new();
        many(&[Silent::ADDR, [127, 0, 0, 3], [127, 0, 0, 1]]);
        let endpoint = HostnameEndpoint::new("many", silent.port);
        let endpoint = endpoint.attempt_delay(Duration::from_millis(5));
        let counted = Counted::default();
        // The first is silent, the second refuses, the third is taken.
        let transport = endpoint.connect(Box::new(counted.clone())).wait().unwrap();
        assert_eq!(transport.peer().to_string(), silent.listening.addr().to_string());
        assert_eq!((counted.started.get(), counted.stopped.get()), (1, 0));
        transport.lose_connection();
        until(|| counted.stopped.get() == 1);
    });
}

#[test]
fn an_address_that_refuses_costs_no_time() {
    run(|| {
        let silent = Silent::new();
        many(&[[127, 0, 0, 3], [127, 0, 0, 1]]);
        // Long before the delay.
        let endpoint = HostnameEndpoint::new("many", silent.port);
        talk(&endpoint.attempt_delay(Duration::from_secs(3600)));
    });
}

#[test]
fn connecting_has_an_end() {
    run(|| {
        let silent = Silent::new();
        many(&[Silent::ADDR]);
        let short = Duration::from_millis(20);
        let counted = Counted::default();
        let factory = || Box::new(counted.clone());
        let by_name = HostnameEndpoint::new("many", silent.port).timeout(short);
        let error = failure(by_name.connect(factory()).wait());
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(
            error.to_string().contains("many") && error.to_string().contains("20ms"),
            "{error}"
        );
        let by_addr = TcpClientEndpoint::new(silent.addr()).timeout(short);
        let error = failure(by_addr.connect(factory()).wait());
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().contains("127.0.0.2"), "{error}");
        assert_eq!((counted.started.get(), counted.stopped.get()), (2, 2));
    });
}

#[test]
fn cancelling_gives_up() {
    run(|| {
        let silent = Silent::new();
        many(&[Silent::ADDR]);
        let counted = Counted::default();
        let endpoints: [Box<dyn StreamClientEndpoint>; 2] = [
            Box::new(HostnameEndpoint::new("many", silent.port)),
            Box::new(TcpClientEndpoint::new(silent.addr())),
        ];
        for (count, endpoint) in (1..).zip(endpoints) {
            let connecting = endpoint.connect(Box::new(counted.clone()));
            let canceller = connecting.canceller();
            spawn(move || {
                sleep(Duration::from_millis(10));
                canceller.cancel();
            });
            assert!(connecting.wait().is_err_and(|failure| failure.is_cancelled()));
            until(|| counted.stopped.get() == count);
        }
        // Also before it has begun.
        let connecting = HostnameEndpoint::new("many", silent.port).connect(echo());
        connecting.cancel();
        assert!(connecting.wait().is_err_and(|failure| failure.is_cancelled()));
    });
}

#[test]
fn what_cannot_be_connected_to_is_named() {
    run(|| {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = failure(TcpClientEndpoint::new(free).connect(echo()).wait());
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(error.to_string().contains(&free.to_string()), "{error}");
        many(&[[127, 0, 0, 1], [127, 0, 0, 3]]);
        let error = failure(HostnameEndpoint::new("many", free.port()).connect(echo()).wait());
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        // Each of its addresses.
        for part in ["many", "127.0.0.1", "127.0.0.3"] {
            assert!(error.to_string().contains(part), "{error}");
        }
        let bound =
            HostnameEndpoint::new("many", free.port()).bind_address("[::1]:0".parse().unwrap());
        let error = failure(bound.connect(echo()).wait());
        assert!(error.to_string().contains("the same family as [::1]:0"), "{error}");
        let error = failure(HostnameEndpoint::new("none.invalid", 80).connect(echo()).wait());
        assert!(error.to_string().contains("none.invalid"), "{error}");
        let error = failure(UnixClientEndpoint::new("/no/such").connect(echo()).wait());
        assert!(error.to_string().contains("/no/such"), "{error}");
        let error = failure(UnixClientEndpoint::new("x".repeat(200)).connect(echo()).wait());
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    });
}

#[test]
fn a_factory_may_refuse_what_was_connected() {
    run(|| {
        let listening = TcpServerEndpoint::at(([127, 0, 0, 1], 0).into()).listen(echo()).unwrap();
        let port = port(&listening);
        let counted = Counted { refuses: true, ..Counted::default() };
        let factory = || Box::new(counted.clone());
        let by_addr = TcpClientEndpoint::new(([127, 0, 0, 1], port).into());
        let by_name = HostnameEndpoint::new("localhost", port);
        for connected in [by_addr.connect(factory()).wait(), by_name.connect(factory()).wait()] {
            let error = failure(connected);
            assert!(error.to_string().contains("no protocol"), "{error}");
        }
        until(|| counted.stopped.get() == 2);
        let taken = TcpServerEndpoint::at(([127, 0, 0, 1], port).into()).listen(echo());
        let taken = taken.unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        assert!(taken.to_string().contains(&port.to_string()), "{taken}");
    });
}

/// Echoes, and tells when its connection is gone.
struct Once(Rc<Event>);

impl Protocol for Once {
    fn connection_made(&mut self, _transport: &Transport) {}

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        transport.write(data);
    }

    fn connection_lost(&mut self, _reason: &Reason) {
        self.0.set();
    }
}

/// What the next two tests start this program for. The descriptors of a process are what they are about.
const SERVES: &str = "WARREN_TEST_SERVES";

#[test]
fn child() {
    let Ok(described) = std::env::var(SERVES) else { return };
    run(move || {
        let ended = Rc::new(Event::new());
        let told = ended.clone();
        let server = server_from_string(&described).unwrap();
        let _listening = server.listen(Box::new(for_protocol(move || Once(told.clone())))).unwrap();
        ended.wait();
    });
}

/// This program, which serves one connection.
fn serving(described: &str) -> Command {
    let mut command = Command::new("sh");
    // systemd names the process that the sockets are for.
    command.args(["-c", r#"LISTEN_PID=$$ exec "$@""#, "sh"]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env(SERVES, described);
    command.kill_on_drop(true);
    command
}

#[test]
fn systemd_gives_its_sockets() {
    run(|| {
        for described in ["systemd:domain=INET:index=0", "systemd:name=web"] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let client = TcpClientEndpoint::new(listener.local_addr().unwrap());
            let mut command = serving(described);
            command.child_fd(3, listener).env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "web");
            let mut child = command.stdout(Stdio::null()).spawn().unwrap();
            drop(command);
            talk(&client);
            assert!(child.wait().unwrap().success());
        }
    });
}

#[test]
fn standard_input_and_output_are_a_connection() {
    run(|| {
        let mut command = serving("stdio:");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = child.communicate("said on standard input").unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("said on standard input"), "{text}");
        assert!(output.status.success());
    });
}
