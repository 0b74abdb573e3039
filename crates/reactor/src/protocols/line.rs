//! Lines, and raw bytes between them.
//!
//! ```text
//!   partial: a line's beginning, from chunks before | data: the present chunk
//!            ....................................... ....\r\n line \r\n line \r\n li
//! ```
//! `partial` holds no whole delimiter, so only where the chunk begins may one lie across the two. Each chunk is
//! searched once, for the delimiter's last byte.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::mem::take;
use std::ops::Deref;
use std::rc::Rc;

use super::{forward_callbacks, handler_callbacks};
use crate::{Protocol, Transport};

/// The longest line that is accepted unless told otherwise, in bytes, as with Twisted.
const MAX_LINE_LENGTH: usize = 16_384;

/// Least memory for the beginning of a line.
const PARTIAL_BYTES_MIN: usize = 64;

/// What a [`LineReceiver`] tells.
///
/// ```
/// use warren_reactor::protocols::{LineProtocol, LineReceiver, LineTransport};
/// use warren_reactor::testing::TestConnection;
///
/// /// Takes mail in the small: `DATA n` is followed by n bytes.
/// struct Mail(usize);
///
/// impl LineProtocol for Mail {
///     fn line_received(&mut self, transport: &LineTransport, line: &[u8]) {
///         let line = String::from_utf8_lossy(line);
///         match line.strip_prefix("DATA ").and_then(|size| size.parse().ok()) {
///             Some(size) => {
///                 self.0 = size;
///                 transport.set_raw_mode();
///             }
///             None => transport.send_line(b"what?"),
///         }
///     }
///
///     fn raw_data_received(&mut self, transport: &LineTransport, data: &[u8]) {
///         let (body, rest) = data.split_at(self.0.min(data.len()));
///         self.0 -= body.len();
///         if self.0 == 0 {
///             transport.send_line(b"thanks");
///             transport.set_line_mode(rest);
///         }
///     }
/// }
///
/// let mut connection = TestConnection::new(Box::new(LineReceiver::new(Mail(0))));
/// connection.feed(b"DATA 5\r\na\r\nbcHELP\r\n");
/// assert_eq!(connection.take_output(), b"thanks\r\nwhat?\r\n");
/// ```
pub trait LineProtocol {
    /// A line has come, its delimiter removed. What is to be kept of it must be copied.
    fn line_received(&mut self, transport: &LineTransport, line: &[u8]);

    /// Bytes have come in raw mode, at least one. Those behind the last that matter are given to
    /// [`set_line_mode`](LineTransport::set_line_mode).
    ///
    /// # Panics
    /// Unless implemented: this ends the connection.
    fn raw_data_received(&mut self, _transport: &LineTransport, _data: &[u8]) {
        panic!("set_raw_mode was called, but raw_data_received is not implemented");
    }

    /// A line is longer than the limit. `data` is all there is from its beginning on, perhaps with other lines behind
    /// it, and is forgotten after this. Unless told otherwise, this loses the connection; what comes afterwards on one
    /// that lives is taken for the beginning of a line.
    fn line_length_exceeded(&mut self, transport: &LineTransport, _data: &[u8]) {
        transport.lose_connection();
    }

    handler_callbacks!(LineTransport);
}

/// Cuts lines out of a stream.
///
/// A line ends with the [`delimiter`](Self::delimiter), `\r\n` unless told otherwise, and has at most
/// [`max_length`](Self::max_length) bytes without it.
pub struct LineReceiver<H> {
    protocol: H,
    transport: Option<LineTransport>,
    /// Until the connection is made.
    settings: Option<Settings>,
    /// The beginning of a line, without a whole delimiter. At most the longest line and a delimiter less a byte.
    partial: Vec<u8>,
}

/// In Twisted a faster receiver, for those who need no raw mode. Here there is nothing to gain.
pub type LineOnlyReceiver<H> = LineReceiver<H>;

/// A [`Transport`] that lines come from: the handle on a [`LineReceiver`]. Cheap to clone; its methods may be called
/// from anywhere.
#[derive(Clone)]
pub struct LineTransport(Rc<Shared>);

struct Shared {
    transport: Transport,
    settings: Settings,
    /// Where the raw data that is being told begins and ends, to know its end again.
    telling: Cell<(usize, usize)>,
    /// How many of its last bytes are lines again.
    extra: Cell<usize>,
    /// What the receiver holds is to be looked at anew: the delimiter is another.
    anew: Cell<bool>,
    /// What has been received is to be forgotten.
    cleared: Cell<bool>,
}

