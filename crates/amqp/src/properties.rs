//! The fourteen properties of a `basic` content header (§4.2.6.1).
//!
//! ```text
//! | flags u16, highest bit first: content-type, content-encoding, headers, delivery-mode, ... |
//! | the values of those present, in that order |
//! ```
//!
//! A broker passes them on as they came: [`validate`] looks at the bytes once, [`RawProperties`] finds
//! one of them without allocating, and the bytes are written back. Programs use [`BasicProperties`].
//!
//! One table at the end of this file drives all of it.

use crate::error::{DecodeError, EncodeError, Fault};
use crate::value::{FieldTable, FieldValue, RawTable, with_length};
use crate::wire::{Reader, check_short_str, put_short_str};

#[cfg(test)]
mod tests;

/// `delivery_mode` of a message that does not survive the server.
pub const TRANSIENT: u8 = 1;
/// `delivery_mode` of a message that does, in a durable queue.
pub const PERSISTENT: u8 = 2;

/// The encoding of no properties at all.
pub const NO_PROPERTIES: [u8; 2] = [0, 0];

/// Flags that stand for a property; the two low bits do not. RabbitMQ refuses them too.
const KNOWN_FLAGS: u16 = 0xFFFC;
/// The number of the property `headers`, and its flag.
const HEADERS: usize = 2;
const FLAG_HEADERS: u16 = 0x8000 >> HEADERS;
/// The same of `expiration`.
const EXPIRATION: usize = 7;
const FLAG_EXPIRATION: u16 = 0x8000 >> EXPIRATION;

/// Are these bytes properties, nothing missing and nothing left over, the headers all the way down?
///
/// # Errors
/// [`DecodeError`] naming the property.
pub fn validate(bytes: &[u8]) -> Result<RawProperties<'_>, DecodeError> {
    let mut reader = Reader::new(bytes, WITHIN);
    let flags = read_flags(&mut reader)?;
    for (property, info) in PROPERTIES.iter().enumerate() {
        if has(flags, property) {
            match *info {
                (name, Kind::Table) => RawTable::new(reader.long_str(name)?).validate()?,
                (name, Kind::Text) => drop(reader.short_str(name)?),
                (name, kind) => drop(reader.take(kind.fixed_bytes(), name)?),
            }
        }
    }
    reader.finish()?;
    Ok(RawProperties(bytes))
}

/// A view on encoded properties, which finds each by walking over those before it.
///
/// On bytes that [`validate`] refused, the accessors return `None` where they lose their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawProperties<'a>(&'a [u8]);

impl<'a> RawProperties<'a> {
    /// A view on bytes that are checked already; see [`validate`].
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        RawProperties(bytes)
    }

    /// The bytes, flags included.
    #[inline]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// Copies all of them out.
    ///
    /// # Errors
    /// As [`validate`].
    pub fn to_properties(&self) -> Result<BasicProperties, DecodeError> {
        BasicProperties::decode(self.0)
    }

    /// Appends the properties with one header set: in the place of those that have its key, or in front of
    /// the others. All else is copied as it stands.
    ///
    /// # Errors
    /// As [`validate`], for bytes that it has not seen.
    pub fn encode_with_header(
        &self,
        key: &str,
        value: &FieldValue,
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        let (flags, mut reader) = self.walk(HEADERS)?;
        let headers_at = self.0.len() - reader.len();
        out.extend_from_slice(&(flags | FLAG_HEADERS).to_be_bytes());
        out.extend_from_slice(&self.0[2..headers_at]);
        let size_at = out.len();
        out.extend_from_slice(&[0; 4]);
        put_short_str(out, key);
        value.encode(out);
        if flags & FLAG_HEADERS != 0 {
            let headers = RawTable::new(reader.long_str("headers")?);
            if headers.get(key).is_none() {
                out.extend_from_slice(headers.as_bytes());
            } else {
                for (name, value) in headers.to_table()?.iter().filter(|(name, _)| *name != key) {
                    put_short_str(out, name);
                    value.encode(out);
                }
            }
        }
        let size = (out.len() - size_at - 4) as u32;
        out[size_at..size_at + 4].copy_from_slice(&size.to_be_bytes());
        out.extend_from_slice(reader.rest());
        Ok(())
    }

    /// Appends the properties without an expiration, and with the headers that `headers` appends, which is shown those
    /// that are there. All else is copied as it stands.
    ///
    /// # Errors
    /// As [`validate`], for bytes that it has not seen; and what `headers` returns.
    pub fn encode_lasting(
        &self,
        out: &mut Vec<u8>,
        headers: impl FnOnce(RawTable<'a>, &mut Vec<u8>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let (flags, mut reader) = self.walk(HEADERS)?;
        let headers_at = self.0.len() - reader.len();
        out.extend_from_slice(&((flags | FLAG_HEADERS) & !FLAG_EXPIRATION).to_be_bytes());
        out.extend_from_slice(&self.0[2..headers_at]);
        let table = if flags & FLAG_HEADERS != 0 { reader.long_str("headers")? } else { &[] };
        with_length(out, |out| headers(RawTable::new(table), out))?;
        let rest = reader.rest();
        let (_, mut reader) = self.walk(EXPIRATION)?;
        out.extend_from_slice(&rest[..rest.len() - reader.len()]);
        if flags & FLAG_EXPIRATION != 0 {
            reader.short_str("expiration")?;
        }
        out.extend_from_slice(reader.rest());
        Ok(())
    }

    /// A reader at the value of a property, if it is present.
    #[inline]
    fn seek(&self, wanted: usize) -> Option<Reader<'a>> {
        let (flags, reader) = self.walk(wanted).ok()?;
        has(flags, wanted).then_some(reader)
    }

    /// The flags, and a reader where a property is or would be.
    #[inline]
    fn walk(&self, wanted: usize) -> Result<(u16, Reader<'a>), DecodeError> {
        let mut reader = Reader::new(self.0, WITHIN);
        let flags = reader.u16("flags")?;
        for (property, &(name, kind)) in PROPERTIES.iter().enumerate().take(wanted) {
            if has(flags, property) {
                let bytes = match kind {
                    Kind::Text => usize::from(reader.u8(name)?),
                    Kind::Table => reader.u32(name)? as usize,
                    _ => kind.fixed_bytes(),
                };
                reader.take(bytes, name)?;
            }
        }
        Ok((flags, reader))
    }
}

