//! Field tables (§4.2.5.5), with the types as RabbitMQ reads them, which differ from the specification's.
//!
//! ```text
//! table  := length u32, { key length u8, key, value }*
//! array  := length u32, { value }*
//! value  := type octet, then by type:
//!   t bool u8        b i8    B u8    s i16   u u16   I i32   i u32   l and L i64
//!   f f32   d f64    D scale u8, digits u32          T seconds since 1970 u64
//!   S long string    x bytes A array F table         V nothing
//! ```
//!
//! Like RabbitMQ, a table keeps the order and the duplicates of its keys, and `L` is read as a signed
//! 64-bit number (written back as `l`). Unlike RabbitMQ, keys must be UTF-8.
//!
//! [`RawTable`] walks encoded bytes without allocating; [`FieldTable`] owns what it holds.

use compact_str::CompactString;

use crate::error::{DecodeError, EncodeError, Fault};
use crate::wire::{Reader, check_short_str, put_long_str, put_short_str};

/// How deep tables and arrays may lie within one another. Real ones are two or three deep (`x-death`);
/// the limit keeps hostile ones from using up a fiber's stack.
pub const NESTING_MAX: usize = 32;

/// A value in a table or array.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum FieldValue {
    /// `t`: any octet but 0 is true.
    Bool(bool),
    /// `b`.
    I8(i8),
    /// `B`.
    U8(u8),
    /// `s`.
    I16(i16),
    /// `u`.
    U16(u16),
    /// `I`.
    I32(i32),
    /// `i`.
    U32(u32),
    /// `l`, and `L` when read.
    I64(i64),
    /// `f`.
    F32(f32),
    /// `d`.
    F64(f64),
    /// `D`: `digits` divided by ten to the power of `scale`.
    Decimal {
        /// Places after the point.
        scale: u8,
        /// All digits.
        digits: u32,
    },
    /// `S`: text by custom, but any bytes are legal.
    LongString(Vec<u8>),
    /// `A`.
    Array(Vec<FieldValue>),
    /// `T`: seconds since 1970 by custom.
    Timestamp(u64),
    /// `F`.
    Table(FieldTable),
    /// `V`: no value.
    #[default]
    Void,
    /// `x`: bytes that are not text.
    Bytes(Vec<u8>),
}

