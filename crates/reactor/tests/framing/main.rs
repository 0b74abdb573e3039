//! The receivers of frames: cut anywhere, a stream says the same.

mod lines;
mod properties;
mod states;
mod strings;

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
