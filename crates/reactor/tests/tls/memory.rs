//! Two ends in memory.

use std::time::Duration;

use warren_reactor::testing::{Clock, End, TestConnection};
use warren_reactor::tls::options_for_client_tls;
use warren_reactor::tls::rustls::{HandshakeKind, ProtocolVersion};
use warren_reactor::{Protocol, Reason, Transport};

use crate::support::{Ends, Heard, Notes, certificate, identity, options, options_12, secured};

#[test]
fn what_is_written_before_the_handshake_waits_for_it() {
    let (server, client) = options();
    let mut ends = Ends::with(
        &server,
        &client,
        |server| server.writes = b"welcome".to_vec(),
        |client| client.writes = b"hello".to_vec(),
    );
    assert_eq!(ends.client.transport().tls_info().map(|info| info.version), None);
    ends.pump();
    assert_eq!(ends.at_server.data(), b"hello");
    assert_eq!(ends.at_client.data(), b"welcome");
    assert_eq!(ends.at_client.events(), ["handshake"]);
    assert_eq!(ends.at_server.events(), ["handshake"]);
    let info = ends.client.transport().tls_info().unwrap();
    assert_eq!(info.version, ProtocolVersion::TLSv1_3);
    assert_eq!(info.peer_certificates.len(), 1);
    assert_eq!(info.server_name.as_deref(), Some("localhost"));
    let info = ends.server.transport().tls_info().unwrap();
    assert!(info.peer_certificates.is_empty() && info.alpn.is_none());
    assert_eq!(info.server_name.as_deref(), Some("localhost"));
}

#[test]
fn losing_the_connection_says_farewell() {
    let (server, client) = options();
    let mut ends = Ends::new(&server, &client);
    ends.pump();
    ends.client.transport().write(b"last words");
    ends.client.transport().lose_connection();
    ends.pump();
    assert_eq!(ends.client.closed(), Some(End::Graceful));
    assert_eq!(ends.at_server.data(), b"last words");
    assert_eq!(ends.at_client.events(), ["handshake", "closed here"]);
    assert_eq!(ends.at_server.events(), ["handshake", "read lost", "closed by the peer"]);
}

#[test]
fn a_close_without_farewell_is_an_error() {
    let (server, client) = options();
    let mut ends = Ends::new(&server, &client);
    ends.pump();
    ends.server.lose();
    let last = ends.at_server.last();
    assert!(last.starts_with("UnexpectedEof") && last.contains("cut off"), "{last}");
    // And during the handshake.
    let mut ends = Ends::new(&server, &client);
    ends.client.lose();
    let last = ends.at_client.last();
    assert!(last.starts_with("UnexpectedEof") && last.contains("handshake"), "{last}");
}

#[test]
fn each_direction_can_end_by_itself() {
    for (server, client) in [options(), options_12()] {
        let mut ends = Ends::with(&server, &client, |server| server.stays = true, |_| {});
        ends.pump();
        ends.client.transport().write(b"question");
        ends.client.transport().lose_write_connection();
        ends.pump();
        assert!(ends.client.write_ended());
        assert_eq!(ends.at_client.events(), ["handshake", "write lost"]);
        assert_eq!(ends.at_server.events(), ["handshake", "read lost"]);
        ends.server.transport().write(b"answer");
        ends.pump();
        assert_eq!(ends.at_client.data(), b"answer");
        ends.server.transport().lose_connection();
        ends.pump();
        assert_eq!(ends.at_client.last(), "closed by the peer");
        assert_eq!(ends.at_server.last(), "closed by the peer");
    }
}

#[test]
fn a_half_close_waits_for_the_handshake() {
    let (server, client) = options();
    let mut ends = Ends::with(&server, &client, |server| server.stays = true, |_| {});
    ends.client.transport().lose_write_connection();
    ends.pump();
    assert_eq!(ends.at_client.events(), ["handshake", "write lost"]);
    assert_eq!(ends.at_server.events(), ["handshake", "read lost"]);
}

