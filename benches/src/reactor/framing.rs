//! Frames cut out of a stream.

use std::cell::Cell;
use std::hint::black_box;
use std::rc::Rc;

use bytes::BytesMut;
use tokio_util::codec::{AnyDelimiterCodec, Decoder, LengthDelimitedCodec};
use warren_reactor::Protocol;
use warren_reactor::protocols::{
    Int32StringReceiver, LineProtocol, LineReceiver, LineTransport, NetstringReceiver,
    StringProtocol, StringTransport,
};
use warren_reactor::testing::TestConnection;

use super::{Figure, Kind, Load, Peer, ProcessorWatch, Scenario, Size};

/// What a socket gives at once. The last frame in it is cut nearly always.
const CHUNK_BYTES: usize = 64 * 1024;
/// Of the stream, before it begins anew.
const PERIOD_BYTES: usize = 16 * CHUNK_BYTES;
const SIZES: &[Size] = &[
    Size::new("16 bytes", 16, 20_000_000),
    Size::new("128 bytes", 128, 10_000_000),
    Size::new("4,096 bytes", 4_096, 1_000_000),
];

pub(super) const LINES: Scenario = Scenario {
    name: "lines",
    title: "Lines received",
    story: "A line receiver is given a stream in pieces of 64 KiB, without a socket, and counts the lines. Lines end \
            with `\\n`, and have so many bytes. Each piece is copied into the peer's buffer first, as a read does. \
            tokio's is tokio-util's `AnyDelimiterCodec`, which looks at no UTF-8.",
    figures: &[Figure::more("lines per CPU second")],
    sizes: SIZES,
    peers: &[Peer::Protocol, Peer::Tokio, Peer::Twisted],
    kind: Kind::OneCore(lines),
};

pub(super) const STRINGS: Scenario = Scenario {
    name: "strings",
    title: "Strings received, with a length of 32 bits before them",
    story: "As above, through the `Int32StringReceiver`, and tokio-util's `LengthDelimitedCodec`.",
    figures: &[Figure::more("strings per CPU second")],
    sizes: SIZES,
    peers: &[Peer::Protocol, Peer::Tokio, Peer::Twisted],
    kind: Kind::OneCore(strings),
};

pub(super) const NETSTRINGS: Scenario = Scenario {
    name: "netstrings",
    title: "Netstrings received",
    story: "As above, through the `NetstringReceiver`. tokio-util has no codec for them.",
    figures: &[Figure::more("netstrings per CPU second")],
    sizes: SIZES,
    peers: &[Peer::Protocol, Peer::Twisted],
    kind: Kind::OneCore(netstrings),
};

/// Counts frames.
#[derive(Clone, Default)]
struct Counter(Rc<Cell<usize>>);

impl Counter {
    fn count(&self, frame: &[u8]) {
        black_box(frame);
        self.0.set(self.0.get() + 1);
    }
}

impl LineProtocol for Counter {
    fn line_received(&mut self, _transport: &LineTransport, line: &[u8]) {
        self.count(line);
    }
}

impl StringProtocol for Counter {
    fn string_received(&mut self, _transport: &StringTransport, string: &[u8]) {
        self.count(string);
    }
}

fn lines(peer: Peer, load: Load) -> Vec<f64> {
    let line = [&vec![b'x'; load.n], &b"\n"[..]].concat();
    if peer == Peer::Tokio {
        return decode(AnyDelimiterCodec::new(b"\n".to_vec(), b"\n".to_vec()), &line, load);
    }
    receive(|counter| LineReceiver::new(counter).delimiter(b"\n"), &line, load)
}

fn strings(peer: Peer, load: Load) -> Vec<f64> {
    let string = [&(load.n as u32).to_be_bytes(), &vec![b'x'; load.n][..]].concat();
    if peer == Peer::Tokio {
        return decode(LengthDelimitedCodec::new(), &string, load);
    }
    receive(Int32StringReceiver::new, &string, load)
}

fn netstrings(_peer: Peer, load: Load) -> Vec<f64> {
    let string = [format!("{}:", load.n).as_bytes(), &vec![b'x'; load.n], b","].concat();
    receive(NetstringReceiver::new, &string, load)
}

/// A stream in which `frame` comes again and again, and how often it is to be given.
fn stream(frame: &[u8], operations: usize) -> (Vec<u8>, usize) {
    let frames = (PERIOD_BYTES / frame.len()).max(1);
    (frame.repeat(frames), operations.div_ceil(frames))
}

fn receive<P: Protocol + 'static>(
    make: impl FnOnce(Counter) -> P,
    frame: &[u8],
    Load { operations, .. }: Load,
) -> Vec<f64> {
    let counter = Counter::default();
    let mut connection = TestConnection::new(Box::new(make(counter.clone())));
    let (period, times) = stream(frame, operations);
    let mut buffer = vec![0; CHUNK_BYTES];
    let watch = ProcessorWatch::start();
    for _ in 0..times {
        for chunk in period.chunks(CHUNK_BYTES) {
            buffer[..chunk.len()].copy_from_slice(chunk);
            connection.feed(&buffer[..chunk.len()]);
        }
    }
    let figures = watch.per_second(counter.0.get());
    assert_eq!(counter.0.get(), times * (period.len() / frame.len()));
    figures
}

fn decode<D>(mut decoder: D, frame: &[u8], Load { operations, .. }: Load) -> Vec<f64>
where
    D: Decoder,
    D::Item: AsRef<[u8]>,
    D::Error: std::fmt::Debug,
{
    let counter = Counter::default();
    let (period, times) = stream(frame, operations);
    let mut buffer = BytesMut::new();
    let watch = ProcessorWatch::start();
    for _ in 0..times {
        for chunk in period.chunks(CHUNK_BYTES) {
            buffer.extend_from_slice(chunk);
            while let Some(frame) = decoder.decode(&mut buffer).expect("the frames are right") {
                counter.count(frame.as_ref());
            }
        }
    }
    let figures = watch.per_second(counter.0.get());
    assert_eq!(counter.0.get(), times * (period.len() / frame.len()));
    figures
}
