//! How entries stand in a page: see the picture in [`pages`](super).

use std::rc::Rc;

use compact_str::CompactString;

use super::{Blob, Logged};
use crate::message::{Content, Entry, Message, Spot, Stored};
use crate::store::framing::{Reader, put_signed, put_varint};

/// Properties and body of so many bytes stand outside of the page: they are never copied.
pub(super) const APART_BYTES_MIN: usize = 128 * 1024;

/// The flags of an entry.
mod flag {
    pub(super) const REDELIVERED: u8 = 1;
    /// In the log. Else it is whole.
    pub(super) const LOGGED: u8 = 2;
    /// It came back, has a priority, or expires: what else there is is written.
    pub(super) const SPECIAL: u8 = 4;
    /// Of a whole one: exchange, key and properties are those of the entry before, which was whole too.
    pub(super) const ALIKE: u8 = 8;
    /// Of a whole one: it expires by itself, or when it came in counts.
    pub(super) const TIMED: u8 = 16;
    /// Of a whole one: it is in the log besides.
    pub(super) const STORED: u8 = 32;
    /// Of a whole one: some queue knows it by a value.
    pub(super) const DEDUPLICATED: u8 = 64;
    /// Of a whole one: its properties and its body stand apart.
    pub(super) const APART: u8 = 128;
}

/// Numbers of the entry before.
#[derive(Clone, Copy, Default)]
pub(super) struct Last {
    pub(super) position: u64,
    place: u64,
    /// Where the record before ends.
    offset: u64,
    /// Of the message before that was whole.
    id: u64,
}

pub(super) struct Encoder<'a> {
    pub(super) out: Vec<u8>,
    /// What is to stand apart, in the order of the entries.
    pub(super) apart: Vec<&'a [u8]>,
    pub(super) last: Last,
    /// The message of the entry before, if it was whole.
    alike: Option<&'a Message>,
    pub(super) count: usize,
    pub(super) bytes: u64,
    pub(super) first: u64,
}

impl<'a> Encoder<'a> {
    /// Writes to `out`.
    pub(super) fn new(out: Vec<u8>) -> Self {
        let last = Last::default();
        Self { out, apart: Vec::new(), last, alike: None, count: 0, bytes: 0, first: 0 }
    }

    fn begin(&mut self, position: u64, flags: u8, special: (u32, u8, u64), body_bytes: u64) {
        let (delivery_count, priority, expires_ms) = special;
        let is_special = special != (0, 0, u64::MAX);
        self.out.push(flags | if is_special { flag::SPECIAL } else { 0 });
        // Not always more: what waits for a time is in the order of times.
        put_signed(&mut self.out, position.wrapping_sub(self.last.position).cast_signed());
        if is_special {
            put_varint(&mut self.out, delivery_count.into());
            self.out.push(priority);
            self.out.extend_from_slice(&expires_ms.to_le_bytes());
        }
        if self.count == 0 {
            self.first = position;
        }
        self.count += 1;
        self.bytes += body_bytes;
        self.last.position = position;
    }

    pub(super) fn logged(&mut self, entry: &Logged) {
        let special = (entry.delivery_count, entry.priority, entry.expires_ms);
        let redelivered = if entry.redelivered { flag::REDELIVERED } else { 0 };
        self.begin(entry.position, flag::LOGGED | redelivered, special, entry.body_bytes.into());
        let (out, last) = (&mut self.out, &mut self.last);
        put_signed(out, entry.place.wrapping_sub(last.place).cast_signed());
        put_varint(out, entry.place - entry.message);
        put_signed(out, entry.spot.offset.wrapping_sub(last.offset).cast_signed());
        put_varint(out, entry.spot.bytes.into());
        put_varint(out, entry.body_bytes.into());
        (last.place, last.offset) = (entry.place, entry.spot.offset + u64::from(entry.spot.bytes));
    }

    pub(super) fn whole(&mut self, entry: &'a Entry) {
        let message = &*entry.message;
        let properties = message.content.properties();
        let is_apart = APART_BYTES_MIN <= message.content.bytes().len();
        let alike = self.alike.filter(|_| !is_apart);
        let is_alike = alike.is_some_and(|other| {
            *other.exchange == *message.exchange
                && other.routing_key == message.routing_key
                && other.content.properties() == properties
        });
        let is_timed = message.expires_ms != u64::MAX || message.published_ms != 0;
        let flag = |on: bool, flag: u8| if on { flag } else { 0 };
        let flags = flag(entry.redelivered, flag::REDELIVERED)
            | flag(is_alike, flag::ALIKE)
            | flag(is_timed, flag::TIMED)
            | flag(message.stored.is_some(), flag::STORED)
            | flag(message.deduplicated, flag::DEDUPLICATED)
            | flag(is_apart, flag::APART);
        let special = (entry.delivery_count, entry.priority, entry.expires_ms);
        let body = message.content.body();
        self.begin(entry.position, flags, special, body.len() as u64);
        let out = &mut self.out;
        if is_timed {
            out.extend_from_slice(&message.expires_ms.to_le_bytes());
            out.extend_from_slice(&message.published_ms.to_le_bytes());
        }
        put_signed(out, message.id.wrapping_sub(self.last.id).cast_signed());
        self.last.id = message.id;
        if let Some(Stored { first, spot }) = message.stored {
            for number in [entry.place, first, spot.offset, spot.bytes.into()] {
                put_varint(out, number);
            }
        }
        let mut put = |part: &[u8]| {
            put_varint(out, part.len() as u64);
            out.extend_from_slice(part);
        };
        if !is_alike {
            put(message.exchange.as_bytes());
            put(message.routing_key.as_bytes());
        }
        if is_apart {
            put_varint(out, properties.len() as u64);
            self.apart.push(message.content.bytes());
            self.alike = None;
            return;
        }
        if !is_alike {
            put(properties);
        }
        put(body);
        self.alike = Some(message);
    }
}

