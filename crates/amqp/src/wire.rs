//! Reading and writing the elementary domains (§4.2.5): integers, bits, short and long strings, tables.
//!
//! Consecutive bits share octets, lowest bit first; any other field starts at the next octet.

use crate::constants::SHORT_STRING_MAX;
use crate::error::{DecodeError, EncodeError, Fault};
use crate::value::FieldTable;

/// Reads fields off the front of a slice.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    /// The octet of bits being read.
    bits: u8,
    /// Bits of `bits` not yet taken; 0 means that the next bit is in the next octet.
    bits_left: u8,
    /// For errors: what is being read.
    within: &'static str,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], within: &'static str) -> Self {
        Reader { bytes, bits: 0, bits_left: 0, within }
    }

    pub(crate) fn error(&self, field: &'static str, fault: Fault) -> DecodeError {
        DecodeError { within: self.within, field, fault }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// What has not been read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// All bytes must have been read. RabbitMQ refuses longer methods and properties too.
    pub(crate) fn finish(&self) -> Result<(), DecodeError> {
        match self.bytes.len() {
            0 => Ok(()),
            left => Err(self.error("end", Fault::TrailingBytes(left))),
        }
    }

    #[inline]
    pub(crate) fn take(
        &mut self,
        count: usize,
        field: &'static str,
    ) -> Result<&'a [u8], DecodeError> {
        self.bits_left = 0;
        match self.bytes.split_at_checked(count) {
            Some((taken, rest)) => {
                self.bytes = rest;
                Ok(taken)
            }
            None => {
                Err(self.error(field, Fault::Truncated { needed: count, left: self.bytes.len() }))
            }
        }
    }

    #[inline]
    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        self.bits_left = 0;
        match self.bytes.split_first_chunk::<N>() {
            Some((taken, rest)) => {
                self.bytes = rest;
                Ok(*taken)
            }
            None => Err(self.error(field, Fault::Truncated { needed: N, left: self.bytes.len() })),
        }
    }

    #[inline]
    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        Ok(self.array::<1>(field)?[0])
    }

    #[inline]
    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array(field)?))
    }

    #[inline]
    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array(field)?))
    }

    #[inline]
    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.array(field)?))
    }

    #[inline]
    pub(crate) fn bit(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        if self.bits_left == 0 {
            self.bits = self.u8(field)?;
            self.bits_left = 8;
        }
        let bit = self.bits & 1 == 1;
        self.bits >>= 1;
        self.bits_left -= 1;
        Ok(bit)
    }

    /// A short string. Names, keys and tags are UTF-8 or refused, as RabbitMQ does.
    #[inline]
    pub(crate) fn short_str(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        let len = self.u8(field)?;
        let bytes = self.take(usize::from(len), field)?;
        std::str::from_utf8(bytes).map_err(|_| self.error(field, Fault::NotUtf8))
    }

    #[inline]
    pub(crate) fn long_str(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = self.u32(field)?;
        self.take(len as usize, field)
    }
}

/// Appends fields to a buffer.
pub(crate) struct Writer<'v> {
    out: &'v mut Vec<u8>,
    /// Bits not yet written.
    bits: u8,
    /// How many.
    bits_used: u8,
}

impl<'v> Writer<'v> {
    pub(crate) fn new(out: &'v mut Vec<u8>) -> Self {
        Writer { out, bits: 0, bits_used: 0 }
    }

    /// Writes the bits that wait for their octet to fill. To be called at the end of a method.
    #[inline]
    pub(crate) fn flush_bits(&mut self) {
        if 0 < self.bits_used {
            self.out.push(self.bits);
            self.bits = 0;
            self.bits_used = 0;
        }
    }

    #[inline]
    pub(crate) fn bit(&mut self, bit: bool) {
        self.bits |= u8::from(bit) << self.bits_used;
        self.bits_used += 1;
        if self.bits_used == 8 {
            self.flush_bits();
        }
    }

