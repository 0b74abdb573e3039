//! TLS that is started between two frames of a receiver.

use std::cell::RefCell;
use std::rc::Rc;

use warren_reactor::protocols::{
    Int8StringReceiver, LineProtocol, LineReceiver, LineTransport, NetstringReceiver,
    StringProtocol, StringTransport,
};
use warren_reactor::testing::TestConnection;
use warren_reactor::tls::TlsServerOptions;

use crate::support::{Heard, Notes, options, secured};

type Log = Rc<RefCell<Vec<String>>>;

/// Starts TLS when it is told to, and notes the frames.
struct Starting(TlsServerOptions, Log);

impl Starting {
    fn told(&mut self, transport: &warren_reactor::Transport, frame: &[u8]) {
        self.1.borrow_mut().push(String::from_utf8_lossy(frame).into_owned());
        if frame == b"STARTTLS" {
            transport.start_tls(&self.0, b"").unwrap();
        }
    }
}

impl LineProtocol for Starting {
    fn line_received(&mut self, transport: &LineTransport, line: &[u8]) {
        self.told(transport, line);
    }
}

impl StringProtocol for Starting {
    fn string_received(&mut self, transport: &StringTransport, string: &[u8]) {
        self.told(transport, string);
    }
}

/// Lets the two speak, the client's bytes in pieces of `size` behind those of `clear`.
fn speak(server: &mut TestConnection, client: &mut TestConnection, clear: &[u8], size: usize) {
    let mut up = clear.to_vec();
    loop {
        up.extend(client.take_output());
        let down = server.take_output();
        if up.is_empty() && down.is_empty() {
            return;
        }
        for piece in up.chunks(size) {
            server.feed(piece);
        }
        up.clear();
        client.feed(&down);
    }
}

#[test]
fn what_follows_a_frame_that_starts_tls_is_the_handshake() {
    let (server_options, client_options) = options();
    for size in [1, 7, 100, 100_000] {
        let cases: [(&[u8], &[u8]); 3] = [
            (b"one\r\nSTARTTLS\r\n", b"two\r\nthree\r\n"),
            (b"3:one,8:STARTTLS,", b"3:two,5:three,"),
            (b"\x03one\x08STARTTLS", b"\x03two\x05three"),
        ];
        for (kind, (clear, secret)) in cases.into_iter().enumerate() {
            let log = Log::default();
            let starting = Starting(server_options.clone(), log.clone());
            let mut server = TestConnection::new(match kind {
                0 => Box::new(LineReceiver::new(starting)),
                1 => Box::new(NetstringReceiver::new(starting)),
                _ => Box::new(Int8StringReceiver::new(starting)),
            });
            let mut client = secured(&client_options, Notes::new(&Heard::default()));
            client.transport().write(secret);
            speak(&mut server, &mut client, clear, size);
            assert_eq!(*log.borrow(), ["one", "STARTTLS", "two", "three"], "in pieces of {size}");
        }
    }
}

#[test]
fn frames_smuggled_in_behind_the_one_that_starts_tls_are_not_told() {
    let (server_options, _) = options();
    let log = Log::default();
    let starting = Starting(server_options, log.clone());
    let mut server = TestConnection::new(Box::new(LineReceiver::new(starting)));
    server.feed(b"STARTTLS\r\nDELETE\r\n");
    assert!(server.is_lost());
    assert_eq!(*log.borrow(), ["STARTTLS"]);
}

#[test]
fn the_beginning_of_a_frame_in_the_clear_is_forgotten() {
    let (server_options, client_options) = options();
    let log = Log::default();
    let starting = Starting(server_options.clone(), log.clone());
    let mut server = TestConnection::new(Box::new(LineReceiver::new(starting)));
    server.feed(b"one\r\nDELETE ");
    server.transport().start_tls(&server_options, b"").unwrap();
    let mut client = secured(&client_options, Notes::new(&Heard::default()));
    client.transport().write(b"mail\r\n");
    speak(&mut server, &mut client, b"", 1000);
    assert_eq!(*log.borrow(), ["one", "mail"]);
}
