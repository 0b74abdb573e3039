//! Netstrings and strings with their length before them: cut anywhere, the same is told; no string is longer than the
//! limit; and those that were told, sent again, are told again.

#![no_main]

use std::cell::RefCell;
use std::rc::Rc;

use libfuzzer_sys::fuzz_target;
use warren_reactor::Protocol;
use warren_reactor::protocols::{
    Int8StringReceiver, Int16StringReceiver, Int32StringReceiver, NetstringParseError,
    NetstringReceiver, StringProtocol, StringTransport,
};
use warren_reactor::testing::TestConnection;

const LIMIT: usize = 300;

#[derive(Debug, PartialEq)]
enum Told {
    String(Vec<u8>),
    Exceeded(usize),
    Bad(NetstringParseError),
}

/// Notes what it is told, and sends each string back.
struct Echo(Rc<RefCell<Vec<Told>>>);

impl StringProtocol for Echo {
    fn string_received(&mut self, transport: &StringTransport, string: &[u8]) {
        assert!(string.len() <= LIMIT);
        self.0.borrow_mut().push(Told::String(string.to_vec()));
        transport.send_string(string).expect("what came in a frame fits into one");
        if string.first() == Some(&b'p') {
            transport.pause_reading();
        }
    }

    fn length_limit_exceeded(&mut self, _transport: &StringTransport, length: usize) {
        assert!(LIMIT < length);
        self.0.borrow_mut().push(Told::Exceeded(length));
    }

    fn parse_failed(&mut self, _transport: &StringTransport, error: NetstringParseError) {
        self.0.borrow_mut().push(Told::Bad(error));
    }
}

/// What is told, and what was sent back.
fn told<'a>(kind: u8, pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Told>, Vec<u8>) {
    let told = Rc::default();
    let echo = Echo(Rc::clone(&told));
    let receiver: Box<dyn Protocol> = match kind % 4 {
        0 => Box::new(NetstringReceiver::new(echo).max_length(LIMIT)),
        1 => Box::new(Int8StringReceiver::new(echo).max_length(LIMIT)),
        2 => Box::new(Int16StringReceiver::new(echo).max_length(LIMIT)),
        _ => Box::new(Int32StringReceiver::new(echo).max_length(LIMIT)),
    };
    let mut connection = TestConnection::new(receiver);
    for piece in pieces {
        connection.feed(piece);
        while !connection.is_lost() && !connection.transport().wants_data() {
            connection.transport().resume_reading();
            connection.feed(&[]);
        }
    }
    let sent = connection.take_output();
    drop(connection);
    (told.take(), sent)
}

fuzz_target!(|data: &[u8]| {
    let [size, kind, data @ ..] = data else { return };
    let whole = told(*kind, std::iter::once(data));
    let pieces = told(*kind, data.chunks(usize::from(*size) % 40 + 1));
    assert_eq!(whole, pieces);
    let (mut strings, sent) = whole;
    strings.retain(|told| matches!(told, Told::String(_)));
    assert_eq!(told(*kind, std::iter::once(&*sent)), (strings, sent.clone()));
});
