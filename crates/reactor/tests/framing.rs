//! The receivers of frames: cut anywhere, a stream says the same.

use std::cell::RefCell;
use std::rc::Rc;

use proptest::prelude::*;
use warren_reactor::protocols::{
    Int8StringReceiver, Int16StringReceiver, Int32StringReceiver, LineProtocol, LineReceiver,
    LineTransport, NetstringParseError, NetstringReceiver, NextStringState, State,
    StatefulProtocol, StatefulReceiver, StatefulStringProtocol, StatefulStrings, StringProtocol,
    StringState, StringTransport,
};
use warren_reactor::testing::{TestConnection, cut_everywhere};
use warren_reactor::{Protocol, Reason, Transport};

/// What a protocol was told, shared with the test.
type Log = Rc<RefCell<Vec<String>>>;

fn note(log: &Log, what: &str, data: &[u8]) {
    log.borrow_mut().push(format!("{what} {}", data.escape_ascii()));
}

/// Feeds `pieces` to a protocol made by `make`; what it was told, and what it wrote.
fn feed<'a>(
    make: &dyn Fn(Log) -> Box<dyn Protocol>,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<String>, Vec<u8>) {
    let log = Log::default();
    let mut connection = TestConnection::new(make(log.clone()));
    for piece in pieces {
        connection.feed(piece);
        // Nobody stays paused for ever.
        while !connection.is_lost() && log.borrow().last().is_some_and(|said| said == "pause") {
            log.borrow_mut().push("resume".into());
            connection.transport().resume_reading();
            connection.feed(&[]);
        }
    }
    let output = connection.take_output();
    connection.lose();
    drop(connection);
    (Rc::into_inner(log).unwrap().into_inner(), output)
}

/// The stream says `want`, whole, cut at every place, at every two places, and byte by byte.
#[track_caller]
fn check(make: &dyn Fn(Log) -> Box<dyn Protocol>, stream: &[u8], want: &[&str]) {
    check_written(make, stream, want, b"");
}

#[track_caller]
fn check_written(
    make: &dyn Fn(Log) -> Box<dyn Protocol>,
    stream: &[u8],
    want: &[&str],
    written: &[u8],
) {
    let want: Vec<String> = want.iter().map(|said| (*said).to_owned()).collect();
    let said = cut_everywhere(stream, |pieces| feed(make, pieces.iter().copied()));
    assert_eq!(said, (want, written.to_vec()));
}

/// Does what lines say.
struct Lines {
    log: Log,
    /// How many raw bytes are still to come.
    raw_bytes: usize,
}

impl LineProtocol for Lines {
    fn line_received(&mut self, transport: &LineTransport, line: &[u8]) {
        note(&self.log, "line", line);
        match line {
            b"pause" => {
                transport.pause_reading();
                self.log.borrow_mut().push("pause".into());
            }
            b"lose" => transport.lose_connection(),
            b"abort" => transport.abort_connection(),
            b"clear" => transport.clear_line_buffer(),
            b"semicolon" => transport.set_delimiter(b";"),
            b"short" => transport.set_max_length(3),
            b"send" => transport.send_line(b"sent"),
            _ => {
                if let Some(size) = line.strip_prefix(b"raw ") {
                    self.raw_bytes = String::from_utf8_lossy(size).parse().unwrap();
                    transport.set_raw_mode();
                    assert!(transport.is_raw());
                }
            }
        }
    }

    fn raw_data_received(&mut self, transport: &LineTransport, data: &[u8]) {
        let (raw, rest) = data.split_at(self.raw_bytes.min(data.len()));
        self.raw_bytes -= raw.len();
        for byte in raw {
            note(&self.log, "raw", &[*byte]);
        }
        if raw.contains(&b'!') {
            transport.pause_reading();
            self.log.borrow_mut().push("pause".into());
        }
        if self.raw_bytes == 0 {
            transport.set_line_mode(rest);
        }
    }

    fn line_length_exceeded(&mut self, transport: &LineTransport, data: &[u8]) {
        note(&self.log, "exceeded", &data[..1]);
        transport.lose_connection();
    }
}

fn lines(log: Log) -> Box<dyn Protocol> {
    Box::new(LineReceiver::new(Lines { log, raw_bytes: 0 }).max_length(16))
}

