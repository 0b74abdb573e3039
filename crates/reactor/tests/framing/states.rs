//! States that say which bytes, or which string, they expect.

use super::*;
use crate::strings::*;

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