impl FieldValue {
    /// The name RabbitMQ uses for the type in its error texts, such as `longstr`.
    pub fn type_name(&self) -> &'static str {
        match self {
            FieldValue::Bool(_) => "bool",
            FieldValue::I8(_) => "byte",
            FieldValue::U8(_) => "unsignedbyte",
            FieldValue::I16(_) => "short",
            FieldValue::U16(_) => "unsignedshort",
            FieldValue::I32(_) => "signedint",
            FieldValue::U32(_) => "unsignedint",
            FieldValue::I64(_) => "long",
            FieldValue::F32(_) => "float",
            FieldValue::F64(_) => "double",
            FieldValue::Decimal { .. } => "decimal",
            FieldValue::LongString(_) => "longstr",
            FieldValue::Array(_) => "array",
            FieldValue::Timestamp(_) => "timestamp",
            FieldValue::Table(_) => "table",
            FieldValue::Void => "void",
            FieldValue::Bytes(_) => "binary",
        }
    }

    /// The number, when this is one of the integer types and not a timestamp.
    pub fn as_i64(&self) -> Option<i64> {
        Some(match *self {
            FieldValue::I8(n) => n.into(),
            FieldValue::U8(n) => n.into(),
            FieldValue::I16(n) => n.into(),
            FieldValue::U16(n) => n.into(),
            FieldValue::I32(n) => n.into(),
            FieldValue::U32(n) => n.into(),
            FieldValue::I64(n) => n,
            _ => return None,
        })
    }

    /// The text of a long string that is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            FieldValue::LongString(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The bytes of a long string or of bytes.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            FieldValue::LongString(bytes) | FieldValue::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The truth value.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            FieldValue::Bool(truth) => Some(truth),
            _ => None,
        }
    }

    /// The table.
    pub fn as_table(&self) -> Option<&FieldTable> {
        match self {
            FieldValue::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The array.
    pub fn as_array(&self) -> Option<&[FieldValue]> {
        match self {
            FieldValue::Array(values) => Some(values),
            _ => None,
        }
    }

    /// Appends the type octet and the value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            FieldValue::Bool(truth) => out.extend_from_slice(&[b't', u8::from(*truth)]),
            FieldValue::I8(n) => out.extend_from_slice(&[b'b', *n as u8]),
            FieldValue::U8(n) => out.extend_from_slice(&[b'B', *n]),
            FieldValue::I16(n) => put(out, b's', &n.to_be_bytes()),
            FieldValue::U16(n) => put(out, b'u', &n.to_be_bytes()),
            FieldValue::I32(n) => put(out, b'I', &n.to_be_bytes()),
            FieldValue::U32(n) => put(out, b'i', &n.to_be_bytes()),
            FieldValue::I64(n) => put(out, b'l', &n.to_be_bytes()),
            FieldValue::F32(n) => put(out, b'f', &n.to_be_bytes()),
            FieldValue::F64(n) => put(out, b'd', &n.to_be_bytes()),
            FieldValue::Decimal { scale, digits } => {
                put(out, b'D', &[*scale]);
                out.extend_from_slice(&digits.to_be_bytes());
            }
            FieldValue::LongString(bytes) => {
                out.push(b'S');
                put_long_str(out, bytes);
            }
            FieldValue::Array(values) => {
                out.push(b'A');
                with_length(out, |out| values.iter().for_each(|value| value.encode(out)));
            }
            FieldValue::Timestamp(seconds) => put(out, b'T', &seconds.to_be_bytes()),
            FieldValue::Table(table) => {
                out.push(b'F');
                table.encode(out);
            }
            FieldValue::Void => out.push(b'V'),
            FieldValue::Bytes(bytes) => {
                out.push(b'x');
                put_long_str(out, bytes);
            }
        }
    }

    fn check(&self) -> Result<(), EncodeError> {
        match self {
            FieldValue::Table(table) => table.check(),
            FieldValue::Array(values) => values.iter().try_for_each(FieldValue::check),
            _ => Ok(()),
        }
    }
}

macro_rules! value_from {
    ($($ty:ty => |$value:ident| $make:expr;)*) => { $(
        impl From<$ty> for FieldValue {
            fn from($value: $ty) -> FieldValue { $make }
        }
    )* };
}
value_from! {
    bool => |v| FieldValue::Bool(v);
    i8 => |v| FieldValue::I8(v);
    u8 => |v| FieldValue::U8(v);
    i16 => |v| FieldValue::I16(v);
    u16 => |v| FieldValue::U16(v);
    i32 => |v| FieldValue::I32(v);
    u32 => |v| FieldValue::U32(v);
    i64 => |v| FieldValue::I64(v);
    f32 => |v| FieldValue::F32(v);
    f64 => |v| FieldValue::F64(v);
    &str => |v| FieldValue::LongString(v.as_bytes().to_vec());
    String => |v| FieldValue::LongString(v.into_bytes());
    FieldTable => |v| FieldValue::Table(v);
    Vec<FieldValue> => |v| FieldValue::Array(v);
}

/// Keys and values in the order in which they came, duplicates included.
///
/// ```
/// use warren_amqp::FieldTable;
/// let arguments = FieldTable::new().with("x-queue-type", "quorum").with("x-delivery-limit", 5);
/// assert_eq!(arguments.get("x-delivery-limit").and_then(|v| v.as_i64()), Some(5));
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FieldTable(Vec<(CompactString, FieldValue)>);

impl FieldTable {
    /// An empty table; allocates nothing.
    pub const fn new() -> Self {
        FieldTable(Vec::new())
    }