struct Settings {
    delimiter: RefCell<Rc<[u8]>>,
    max_length: Cell<usize>,
    raw: Cell<bool>,
}

impl<H: LineProtocol> LineReceiver<H> {
    /// A receiver that tells `protocol`.
    pub fn new(protocol: H) -> Self {
        let settings = Settings {
            delimiter: RefCell::new(Rc::from(&b"\r\n"[..])),
            max_length: Cell::new(MAX_LINE_LENGTH),
            raw: Cell::new(false),
        };
        Self { protocol, transport: None, settings: Some(settings), partial: Vec::new() }
    }

    /// What ends a line. Twisted's default: `\r\n`.
    ///
    /// # Panics
    /// When it is empty.
    #[must_use]
    pub fn delimiter(self, delimiter: &[u8]) -> Self {
        if let Some(settings) = &self.settings {
            settings.set_delimiter(delimiter);
        }
        self
    }

    /// The longest line that is accepted, in bytes, without its delimiter. Twisted's default: 16,384.
    #[must_use]
    pub fn max_length(self, bytes: usize) -> Self {
        if let Some(settings) = &self.settings {
            settings.max_length.set(bytes);
        }
        self
    }
}

impl LineTransport {
    /// Sends `line` and a delimiter.
    pub fn send_line(&self, line: &[u8]) {
        let delimiter = self.0.settings.delimiter.borrow();
        self.0.transport.write_with(|output| {
            output.reserve(line.len() + delimiter.len());
            output.extend_from_slice(line);
            output.extend_from_slice(&delimiter);
        });
    }

    /// From now on bytes are told as they come. Those that came together with the present line follow at once.
    pub fn set_raw_mode(&self) {
        self.0.settings.raw.set(true);
    }

    /// From now on lines are told, beginning with `extra`: what
    /// [`raw_data_received`](LineProtocol::raw_data_received) was given and is not raw any more. When `extra` is the
    /// end of that data it is not copied.
    pub fn set_line_mode(&self, extra: &[u8]) {
        self.0.settings.raw.set(false);
        let (start, end) = self.0.telling.get();
        let given = extra.as_ptr_range();
        if given.end.addr() == end && start <= given.start.addr() {
            self.0.extra.set(extra.len());
        } else {
            self.0.transport.push_input(extra);
        }
    }

    /// Whether bytes are told as they come.
    pub fn is_raw(&self) -> bool {
        self.0.settings.raw.get()
    }

    /// Forgets what has been received and not been told yet: further lines that came together with the present one,
    /// and the beginning of a line. To have them instead, as from Twisted's `clearLineBuffer`, set raw mode: they are
    /// told at once.
    pub fn clear_line_buffer(&self) {
        self.0.cleared.set(true);
        self.0.transport.clear_input();
    }

    /// What ends a line from now on.
    ///
    /// # Panics
    /// When it is empty.
    pub fn set_delimiter(&self, delimiter: &[u8]) {
        self.0.settings.set_delimiter(delimiter);
        self.0.anew.set(true);
    }

    /// The longest line that is accepted from now on, in bytes, without its delimiter.
    pub fn set_max_length(&self, bytes: usize) {
        self.0.settings.max_length.set(bytes);
    }
}

impl<H: LineProtocol> LineReceiver<H> {
    fn forget(&mut self) {
        self.partial = Vec::new();
    }

    /// Tells of what `data` completes. How many of its last bytes are left because no more is wanted now.
    fn tell(&mut self, data: &[u8]) -> usize {
        let Some(lines) = &self.transport else { return 0 };
        let shared = &*lines.0;
        let mut rest = data;
        while !rest.is_empty() && shared.transport.wants_data() {
            if shared.settings.raw.get() {
                let telling = rest.as_ptr_range();
                shared.telling.set((telling.start.addr(), telling.end.addr()));
                self.protocol.raw_data_received(lines, rest);
                shared.telling.take();
                rest = &rest[rest.len() - shared.extra.take()..];
                continue;
            }
            match shared.settings.next_line(&self.partial, rest) {
                Next::Line { end, delimiter_bytes } => {
                    let (line, after) = rest.split_at(end);
                    rest = after;
                    if self.partial.is_empty() {
                        let line = &line[..end - delimiter_bytes];
                        self.protocol.line_received(lines, line);
                    } else {
                        self.partial.extend_from_slice(line);
                        let line = take(&mut self.partial);
                        let length = line.len() - delimiter_bytes;
                        self.protocol.line_received(lines, &line[..length]);
                    }
                    if shared.cleared.take() {
                        return 0;
                    }
                }
                Next::TooLong => {
                    if self.partial.is_empty() {
                        self.protocol.line_length_exceeded(lines, rest);
                    } else {
                        self.partial.extend_from_slice(rest);
                        let data = take(&mut self.partial);
                        self.protocol.line_length_exceeded(lines, &data);
                    }
                    shared.cleared.take();
                    return 0;
                }
                Next::Incomplete { missing_max } => {
                    if self.partial.capacity() < self.partial.len() + rest.len() {
                        let grown = self.partial.len().max(PARTIAL_BYTES_MIN).min(missing_max);
                        self.partial.reserve_exact(grown.max(rest.len()));
                    }
                    self.partial.extend_from_slice(rest);
                    return 0;
                }
            }
        }
        rest.len()
    }
}

