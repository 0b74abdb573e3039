//! Frames cut out of a stream: lines, netstrings, strings with their length before them, states.
//!
//! Left out because it is otherwise here: after losing the connection nothing more is told, whatever the frames.

use warren_reactor::protocols::{
    Int8StringReceiver, Int16StringReceiver, Int32StringReceiver, LineOnlyReceiver, LineProtocol,
    LineReceiver, LineTransport, NetstringReceiver, NextStringState, State, StatefulProtocol,
    StatefulReceiver, StatefulStringProtocol, StatefulStrings, StringProtocol, StringState,
    StringTransport,
};
use warren_reactor::testing::TestConnection;
use warren_reactor::{Protocol, Transport};

use crate::said::yes;

scenarios! { here:
    lines
    lines_with_half_delimiters
    lines_by_another_delimiter
    a_line_as_long_as_the_limit
    a_line_beyond_the_limit
    a_line_beyond_the_limit_that_is_forgiven
    the_limit_changes
    raw_mode_and_back
    raw_mode_at_the_end_of_a_chunk
    lines_are_paused
    the_connection_is_lost_by_a_line
    lines_are_cleared
    the_delimiter_changes
    a_line_is_sent
    only_lines
    netstrings
    a_netstring_is_sent
    what_is_no_netstring
    a_netstring_beyond_the_limit
    strings_of_each_size
    strings_are_sent
    a_string_beyond_the_limit
    strings_are_paused
    states
    states_that_expect_nothing
    the_connection_is_lost_by_a_state
    strings_by_state
}

fn feed(protocol: impl Protocol + 'static, chunks: &[&[u8]]) -> TestConnection {
    let mut connection = TestConnection::new(Box::new(protocol));
    for chunk in chunks {
        if !connection.transport().wants_data() {
            say!("not read");
            continue;
        }
        connection.feed(chunk);
    }
    let wrote = connection.take_output();
    if !wrote.is_empty() {
        say!("wrote {}", wrote.escape_ascii());
    }
    say!("losing {}", yes(connection.transport().is_closing()));
    connection
}

/// Whole, and byte by byte.
fn both<P: Protocol + 'static>(make: impl Fn() -> P, stream: &[u8]) {
    feed(make(), &[stream]);
    say!("byte by byte");
    let mut connection = TestConnection::new(Box::new(make()));
    for byte in stream.chunks(1) {
        connection.feed(byte);
    }
    say!("losing {}", yes(connection.transport().is_closing()));
}

#[derive(Default)]
struct Lines {
    raw_bytes: usize,
    stays: bool,
}

impl LineProtocol for Lines {
    fn line_received(&mut self, transport: &LineTransport, line: &[u8]) {
        say!("line {}", line.escape_ascii());
        match line {
            b"pause" => transport.pause_reading(),
            b"lose" => transport.lose_connection(),
            b"clear" => transport.clear_line_buffer(),
            b"semicolon" => transport.set_delimiter(b";"),
            b"short" => transport.set_max_length(3),
            b"send" => transport.send_line(b"sent"),
            _ => {
                if let Some(count) = line.strip_prefix(b"raw ") {
                    self.raw_bytes = (count[0] - b'0').into();
                    transport.set_raw_mode();
                }
            }
        }
    }

    fn raw_data_received(&mut self, transport: &LineTransport, data: &[u8]) {
        let (raw, rest) = data.split_at(self.raw_bytes.min(data.len()));
        self.raw_bytes -= raw.len();
        for byte in raw {
            say!("raw {}", byte.escape_ascii());
        }
        if self.raw_bytes == 0 {
            transport.set_line_mode(rest);
        }
    }

    fn line_length_exceeded(&mut self, transport: &LineTransport, data: &[u8]) {
        say!("exceeded {}", data.escape_ascii());
        if !self.stays {
            transport.lose_connection();
        }
    }
}

fn receiver() -> LineReceiver<Lines> {
    LineReceiver::new(Lines::default()).max_length(16)
}

fn forgiving() -> LineReceiver<Lines> {
    LineReceiver::new(Lines { raw_bytes: 0, stays: true }).max_length(16)
}

fn lines() {
    both(receiver, b"one\r\n\r\ntwo\r\nthr");
}

fn lines_with_half_delimiters() {
    both(receiver, b"a\rb\nc\r\r\n\n\r\n");
}

