//! Ready-made services and the port forwarder, on real sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use warren_hub::net::{TcpListener, TcpStream};
use warren_hub::{run, spawn, with_timeout};
use warren_reactor::protocols::portforward::ProxyFactory;
use warren_reactor::protocols::{for_protocol, wire};
use warren_reactor::{Factory, ListeningPort, PeerAddr, Protocol, Reason, Transport, listen_tcp};

/// Nothing here takes long; a test that hangs should say so.
const LIMIT: Duration = Duration::from_secs(30);

fn listen(factory: impl Factory + 'static) -> (ListeningPort, SocketAddr) {
    let port = listen_tcp("127.0.0.1:0".parse().unwrap(), Box::new(factory)).unwrap();
    let PeerAddr::Tcp(addr) = *port.addr() else { unreachable!("a TCP port") };
    (port, addr)
}

fn within_limit(test: impl FnOnce() + 'static) {
    run(|| with_timeout(LIMIT, test).expect("it takes no longer than the limit"));
}

#[test]
fn noise_comes_as_fast_as_it_is_read_until_the_peer_closes() {
    within_limit(|| {
        let (_port, addr) = listen(for_protocol(|| wire::Chargen));
        let mut stream = TcpStream::connect(addr).unwrap();
        let mut noise = vec![0; 2 * 95 * 74];
        stream.read_exact(&mut noise).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        let lines: Vec<_> = noise.chunks(74).collect();
        assert_eq!(
            (&lines[0][..3], &lines[1][..3], &lines[94][..3]),
            (&b" !\""[..], &b"!\"#"[..], &b"~ !"[..])
        );
        assert_eq!(lines[95], lines[0]);
        assert!(lines.iter().all(|line| line.ends_with(b"\r\n")));
    });
}

/// Answers with all that came, once the peer has ended its output.
#[derive(Default)]
struct Late(Vec<u8>);

impl Protocol for Late {
    fn connection_made(&mut self, _transport: &Transport) {}

    fn data_received(&mut self, _transport: &Transport, data: &[u8]) {
        self.0.extend_from_slice(data);
    }

    fn read_connection_lost(&mut self, transport: &Transport) {
        transport.write(&self.0);
        transport.lose_connection();
    }

    fn connection_lost(&mut self, _reason: &Reason) {}
}

#[test]
fn a_forwarded_request_gets_its_answer_after_a_half_close() {
    within_limit(|| {
        let (_late, destination) = listen(for_protocol(Late::default));
        let (_proxy, addr) = listen(ProxyFactory::new(destination));
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.write_all(b"request").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "request");
    });
}

#[test]
fn megabytes_pass_a_forwarder_whose_ends_are_slow() {
    within_limit(|| {
        let (_echo, destination) = listen(for_protocol(|| wire::Echo));
        let (_proxy, addr) = listen(ProxyFactory::new(destination));
        let stream = TcpStream::connect(addr).unwrap();
        let sent: Vec<u8> = (0..8_000_000_u32).map(|at| (at / 7) as u8).collect();
        let (mut output, mut input) = (stream.try_clone().unwrap(), stream);
        let copy = sent.clone();
        let writer = spawn(move || output.write_all(&copy).unwrap());
        let mut echoed = vec![0; sent.len()];
        input.read_exact(&mut echoed).unwrap();
        writer.join().unwrap();
        assert!(echoed == sent);
    });
}

/// Waits for the end of a connection in vain no longer than the test may take.
fn ends(mut stream: TcpStream) -> bool {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn one_end_that_goes_takes_the_other_with_it() {
    within_limit(|| {
        let listener = TcpListener::bind("127.0.0.1:0".parse::<SocketAddr>().unwrap()).unwrap();
        let (_proxy, addr) = listen(ProxyFactory::new(listener.local_addr().unwrap()));
        let near = TcpStream::connect(addr).unwrap();
        let (far, _) = listener.accept().unwrap();
        drop(far);
        assert!(ends(near));
        let near = TcpStream::connect(addr).unwrap();
        let (far, _) = listener.accept().unwrap();
        drop(near);
        assert!(ends(far));
    });
}

#[test]
fn nobody_at_the_destination_ends_the_connection() {
    within_limit(|| {
        let listener = TcpListener::bind("127.0.0.1:0".parse::<SocketAddr>().unwrap()).unwrap();
        let destination = listener.local_addr().unwrap();
        drop(listener);
        let (_proxy, addr) = listen(ProxyFactory::new(destination));
        assert!(ends(TcpStream::connect(addr).unwrap()));
    });
}