    /// The same with one more entry.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<FieldValue>) -> Self {
        self.push(key, value);
        self
    }

    /// Appends an entry, even if the key is there already.
    pub fn push(&mut self, key: &str, value: impl Into<FieldValue>) {
        self.0.push((CompactString::new(key), value.into()));
    }

    /// Replaces the value of the first entry with this key, or appends one.
    pub fn insert(&mut self, key: &str, value: impl Into<FieldValue>) {
        match self.0.iter_mut().find(|(existing, _)| existing == key) {
            Some((_, slot)) => *slot = value.into(),
            None => self.push(key, value),
        }
    }

    /// Removes every entry with this key; the first one's value is handed out.
    pub fn remove(&mut self, key: &str) -> Option<FieldValue> {
        let mut removed = None;
        self.0.retain_mut(|(existing, value)| {
            let keep = existing != key;
            if !keep && removed.is_none() {
                removed = Some(std::mem::take(value));
            }
            keep
        });
        removed
    }

    /// The value of the first entry with this key.
    pub fn get(&self, key: &str) -> Option<&FieldValue> {
        self.0.iter().find(|(existing, _)| existing == key).map(|(_, value)| value)
    }

    /// Is there an entry with this key?
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// The entries in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, &FieldValue)> + ExactSizeIterator {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// How many entries there are, duplicates counted.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Is there no entry?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads the entries of a table, that is, the bytes after its length.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are no table, or one nested beyond [`NESTING_MAX`].
    pub fn decode(bytes: &[u8]) -> Result<FieldTable, DecodeError> {
        RawTable::new(bytes).to_table()
    }

    /// Appends the length and the entries. Keys over 255 bytes are cut; see [`check`](Self::check).
    pub fn encode(&self, out: &mut Vec<u8>) {
        with_length(out, |out| {
            for (key, value) in &self.0 {
                put_short_str(out, key);
                value.encode(out);
            }
        });
    }

    /// Do all keys fit into a short string?
    ///
    /// # Errors
    /// [`EncodeError::ShortStringTooLong`] for the first that does not.
    pub fn check(&self) -> Result<(), EncodeError> {
        for (key, value) in &self.0 {
            check_short_str(key, "field table", "key")?;
            value.check()?;
        }
        Ok(())
    }
}

impl<K: AsRef<str>, V: Into<FieldValue>> FromIterator<(K, V)> for FieldTable {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let entries = entries.into_iter();
        FieldTable(
            entries.map(|(key, value)| (CompactString::new(key.as_ref()), value.into())).collect(),
        )
    }
}

/// An encoded table, looked at without allocating.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawTable<'a>(&'a [u8]);

/// An encoded array, looked at without allocating.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RawArray<'a>(&'a [u8]);

/// A value within a [`RawTable`] or [`RawArray`]: as [`FieldValue`], but borrowed.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)] // the variants are FieldValue's, where they are described
pub enum RawValue<'a> {
    Bool(bool),
    I8(i8),
    U8(u8),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    F32(f32),
    F64(f64),
    Decimal { scale: u8, digits: u32 },
    LongString(&'a [u8]),
    Array(RawArray<'a>),
    Timestamp(u64),
    Table(RawTable<'a>),
    Void,
    Bytes(&'a [u8]),
}

impl<'a> RawTable<'a> {
    /// A view on the bytes after a table's length. Nothing is checked yet.
    pub fn new(bytes: &'a [u8]) -> Self {
        RawTable(bytes)
    }

    /// The encoded entries, without the length.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// The entries in order; a malformed one is the last item.
    pub fn iter(&self) -> impl Iterator<Item = Result<(&'a str, RawValue<'a>), DecodeError>> + 'a {
        self.entries().map(|entry| entry.map(|(key, value, _)| (key, value)))
    }

    /// The same, each with its octets, key included, as they came.
    pub fn entries(
        &self,
    ) -> impl Iterator<Item = Result<(&'a str, RawValue<'a>, &'a [u8]), DecodeError>> + use<'a>
    {
        let mut reader = Reader::new(self.0, "field table");
        let mut failed = false;
        std::iter::from_fn(move || {
            if failed || reader.is_empty() {
                return None;
            }
            let octets = reader.rest();
            let entry = read_entry(&mut reader);
            failed = entry.is_err();
            let octets = &octets[..octets.len() - reader.len()];
            Some(entry.map(|(key, value)| (key, value, octets)))
        })
    }

    /// The value of the first entry with this key, if the bytes up to there are well formed.
    pub fn get(&self, key: &str) -> Option<RawValue<'a>> {
        self.iter().map_while(Result::ok).find(|(existing, _)| *existing == key).map(|(_, v)| v)
    }

    /// Are the bytes a table, all the way down?
    ///
    /// # Errors
    /// [`DecodeError`] when they are not, or are nested beyond [`NESTING_MAX`].
    pub fn validate(&self) -> Result<(), DecodeError> {
        self.validate_at(0)
    }

    fn validate_at(&self, depth: usize) -> Result<(), DecodeError> {
        check_depth(depth)?;
        self.iter().try_for_each(|entry| entry?.1.validate_at(depth + 1))
    }

    /// Copies the entries into a table of their own.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn to_table(&self) -> Result<FieldTable, DecodeError> {
        self.to_table_at(0)
    }

    fn to_table_at(self, depth: usize) -> Result<FieldTable, DecodeError> {
        check_depth(depth)?;
        let mut table = FieldTable::new();
        for entry in self.iter() {
            let (key, value) = entry?;
            table.0.push((CompactString::new(key), value.to_value_at(depth + 1)?));
        }
        Ok(table)
    }
}

impl<'a> RawArray<'a> {
    /// The values in order; a malformed one is the last item.
    pub fn iter(&self) -> impl Iterator<Item = Result<RawValue<'a>, DecodeError>> + 'a {
        self.items().map(|item| item.map(|(value, _)| value))
    }

    /// The same, each with its octets as they came.
    pub fn items(
        &self,
    ) -> impl Iterator<Item = Result<(RawValue<'a>, &'a [u8]), DecodeError>> + use<'a> {
        let mut reader = Reader::new(self.0, "field array");
        let mut failed = false;
        std::iter::from_fn(move || {
            if failed || reader.is_empty() {
                return None;
            }
            let octets = reader.rest();
            let value = read_value(&mut reader);
            failed = value.is_err();
            let octets = &octets[..octets.len() - reader.len()];
            Some(value.map(|value| (value, octets)))
        })
    }
}

