//! A protocol on standard input and output: answers each line with what it is backwards, until its input ends.
//!
//! `cargo run --example standard_io`, at a terminal, in a pipeline, or with files: `... < from > to`.

use std::io;
use std::rc::Rc;

use warren::hub::run;
use warren::hub::sync::Queue;
use warren::reactor::Reason;
use warren::reactor::protocols::{LineProtocol, LineReceiver, LineTransport};
use warren::reactor::stdio::StandardIo;

struct Backwards {
    lines: usize,
    done: Rc<Queue<String>>,
}

impl LineProtocol for Backwards {
    fn connection_made(&mut self, transport: &LineTransport) {
        transport.send_line(b"say something");
    }

    fn line_received(&mut self, transport: &LineTransport, line: &[u8]) {
        self.lines += 1;
        let line = String::from_utf8_lossy(line);
        let backwards: String = line.chars().rev().collect();
        transport.send_line(backwards.as_bytes());
        if line == "quit" {
            transport.lose_connection();
        }
    }

    fn connection_lost(&mut self, reason: &Reason) {
        let _ = self.done.put(format!("{} lines, then it was {reason}", self.lines));
    }
}

fn main() -> io::Result<()> {
    run(|| {
        let done = Rc::new(Queue::unbounded());
        let backwards = LineReceiver::new(Backwards { lines: 0, done: done.clone() });
        StandardIo::new().start(Box::new(backwards.delimiter(b"\n")))?;
        if let Ok(text) = done.get() {
            eprintln!("{text}");
        }
        Ok(())
    })
}