impl<H: LineProtocol> Protocol for LineReceiver<H> {
    fn connection_made(&mut self, transport: &Transport) {
        let Some(settings) = self.settings.take() else { return };
        let lines = self.transport.insert(LineTransport(Rc::new(Shared {
            transport: transport.clone(),
            settings,
            telling: Cell::default(),
            extra: Cell::default(),
            anew: Cell::default(),
            cleared: Cell::default(),
        })));
        self.protocol.connection_made(lines);
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        let Some(lines) = &self.transport else { return };
        let shared = &*lines.0;
        let anew = shared.anew.take();
        if shared.cleared.take() {
            self.partial = Vec::new();
        }
        if self.partial.is_empty() || !(anew || shared.settings.raw.get()) {
            let left = self.tell(data);
            return transport.unread(left);
        }
        // What was kept as a line's beginning is raw now, or has another delimiter: it begins this chunk.
        let mut joined = take(&mut self.partial);
        joined.extend_from_slice(data);
        let left = self.tell(&joined);
        let unread = left.min(data.len());
        if unread < left {
            self.partial.extend_from_slice(&joined[joined.len() - left..joined.len() - unread]);
            if let Some(lines) = &self.transport {
                lines.0.anew.set(true);
            }
        }
        transport.unread(unread);
    }

    forward_callbacks!(protocol.transport);
}

/// What is at the front of the input.
enum Next {
    /// A line, whose delimiter ends after so many bytes of the present chunk.
    Line { end: usize, delimiter_bytes: usize },
    /// More than the longest line.
    TooLong,
    /// A line's beginning. With so many bytes more it would be whole, or too long.
    Incomplete { missing_max: usize },
}

impl Settings {
    /// What is at the front of `partial` and `rest` together, when no whole delimiter is in `partial`.
    fn next_line(&self, partial: &[u8], rest: &[u8]) -> Next {
        let delimiter = self.delimiter.borrow();
        let delimiter = &**delimiter;
        let whole_max = self.max_length.get().saturating_add(delimiter.len());
        let missing_max = whole_max.saturating_sub(partial.len());
        let window = &rest[..rest.len().min(missing_max)];
        let [.., last] = *delimiter else { return Next::TooLong };
        let mut searched = 0;
        while let Some(at) = memchr::memchr(last, &window[searched..]) {
            searched += at + 1;
            if ends_with(partial, &window[..searched], delimiter) {
                return Next::Line { end: searched, delimiter_bytes: delimiter.len() };
            }
        }
        if missing_max <= rest.len() {
            return Next::TooLong;
        }
        Next::Incomplete { missing_max: missing_max - rest.len() }
    }

    fn set_delimiter(&self, delimiter: &[u8]) {
        assert!(!delimiter.is_empty(), "a line's delimiter has at least one byte");
        *self.delimiter.borrow_mut() = delimiter.into();
    }
}

impl Deref for LineTransport {
    type Target = Transport;

    fn deref(&self) -> &Transport {
        &self.0.transport
    }
}

impl fmt::Debug for LineTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineTransport")
            .field("transport", &self.0.transport)
            .field("raw", &self.is_raw())
            .finish_non_exhaustive()
    }
}

/// Whether `before` and `piece` together end with `delimiter`.
fn ends_with(before: &[u8], piece: &[u8], delimiter: &[u8]) -> bool {
    let Some(in_before) = delimiter.len().checked_sub(piece.len()) else {
        return piece.ends_with(delimiter);
    };
    let (head, tail) = delimiter.split_at(in_before);
    piece == tail && before.ends_with(head)
}
