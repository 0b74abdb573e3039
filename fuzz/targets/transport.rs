//! A line receiver on a transport: bytes decide what the protocol, its peer and the network do, one after the other.

#![no_main]

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use libfuzzer_sys::fuzz_target;
use warren_reactor::protocols::{LineProtocol, LineReceiver, LineTransport};
use warren_reactor::testing::{Fragmentation, Loss, Pump, Side, connect};
use warren_reactor::{Reason, WriteLimits};

/// The longest line. One more, and the connection is lost.
const LINE_BYTES_MAX: usize = 30;

/// What a side has seen and done.
#[derive(Default)]
struct Seen {
    made: Cell<bool>,
    lost: Cell<bool>,
    ended: Cell<bool>,
    transport: RefCell<Option<LineTransport>>,
    lines: RefCell<Vec<Vec<u8>>>,
}

struct Lines(Rc<Seen>);

impl LineProtocol for Lines {
    fn connection_made(&mut self, transport: &LineTransport) {
        assert!(!self.0.made.replace(true));
        transport.set_write_buffer_limits(WriteLimits { high_bytes: 100, low_bytes: 10 });
        *self.0.transport.borrow_mut() = Some(transport.clone());
    }

    fn line_received(&mut self, transport: &LineTransport, line: &[u8]) {
        assert!(self.0.made.get() && !self.0.lost.get() && !self.0.ended.get());
        assert!(line.len() <= LINE_BYTES_MAX && !line.contains(&b'\n'));
        assert!(!transport.is_closing());
        self.0.lines.borrow_mut().push(line.to_vec());
        // A line is a command, too.
        match line.first() {
            Some(b'p') => transport.pause_reading(),
            Some(b'q') => transport.lose_connection(),
            Some(b'a') => transport.abort_connection(),
            Some(b'h') => transport.lose_write_connection(),
            Some(b'r') => transport.set_raw_mode(),
            Some(b'c') => transport.clear_line_buffer(),
            _ => {}
        }
    }

    fn raw_data_received(&mut self, transport: &LineTransport, data: &[u8]) {
        assert!(!data.is_empty() && transport.is_raw() && !self.0.lost.get());
        // Until a dot.
        if let Some(dot) = data.iter().position(|&byte| byte == b'.') {
            transport.set_line_mode(&data[dot + 1..]);
        }
    }

    fn read_connection_lost(&mut self, _transport: &LineTransport) {
        assert!(!self.0.ended.replace(true) && !self.0.lost.get());
    }

    fn connection_lost(&mut self, _reason: &Reason) {
        assert!(self.0.made.get() && !self.0.lost.replace(true));
        // It holds the protocol.
        self.0.transport.take();
    }
}

fn step(pump: &Pump, seen: &[Rc<Seen>; 2], op: u8, bytes: &[u8]) {
    let (index, side) = if op & 1 == 0 { (0, Side::Server) } else { (1, Side::Client) };
    let transport = pump.transport(side).clone();
    match op >> 1 & 15 {
        0..=4 => transport.write(bytes),
        5 => transport.resume_reading(),
        6 => transport.pause_reading(),
        7 => drop(pump.stall(side, bytes.len() & 1 == 0)),
        8 => drop(pump.fragmentation_from(side, Fragmentation::Bytes(1 + bytes.len()))),
        9 => drop(pump.pump()),
        10 => transport.lose_write_connection(),
        11 if bytes.len() > 5 => transport.lose_connection(),
        12 if bytes.len() > 6 => transport.abort_connection(),
        13 if bytes.len() > 6 => pump.lose(side, Loss::ALL[bytes.len() % 3]),
        14 => {
            if let Some(lines) = &*seen[index].transport.borrow() {
                lines.send_line(bytes);
            }
        }
        _ => drop(pump.flush()),
    }
}

fuzz_target!(|data: &[u8]| {
    // What an assertion finds in a callback would otherwise be contained.
    std::panic::set_hook(Box::new(|info| {
        eprintln!("{info}");
        std::process::abort();
    }));
    let seen = [Rc::<Seen>::default(), Rc::<Seen>::default()];
    let lines = |seen: &Rc<Seen>| {
        let receiver = LineReceiver::new(Lines(seen.clone())).max_length(LINE_BYTES_MAX);
        Box::new(receiver.delimiter(b"\n"))
    };
    let pump = connect(lines(&seen[0]), lines(&seen[1]));
    pump.window(64);
    let mut rest = data;
    while let [op, count, after @ ..] = rest {
        let (bytes, after) = after.split_at((*count as usize % 64).min(after.len()));
        step(&pump, &seen, *op, bytes);
        rest = after;
    }
    // All that happens ends: the peer goes, and both hear of it.
    for side in [Side::Server, Side::Client] {
        pump.stall(side, false);
        pump.transport(side).resume_reading();
    }
    pump.flush();
    pump.lose(Side::Server, Loss::Reset);
    for side in [Side::Server, Side::Client] {
        pump.transport(side).resume_reading();
        // A line may pause it again.
        for _ in 0..2000 {
            pump.transport(side).resume_reading();
            if !pump.flush() {
                break;
            }
        }
        assert!(pump.is_lost(side), "{:#?}", pump.log());
    }
    assert!(seen.iter().all(|seen| seen.lost.get()));
});