impl BasicProperties {
    /// No properties.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only `delivery_mode` 2: the message survives the server, in a durable queue.
    pub fn persistent() -> Self {
        Self::default().with_delivery_mode(PERSISTENT)
    }

    /// Is `delivery_mode` 2?
    pub fn is_persistent(&self) -> bool {
        self.delivery_mode == Some(PERSISTENT)
    }

    /// The value of a header.
    pub fn header(&self, key: &str) -> Option<&crate::FieldValue> {
        self.headers.as_ref()?.get(key)
    }

    /// The same with one more header.
    #[must_use]
    pub fn with_header(mut self, key: &str, value: impl Into<crate::FieldValue>) -> Self {
        self.headers.get_or_insert_default().push(key, value);
        self
    }
}

/// What a property's value looks like.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Table,
    Octet,
    Timestamp,
}

impl Kind {
    const fn fixed_bytes(self) -> usize {
        match self {
            Kind::Octet => 1,
            Kind::Timestamp => 8,
            Kind::Text | Kind::Table => 0,
        }
    }
}

const WITHIN: &str = "basic properties";

#[inline]
fn has(flags: u16, property: usize) -> bool {
    flags & (0x8000 >> property) != 0
}

fn read_flags(reader: &mut Reader<'_>) -> Result<u16, DecodeError> {
    let flags = reader.u16("flags")?;
    match flags & !KNOWN_FLAGS {
        0 => Ok(flags),
        _ => Err(reader.error("flags", Fault::UnknownPropertyFlags(flags))),
    }
}

