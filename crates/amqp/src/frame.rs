//! Frames (§4.2.3) cut out of a byte stream, and written into one. No sockets, no clock.
//!
//! ```text
//! | kind u8 | channel u16 | size u32 | payload, `size` octets | end 0xCE |
//! ```
//!
//! A reader is handed whatever the socket gave and hands out whole frames which borrow from it:
//!
//! ```
//! # use warren_amqp::frame::{self, Frame, FrameReader};
//! let mut bytes = Vec::new();
//! frame::write_heartbeat(&mut bytes);
//! let mut reader = FrameReader::new(4096);
//! let mut data = &bytes[..];
//! while let Some(frame) = reader.next_frame(&mut data)? {
//!     assert_eq!(frame, Frame::Heartbeat);
//! }
//! # Ok::<(), warren_amqp::FrameError>(())
//! ```
//!
//! Cost: a frame that lies whole in the data is not copied. Only the unfinished one at the end is kept,
//! in a buffer that exists no longer than it is needed, so an idle connection owns none.

use thiserror::Error;

use crate::constants::{
    CLASS_BASIC, FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_MAX_BEFORE_TUNING,
    FRAME_METHOD, FRAME_OVERHEAD, ReplyCode,
};
use crate::method::EncodeMethod;

pub use crate::constants::PROTOCOL_HEADER;

/// Octets before a frame's payload.
const HEADER_BYTES: usize = 7;
/// Octets of a content header before its properties: class, weight, body size.
const CONTENT_HEADER_BYTES: usize = 12;
/// How much is reserved at once for an unfinished frame; more only as it arrives.
const TAIL_RESERVE_BYTES_MAX: usize = 128 * 1024;

/// A whole frame, its end octet checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A method, to be read by [`Method::decode`](crate::Method::decode).
    Method {
        /// The channel.
        channel: u16,
        /// Class, number, fields.
        payload: &'a [u8],
    },
    /// The header of a content.
    Header {
        /// The channel.
        channel: u16,
        /// The class of the method before it; 60.
        class_id: u16,
        /// How many octets of body follow, in any number of body frames.
        body_size: u64,
        /// Flags and values; see [`RawProperties`](crate::RawProperties). Not checked yet.
        properties: &'a [u8],
    },
    /// A piece of a body.
    Body {
        /// The channel.
        channel: u16,
        /// The piece.
        payload: &'a [u8],
    },
    /// A sign of life.
    Heartbeat,
}

impl Frame<'_> {
    /// The channel; 0 for heartbeats.
    pub fn channel(&self) -> u16 {
        match *self {
            Frame::Method { channel, .. }
            | Frame::Header { channel, .. }
            | Frame::Body { channel, .. } => channel,
            Frame::Heartbeat => 0,
        }
    }
}

/// Bytes that are no frame. The stream is out of step: nothing more can be read from it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The peer announces a frame over the limit.
    #[error(
        "frame of type {kind} on channel {channel} announces {payload_bytes} octets of payload; \
         the limit agreed is {payload_bytes_max}"
    )]
    TooLarge {
        /// The frame's type octet.
        kind: u8,
        /// Its channel.
        channel: u16,
        /// What it announces.
        payload_bytes: u32,
        /// What was agreed: `frame_max` less 8.
        payload_bytes_max: u32,
    },
    /// Another octet than 0xCE after the payload.
    #[error("frame of type {kind} on channel {channel} ends in {end:#04x} and not in 0xce")]
    BadEnd {
        /// The frame's type octet.
        kind: u8,
        /// Its channel.
        channel: u16,
        /// What stood at its end.
        end: u8,
        /// The first octets of its payload, at most [`SNIPPET_BYTES_MAX`](FrameError::SNIPPET_BYTES_MAX).
        snippet: Vec<u8>,
    },
    /// A type octet that means nothing.
    #[error("unknown frame type {kind} on channel {channel}")]
    UnknownType {
        /// The type octet.
        kind: u8,
        /// The channel.
        channel: u16,
        /// The first octets of its payload, at most [`SNIPPET_BYTES_MAX`](FrameError::SNIPPET_BYTES_MAX).
        snippet: Vec<u8>,
    },
    /// A content header too short for class, weight and size.
    #[error("content header of {payload_bytes} octets on channel {channel}; it takes at least 12")]
    ShortHeader {
        /// The channel.
        channel: u16,
        /// How long it was.
        payload_bytes: u32,
    },
    /// A heartbeat with a payload or on a channel other than 0.
    #[error("heartbeat of {payload_bytes} octets on channel {channel}; it is empty, on channel 0")]
    BadHeartbeat {
        /// The channel.
        channel: u16,
        /// How long it was.
        payload_bytes: u32,
    },
}