    #[inline]
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.flush_bits();
        self.out.extend_from_slice(bytes);
    }

    #[inline]
    pub(crate) fn short_str(&mut self, text: &str) {
        self.flush_bits();
        put_short_str(self.out, text);
    }

    #[inline]
    pub(crate) fn long_str(&mut self, bytes: &[u8]) {
        self.flush_bits();
        put_long_str(self.out, bytes);
    }
}

/// Appends a short string; what is longer than 255 bytes is cut at the last character that fits, which
/// is what RabbitMQ does with reply texts. Senders check names before ([`Field::check`]).
#[inline]
pub(crate) fn put_short_str(out: &mut Vec<u8>, text: &str) {
    let mut len = text.len().min(SHORT_STRING_MAX);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    out.push(len as u8);
    out.extend_from_slice(&text.as_bytes()[..len]);
}

/// Appends a long string. More than 4 GiB cannot be said and is cut.
pub(crate) fn put_long_str(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(&bytes[..len as usize]);
}

/// Does a short string fit?
pub(crate) fn check_short_str(
    text: &str,
    within: &'static str,
    field: &'static str,
) -> Result<(), EncodeError> {
    if text.len() <= SHORT_STRING_MAX {
        return Ok(());
    }
    Err(EncodeError::ShortStringTooLong { within, field, bytes: text.len() })
}

/// A Rust type that stands for one domain of the protocol in the table of methods.
pub(crate) trait Field<'a>: Sized {
    fn read(reader: &mut Reader<'a>, field: &'static str) -> Result<Self, DecodeError>;
    fn write(&self, writer: &mut Writer<'_>);
    /// Does the value fit on the wire?
    fn check(&self, _within: &'static str, _field: &'static str) -> Result<(), EncodeError> {
        Ok(())
    }
}

macro_rules! integers {
    ($($ty:ident)*) => { $(
        impl<'a> Field<'a> for $ty {
            #[inline]
            fn read(reader: &mut Reader<'a>, field: &'static str) -> Result<Self, DecodeError> {
                reader.$ty(field)
            }
            #[inline]
            fn write(&self, writer: &mut Writer<'_>) {
                writer.raw(&self.to_be_bytes());
            }
        }
    )* };
}
integers!(u8 u16 u32 u64);

impl<'a> Field<'a> for bool {
    #[inline]
    fn read(reader: &mut Reader<'a>, field: &'static str) -> Result<Self, DecodeError> {
        reader.bit(field)
    }
    #[inline]
    fn write(&self, writer: &mut Writer<'_>) {
        writer.bit(*self);
    }
}

impl<'a> Field<'a> for &'a str {
    #[inline]
    fn read(reader: &mut Reader<'a>, field: &'static str) -> Result<Self, DecodeError> {
        reader.short_str(field)
    }
    #[inline]
    fn write(&self, writer: &mut Writer<'_>) {
        writer.short_str(self);
    }
    fn check(&self, within: &'static str, field: &'static str) -> Result<(), EncodeError> {
        check_short_str(self, within, field)
    }
}

impl<'a> Field<'a> for &'a [u8] {
    #[inline]
    fn read(reader: &mut Reader<'a>, field: &'static str) -> Result<Self, DecodeError> {
        reader.long_str(field)
    }
    #[inline]
    fn write(&self, writer: &mut Writer<'_>) {
        writer.long_str(self);
    }
}

impl<'a> Field<'a> for FieldTable {
    fn read(reader: &mut Reader<'a>, field: &'static str) -> Result<Self, DecodeError> {
        let bytes = reader.long_str(field)?;
        FieldTable::decode(bytes).map_err(|inner| DecodeError {
            within: reader.within,
            field,
            ..inner
        })
    }
    fn write(&self, writer: &mut Writer<'_>) {
        writer.flush_bits();
        self.encode(writer.out);
    }
    fn check(&self, _within: &'static str, _field: &'static str) -> Result<(), EncodeError> {
        FieldTable::check(self)
    }
}
