//! A stream of lines and raw bytes: cut anywhere, the same is told, and no line is longer than the limit.

#![no_main]

use std::cell::RefCell;
use std::rc::Rc;

use libfuzzer_sys::fuzz_target;
use warren_reactor::protocols::{LineProtocol, LineReceiver, LineTransport};
use warren_reactor::testing::TestConnection;

const LIMIT: usize = 20;
const DELIMITERS: [&[u8]; 5] = [b"\r\n", b"\n", b"aba", b"\r\n\r\n", b"aaaa"];

/// What was told. Raw bytes come one by one, for they may be cut anywhere.
type Told = Rc<RefCell<Vec<Vec<u8>>>>;

struct Obeying {
    told: Told,
    limit: usize,
    raw_bytes: usize,
}

impl LineProtocol for Obeying {
    fn line_received(&mut self, transport: &LineTransport, line: &[u8]) {
        assert!(line.len() <= self.limit, "a line of {} bytes", line.len());
        self.told.borrow_mut().push(line.to_vec());
        match line {
            [b'p', ..] => transport.pause_reading(),
            [b'q', ..] => transport.lose_connection(),
            [b'd', which, ..] => {
                transport.set_delimiter(DELIMITERS[usize::from(*which) % DELIMITERS.len()]);
            }
            [b'l', limit, ..] => {
                self.limit = usize::from(*limit) % LIMIT;
                transport.set_max_length(self.limit);
            }
            [b'r', count, ..] => {
                self.raw_bytes = usize::from(*count);
                transport.set_raw_mode();
            }
            _ => {}
        }
    }

    fn raw_data_received(&mut self, transport: &LineTransport, data: &[u8]) {
        let (raw, rest) = data.split_at(self.raw_bytes.min(data.len()));
        self.raw_bytes -= raw.len();
        self.told.borrow_mut().extend(raw.iter().map(|byte| vec![*byte]));
        if self.raw_bytes == 0 {
            transport.set_line_mode(rest);
        }
    }

    fn line_length_exceeded(&mut self, transport: &LineTransport, data: &[u8]) {
        assert!(self.limit < data.len());
        self.told.borrow_mut().push(b"exceeded".to_vec());
        transport.lose_connection();
    }
}

fn told<'a>(delimiter: &[u8], pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let told = Told::default();
    let protocol = Obeying { told: told.clone(), limit: LIMIT, raw_bytes: 0 };
    let receiver = LineReceiver::new(protocol).delimiter(delimiter).max_length(LIMIT);
    let mut connection = TestConnection::new(Box::new(receiver));
    for piece in pieces {
        connection.feed(piece);
        while !connection.is_lost() && !connection.transport().wants_data() {
            connection.transport().resume_reading();
            connection.feed(&[]);
        }
    }
    drop(connection);
    told.take()
}

fuzz_target!(|data: &[u8]| {
    let [size, delimiter, data @ ..] = data else { return };
    let delimiter = DELIMITERS[usize::from(*delimiter) % DELIMITERS.len()];
    let whole = told(delimiter, std::iter::once(data));
    let pieces = told(delimiter, data.chunks(usize::from(*size) % 40 + 1));
    assert_eq!(whole, pieces);
});