impl RawValue<'_> {
    /// Appends the type octet and the value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            RawValue::Bool(truth) => FieldValue::Bool(truth).encode(out),
            RawValue::I8(n) => FieldValue::I8(n).encode(out),
            RawValue::U8(n) => FieldValue::U8(n).encode(out),
            RawValue::I16(n) => FieldValue::I16(n).encode(out),
            RawValue::U16(n) => FieldValue::U16(n).encode(out),
            RawValue::I32(n) => FieldValue::I32(n).encode(out),
            RawValue::U32(n) => FieldValue::U32(n).encode(out),
            RawValue::I64(n) => FieldValue::I64(n).encode(out),
            RawValue::F32(n) => FieldValue::F32(n).encode(out),
            RawValue::F64(n) => FieldValue::F64(n).encode(out),
            RawValue::Decimal { scale, digits } => {
                FieldValue::Decimal { scale, digits }.encode(out);
            }
            RawValue::Timestamp(seconds) => FieldValue::Timestamp(seconds).encode(out),
            RawValue::Void => FieldValue::Void.encode(out),
            RawValue::LongString(bytes) => put_sized(out, b'S', bytes),
            RawValue::Array(array) => put_sized(out, b'A', array.0),
            RawValue::Table(table) => put_sized(out, b'F', table.0),
            RawValue::Bytes(bytes) => put_sized(out, b'x', bytes),
        }
    }

    /// Copies the value out.
    ///
    /// # Errors
    /// When something within is malformed or nested beyond [`NESTING_MAX`].
    pub fn to_value(&self) -> Result<FieldValue, DecodeError> {
        self.to_value_at(0)
    }

    fn validate_at(&self, depth: usize) -> Result<(), DecodeError> {
        match self {
            RawValue::Table(table) => table.validate_at(depth),
            RawValue::Array(array) => {
                check_depth(depth)?;
                array.iter().try_for_each(|value| value?.validate_at(depth + 1))
            }
            _ => Ok(()),
        }
    }

    fn to_value_at(self, depth: usize) -> Result<FieldValue, DecodeError> {
        Ok(match self {
            RawValue::Bool(truth) => FieldValue::Bool(truth),
            RawValue::I8(n) => FieldValue::I8(n),
            RawValue::U8(n) => FieldValue::U8(n),
            RawValue::I16(n) => FieldValue::I16(n),
            RawValue::U16(n) => FieldValue::U16(n),
            RawValue::I32(n) => FieldValue::I32(n),
            RawValue::U32(n) => FieldValue::U32(n),
            RawValue::I64(n) => FieldValue::I64(n),
            RawValue::F32(n) => FieldValue::F32(n),
            RawValue::F64(n) => FieldValue::F64(n),
            RawValue::Decimal { scale, digits } => FieldValue::Decimal { scale, digits },
            RawValue::LongString(bytes) => FieldValue::LongString(bytes.to_vec()),
            RawValue::Array(array) => {
                check_depth(depth)?;
                let values = array.iter().map(|value| value?.to_value_at(depth + 1));
                FieldValue::Array(values.collect::<Result<_, _>>()?)
            }
            RawValue::Timestamp(seconds) => FieldValue::Timestamp(seconds),
            RawValue::Table(table) => FieldValue::Table(table.to_table_at(depth)?),
            RawValue::Void => FieldValue::Void,
            RawValue::Bytes(bytes) => FieldValue::Bytes(bytes.to_vec()),
        })
    }
}