/// What stands in a page.
pub(super) enum Found {
    Whole(Entry),
    Logged(Logged),
}

pub(super) struct Decoder<'a> {
    reader: Reader<'a>,
    /// What stands apart; `None`: that is not wanted.
    apart: Option<std::slice::Iter<'a, Blob>>,
    last: Last,
    /// Exchange, key and properties of the whole entry before.
    alike: Option<(Rc<str>, CompactString, &'a [u8])>,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(bytes: &'a [u8], apart: Option<&'a [Blob]>) -> Self {
        let apart = apart.map(<[Blob]>::iter);
        Self { reader: Reader(bytes), apart, last: Last::default(), alike: None }
    }

    pub(super) fn entry(&mut self) -> Option<Found> {
        let flags = self.reader.u8()?;
        let more = self.reader.signed()?.cast_unsigned();
        self.last.position = self.last.position.wrapping_add(more);
        let (delivery_count, priority, expires_ms) = if flags & flag::SPECIAL != 0 {
            let count = self.reader.varint()?.try_into().ok()?;
            (count, self.reader.u8()?, self.reader.u64()?)
        } else {
            (0, 0, u64::MAX)
        };
        let (position, redelivered) = (self.last.position, flags & flag::REDELIVERED != 0);
        if flags & flag::LOGGED != 0 {
            let (reader, last) = (&mut self.reader, &mut self.last);
            let place = last.place.wrapping_add(reader.signed()?.cast_unsigned());
            let message = place.checked_sub(reader.varint()?)?;
            let offset = last.offset.wrapping_add(reader.signed()?.cast_unsigned());
            let spot = Spot { offset, bytes: reader.varint()?.try_into().ok()? };
            let body_bytes = reader.varint()?.try_into().ok()?;
            (last.place, last.offset) = (place, offset.checked_add(spot.bytes.into())?);
            return Some(Found::Logged(Logged {
                position,
                place,
                message,
                spot,
                body_bytes,
                redelivered,
                priority,
                delivery_count,
                expires_ms,
            }));
        }
        let (place, message) = self.message(flags)?;
        Some(Found::Whole(Entry {
            message,
            place,
            position,
            redelivered,
            priority,
            delivery_count,
            expires_ms,
        }))
    }

    fn message(&mut self, flags: u8) -> Option<(u64, Rc<Message>)> {
        let reader = &mut self.reader;
        let (expires_ms, published_ms) =
            if flags & flag::TIMED != 0 { (reader.u64()?, reader.u64()?) } else { (u64::MAX, 0) };
        let deduplicated = flags & flag::DEDUPLICATED != 0;
        let id = self.last.id.wrapping_add(reader.signed()?.cast_unsigned());
        self.last.id = id;
        let (mut place, mut stored) = (0, None);
        if flags & flag::STORED != 0 {
            place = reader.varint()?;
            let (first, offset) = (reader.varint()?, reader.varint()?);
            let bytes = reader.varint()?.try_into().ok()?;
            stored = Some(Stored { first, spot: Spot { offset, bytes } });
        }
        if flags & flag::ALIKE == 0 {
            let exchange = std::str::from_utf8(part(reader)?).ok()?;
            let key = std::str::from_utf8(part(reader)?).ok()?;
            let exchange = match &self.alike {
                Some((other, ..)) if **other == *exchange => other.clone(),
                _ => exchange.into(),
            };
            let is_apart = flags & flag::APART != 0;
            let properties = if is_apart { &[] } else { part(reader)? };
            self.alike = Some((exchange, key.into(), properties));
        }
        let (exchange, routing_key, properties) = self.alike.clone()?;
        let content = if flags & flag::APART != 0 {
            let properties_bytes = usize::try_from(reader.varint()?).ok()?;
            match &mut self.apart {
                Some(apart) => Content::new(apart.next()?.read().ok()?, properties_bytes),
                None => Content::new(Vec::new(), 0),
            }
        } else {
            Content::new([properties, part(reader)?].concat(), properties.len())
        };
        let message = Message {
            id,
            exchange,
            routing_key,
            content,
            expires_ms,
            published_ms,
            stored,
            deduplicated,
        };
        Some((place, Rc::new(message)))
    }
}

fn part<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let size = reader.varint()?.try_into().ok()?;
    reader.take(size)
}