fn lines_by_another_delimiter() {
    both(|| receiver().delimiter(b"\n"), b"one\n\ntwo\n");
    both(|| receiver().delimiter(b"--8--"), b"a--8--8----8---8--b");
    both(|| receiver().delimiter(b"aa"), b"aaabaaaa");
}

fn a_line_as_long_as_the_limit() {
    both(receiver, b"0123456789abcdef\r\nx\r\n");
    both(receiver, b"0123456789abcdef\r");
}

fn a_line_beyond_the_limit() {
    feed(receiver(), &[b"ok\r\n0123456789abcdefg\r\nx\r\n", b"more\r\n"]);
    feed(receiver(), &[b"0123456789abcdefgh"]);
    feed(receiver(), &[b"0123456789", b"abcdef", b"g", b"hi"]);
    feed(receiver(), &[b"0123456789abcdef\r", b"x"]);
}

fn a_line_beyond_the_limit_that_is_forgiven() {
    feed(forgiving(), &[b"ok\r\n0123456789abcdefg\r\nx\r\n", b"more\r\n"]);
    feed(forgiving(), &[b"0123456789abcdefgh", b"ij\r\nmore\r\n"]);
}

fn the_limit_changes() {
    both(receiver, b"short\r\nabc\r\n");
    feed(receiver(), &[b"short\r\nabcd\r\nab\r\n"]);
}

fn raw_mode_and_back() {
    both(receiver, b"raw 3\r\nabcnext\r\n");
    both(receiver, b"raw 2\r\n\r\n\r\nraw 1\r\nx\r\n");
}

fn raw_mode_at_the_end_of_a_chunk() {
    let chunks: &[&[u8]] = &[b"raw 3\r\n", b"ab", b"cnext\r\nraw 1\r\nxraw 1\r\ny", b"z\r\n"];
    feed(receiver(), chunks);
}

/// Resumes it twice, and feeds it what comes last. Twisted tells what waits before `resumeProducing` returns, here it
/// is told at the end of the turn.
fn resume_twice(mut connection: TestConnection, last: &[u8]) {
    for _ in 0..2 {
        say!("resume");
        connection.transport().resume_reading();
        connection.feed(&[]);
    }
    connection.feed(last);
}

fn lines_are_paused() {
    let connection = feed(receiver(), &[b"pause\r\na\r\npause\r\nb\r\nc", b"not read"]);
    resume_twice(connection, b"d\r\n");
}

fn the_connection_is_lost_by_a_line() {
    feed(receiver(), &[b"lose\r\na\r\n", b"b\r\n"]);
}

fn lines_are_cleared() {
    feed(receiver(), &[b"clear\r\na\r\nb", b"c\r\n"]);
}

fn the_delimiter_changes() {
    both(receiver, b"semicolon\r\na\r\n;b;");
}

fn a_line_is_sent() {
    feed(receiver(), &[b"send\r\nsemicolon\r\nsend;"]);
}

struct OnlyLines;

impl LineProtocol for OnlyLines {
    fn line_received(&mut self, transport: &LineTransport, line: &[u8]) {
        say!("line {}", line.escape_ascii());
        if line == b"lose" {
            transport.lose_connection();
        }
    }
}

fn only_lines() {
    let receiver = || LineOnlyReceiver::new(OnlyLines).max_length(16);
    both(receiver, b"one\r\n\r\ntwo\r\nthr");
    feed(receiver(), &[b"0123456789abcdef\r\nx\r\n"]);
    feed(receiver(), &[b"ok\r\n0123456789abcdefg\r\nx\r\n"]);
    feed(receiver(), &[b"lose\r\nx\r\n"]);
}

/// Says what it receives, and does what it says.
struct Told;

impl StringProtocol for Told {
    fn string_received(&mut self, transport: &StringTransport, string: &[u8]) {
        say!("string {}", string.escape_ascii());
        match string {
            b"pause" => transport.pause_reading(),
            b"send" => transport.send_string(b"sent").unwrap(),
            b"long" if transport.send_string(&[b'x'; 256]).is_err() => say!("too long"),
            _ => {}
        }
    }

    fn length_limit_exceeded(&mut self, transport: &StringTransport, length: usize) {
        say!("exceeded {length}");
        transport.lose_connection();
    }
}

const LIMIT: usize = 20;

fn netstring_receiver() -> NetstringReceiver<Told> {
    NetstringReceiver::new(Told).max_length(LIMIT)
}