impl FrameError {
    /// So much is told of a frame that cannot be used: one more than RabbitMQ shows, so that its text can say whether
    /// that was all.
    pub const SNIPPET_BYTES_MAX: usize = 17;

    /// The code with which the connection is to be closed.
    pub fn reply_code(&self) -> ReplyCode {
        match self {
            FrameError::BadHeartbeat { channel, .. } if *channel != 0 => {
                ReplyCode::UNEXPECTED_FRAME
            }
            _ => ReplyCode::FRAME_ERROR,
        }
    }
}

/// Cuts whole frames out of a byte stream.
#[derive(Debug)]
pub struct FrameReader {
    /// The beginning of a frame that has not arrived whole; or, with `tail_done`, a frame handed out.
    tail: Vec<u8>,
    /// The frame in `tail` was handed out by the last call and is to be dropped by the next.
    tail_done: bool,
    /// The largest whole frame, in octets; 0: no limit.
    frame_max: u32,
}

impl Default for FrameReader {
    fn default() -> Self {
        FrameReader::new(FRAME_MAX_BEFORE_TUNING)
    }
}

impl FrameReader {
    /// A reader at the start of a stream; `frame_max` in octets, overhead included, 0 for no limit.
    /// Before tuning use [`FRAME_MAX_BEFORE_TUNING`].
    pub fn new(frame_max: u32) -> Self {
        FrameReader { tail: Vec::new(), tail_done: false, frame_max }
    }

    /// Sets the limit agreed in `connection.tune-ok`; it holds from the next frame on.
    pub fn set_frame_max(&mut self, frame_max: u32) {
        self.frame_max = frame_max;
    }

    /// The next whole frame of what was kept and `data`, which is advanced past it. `None`: `data` is
    /// used up, its unfinished end kept; call again with more.
    ///
    /// As in RabbitMQ, payloads up to `frame_max` itself pass: some clients forget the overhead.
    ///
    /// # Errors
    /// [`FrameError`]; the connection closes with [`FrameError::reply_code`]. A size over the limit is
    /// reported as soon as the seven octets that announce it are there.
    #[inline]
    pub fn next_frame<'f, 'd: 'f>(
        &'f mut self,
        data: &mut &'d [u8],
    ) -> Result<Option<Frame<'f>>, FrameError> {
        if self.tail_done {
            self.tail = Vec::new();
            self.tail_done = false;
        }
        if !self.tail.is_empty() {
            return self.finish_tail(data);
        }
        let Some(total) = frame_bytes(data, self.frame_max)? else {
            self.keep(data, 0);
            return Ok(None);
        };
        let Some((frame, rest)) = data.split_at_checked(total) else {
            self.keep(data, total);
            return Ok(None);
        };
        *data = rest;
        parse(frame).map(Some)
    }

    /// Hands every whole frame of what was kept and `data` to `each`; an error of either ends it.
    ///
    /// # Errors
    /// A [`FrameError`], or what `each` returned.
    pub fn feed<E: From<FrameError>>(
        &mut self,
        mut data: &[u8],
        mut each: impl FnMut(Frame<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(frame) = self.next_frame(&mut data)? {
            each(frame)?;
        }
        Ok(())
    }

    /// Octets kept of an unfinished frame.
    pub fn buffered(&self) -> usize {
        if self.tail_done { 0 } else { self.tail.len() }
    }

    /// Keeps all of `data`, which begins a frame of `total` octets (0: not known yet).
    fn keep(&mut self, data: &mut &[u8], total: usize) {
        if !data.is_empty() {
            self.tail.reserve_exact(total.min(TAIL_RESERVE_BYTES_MAX).max(data.len()));
            self.tail.extend_from_slice(data);
            *data = &[];
        }
    }

    fn finish_tail(&mut self, data: &mut &[u8]) -> Result<Option<Frame<'_>>, FrameError> {
        if self.tail.len() < HEADER_BYTES {
            self.fill_tail(HEADER_BYTES, data);
        }
        let Some(total) = frame_bytes(&self.tail, self.frame_max)? else { return Ok(None) };
        self.tail.reserve_exact(total.min(TAIL_RESERVE_BYTES_MAX).saturating_sub(self.tail.len()));
        self.fill_tail(total, data);
        if self.tail.len() < total {
            return Ok(None);
        }
        self.tail_done = true;
        parse(&self.tail).map(Some)
    }

    /// Moves octets from `data` until the tail has `want` of them.
    fn fill_tail(&mut self, want: usize, data: &mut &[u8]) {
        let missing = want.saturating_sub(self.tail.len()).min(data.len());
        let (taken, rest) = data.split_at(missing);
        self.tail.extend_from_slice(taken);
        *data = rest;
    }
}

