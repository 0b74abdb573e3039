//! Strings with a length before them, and netstrings.

use super::*;
use crate::lines::lines;

/// Does what strings say.
pub(super) struct Strings(pub(super) Log);

impl StringProtocol for Strings {
    fn string_received(&mut self, transport: &StringTransport, string: &[u8]) {
        note(&self.0, "string", string);
        match string {
            b"pause" => {
                transport.pause_reading();
                self.0.borrow_mut().push("pause".into());
            }
            b"lose" => transport.lose_connection(),
            b"send" => transport.send_string(b"sent").unwrap(),
            _ => {}
        }
    }

    fn length_limit_exceeded(&mut self, _transport: &StringTransport, length: usize) {
        self.0.borrow_mut().push(format!("exceeded {length}"));
    }

    fn parse_failed(&mut self, _transport: &StringTransport, error: NetstringParseError) {
        self.0.borrow_mut().push(format!("{error:?}"));
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.0.borrow_mut().push(format!("lost: {reason}"));
    }
}

pub(super) fn int8(log: Log) -> Box<dyn Protocol> {
    Box::new(Int8StringReceiver::new(Strings(log)))
}

pub(super) fn int16(log: Log) -> Box<dyn Protocol> {
    Box::new(Int16StringReceiver::new(Strings(log)).max_length(0x100))
}

pub(super) fn int32(log: Log) -> Box<dyn Protocol> {
    Box::new(Int32StringReceiver::new(Strings(log)).max_length(9))
}

pub(super) fn netstrings(log: Log) -> Box<dyn Protocol> {
    Box::new(NetstringReceiver::new(Strings(log)).max_length(120))
}

pub(super) const BY_PEER: &str = "lost: closed by the peer";
pub(super) const HERE: &str = "lost: closed here";

#[test]
fn strings_have_their_length_before_them() {
    check(&int8, b"\x03one\0\x03two\x04thr", &["string one", "string ", "string two", BY_PEER]);
    check(&int16, b"\0\x03one\0\0\0\x03two\0", &["string one", "string ", "string two", BY_PEER]);
    let told = ["string one", "string ", "string 123456789", BY_PEER];
    check(&int32, b"\0\0\0\x03one\0\0\0\0\0\0\0\x09123456789\0\0\0", &told);
}

#[test]
fn a_length_beyond_the_limit_ends_the_connection() {
    check(&int32, b"\0\0\0\x01x\0\0\0\x0aabc", &["string x", "exceeded 10", HERE]);
    check(&int32, b"\xff\xff\xff\xff", &["exceeded 4294967295", HERE]);
    check(&int16, b"\x01\x01", &["exceeded 257", HERE]);
    let largest = [&b"\xff"[..], &[b'x'; 255]].concat();
    assert_eq!(feed(&int8, largest.chunks(7)).0[0].len(), "string ".len() + 255);
}

#[test]
fn strings_wait_while_reading_is_paused() {
    let told = ["string pause", "pause", "resume", "string a", BY_PEER];
    check(&int8, b"\x05pause\x01a", &told);
    check(&netstrings, b"5:pause,1:a,", &told);
}

#[test]
fn after_losing_the_connection_no_string_is_told() {
    check(&int8, b"\x04lose\x01a", &["string lose", HERE]);
    check(&netstrings, b"4:lose,1:a,x", &["string lose", HERE]);
}

#[test]
fn sent_strings_are_framed() {
    check_written(&int8, b"\x04send", &["string send", BY_PEER], b"\x04sent");
    check_written(&int16, b"\0\x04send", &["string send", BY_PEER], b"\0\x04sent");
    check_written(&int32, b"\0\0\0\x04send", &["string send", BY_PEER], b"\0\0\0\x04sent");
    check_written(&netstrings, b"4:send,", &["string send", BY_PEER], b"4:sent,");
    check_written(&lines, b"send\r\n", &["line send"], b"sent\r\n");
}

#[test]
fn netstrings_end_with_a_comma() {
    check(&netstrings, b"3:one,0:,3:two,4:thr", &["string one", "string ", "string two", BY_PEER]);
    check(&netstrings, b"3:a,b,1:,,", &["string a,b", "string ,", BY_PEER]);
    check(
        &netstrings,
        b"2:ok,3:oneX3:two,",
        &["string ok", "MissingComma { length: 3, byte: 88 }", HERE],
    );
    check(&netstrings, b"0:0:,", &["MissingComma { length: 0, byte: 48 }", HERE]);
}

#[test]
fn what_is_no_length_is_refused_where_it_stands() {
    let bad = |byte: u8| format!("BadLength {{ byte: {byte} }}");
    check(&netstrings, b":x,", &[&bad(b':'), HERE]);
    check(&netstrings, b"1:x,y", &["string x", &bad(b'y'), HERE]);
    check(&netstrings, b"01:x,", &[&bad(b'1'), HERE]);
    check(&netstrings, b"00", &[&bad(b'0'), HERE]);
    check(&netstrings, b"-1:", &[&bad(b'-'), HERE]);
    check(&netstrings, b"1 :", &[&bad(b' '), HERE]);
    check(&netstrings, b"12\n", &[&bad(b'\n'), HERE]);
}

#[test]
fn a_netstring_beyond_the_limit_is_refused_at_the_digit() {
    let long = |length: usize| format!("TooLong {{ length: {length}, max_length: 120 }}");
    check(&netstrings, b"121", &[&long(121), HERE]);
    check(&netstrings, b"0:,1200", &["string ", &long(1200), HERE]);
    let longest = [&b"120:"[..], &[b'x'; 120], b","].concat();
    assert_eq!(feed(&netstrings, longest.chunks(50)).0[0].len(), "string ".len() + 120);
    let no_limit = |log| {
        Box::new(NetstringReceiver::new(Strings(log)).max_length(usize::MAX)) as Box<dyn Protocol>
    };
    let largest = format!("{}:x", usize::MAX);
    assert_eq!(feed(&no_limit, largest.as_bytes().chunks(1)).0, [BY_PEER]);
    // No number of digits overflows.
    let beyond = "9".repeat(40);
    assert_eq!(feed(&no_limit, beyond.as_bytes().chunks(1)).0, [BY_PEER]);
}

#[test]
fn a_string_that_has_no_frame_is_not_sent() {
    struct Sender(Rc<RefCell<Option<StringTransport>>>);
    impl StringProtocol for Sender {
        fn connection_made(&mut self, transport: &StringTransport) {
            *self.0.borrow_mut() = Some(transport.clone());
        }
        fn string_received(&mut self, _transport: &StringTransport, _string: &[u8]) {}
    }
    let place = Rc::default();
    let receiver = Int8StringReceiver::new(Sender(Rc::clone(&place)));
    let mut connection = TestConnection::new(Box::new(receiver));
    let transport = place.take().unwrap();
    let error = transport.send_string(&[0; 256]).unwrap_err();
    assert_eq!((error.length, error.max_length), (256, 255));
    assert!(transport.send_string_bytes(vec![0; 256].into()).is_err());
    assert_eq!(connection.take_output(), b"");
    transport.send_string_bytes(vec![b'x'; 255].into()).unwrap();
    assert_eq!(connection.take_output()[..2], *b"\xffx");
}