fn lines_by(delimiter: &'static [u8]) -> impl Fn(Log) -> Box<dyn Protocol> {
    move |log| {
        let receiver = LineReceiver::new(Lines { log, raw_bytes: 0 });
        Box::new(receiver.delimiter(delimiter).max_length(8))
    }
}

#[test]
fn lines_end_with_the_delimiter() {
    check(&lines, b"one\r\n\r\ntwo\r\nthr", &["line one", "line ", "line two"]);
    check(&lines, b"a\rb\nc\r\r\n\n\r\n", &["line a\\rb\\nc\\r", "line \\n"]);
    check(&lines_by(b"\n"), b"one\n\ntwo\n", &["line one", "line ", "line two"]);
    check(&lines_by(b"--8--"), b"a--8--8----8---8--b", &["line a", "line 8--"]);
    check(&lines_by(b"aa"), b"aaabaaaa", &["line ", "line ab", "line "]);
    check(&lines_by(b"aba"), b"ababaxaba", &["line ", "line bax"]);
}

#[test]
fn a_line_may_be_as_long_as_the_limit_and_no_longer() {
    check(&lines, b"0123456789abcdef\r\nx\r\n", &["line 0123456789abcdef", "line x"]);
    check(&lines, b"ok\r\n0123456789abcdefg\r\nx\r\n", &["line ok", "exceeded 0"]);
    check(&lines, b"0123456789abcdef0123", &["exceeded 0"]);
    check(&lines, b"0123456789abcdef\r", &[]);
    check(&lines, b"0123456789abcdef\rx", &["exceeded 0"]);
    check(&lines, b"short\r\nabc\r\nabcd\r\n", &["line short", "line abc", "exceeded a"]);
}

#[test]
fn raw_mode_begins_behind_the_line_and_ends_anywhere() {
    let raw = ["line raw 3", "raw a", "raw b", "raw c", "line next"];
    check(&lines, b"raw 3\r\nabcnext\r\n", &raw);
    let none = ["line raw 2", "raw \\r", "raw \\n", "line ", "line raw 0", "line x"];
    check(&lines, b"raw 2\r\n\r\n\r\nraw 0\r\nx\r\n", &none[..]);
}

#[test]
fn nothing_is_told_while_reading_is_paused() {
    let told =
        ["line pause", "pause", "resume", "line a", "line pause", "pause", "resume", "line b"];
    check(&lines, b"pause\r\na\r\npause\r\nb\r\nc", &told);
    let raw = ["line raw 2", "raw !", "pause", "resume", "raw x", "line y"];
    let bytewise = feed(&lines, b"raw 2\r\n!xy\r\n".chunks(1)).0;
    assert_eq!(bytewise, raw);
    // Together in one piece, the raw bytes have been told when the pause takes effect.
    let whole = ["line raw 2", "raw !", "raw x", "pause", "resume", "line y"];
    assert_eq!(feed(&lines, [&b"raw 2\r\n!xy\r\n"[..]]).0, whole);
}

#[test]
fn a_pause_can_last() {
    let log = Log::default();
    let mut connection = TestConnection::new(lines(log.clone()));
    connection.feed(b"pause\r\na\r\nb");
    connection.feed(b"this is not read from the network");
    assert_eq!(*log.borrow(), ["line pause", "pause"]);
    connection.transport().resume_reading();
    connection.feed(b"c\r\n");
    assert_eq!(log.borrow()[2..], ["line a", "line bc"]);
}

#[test]
fn what_waits_when_the_connection_is_lost_is_never_told() {
    let log = Log::default();
    let mut connection = TestConnection::new(lines(log.clone()));
    connection.feed(b"pause\r\na\r\n");
    connection.transport().lose_connection();
    connection.transport().resume_reading();
    connection.feed(b"b\r\n");
    assert!(connection.is_lost());
    assert_eq!(*log.borrow(), ["line pause", "pause"]);
}

#[test]
fn after_losing_the_connection_no_line_is_told() {
    check(&lines, b"lose\r\na\r\n", &["line lose"]);
    check(&lines, b"abort\r\na\r\n", &["line abort"]);
}

#[test]
fn clearing_forgets_what_came_together() {
    assert_eq!(feed(&lines, [&b"clear\r\na\r\nb"[..], b"c\r\n"]).0, ["line clear", "line c"]);
    assert_eq!(feed(&lines, b"clear\r\nb\r\n".chunks(1)).0, ["line clear", "line b"]);
}