/// The octets of the whole frame that begins `bytes`, once its size is there and within the limit.
#[inline]
fn frame_bytes(bytes: &[u8], frame_max: u32) -> Result<Option<usize>, FrameError> {
    let Some(&[kind, c0, c1, s0, s1, s2, s3]) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let payload_bytes = u32::from_be_bytes([s0, s1, s2, s3]);
    // A wrong type means that the size is one by chance, but with a limit that is soon clear. As RabbitMQ does, the
    // frame is waited for, so that it can be shown.
    if frame_max == 0 && !is_known(kind) {
        let channel = u16::from_be_bytes([c0, c1]);
        return Err(FrameError::UnknownType { kind, channel, snippet: Vec::new() });
    }
    if frame_max != 0 && frame_max < payload_bytes {
        return Err(FrameError::TooLarge {
            kind,
            channel: u16::from_be_bytes([c0, c1]),
            payload_bytes,
            payload_bytes_max: frame_max.saturating_sub(FRAME_OVERHEAD as u32),
        });
    }
    Ok(Some(payload_bytes as usize + FRAME_OVERHEAD))
}

/// Reads one whole frame. `bytes` is at least [`FRAME_OVERHEAD`] long.
#[inline]
fn parse(bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    let kind = bytes[0];
    let channel = u16::from_be_bytes([bytes[1], bytes[2]]);
    let end = bytes[bytes.len() - 1];
    let payload = &bytes[HEADER_BYTES..bytes.len() - 1];
    if end != FRAME_END {
        return Err(FrameError::BadEnd { kind, channel, end, snippet: snippet(payload) });
    }
    let payload_bytes = payload.len() as u32;
    match kind {
        FRAME_METHOD => Ok(Frame::Method { channel, payload }),
        FRAME_BODY => Ok(Frame::Body { channel, payload }),
        FRAME_HEADER => {
            let Some((fixed, properties)) = payload.split_first_chunk::<CONTENT_HEADER_BYTES>()
            else {
                return Err(FrameError::ShortHeader { channel, payload_bytes });
            };
            // The weight, octets 2 and 3, has no meaning and RabbitMQ reads over it.
            let [c0, c1, _, _, size @ ..] = *fixed;
            let class_id = u16::from_be_bytes([c0, c1]);
            Ok(Frame::Header { channel, class_id, body_size: u64::from_be_bytes(size), properties })
        }
        FRAME_HEARTBEAT if channel == 0 && payload.is_empty() => Ok(Frame::Heartbeat),
        FRAME_HEARTBEAT => Err(FrameError::BadHeartbeat { channel, payload_bytes }),
        _ => Err(FrameError::UnknownType { kind, channel, snippet: snippet(payload) }),
    }
}

