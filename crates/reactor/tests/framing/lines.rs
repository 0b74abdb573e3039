//! Lines, raw bytes between them, and pauses.

use super::*;

/// Does what lines say.
pub(super) struct Lines {
    pub(super) log: Log,
    /// How many raw bytes are still to come.
    pub(super) raw_bytes: usize,
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

pub(super) fn lines(log: Log) -> Box<dyn Protocol> {
    Box::new(LineReceiver::new(Lines { log, raw_bytes: 0 }).max_length(16))
}

pub(super) fn lines_by(delimiter: &'static [u8]) -> impl Fn(Log) -> Box<dyn Protocol> {
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