#[test]
fn a_connection_lost_before_the_handshake_still_delivers_what_was_written() {
    let (server, client) = options();
    let mut ends = Ends::with(&server, &client, |_| {}, |client| client.writes = b"all".to_vec());
    ends.client.transport().lose_connection();
    ends.pump();
    assert_eq!(ends.at_server.data(), b"all");
    assert_eq!(ends.at_server.last(), "closed by the peer");
    assert_eq!(ends.at_client.last(), "closed here");
    // With nothing to deliver there is nothing to wait for.
    let mut ends = Ends::new(&server, &client);
    ends.client.transport().lose_connection();
    assert_eq!(ends.client.closed(), Some(End::Graceful));
    ends.pump();
    assert_eq!(ends.at_client.last(), "closed here");
}

#[test]
fn what_was_written_last_is_lost_with_the_handshake() {
    let (server, client) = options();
    let mut ends = Ends::with(&server, &client, |_| {}, |client| client.writes = b"all".to_vec());
    ends.client.transport().lose_connection();
    ends.client.lose();
    assert!(ends.at_client.last().starts_with("UnexpectedEof"), "{}", ends.at_client.last());
    let mut ends = Ends::with(&server, &client, |_| {}, |client| client.writes = b"all".to_vec());
    ends.client.transport().lose_connection();
    ends.client.feed(b"no TLS");
    assert!(ends.at_client.last().starts_with("InvalidData"), "{}", ends.at_client.last());
}

#[test]
fn a_paused_protocol_gets_its_handshake_and_later_its_data() {
    let (server, client) = options();
    let mut ends = Ends::with(&server, &client, |_| {}, |client| client.writes = b"early".to_vec());
    ends.server.transport().pause_reading();
    ends.pump();
    assert_eq!(ends.at_server.events(), ["handshake"]);
    assert_eq!(ends.at_server.data(), b"");
    ends.server.transport().resume_reading();
    ends.pump();
    assert_eq!(ends.at_server.data(), b"early");
}

#[test]
fn large_writes_leave_in_slices() {
    let (server, client) = options();
    let mut ends = Ends::new(&server, &client);
    ends.pump();
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    ends.client.stall(true);
    ends.client.transport().write(&bytes);
    ends.client.transport().write_bytes(bytes.clone().into());
    ends.client.stall(true);
    // Encrypted only as far as it may leave soon.
    let buffered = ends.client.transport().buffered();
    assert!(buffered < 2 * bytes.len() + 1024, "{buffered}");
    ends.client.stall(false);
    ends.server.transport().write(&bytes);
    ends.pump();
    assert!(ends.at_server.data() == [bytes.clone(), bytes.clone()].concat());
    assert!(ends.at_client.data() == bytes);
    assert_eq!(ends.client.transport().buffered(), 0);
}

#[test]
fn when_there_is_room_again_all_leaves_at_once() {
    let (server, client) = options();
    let mut ends = Ends::new(&server, &client);
    ends.pump();
    let transport = ends.client.transport().clone();
    ends.client.stall(true);
    transport.write(&[b'x'; 1_000_000]);
    // As much is encrypted as may wait, and none of it has left.
    ends.client.stall(true);
    ends.client.stall(true);
    // The system says once that there is room, and not again as long as it takes everything.
    ends.client.stall(false);
    assert_eq!(transport.buffered(), 0);
    ends.pump();
    assert_eq!(ends.at_server.data().len(), 1_000_000);
}

#[test]
fn the_handshake_has_a_time_limit() {
    let clock = Clock::install();
    let (server, client) = options();
    let ends = Ends::new(&server, &client);
    clock.advance(Duration::from_secs(9));
    assert!(!ends.server.is_lost());
    clock.advance(Duration::from_secs(1));
    assert!(ends.server.is_lost() && ends.client.is_lost());
    let last = ends.at_server.last();
    assert!(last.starts_with("TimedOut") && last.contains("10s"), "{last}");
    // Not once it has been completed.
    let mut ends = Ends::new(&server, &client);
    ends.pump();
    clock.advance(Duration::from_secs(60));
    assert!(!ends.server.is_lost() && !ends.client.is_lost());
}