fn int8() -> Int8StringReceiver<Told> {
    Int8StringReceiver::new(Told).max_length(LIMIT)
}

fn int16() -> Int16StringReceiver<Told> {
    Int16StringReceiver::new(Told).max_length(LIMIT)
}

fn int32() -> Int32StringReceiver<Told> {
    Int32StringReceiver::new(Told).max_length(LIMIT)
}

fn netstrings() {
    both(netstring_receiver, b"3:one,0:,3:two,3:a,b,1:,,4:thr");
}

fn a_netstring_is_sent() {
    feed(netstring_receiver(), &[b"4:send,"]);
}

fn what_is_no_netstring() {
    let all: [&[u8]; 9] =
        [b"3:oneX3:two,", b"0:0:,", b":x,", b"1:x,y", b"01:x,", b"00", b"-1:x,", b"1 :x,", b"x"];
    for bad in all {
        both(netstring_receiver, &[b"2:ok,", bad].concat());
    }
}

fn a_netstring_beyond_the_limit() {
    both(netstring_receiver, b"20:01234567890123456789,");
    both(netstring_receiver, b"0:,21");
    both(netstring_receiver, b"200");
}

fn strings_of_each_size() {
    both(int8, b"\x03one\x00\x03two\x04thr");
    both(int16, b"\x00\x03one\x00\x00\x00\x03two\x00");
    both(int32, b"\x00\x00\x00\x03one\x00\x00\x00\x00\x00\x00\x00\x03two\x00\x00");
}

fn strings_are_sent() {
    feed(int8(), &[b"\x04send\x04long"]);
    feed(int16(), &[b"\x00\x04send"]);
    feed(int32(), &[b"\x00\x00\x00\x04send"]);
}

fn a_string_beyond_the_limit() {
    both(int8, b"\x0201\x1401234567890123456789");
    both(int8, b"\x0201\x15");
    both(int16, b"\x01\x00");
    both(int32, b"\xff\xff\xff\xff");
}

fn strings_are_paused() {
    let connection = feed(int8(), &[b"\x05pause\x01a\x05pause\x01b\x02c", b"not read"]);
    resume_twice(connection, b"d");
}

struct Steps;

impl StatefulProtocol for Steps {
    fn initial_state(&mut self) -> State<Self> {
        State::new(Self::command, 1)
    }
}

impl Steps {
    fn command(&mut self, transport: &Transport, byte: &[u8]) -> Option<State<Self>> {
        say!("command {}", byte.escape_ascii());
        match byte[0] {
            b'q' => transport.lose_connection(),
            b'0' => return Some(State::new(Self::nothing, 0)),
            b'-' => {}
            digit => return Some(State::new(Self::body, (digit - b'0').into())),
        }
        None
    }

    fn body(&mut self, _transport: &Transport, body: &[u8]) -> Option<State<Self>> {
        say!("body {}", body.escape_ascii());
        Some(self.initial_state())
    }

    fn nothing(&mut self, _transport: &Transport, body: &[u8]) -> Option<State<Self>> {
        say!("nothing {}", body.len());
        Some(State::new(Self::body, 0))
    }
}

fn states() {
    both(|| StatefulReceiver::new(Steps), b"3abc-02x");
}

fn states_that_expect_nothing() {
    feed(StatefulReceiver::new(Steps), &[b"0", b"1a0"]);
}

fn the_connection_is_lost_by_a_state() {
    feed(StatefulReceiver::new(Steps), &[b"1xq1x", b"1x"]);
}

struct Session;

impl StatefulStringProtocol for Session {
    fn initial_state(&mut self) -> StringState<Self> {
        Self::name
    }
}

impl Session {
    fn name(&mut self, _transport: &StringTransport, string: &[u8]) -> NextStringState<Self> {
        say!("name {}", string.escape_ascii());
        NextStringState::Next(Self::message)
    }

    fn message(&mut self, transport: &StringTransport, string: &[u8]) -> NextStringState<Self> {
        say!("message {}", string.escape_ascii());
        if string != b"bye" {
            return NextStringState::Same;
        }
        transport.send_string(b"bye").unwrap();
        NextStringState::Done
    }
}

fn strings_by_state() {
    feed(NetstringReceiver::new(StatefulStrings::new(Session)), &[b"2:me,3:one,3:two,3:bye,"]);
}