fn read_entry<'a>(reader: &mut Reader<'a>) -> Result<(&'a str, RawValue<'a>), DecodeError> {
    let key = reader.short_str("key")?;
    Ok((key, read_value(reader)?))
}

fn read_value<'a>(reader: &mut Reader<'a>) -> Result<RawValue<'a>, DecodeError> {
    Ok(match reader.u8("field type")? {
        b't' => RawValue::Bool(reader.u8("bool")? != 0),
        b'b' => RawValue::I8(reader.u8("byte")? as i8),
        b'B' => RawValue::U8(reader.u8("unsigned byte")?),
        b's' => RawValue::I16(reader.u16("short")? as i16),
        b'u' => RawValue::U16(reader.u16("unsigned short")?),
        b'I' => RawValue::I32(reader.u32("int")? as i32),
        b'i' => RawValue::U32(reader.u32("unsigned int")?),
        b'l' | b'L' => RawValue::I64(reader.u64("long")? as i64),
        b'f' => RawValue::F32(f32::from_bits(reader.u32("float")?)),
        b'd' => RawValue::F64(f64::from_bits(reader.u64("double")?)),
        b'D' => {
            let scale = reader.u8("decimal scale")?;
            RawValue::Decimal { scale, digits: reader.u32("decimal digits")? }
        }
        b'S' => RawValue::LongString(reader.long_str("long string")?),
        b'A' => RawValue::Array(RawArray(reader.long_str("array")?)),
        b'T' => RawValue::Timestamp(reader.u64("timestamp")?),
        b'F' => RawValue::Table(RawTable(reader.long_str("table")?)),
        b'V' => RawValue::Void,
        b'x' => RawValue::Bytes(reader.long_str("bytes")?),
        other => return Err(reader.error("field type", Fault::UnknownFieldType(other))),
    })
}

fn check_depth(depth: usize) -> Result<(), DecodeError> {
    if depth <= NESTING_MAX {
        return Ok(());
    }
    let fault = Fault::NestedTooDeep { max: NESTING_MAX };
    Err(DecodeError { within: "field table", field: "nesting", fault })
}

fn put(out: &mut Vec<u8>, type_octet: u8, bytes: &[u8]) {
    out.push(type_octet);
    out.extend_from_slice(bytes);
}

fn put_sized(out: &mut Vec<u8>, type_octet: u8, bytes: &[u8]) {
    out.push(type_octet);
    put_long_str(out, bytes);
}

/// Appends the key of a table's entry, whose value is to follow. One over 255 bytes is cut.
pub fn put_key(out: &mut Vec<u8>, key: &str) {
    put_short_str(out, key);
}

/// Appends an entry of a table.
pub fn put_entry(out: &mut Vec<u8>, key: &str, value: RawValue<'_>) {
    put_key(out, key);
    value.encode(out);
}

/// Appends an array, as a value, whose items `fill` appends.
pub fn put_array(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'A');
    with_length(out, fill);
}

/// Appends a table, as a value, whose entries `fill` appends.
pub fn put_table(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'F');
    with_length(out, fill);
}

/// Writes a length of four octets before what `write` appends.
pub(crate) fn with_length<T>(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    let done = write(out);
    let len = u32::try_from(out.len() - at - 4).unwrap_or(u32::MAX);
    out[at..at + 4].copy_from_slice(&len.to_be_bytes());
    done
}

#[cfg(test)]
mod tests;
