//! Standard input and output as a connection; here two pipes in their place.

use std::io::{PipeReader, PipeWriter, Read, Write};

use warren_hub::offload;
use warren_reactor::stdio::StandardIo;
use warren_reactor::{Protocol, Reason, Transport};

use crate::heard::{Heard, soon};

scenarios! { on_hub:
    a_conversation
    its_input_ends
    its_input_ends_and_it_goes_on
    its_output_is_ended
    losing_writes_first
    losing_twice
}

struct Noted {
    heard: Heard,
    half_closeable: bool,
}

impl Protocol for Noted {
    fn connection_made(&mut self, _transport: &Transport) {
        self.heard.put("made");
    }

    fn data_received(&mut self, _transport: &Transport, data: &[u8]) {
        self.heard.put(format!("data {}", String::from_utf8_lossy(data)));
    }

    fn read_connection_lost(&mut self, transport: &Transport) {
        if self.half_closeable {
            self.heard.put("read lost");
        } else {
            transport.lose_connection();
        }
    }

    fn write_connection_lost(&mut self, _transport: &Transport) {
        if self.half_closeable {
            self.heard.put("write lost");
        }
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.heard.put(match reason {
            // To Twisted all in order is the same.
            Reason::Done | Reason::Closed => "lost done".into(),
            other => format!("lost {other}"),
        });
    }
}

/// A protocol between two pipes, and their other ends.
struct Case {
    feed: PipeWriter,
    output: PipeReader,
    heard: Heard,
    transport: Transport,
}

fn case(half_closeable: bool) -> Case {
    let ((stdin, feed), (output, stdout)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
    let heard = Heard::default();
    let noted = Box::new(Noted { heard: heard.clone(), half_closeable });
    let transport = StandardIo::new().stdin(stdin).stdout(stdout).start(noted).unwrap();
    heard.put("started");
    Case { feed, output, heard, transport }
}

impl Case {
    fn say_output(&mut self) {
        let mut data = [0; 100];
        let count = self.output.read(&mut data).unwrap();
        say!("output {}", String::from_utf8_lossy(&data[..count]));
    }
}

fn a_conversation() {
    let mut case = case(false);
    case.feed.write_all(b"hello").unwrap();
    case.heard.until("data hello");
    case.transport.write(b"answer");
    soon();
    case.say_output();
    case.transport.lose_connection();
    case.heard.until("lost done");
    case.heard.say("protocol", &[]);
}

fn its_input_ends() {
    let case = case(false);
    drop(case.feed);
    case.heard.until("lost done");
    case.heard.say("protocol", &[]);
}

fn its_input_ends_and_it_goes_on() {
    let mut case = case(true);
    drop(std::mem::replace(&mut case.feed, std::io::pipe().unwrap().1));
    case.heard.until("read lost");
    case.transport.write(b"still");
    soon();
    case.say_output();
    case.transport.lose_connection();
    case.heard.until("lost done");
    case.heard.say("protocol", &[]);
}

fn its_output_is_ended() {
    let mut case = case(true);
    case.transport.write(b"last");
    case.transport.lose_write_connection();
    case.heard.until("write lost");
    case.say_output();
    case.feed.write_all(b"still").unwrap();
    case.heard.until("data still");
    drop(case.feed);
    case.heard.until("read lost");
    // Twisted never says that the connection, whose halves have both ended, is over.
    case.heard.until("lost done");
    let heard = Heard::default();
    for line in ["made", "started", "write lost", "data still", "read lost"] {
        assert!(case.heard.has(line));
        heard.put(line);
    }
    heard.say("protocol", &[]);
}

fn losing_writes_first() {
    let case = case(false);
    case.transport.write(&[b'x'; 300_000]);
    case.transport.lose_connection();
    let mut output = case.output;
    let count = offload(move || {
        let mut all = Vec::new();
        output.read_to_end(&mut all).unwrap();
        all.len()
    });
    say!("output {count}");
    case.heard.until("lost done");
    case.heard.say("protocol", &[]);
}

fn losing_twice() {
    let case = case(false);
    case.transport.lose_connection();
    case.transport.lose_connection();
    soon();
    case.heard.say("protocol", &[]);
}