#[test]
fn the_delimiter_may_change_between_lines() {
    check(&lines, b"semicolon\r\na\r\n;b;", &["line semicolon", "line a\\r\\n", "line b"]);
}

/// Keeps its transport for the test.
struct Kept(Log, Rc<RefCell<Option<LineTransport>>>);

impl LineProtocol for Kept {
    fn connection_made(&mut self, transport: &LineTransport) {
        *self.1.borrow_mut() = Some(transport.clone());
    }

    fn line_received(&mut self, _transport: &LineTransport, line: &[u8]) {
        note(&self.0, "line", line);
    }

    fn raw_data_received(&mut self, _transport: &LineTransport, data: &[u8]) {
        note(&self.0, "raw", data);
    }
}

fn kept() -> (TestConnection, LineTransport, Log) {
    let (log, place) = (Log::default(), Rc::default());
    let protocol = Kept(log.clone(), Rc::clone(&place));
    let connection = TestConnection::new(Box::new(LineReceiver::new(protocol)));
    let transport = place.take().unwrap();
    (connection, transport, log)
}

#[test]
fn the_mode_can_be_changed_from_outside() {
    let (mut connection, transport, log) = kept();
    connection.feed(b"one\r\ntw");
    transport.set_raw_mode();
    connection.feed(b"o\r\n");
    assert_eq!(*log.borrow(), ["line one", "raw two\\r\\n"]);
    transport.set_line_mode(b"three\r\nfo");
    connection.feed(b"ur\r\n");
    assert_eq!(log.borrow()[2..], ["line three", "line four"]);
    transport.send_line(b"five");
    assert_eq!(connection.take_output(), b"five\r\n");
}

#[test]
fn the_delimiter_can_be_changed_from_outside() {
    let (mut connection, transport, log) = kept();
    connection.feed(b"a;b;c");
    transport.set_delimiter(b";");
    connection.feed(b"d");
    connection.feed(b";");
    assert_eq!(*log.borrow(), ["line a", "line b", "line cd"]);
}

#[test]
fn a_line_that_has_begun_can_be_cleared_from_outside() {
    let (mut connection, transport, log) = kept();
    connection.feed(b"a\r\nbcd");
    transport.clear_line_buffer();
    connection.feed(b"e\r\n");
    assert_eq!(*log.borrow(), ["line a", "line e"]);
}

#[test]
fn a_long_line_in_small_pieces_takes_linear_time() {
    // Quadratic, this would look at 2^41 bytes.
    let log = Log::default();
    let receiver = LineReceiver::new(Lines { log: log.clone(), raw_bytes: 0 }).max_length(1 << 21);
    let mut connection = TestConnection::new(Box::new(receiver));
    for _ in 0..1 << 20 {
        connection.feed(b"\n");
    }
    connection.feed(b"\r\n");
    assert_eq!(log.borrow().len(), 1);
}

#[test]
fn pausing_at_each_of_many_lines_takes_linear_time() {
    // Were the rest copied at each line, this would copy 100 GB.
    struct Pausing(usize);
    impl LineProtocol for Pausing {
        fn line_received(&mut self, transport: &LineTransport, _line: &[u8]) {
            self.0 += 1;
            transport.pause_reading();
        }
        fn connection_lost(&mut self, _reason: &Reason) {
            assert_eq!(self.0, 200_000);
        }
    }
    let mut connection = TestConnection::new(Box::new(LineReceiver::new(Pausing(0))));
    connection.feed(&b"\r\n".repeat(200_000));
    for _ in 0..200_000 {
        connection.transport().resume_reading();
        connection.feed(&[]);
    }
    connection.lose();
}

#[test]
fn going_on_with_lines_after_raw_bytes_copies_nothing() {
    // As above: each raw byte hands the rest back.
    struct Alternating(usize);
    impl LineProtocol for Alternating {
        fn line_received(&mut self, transport: &LineTransport, _line: &[u8]) {
            self.0 += 1;
            transport.set_raw_mode();
        }
        fn raw_data_received(&mut self, transport: &LineTransport, data: &[u8]) {
            transport.set_line_mode(&data[1..]);
        }
        fn connection_lost(&mut self, _reason: &Reason) {
            assert_eq!(self.0, 200_000);
        }
    }
    let mut connection = TestConnection::new(Box::new(LineReceiver::new(Alternating(0))));
    connection.feed(&b"\r\nx".repeat(200_000));
    connection.lose();
}

/// Does what strings say.
struct Strings(Log);

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

