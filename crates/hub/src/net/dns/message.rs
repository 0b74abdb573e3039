//! DNS messages (RFC 1035 §4): questions out, answers in. No sockets, no clock.
//!
//! ```text
//! | id u16 | flags u16 | counts 4 x u16 | question | answers | authorities | additional |
//! ```
//! Start at [`Message::parse`]. What comes from outside never panics and never loops: a name is followed backwards only.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The header's octets.
const HEADER_BYTES: usize = 12;
/// The longest name, in its wire form (RFC 1035 §3.1).
const NAME_BYTES_MAX: usize = 255;
/// The longest part of a name between dots.
const LABEL_BYTES_MAX: usize = 63;
/// The class of the internet.
const CLASS_IN: u16 = 1;
/// The pseudo-record of EDNS (RFC 6891).
const KIND_OPT: u16 = 41;
/// The answer we can take by UDP, small enough never to be fragmented (the "DNS flag day 2020").
const UDP_BYTES_MAX: u16 = 1232;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The IPv4 addresses of a host.
    A,
    /// The IPv6 addresses of a host.
    Aaaa,
    /// The name of an address.
    Ptr,
}

impl Kind {
    /// The number on the wire.
    pub fn code(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Ptr => 12,
            Self::Aaaa => 28,
        }
    }
}

/// Why a name cannot be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A name of more than 253 characters.
    #[error("a host's name has at most 253 characters")]
    TooLong,
    /// An empty part, or one of more than 63 characters.
    #[error("each part of a host's name has between 1 and 63 characters")]
    Label,
    /// Not ASCII.
    #[error("a host's name is ASCII: give an international one in its ASCII form (xn--...)")]
    NotAscii,
}

/// A message that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// It ends too early.
    #[error("the DNS message is cut short")]
    Short,
    /// A name that is too long, or points forwards.
    #[error("the DNS message has a broken name")]
    Name,
    /// A record whose data have not the length of their kind.
    #[error("the DNS message has a broken record")]
    Record,
}

/// The question for `name`, with or without a word about EDNS.
///
/// # Errors
/// [`NameError`].
pub fn query(id: u16, name: &str, kind: Kind, edns: bool) -> Result<Vec<u8>, NameError> {
    let mut bytes = Vec::with_capacity(64);
    bytes.extend(id.to_be_bytes());
    // Recursion is desired.
    bytes.extend(0x0100u16.to_be_bytes());
    for count in [1, 0, 0, u16::from(edns)] {
        bytes.extend(count.to_be_bytes());
    }
    push_name(&mut bytes, name)?;
    bytes.extend(kind.code().to_be_bytes());
    bytes.extend(CLASS_IN.to_be_bytes());
    if edns {
        bytes.push(0);
        bytes.extend(KIND_OPT.to_be_bytes());
        bytes.extend(UDP_BYTES_MAX.to_be_bytes());
        // Version 0, no flags, no options.
        bytes.extend([0; 6]);
    }
    Ok(bytes)
}

fn push_name(bytes: &mut Vec<u8>, name: &str) -> Result<(), NameError> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if !name.is_ascii() {
        return Err(NameError::NotAscii);
    }
    if NAME_BYTES_MAX - 2 < name.len() {
        return Err(NameError::TooLong);
    }
    for label in name.split('.') {
        if label.is_empty() || LABEL_BYTES_MAX < label.len() {
            return Err(NameError::Label);
        }
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    Ok(())
}

/// An answer, as far as a client cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The number of the question.
    pub id: u16,
    /// Whether it is an answer.
    pub is_response: bool,
    /// Whether there is more than UDP could carry.
    pub is_truncated: bool,
    /// How it went: 0 well, 3 there is no such name (RFC 1035 §4.1.1).
    pub code: u8,
    /// What was asked: the name in lower case, and the number of the kind. `None` without exactly one question.
    pub question: Option<(String, u16)>,
    /// What was found.
    pub answers: Vec<Record>,
    /// Who says so; for a name without records, how long that holds.
    pub authorities: Vec<Record>,
}

/// A record of the class "internet".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose, in lower case.
    pub name: String,
    /// How long it may be kept, in seconds.
    pub ttl: u32,
    /// What it says.
    pub data: Data,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// The real name of what was asked for.
    Cname(String),
    /// The name of an address.
    Ptr(String),
    /// The head of a zone: how long the absence of a name may be kept, in seconds (RFC 2308 §4).
    Soa(u32),
    /// What we have no use for.
    Other,
}