/// How each kind is owned, borrowed, read, written, checked.
macro_rules! kind {
    (@owned Text) => { String };
    (@owned Table) => { FieldTable };
    (@owned Octet) => { u8 };
    (@owned Timestamp) => { u64 };
    (@raw Text) => { &'a str };
    (@raw Table) => { RawTable<'a> };
    (@raw Octet) => { u8 };
    (@raw Timestamp) => { u64 };
    (@into Text) => { impl Into<String> };
    (@into Table) => { impl Into<FieldTable> };
    (@into Octet) => { impl Into<u8> };
    (@into Timestamp) => { impl Into<u64> };
    (@read Text $reader:expr, $name:expr) => { $reader.short_str($name) };
    (@read Table $reader:expr, $name:expr) => { $reader.long_str($name).map(RawTable::new) };
    (@read Octet $reader:expr, $name:expr) => { $reader.u8($name) };
    (@read Timestamp $reader:expr, $name:expr) => { $reader.u64($name) };
    (@own Text $raw:expr) => { $raw.to_owned() };
    (@own Table $raw:expr) => { $raw.to_table()? };
    (@own Octet $raw:expr) => { $raw };
    (@own Timestamp $raw:expr) => { $raw };
    (@write Text $out:expr, $value:expr) => { put_short_str($out, $value) };
    (@write Table $out:expr, $value:expr) => { $value.encode($out) };
    (@write Octet $out:expr, $value:expr) => { $out.push(*$value) };
    (@write Timestamp $out:expr, $value:expr) => { $out.extend_from_slice(&$value.to_be_bytes()) };
    (@check Text $value:expr, $name:expr) => { check_short_str($value, WITHIN, $name)? };
    (@check Table $value:expr, $name:expr) => { $value.check()? };
    (@check Octet $value:expr, $name:expr) => { let _ = $value; };
    (@check Timestamp $value:expr, $name:expr) => { let _ = $value; };
}

macro_rules! properties {
    ($( $index:literal $(#[$doc:meta])* $name:ident $with:ident $kind:ident; )*) => {
        /// The properties of a message. All are optional; the server looks at few of them.
        ///
        /// ```
        /// use warren_amqp::BasicProperties;
        /// let properties = BasicProperties::persistent().with_correlation_id("42");
        /// let mut bytes = Vec::new();
        /// properties.encode(&mut bytes);
        /// assert_eq!(BasicProperties::decode(&bytes)?, properties);
        /// # Ok::<(), warren_amqp::DecodeError>(())
        /// ```
        #[derive(Debug, Clone, PartialEq, Default)]
        pub struct BasicProperties {
            $( $(#[$doc])* pub $name: Option<kind!(@owned $kind)>, )*
        }

        /// Name and kind of each, in the order of the flags.
        const PROPERTIES: [(&str, Kind); 14] = [ $( (stringify!($name), Kind::$kind), )* ];

        impl BasicProperties {
            $(
                $(#[$doc])*
                #[must_use]
                pub fn $with(mut self, value: kind!(@into $kind)) -> Self {
                    self.$name = Some(value.into());
                    self
                }
            )*

            /// Reads flags and values.
            ///
            /// # Errors
            /// [`DecodeError`] naming the property; also for bytes left over.
            pub fn decode(bytes: &[u8]) -> Result<BasicProperties, DecodeError> {
                let mut reader = Reader::new(bytes, WITHIN);
                let flags = read_flags(&mut reader)?;
                let mut properties = BasicProperties::default();
                $(
                    if has(flags, $index) {
                        let raw = kind!(@read $kind reader, stringify!($name))?;
                        properties.$name = Some(kind!(@own $kind raw));
                    }
                )*
                reader.finish()?;
                Ok(properties)
            }

            /// Appends flags and values. Texts over 255 bytes are cut; see [`check`](Self::check).
            pub fn encode(&self, out: &mut Vec<u8>) {
                let mut flags = 0u16;
                $( flags |= u16::from(self.$name.is_some()) << (15 - $index); )*
                out.extend_from_slice(&flags.to_be_bytes());
                $(
                    if let Some(value) = &self.$name {
                        kind!(@write $kind out, value);
                    }
                )*
            }

            /// Do all texts fit into a short string?
            ///
            /// # Errors
            /// [`EncodeError::ShortStringTooLong`] for the first that does not.
            pub fn check(&self) -> Result<(), EncodeError> {
                $(
                    if let Some(value) = &self.$name {
                        kind!(@check $kind value, stringify!($name));
                    }
                )*
                Ok(())
            }
        }

        impl<'a> RawProperties<'a> {
            $(
                $(#[$doc])*
                #[inline]
                pub fn $name(&self) -> Option<kind!(@raw $kind)> {
                    let mut reader = self.seek($index)?;
                    kind!(@read $kind reader, stringify!($name)).ok()
                }
            )*
        }
    };
}

properties! {
    0 /** The MIME type of the body. */ content_type with_content_type Text;
    1 /** The MIME encoding of the body. */ content_encoding with_content_encoding Text;
    2 /** Whatever the program wants; a headers exchange routes by it. */ headers with_headers Table;
    3 /** [`TRANSIENT`] or [`PERSISTENT`]. */ delivery_mode with_delivery_mode Octet;
    4 /** 0 to 255, for priority queues. */ priority with_priority Octet;
    5 /** Which request this answers. */ correlation_id with_correlation_id Text;
    6 /** The queue to answer to. */ reply_to with_reply_to Text;
    7 /** Time to live in milliseconds, as digits. */ expiration with_expiration Text;
    8 /** The program's name for the message. */ message_id with_message_id Text;
    9 /** Seconds since 1970. */ timestamp with_timestamp Timestamp;
    10 /** The program's name for the kind of message (`type`). */ kind with_kind Text;
    11 /** The user who published; the server checks it. */ user_id with_user_id Text;
    12 /** The program that published. */ app_id with_app_id Text;
    13 /** Deprecated. */ cluster_id with_cluster_id Text;
}
