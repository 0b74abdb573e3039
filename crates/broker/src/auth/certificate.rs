//! Whose a client's certificate is: the name in it that is a user's, for SASL EXTERNAL.
//!
//! ```text
//! Certificate  { tbs { [0] version, serial, algorithm, issuer, validity, SUBJECT, key, ..., [3] EXTENSIONS }, ... }
//! subject      { { { type, value } + ... }, ... }             a name: RFC 5280 §4.1.2.4
//! extension    { 2.5.29.17, critical, { [1] mail, [2] host, [6] URI, [7] address, ... } }    §4.2.1.6
//! ```
//! Certificates come here after TLS has checked them: what is read is two fields of something well formed. Anything else
//! is no name.

use std::net::IpAddr;
use std::str::FromStr;

/// Which name in a client's certificate is the user's: RabbitMQ's `ssl_cert_login_from`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CertLogin {
    /// The whole name of the subject, as RFC 4514 writes it: `CN=client,O=example`.
    #[default]
    DistinguishedName,
    /// What it is called in it: `client`. Several are joined by commas.
    CommonName,
    /// One of its other names.
    SubjectAlternativeName {
        /// Of this kind.
        kind: SanType,
        /// Those before it, of that kind.
        index: usize,
    },
}

/// A kind of other names: RabbitMQ's `ssl_cert_login_san_type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SanType {
    /// A host.
    #[default]
    Dns,
    /// An address of the network.
    Ip,
    /// An address for mail.
    Email,
    /// A URI.
    Uri,
}

impl FromStr for SanType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "dns" => Ok(Self::Dns),
            "ip" => Ok(Self::Ip),
            "email" => Ok(Self::Email),
            "uri" => Ok(Self::Uri),
            _ => Err(format!("'{text}' is no kind of names: use dns, ip, email or uri")),
        }
    }
}

impl CertLogin {
    /// The user whose certificate this is, in DER. `None`: it has no such name.
    pub(crate) fn user(self, certificate: &[u8]) -> Option<String> {
        let (subject, extensions) = fields(certificate)?;
        match self {
            Self::DistinguishedName => distinguished_name(subject),
            Self::CommonName => {
                let names: Vec<String> = attributes(subject)?
                    .into_iter()
                    .flatten()
                    .filter(|(kind, _)| *kind == COMMON_NAME)
                    .map(|(_, value)| String::from_utf8(value).ok())
                    .collect::<Option<_>>()?;
                (!names.is_empty()).then(|| names.join(","))
            }
            Self::SubjectAlternativeName { kind, index } => {
                alternative_names(extensions?, kind)?.into_iter().nth(index)
            }
        }
    }
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT: u8 = 0x06;
const OCTETS: u8 = 0x04;
const BOOLEAN: u8 = 0x01;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;

const COMMON_NAME: &[u8] = b"\x55\x04\x03";
const ALTERNATIVE_NAMES: &[u8] = b"\x55\x1d\x11";

/// What RabbitMQ calls the parts of a name.
const NAMES: &[(&[u8], &str)] = &[
    (b"\x55\x04\x04", "SN"),
    (b"\x55\x04\x2a", "GIVENNAME"),
    (b"\x55\x04\x2b", "INITIALS"),
    (b"\x55\x04\x2c", "GENERATIONQUALIFIER"),
    (COMMON_NAME, "CN"),
    (b"\x55\x04\x07", "L"),
    (b"\x55\x04\x08", "ST"),
    (b"\x55\x04\x0a", "O"),
    (b"\x55\x04\x0b", "OU"),
    (b"\x55\x04\x0c", "TITLE"),
    (b"\x55\x04\x06", "C"),
    (b"\x55\x04\x05", "SERIALNUMBER"),
    (b"\x55\x04\x41", "PSEUDONYM"),
    (b"\x09\x92\x26\x89\x93\xf2\x2c\x64\x01\x19", "DC"),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x01", "EMAILADDRESS"),
    (b"\x09\x92\x26\x89\x93\xf2\x2c\x64\x01\x01", "UID"),
];

/// Values in DER, one after the other.
#[derive(Clone, Copy)]
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The tag and the content of the next. `None`: nothing is left, or it is malformed.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, first], rest) = self.0.split_first_chunk::<2>()?;
        // Tags of several octets do not occur in a certificate.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // So many octets have the length.
            0x81..=0x84 => {
                let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let length =
                    octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet));
                (length, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The content of the next, which has this tag.
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }

    /// All of them; `None` when one is malformed.
    fn all(mut self, tag: u8) -> Option<Vec<Der<'a>>> {
        let mut all = Vec::new();
        while !self.0.is_empty() {
            all.push(Der(self.expect(tag)?));
        }
        Some(all)
    }
}