impl Message {
    /// Reads a message.
    ///
    /// # Errors
    /// [`ParseError`]. What follows the last record that was announced is not looked at.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader { bytes, at: 0 };
        let id = reader.u16()?;
        let flags = reader.u16()?;
        let [questions, answers, authorities, _] =
            [reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?];
        let mut question = None;
        for _ in 0..questions {
            let name = reader.name()?;
            let kind = reader.u16()?;
            reader.u16()?;
            question = (questions == 1).then_some((name, kind));
        }
        Ok(Self {
            id,
            is_response: flags & 0x8000 != 0,
            is_truncated: flags & 0x0200 != 0,
            code: (flags & 0xF) as u8,
            question,
            // A message that was cut short names more records than it has.
            answers: reader.records(answers, flags & 0x0200 != 0)?,
            authorities: reader.records(authorities, flags & 0x0200 != 0)?,
        })
    }
}

/// `at <= bytes.len()`.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], ParseError> {
        let taken = self.bytes[self.at..].first_chunk().ok_or(ParseError::Short)?;
        self.at += N;
        Ok(*taken)
    }

    fn u16(&mut self) -> Result<u16, ParseError> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, ParseError> {
        self.take().map(u32::from_be_bytes)
    }

    /// A name, in lower case, without the dot at its end. Octets that are no plain characters are written `\ddd`.
    fn name(&mut self) -> Result<String, ParseError> {
        let mut text = String::new();
        let mut at = self.at;
        // Where the name goes on after the first pointer, and what a pointer must lie before.
        let (mut end, mut before) = (None, self.at);
        let mut wire_bytes = 0;
        loop {
            let length = *self.bytes.get(at).ok_or(ParseError::Short)?;
            at += 1;
            match length {
                0 => break,
                1..=63 => {
                    let label = self.bytes.get(at..at + usize::from(length));
                    push_label(&mut text, label.ok_or(ParseError::Short)?);
                    at += usize::from(length);
                    wire_bytes += usize::from(length) + 1;
                }
                // A pointer (RFC 1035 §4.1.4).
                0xC0.. => {
                    let low = *self.bytes.get(at).ok_or(ParseError::Short)?;
                    end = end.or(Some(at + 1));
                    at = usize::from(length & 0x3F) << 8 | usize::from(low);
                    if before <= at || at < HEADER_BYTES {
                        return Err(ParseError::Name);
                    }
                    before = at;
                }
                _ => return Err(ParseError::Name),
            }
            if NAME_BYTES_MAX <= wire_bytes {
                return Err(ParseError::Name);
            }
        }
        self.at = end.unwrap_or(at);
        Ok(text)
    }

    /// As many records as there are, of those announced, when it is known that the end is missing.
    fn records(&mut self, count: u16, truncated: bool) -> Result<Vec<Record>, ParseError> {
        let mut records = Vec::new();
        for _ in 0..count {
            match self.record() {
                Ok(record) => records.extend(record),
                Err(ParseError::Short) if truncated => {
                    self.at = self.bytes.len();
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(records)
    }

    fn record(&mut self) -> Result<Option<Record>, ParseError> {
        let name = self.name()?;
        let (kind, class) = (self.u16()?, self.u16()?);
        let ttl = self.u32()?;
        let length = usize::from(self.u16()?);
        let end = self.at + length;
        if self.bytes.len() < end {
            return Err(ParseError::Short);
        }
        let data = match kind {
            _ if class != CLASS_IN => Data::Other,
            1 => Data::A(Ipv4Addr::from(self.take::<4>()?)),
            28 => Data::Aaaa(Ipv6Addr::from(self.take::<16>()?)),
            5 => Data::Cname(self.name()?),
            12 => Data::Ptr(self.name()?),
            6 => {
                self.name()?;
                self.name()?;
                // Serial number, refresh, retry, expire.
                self.take::<16>()?;
                Data::Soa(self.u32()?)
            }
            _ => Data::Other,
        };
        if data != Data::Other && self.at != end {
            return Err(ParseError::Record);
        }
        self.at = end;
        // A time beyond 2^31 counts as none (RFC 2181 §8).
        let ttl = if ttl >> 31 == 0 { ttl } else { 0 };
        Ok((class == CLASS_IN).then_some(Record { name, ttl, data }))
    }
}

fn push_label(text: &mut String, label: &[u8]) {
    use std::fmt::Write;
    if !text.is_empty() {
        text.push('.');
    }
    for &octet in label {
        match octet {
            b'.' | b'\\' | 0..=32 | 127.. => {
                // Writing to a string does not fail.
                let _ = write!(text, "\\{octet:03}");
            }
            _ => text.push(char::from(octet.to_ascii_lowercase())),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(records: &[u8], count: u16) -> Vec<u8> {
        let mut bytes = query(7, "Www.Example.org", Kind::A, false).unwrap();
        bytes[2] |= 0x80;
        bytes[6..8].copy_from_slice(&count.to_be_bytes());
        bytes.extend(records);
        bytes
    }

    #[test]
    fn a_question_is_read_back() {
        let message = Message::parse(&query(258, "A.example.", Kind::Aaaa, true).unwrap()).unwrap();
        assert_eq!(message.question, Some(("a.example".into(), 28)));
        assert_eq!((message.id, message.is_response, message.code), (258, false, 0));
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        let error = |name: &str| query(0, name, Kind::A, true).unwrap_err();
        assert_eq!(error("a..b"), NameError::Label);
        assert_eq!(error(""), NameError::Label);
        assert_eq!(error(&"a".repeat(64)), NameError::Label);
        assert_eq!(error(&"a.".repeat(128)), NameError::TooLong);
        assert_eq!(error("bücher.example"), NameError::NotAscii);
        assert!(query(0, &"a.".repeat(127), Kind::A, true).is_ok());
    }

    #[test]
    fn aliases_and_addresses_are_read() {
        let mut records = vec![0xC0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 4, 1, b'X', 0xC0, 16];
        let alias_at = 12 + 17 + 4 + 12;
        records.extend([0xC0, alias_at, 0, 1, 0, 1, 0, 0, 1, 0, 0, 4, 192, 0, 2, 9]);
        // Of another class: left out.
        records.extend([0xC0, alias_at, 0, 1, 0, 3, 0, 0, 1, 0, 0, 1, 0]);
        let message = Message::parse(&answer(&records, 3)).unwrap();
        let record = |name: &str, ttl, data| Record { name: name.into(), ttl, data };
        assert_eq!(
            message.answers,
            [
                record("www.example.org", 60, Data::Cname("x.example.org".into())),
                record("x.example.org", 256, Data::A(Ipv4Addr::new(192, 0, 2, 9))),
            ]
        );
    }

    #[test]
    fn broken_messages_are_errors() {
        let check = |records: &[u8], want: ParseError| {
            assert_eq!(Message::parse(&answer(records, 1)), Err(want));
        };
        check(&[], ParseError::Short);
        // A pointer to itself, forwards, and into the header.
        let at = 12 + 17 + 4;
        check(&[0xC0, at], ParseError::Name);
        check(&[0xC0, at + 5, 0, 0, 0, 0, 0, 0], ParseError::Name);
        check(&[0xC0, 3], ParseError::Name);
        check(&[0x80, 3], ParseError::Name);
        // An address of five octets.
        check(&[0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 5, 1, 2, 3, 4, 5], ParseError::Record);
        check(&[0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 1, 2, 3], ParseError::Short);
    }

    #[test]
    fn what_was_cut_short_is_read_as_far_as_it_goes() {
        let mut bytes = answer(&[0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4, 0, 0], 2);
        assert_eq!(Message::parse(&bytes), Err(ParseError::Short));
        bytes[2] |= 2;
        assert_eq!(Message::parse(&bytes).unwrap().answers.len(), 1);
    }

    proptest! {
        #[test]
        fn anything_is_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::parse(&bytes);
        }

        #[test]
        fn damage_never_panics(
            at in any::<prop::sample::Index>(),
            octet: u8,
            cut in any::<prop::sample::Index>(),
        ) {
            let records = [0xC0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 4, 1, b'X', 0xC0, 16];
            let mut bytes = answer(&records, 1);
            let at = at.index(bytes.len());
            bytes[at] = octet;
            let cut = cut.index(bytes.len() + 1);
            if let Ok(message) = Message::parse(&bytes[..cut]) {
                prop_assert!(message.answers.iter().all(|record| record.name.len() <= 4 * 255));
            }
        }

        #[test]
        fn questions_come_back(labels in prop::collection::vec("[a-z0-9-]{1,63}", 1..4), id: u16) {
            let name = labels.join(".");
            let message = Message::parse(&query(id, &name, Kind::Ptr, true).unwrap()).unwrap();
            prop_assert_eq!(message.question, Some((name, 12)));
        }
    }
}