fn is_known(kind: u8) -> bool {
    matches!(kind, FRAME_METHOD | FRAME_HEADER | FRAME_BODY | FRAME_HEARTBEAT)
}

fn snippet(payload: &[u8]) -> Vec<u8> {
    payload[..payload.len().min(FrameError::SNIPPET_BYTES_MAX)].to_vec()
}

/// Appends a method frame.
#[inline]
pub fn write_method(out: &mut Vec<u8>, channel: u16, method: &impl EncodeMethod) {
    let at = begin_frame(out, FRAME_METHOD, channel);
    method.encode(out);
    end_frame(out, at);
}

/// Appends the header and body frames of a content. `properties` is encoded, flags included
/// ([`BasicProperties::encode`](crate::BasicProperties::encode)); `frame_max` as agreed, 0 for no limit.
#[inline]
pub fn write_content(
    out: &mut Vec<u8>,
    channel: u16,
    class_id: u16,
    properties: &[u8],
    body: &[u8],
    frame_max: u32,
) {
    write_content_header(out, channel, class_id, properties, body.len() as u64);
    for piece in body.chunks(body_bytes_max(frame_max)) {
        write_frame(out, FRAME_BODY, channel, piece);
    }
}

/// Appends the header frame of a content, for bodies that are written by other means.
#[inline]
pub fn write_content_header(
    out: &mut Vec<u8>,
    channel: u16,
    class_id: u16,
    properties: &[u8],
    body_size: u64,
) {
    let at = begin_frame(out, FRAME_HEADER, channel);
    out.extend_from_slice(&class_id.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&body_size.to_be_bytes());
    out.extend_from_slice(properties);
    end_frame(out, at);
}

/// Appends a heartbeat.
pub fn write_heartbeat(out: &mut Vec<u8>) {
    write_frame(out, FRAME_HEARTBEAT, 0, &[]);
}

/// Appends a `basic.publish` with its content, as [`write_method`] and [`write_content`] do.
pub fn write_publish(
    out: &mut Vec<u8>,
    channel: u16,
    publish: &crate::method::basic::Publish<'_>,
    properties: &[u8],
    body: &[u8],
    frame_max: u32,
) {
    write_method(out, channel, publish);
    write_content(out, channel, CLASS_BASIC, properties, body, frame_max);
}

/// The largest piece of a body in one frame, in octets.
#[inline]
pub fn body_bytes_max(frame_max: u32) -> usize {
    match frame_max as usize {
        0 => u32::MAX as usize,
        // A limit that leaves no room is nonsense; one octet at a time still ends.
        limit => limit.saturating_sub(FRAME_OVERHEAD).max(1),
    }
}

/// The seven octets before a payload, for payloads that are written by other means.
#[inline]
pub fn frame_header(kind: u8, channel: u16, payload_bytes: u32) -> [u8; 7] {
    let [c0, c1] = channel.to_be_bytes();
    let [s0, s1, s2, s3] = payload_bytes.to_be_bytes();
    [kind, c0, c1, s0, s1, s2, s3]
}

#[inline]
fn write_frame(out: &mut Vec<u8>, kind: u8, channel: u16, payload: &[u8]) {
    out.reserve(payload.len() + FRAME_OVERHEAD);
    out.extend_from_slice(&frame_header(kind, channel, payload.len() as u32));
    out.extend_from_slice(payload);
    out.push(FRAME_END);
}

/// Writes the octets before a payload of unknown size; returns where the payload begins.
#[inline]
fn begin_frame(out: &mut Vec<u8>, kind: u8, channel: u16) -> usize {
    out.extend_from_slice(&frame_header(kind, channel, 0));
    out.len()
}

#[inline]
fn end_frame(out: &mut Vec<u8>, payload_at: usize) {
    let payload_bytes = (out.len() - payload_at) as u32;
    out[payload_at - 4..payload_at].copy_from_slice(&payload_bytes.to_be_bytes());
    out.push(FRAME_END);
}

#[cfg(test)]
mod tests;