fn int8(log: Log) -> Box<dyn Protocol> {
    Box::new(Int8StringReceiver::new(Strings(log)))
}

fn int16(log: Log) -> Box<dyn Protocol> {
    Box::new(Int16StringReceiver::new(Strings(log)).max_length(0x100))
}

fn int32(log: Log) -> Box<dyn Protocol> {
    Box::new(Int32StringReceiver::new(Strings(log)).max_length(9))
}

fn netstrings(log: Log) -> Box<dyn Protocol> {
    Box::new(NetstringReceiver::new(Strings(log)).max_length(120))
}

const BY_PEER: &str = "lost: closed by the peer";
const HERE: &str = "lost: closed here";

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

/// `n` followed by n bytes; `p` pauses; `0` expects nothing, twice.
struct Steps(Log);

impl Steps {
    fn command(&mut self, transport: &Transport, byte: &[u8]) -> Option<State<Self>> {
        note(&self.0, "command", byte);
        match byte[0] {
            b'p' => {
                transport.pause_reading();
                self.0.borrow_mut().push("pause".into());
                None
            }
            b'q' => {
                transport.lose_connection();
                None
            }
            b'0' => Some(State::new(Self::nothing, 0)),
            b'9' => Some(State::new(Self::never_ending, 0)),
            digit => Some(State::new(Self::body, (digit - b'0').into())),
        }
    }

    fn body(&mut self, _transport: &Transport, body: &[u8]) -> Option<State<Self>> {
        note(&self.0, "body", body);
        Some(self.initial_state())
    }

    fn nothing(&mut self, _transport: &Transport, body: &[u8]) -> Option<State<Self>> {
        note(&self.0, "nothing", body);
        Some(State::new(Self::body, 0))
    }

    fn never_ending(&mut self, _transport: &Transport, _body: &[u8]) -> Option<State<Self>> {
        None
    }
}

impl StatefulProtocol for Steps {
    fn initial_state(&mut self) -> State<Self> {
        State::new(Self::command, 1)
    }

    fn connection_lost(&mut self, reason: &Reason) {
        if let Reason::Panicked(text) = reason {
            self.0.borrow_mut().push(text.clone());
        }
    }
}

fn steps(log: Log) -> Box<dyn Protocol> {
    Box::new(StatefulReceiver::new(Steps(log)))
}

#[test]
fn a_state_gets_the_bytes_it_expects() {
    let told = ["command 3", "body abc", "command 0", "nothing ", "body ", "command 2"];
    check(&steps, b"3abc02x", &told);
    check(&steps, b"p1xq1", &["command p", "pause", "resume", "command 1", "body x", "command q"]);
}

#[test]
fn states_that_expect_nothing_for_ever_end_the_connection() {
    let log = Log::default();
    let mut connection = TestConnection::new(steps(log.clone()));
    connection.feed(b"9");
    assert!(connection.is_lost());
    let mut lost = log.borrow_mut();
    assert!(lost.pop().unwrap().contains("states that expect no bytes follow without end"));
}

/// A name, then messages, then an end.
struct Session(Log);

impl Session {
    fn name(&mut self, _transport: &StringTransport, string: &[u8]) -> NextStringState<Self> {
        note(&self.0, "name", string);
        NextStringState::Next(Self::message)
    }

    fn message(&mut self, transport: &StringTransport, string: &[u8]) -> NextStringState<Self> {
        note(&self.0, "message", string);
        if string == b"bye" {
            transport.send_string(b"bye").unwrap();
            return NextStringState::Done;
        }
        NextStringState::Same
    }
}

impl StatefulStringProtocol for Session {
    fn initial_state(&mut self) -> StringState<Self> {
        Self::name
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.0.borrow_mut().push(format!("lost: {reason}"));
    }
}

#[test]
fn strings_are_told_to_the_state() {
    let netstrings = |log| {
        Box::new(NetstringReceiver::new(StatefulStrings::new(Session(log)))) as Box<dyn Protocol>
    };
    let told = ["name me", "message one", "message two", "message bye", HERE];
    check_written(&netstrings, b"2:me,3:one,3:two,3:bye,1:x,", &told, b"3:bye,");
}

/// Notes where what it is told lies.
struct Places(Rc<RefCell<Vec<std::ops::Range<*const u8>>>>);

impl LineProtocol for Places {
    fn line_received(&mut self, _transport: &LineTransport, line: &[u8]) {
        self.0.borrow_mut().push(line.as_ptr_range());
    }
}