#[test]
fn a_session_is_resumed() {
    let (server, client) = options();
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let mut ends = Ends::new(&server, &client);
        ends.pump();
        kinds.push(ends.client.transport().tls_info().unwrap().handshake);
        let info = ends.server.transport().tls_info().unwrap();
        assert_eq!(info.server_name.as_deref(), Some("localhost"));
    }
    assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed]);
}

/// Speaks in the clear until it is told to start TLS, in the middle of what it has received.
struct Starts {
    notes: Notes,
    server: Option<warren_reactor::tls::TlsServerOptions>,
}

impl Protocol for Starts {
    fn connection_made(&mut self, transport: &Transport) {
        self.notes.connection_made(transport);
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        let rest = data.strip_prefix(b"STARTTLS\n").filter(|_| self.server.is_some());
        match rest {
            Some(rest) => {
                transport.write(b"GO\n");
                let options = self.server.take().unwrap();
                transport.start_tls(&options, rest).unwrap();
                let again = transport.start_tls(&options, b"").unwrap_err();
                assert_eq!(again.kind(), std::io::ErrorKind::AlreadyExists);
                transport.write(b"secret");
            }
            None => self.notes.data_received(transport, data),
        }
    }

    fn handshake_completed(&mut self, transport: &Transport) {
        self.notes.handshake_completed(transport);
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.notes.connection_lost(reason);
    }
}

fn starts() -> (TestConnection, TestConnection, [Heard; 2]) {
    let (server, client) = options();
    let (at_server, at_client) = (Heard::default(), Heard::default());
    let notes = Notes::new(&at_server);
    let mut server = TestConnection::new(Box::new(Starts { notes, server: Some(server) }));
    server.feed(b"in the clear ");
    assert_eq!(at_server.data(), b"in the clear ");
    let client = secured(&client, Notes::new(&at_client));
    (server, client, [at_server, at_client])
}

#[test]
fn tls_starts_in_the_middle_of_a_connection() {
    // With the client's greeting after the answer, or at once.
    for impatient in [false, true] {
        let (mut server, mut client, [at_server, at_client]) = starts();
        client.transport().write(b"question");
        let greeting = if impatient { client.take_output() } else { Vec::new() };
        server.feed(&[b"STARTTLS\n".to_vec(), greeting].concat());
        let answer = server.take_output();
        let rest = answer.strip_prefix(b"GO\n").unwrap();
        client.feed(rest);
        loop {
            let (up, down) = (client.take_output(), server.take_output());
            if up.is_empty() && down.is_empty() {
                break;
            }
            server.feed(&up);
            client.feed(&down);
        }
        assert_eq!(at_server.data(), b"in the clear question");
        assert_eq!(at_client.data(), b"secret");
    }
}

#[test]
fn commands_smuggled_in_behind_starttls_are_not_obeyed() {
    let (mut server, _, [at_server, _]) = starts();
    server.feed(b"STARTTLS\nDELETE everything\n");
    assert!(server.is_lost());
    assert_eq!(at_server.data(), b"in the clear ");
    let last = at_server.last();
    assert!(last.starts_with("InvalidData") && last.contains("does not speak TLS"), "{last}");
    let output = server.take_output();
    // In the clear only what was written before.
    let alert = output.strip_prefix(b"GO\n").unwrap();
    assert_eq!(alert[0], 21, "an alert: {alert:?}");
}

#[test]
fn tls_is_not_started_on_what_is_being_closed() {
    let (server, _) = options();
    let connection = TestConnection::new(Box::new(Notes::new(&Heard::default())));
    connection.transport().lose_connection();
    let error = connection.transport().start_tls(&server, b"").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotConnected);
    assert!(connection.transport().tls_info().is_none());
}

#[test]
fn a_client_that_knows_no_name_asks_for_none() {
    let identity = identity("localhost");
    let server = certificate(&identity).build().unwrap();
    let client = options_for_client_tls("127.0.0.1").roots(&identity.root).build().unwrap();
    let mut ends = Ends::new(&server, &client);
    ends.pump();
    assert_eq!(ends.server.transport().tls_info().unwrap().server_name, None);
}