/// The subject's name and the extensions.
fn fields(certificate: &[u8]) -> Option<(Der<'_>, Option<Der<'_>>)> {
    let mut certificate = Der(Der(certificate).expect(SEQUENCE)?);
    let mut tbs = Der(certificate.expect(SEQUENCE)?);
    // Of the first version none.
    if tbs.0.first() == Some(&VERSION) {
        tbs.next()?;
    }
    // The serial number, the algorithm, the issuer, the validity.
    for _ in 0..4 {
        tbs.next()?;
    }
    let subject = Der(tbs.expect(SEQUENCE)?);
    // The key, and two that nobody has.
    let extensions = std::iter::from_fn(|| tbs.next()).find(|(tag, _)| *tag == EXTENSIONS);
    let extensions = match extensions {
        Some((_, content)) => Some(Der(Der(content).expect(SEQUENCE)?)),
        None => None,
    };
    Some((subject, extensions))
}

/// A type and a value.
type Attribute<'a> = (&'a [u8], Vec<u8>);

/// A name, part by part.
fn attributes(name: Der<'_>) -> Option<Vec<Vec<Attribute<'_>>>> {
    fn part(part: Der<'_>) -> Option<Vec<Attribute<'_>>> {
        part.all(SEQUENCE)?.into_iter().map(attribute).collect()
    }
    fn attribute(mut pair: Der<'_>) -> Option<Attribute<'_>> {
        let kind = pair.expect(OBJECT)?;
        let (tag, value) = pair.next()?;
        Some((kind, text(tag, value)?))
    }
    name.all(SET)?.into_iter().map(part).collect()
}

/// A text's octets, in UTF-8 where it is one of more than octets.
fn text(tag: u8, value: &[u8]) -> Option<Vec<u8>> {
    const NUMERIC: u8 = 0x12;
    const PRINTABLE: u8 = 0x13;
    const TELETEX: u8 = 0x14;
    const IA5: u8 = 0x16;
    const UTF8: u8 = 0x0c;
    const UNIVERSAL: u8 = 0x1c;
    const BMP: u8 = 0x1e;
    match tag {
        NUMERIC | PRINTABLE | IA5 | UTF8 => Some(value.to_vec()),
        // Taken for Latin 1.
        TELETEX => Some(value.iter().map(|octet| char::from(*octet)).collect::<String>().into()),
        BMP => {
            let (units, []) = value.as_chunks::<2>() else { return None };
            let units: Vec<u16> = units.iter().map(|unit| u16::from_be_bytes(*unit)).collect();
            Some(String::from_utf16(&units).ok()?.into_bytes())
        }
        UNIVERSAL => {
            let (units, []) = value.as_chunks::<4>() else { return None };
            let letters = units.iter().map(|unit| char::from_u32(u32::from_be_bytes(*unit)));
            Some(letters.collect::<Option<String>>()?.into_bytes())
        }
        _ => None,
    }
}

/// RFC 4514: the last part first.
fn distinguished_name(subject: Der<'_>) -> Option<String> {
    let parts = attributes(subject)?.into_iter().rev().map(|part| {
        let part: Vec<String> = part
            .into_iter()
            .map(|(kind, value)| format!("{}={}", kind_name(kind), escaped(&value)))
            .collect();
        part.join("+")
    });
    Some(parts.collect::<Vec<_>>().join(","))
}

fn kind_name(kind: &[u8]) -> String {
    match NAMES.iter().find(|(other, _)| *other == kind) {
        Some((_, name)) => (*name).into(),
        None => dotted(kind),
    }
}

/// An object's numbers, seven bits an octet; the first two share one.
fn dotted(object: &[u8]) -> String {
    let mut numbers = Vec::new();
    let mut number: u128 = 0;
    for octet in object {
        number = number << 7 | u128::from(octet & 0x7f);
        if octet & 0x80 == 0 {
            numbers.push(number);
            number = 0;
        }
    }
    let mut text = match numbers.first() {
        Some(first @ 0..80) => format!("{}.{}", first / 40, first % 40),
        Some(first) => format!("2.{}", first - 80),
        None => String::new(),
    };
    for number in numbers.iter().skip(1) {
        text.push_str(&format!(".{number}"));
    }
    text
}

/// RFC 4514 §2.4, and as RabbitMQ does everything in numbers that is no plain letter.
fn escaped(value: &[u8]) -> String {
    let mut text = String::new();
    for (index, octet) in value.iter().enumerate() {
        let last = index + 1 == value.len();
        match octet {
            b' ' | b'#' if index == 0 => text.extend(['\\', char::from(*octet)]),
            b' ' if last => text.push_str("\\ "),
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => {
                text.extend(['\\', char::from(*octet)]);
            }
            32..126 => text.push(char::from(*octet)),
            other => text.push_str(&format!("\\{other:02X}")),
        }
    }
    text
}

fn alternative_names(extensions: Der<'_>, kind: SanType) -> Option<Vec<String>> {
    for mut extension in extensions.all(SEQUENCE)? {
        if extension.expect(OBJECT)? != ALTERNATIVE_NAMES {
            continue;
        }
        if extension.0.first() == Some(&BOOLEAN) {
            extension.next()?;
        }
        let mut names = Der(Der(extension.expect(OCTETS)?).expect(SEQUENCE)?);
        let mut found = Vec::new();
        while !names.0.is_empty() {
            let (tag, value) = names.next()?;
            let letters = || String::from_utf8(value.to_vec()).ok();
            match (kind, tag) {
                (SanType::Email, 0x81) | (SanType::Dns, 0x82) | (SanType::Uri, 0x86) => {
                    found.push(letters()?);
                }
                (SanType::Ip, 0x87) => found.push(address(value)?),
                _ => {}
            }
        }
        return Some(found);
    }
    None
}

fn address(octets: &[u8]) -> Option<String> {
    let address: IpAddr = match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok()?.into(),
        _ => <[u8; 16]>::try_from(octets).ok()?.into(),
    };
    Some(address.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, SanType as San};

    use super::{CertLogin, Der, SanType, dotted};

    fn certificate(name: DistinguishedName, others: Vec<San>) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = name;
        params.subject_alt_names = others;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn name(parts: &[(DnType, &str)]) -> DistinguishedName {
        let mut name = DistinguishedName::new();
        for (kind, value) in parts {
            name.push(kind.clone(), *value);
        }
        name
    }

    fn other(kind: SanType, index: usize) -> CertLogin {
        CertLogin::SubjectAlternativeName { kind, index }
    }

    #[test]
    fn the_subject_is_written_as_rabbitmq_writes_it() {
        let of = |parts: &[(DnType, &str)], from: CertLogin| {
            from.user(&certificate(name(parts), vec![]))
        };
        let whole = |parts: &[(DnType, &str)]| of(parts, CertLogin::DistinguishedName);
        let parts = [
            (DnType::CountryName, "DE"),
            (DnType::OrganizationName, "Acme, Inc."),
            (DnType::OrganizationalUnitName, "R+D"),
            (DnType::CommonName, "client"),
        ];
        assert_eq!(whole(&parts).as_deref(), Some("CN=client,OU=R\\+D,O=Acme\\, Inc.,C=DE"));
        assert_eq!(of(&parts, CertLogin::CommonName).as_deref(), Some("client"));
        for (value, written) in [
            (" a ", "CN=\\ a\\ "),
            ("#1", "CN=\\#1"),
            ("a\"<>;\\", "CN=a\\\"\\<\\>\\;\\\\"),
            ("ä~", "CN=\\C3\\A4\\7E"),
        ] {
            assert_eq!(whole(&[(DnType::CommonName, value)]).as_deref(), Some(written));
            assert_eq!(
                of(&[(DnType::CommonName, value)], CertLogin::CommonName).as_deref(),
                Some(value)
            );
        }
        let odd = DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 311, 60, 2, 1, 3]);
        assert_eq!(whole(&[(odd, "x")]).as_deref(), Some("1.3.6.1.4.1.311.60.2.1.3=x"));
        let mut wide = DistinguishedName::new();
        let value = rcgen::string::BmpString::try_from("grün").unwrap();
        wide.push(DnType::CommonName, DnValue::BmpString(value));
        let wide = certificate(wide, vec![]);
        assert_eq!(CertLogin::CommonName.user(&wide).as_deref(), Some("grün"));
        let nothing = certificate(DistinguishedName::new(), vec![]);
        assert_eq!(CertLogin::DistinguishedName.user(&nothing).as_deref(), Some(""));
        assert_eq!(CertLogin::CommonName.user(&nothing), None);
    }

    #[test]
    fn other_names_are_found_by_kind_and_place() {
        let others = vec![
            San::DnsName("one.example".try_into().unwrap()),
            San::Rfc822Name("ann@example.com".try_into().unwrap()),
            San::DnsName("two.example".try_into().unwrap()),
            San::IpAddress("192.0.2.1".parse().unwrap()),
            San::IpAddress("2001:db8::1".parse().unwrap()),
            San::URI("spiffe://example/ann".try_into().unwrap()),
        ];
        let certificate = certificate(name(&[(DnType::CommonName, "x")]), others);
        for (from, want) in [
            (other(SanType::Dns, 0), Some("one.example")),
            (other(SanType::Dns, 1), Some("two.example")),
            (other(SanType::Dns, 2), None),
            (other(SanType::Email, 0), Some("ann@example.com")),
            (other(SanType::Ip, 0), Some("192.0.2.1")),
            (other(SanType::Ip, 1), Some("2001:db8::1")),
            (other(SanType::Uri, 0), Some("spiffe://example/ann")),
        ] {
            assert_eq!(from.user(&certificate).as_deref(), want, "{from:?}");
        }
        let plain = super::tests::certificate(name(&[(DnType::CommonName, "x")]), vec![]);
        assert_eq!(other(SanType::Dns, 0).user(&plain), None);
    }

    #[test]
    fn lengths_are_those_of_der() {
        assert_eq!(Der(b"\x04\x81\x01x").expect(super::OCTETS), Some(&b"x"[..]));
        for bad in
            [&b"\x04"[..], b"\x04\x01", b"\x04\x80x\0\0", b"\x04\x85\0\0\0\0\x01x", b"\x1f\x01x"]
        {
            assert_eq!(Der(bad).next(), None, "{bad:?}");
        }
        assert_eq!(dotted(b"\x88\x37\x03"), "2.999.3");
    }

    proptest! {
        #[test]
        fn any_octets_have_a_name_or_none(
            octets in prop::collection::vec(any::<u8>(), 0..200),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        ) {
            thread_local! {
                static GOOD: Vec<u8> = certificate(
                    name(&[(DnType::CountryName, "DE"), (DnType::CommonName, "x")]),
                    vec![San::DnsName("one.example".try_into().unwrap())],
                );
            }
            let mut changed = GOOD.with(Clone::clone);
            for (at, octet) in changes {
                let at = at.index(changed.len());
                changed[at] = octet;
            }
            for from in [CertLogin::DistinguishedName, CertLogin::CommonName, other(SanType::Dns, 0), other(SanType::Ip, 0)] {
                let _ = from.user(&octets);
                let _ = from.user(&changed);
            }
        }
    }
}