impl StringProtocol for Places {
    fn string_received(&mut self, _transport: &StringTransport, string: &[u8]) {
        self.0.borrow_mut().push(string.as_ptr_range());
    }
}

#[test]
fn a_frame_that_came_whole_is_not_copied() {
    let places = Rc::<RefCell<Vec<_>>>::default();
    let tell = || Places(places.clone());
    let cases: [(Box<dyn Protocol>, &[u8]); 3] = [
        (Box::new(LineReceiver::new(tell())), b"xx\r\nyyy\r\n"),
        (Box::new(NetstringReceiver::new(tell())), b"2:xx,3:yyy,"),
        (Box::new(Int16StringReceiver::new(tell())), b"\0\x02xx\0\x03yyy"),
    ];
    for (protocol, stream) in cases {
        let mut connection = TestConnection::new(protocol);
        connection.feed(stream);
        let whole = stream.as_ptr_range();
        assert_eq!(places.borrow().len(), 2);
        for place in places.take() {
            assert!(
                whole.contains(&place.start) && whole.contains(&place.end)
                    || place.end == whole.end
            );
        }
    }
}

/// Cuts `stream` as `cuts` say, over and over.
fn pieces<'a>(stream: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut rest = stream;
    let mut pieces = Vec::new();
    for cut in cuts.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at((*cut).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1..4usize, 1..300usize], 1..20)
}

proptest! {
    #[test]
    fn strings_come_as_they_were_sent(
        strings in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..30),
        cuts in cuts(),
    ) {
        let mut told: Vec<String> =
            strings.iter().map(|string| format!("string {}", string.escape_ascii())).collect();
        told.push(BY_PEER.into());
        // The words that `Strings` obeys are too unlikely to come up.
        let mut encoded = [const { Vec::new() }; 4];
        for string in &strings {
            let length = string.len() as u32;
            encoded[0].extend(format!("{length}:").into_bytes());
            encoded[0].extend(string);
            encoded[0].push(b',');
            for (stream, bytes) in encoded[1..].iter_mut().zip([1, 2, 4]) {
                stream.extend(&length.to_be_bytes()[4 - bytes..]);
                stream.extend(string);
            }
        }
        let makers: [&dyn Fn(Log) -> Box<dyn Protocol>; 4] = [
            &|log| Box::new(NetstringReceiver::new(Strings(log))),
            &|log| Box::new(Int8StringReceiver::new(Strings(log))),
            &|log| Box::new(Int16StringReceiver::new(Strings(log))),
            &|log| Box::new(Int32StringReceiver::new(Strings(log))),
        ];
        for (make, stream) in makers.iter().zip(&encoded) {
            prop_assert_eq!(&feed(make, pieces(stream, &cuts)).0, &told);
        }
    }

    #[test]
    fn lines_are_what_splitting_gives(
        stream in prop::collection::vec(prop::sample::select(b"ab\r\n;".to_vec()), 0..400),
        delimiter in prop::sample::select(vec![&b"\r\n"[..], b"\n", b";", b"a", b"aba", b"\r\n\r\n"]),
        cuts in cuts(),
    ) {
        let make = |log| {
            let receiver = LineReceiver::new(Lines { log, raw_bytes: 0 }).max_length(1000);
            Box::new(receiver.delimiter(delimiter)) as Box<dyn Protocol>
        };
        let text = String::from_utf8(stream.clone()).unwrap();
        let mut want: Vec<String> = text
            .split(std::str::from_utf8(delimiter).unwrap())
            .map(|line| format!("line {}", line.as_bytes().escape_ascii()))
            .collect();
        want.pop();
        prop_assert_eq!(feed(&make, pieces(&stream, &cuts)).0, want);
    }

    #[test]
    fn whatever_comes_is_the_same_however_it_is_cut(
        stream in prop::collection::vec(
            prop_oneof![
                any::<u8>(),
                prop::sample::select(b"\0\0\0\x01\x02:,,0123456789\r\n".to_vec()),
            ],
            0..300,
        ),
        cuts in cuts(),
    ) {
        let makers: [&dyn Fn(Log) -> Box<dyn Protocol>; 5] =
            [&lines, &int8, &int16, &int32, &netstrings];
        for make in makers {
            prop_assert_eq!(feed(make, pieces(&stream, &cuts)), feed(make, [&stream[..]]));
        }
    }
}
