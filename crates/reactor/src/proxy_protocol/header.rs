//! The header itself, in both of its versions. No sockets.
//!
//! ```text
//! 1   PROXY TCP4 192.0.2.1 198.51.100.1 56324 5672\r\n      at most 107 octets; TCP6 alike; UNKNOWN and anything
//! 2   | \r\n\r\n\0\r\nQUIT\n | version, command u8 | family, kind u8 | size u16 | addresses, ports, more of `size` octets |
//! ```
//! What a proxy adds in the second version (its TLVs) is read over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use thiserror::Error;

/// How the second version begins: what no other protocol begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const FIRST: &[u8] = b"PROXY ";
/// §2.1 of the specification: a line is no longer, its end included.
const LINE_BYTES_MAX: usize = 107;
/// Octets of the second version before the addresses.
const FIXED_BYTES: usize = 16;
/// The two bytes of its commands.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// What a proxy tells of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// Nothing: it speaks for itself, or does not know, or the client came by something else than TCP. The
    /// connection is taken for the proxy's own.
    Direct,
    /// Somebody has connected to the proxy.
    Proxied {
        /// The client.
        source: SocketAddr,
        /// Where it has connected to.
        destination: SocketAddr,
    },
}

/// What is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProxyHeaderError {
    /// It begins as neither version does.
    #[error(
        "the connection does not begin with a PROXY header: the proxy has to be told to send one"
    )]
    Missing,
    /// A line without an end.
    #[error("the PROXY line has no end within {LINE_BYTES_MAX} octets")]
    LongLine,
    /// A line that is none.
    #[error(
        "the PROXY line is malformed: it should be PROXY TCP4 or TCP6, two addresses, two ports"
    )]
    BadLine,
    /// Another version or command.
    #[error("the PROXY header has version and command {0:#04x}; 0x20 and 0x21 are known")]
    BadCommand(u8),
    /// Addresses that do not fit.
    #[error("the PROXY header has {got} octets of addresses; {want} are needed")]
    ShortAddresses {
        /// What it announces.
        got: usize,
        /// What its family takes.
        want: usize,
    },
    /// More than is wanted to be kept of it.
    #[error("the PROXY header has {got} octets; at most {} are taken", ProxyHeader::BYTES_MAX)]
    TooLong {
        /// What it announces.
        got: usize,
    },
}

impl ProxyHeader {
    /// The longest header that is taken, in octets: addresses take 52 of them, certificates of clients some thousands.
    pub const BYTES_MAX: usize = 16 * 1024;

    /// Reads the header that `bytes` begin with, and how many octets it has. `None`: it has not come whole.
    ///
    /// ```
    /// use warren_reactor::proxy_protocol::ProxyHeader;
    ///
    /// let line = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 5672\r\n";
    /// let (header, count) = ProxyHeader::parse(line)?.expect("a whole header");
    /// let source = "192.0.2.1:56324".parse().unwrap();
    /// assert!(matches!(header, ProxyHeader::Proxied { source: found, .. } if found == source));
    /// assert_eq!(count, line.len());
    /// # Ok::<(), warren_reactor::proxy_protocol::ProxyHeaderError>(())
    /// ```
    ///
    /// # Errors
    /// As soon as it is clear that this is none.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, ProxyHeaderError> {
        let begins = |with: &[u8]| {
            let common = with.len().min(bytes.len());
            with[..common] == bytes[..common]
        };
        match () {
            () if begins(SIGNATURE) => binary(bytes),
            () if begins(FIRST) => line(bytes),
            () => Err(ProxyHeaderError::Missing),
        }
    }
}

fn line(bytes: &[u8]) -> Result<Option<(ProxyHeader, usize)>, ProxyHeaderError> {
    let seen = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = seen.windows(2).position(|pair| pair == b"\r\n") else {
        return match seen.len() {
            LINE_BYTES_MAX => Err(ProxyHeaderError::LongLine),
            _ => Ok(None),
        };
    };
    let text = std::str::from_utf8(&seen[..end]).map_err(|_| ProxyHeaderError::BadLine)?;
    let mut words = text.split(' ').skip(1);
    let header = match words.next() {
        // Whatever follows.
        Some("UNKNOWN") => Some(ProxyHeader::Direct),
        Some("TCP4") => addresses::<Ipv4Addr>(words),
        Some("TCP6") => addresses::<Ipv6Addr>(words),
        _ => None,
    };
    Ok(Some((header.ok_or(ProxyHeaderError::BadLine)?, end + 2)))
}

fn addresses<'a, A: FromStr + Into<IpAddr>>(
    mut words: impl Iterator<Item = &'a str>,
) -> Option<ProxyHeader> {
    let mut address = || Some(words.next()?.parse::<A>().ok()?.into());
    let (source, destination) = (address()?, address()?);
    let mut port = || {
        let text = words.next()?;
        // Rust's numbers may begin with a plus or with zeros, these may not.
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        (plain && (text == "0" || !text.starts_with('0'))).then(|| text.parse().ok())?
    };
    let header = ProxyHeader::Proxied {
        source: SocketAddr::new(source, port()?),
        destination: SocketAddr::new(destination, port()?),
    };
    words.next().is_none().then_some(header)
}

fn binary(bytes: &[u8]) -> Result<Option<(ProxyHeader, usize)>, ProxyHeaderError> {
    // As soon as it is there.
    match bytes.get(SIGNATURE.len()) {
        Some(&(LOCAL | PROXY)) | None => {}
        Some(&other) => return Err(ProxyHeaderError::BadCommand(other)),
    }
    let Some(&[.., command, family, s0, s1]) = bytes.first_chunk::<FIXED_BYTES>() else {
        return Ok(None);
    };
    let size = usize::from(u16::from_be_bytes([s0, s1]));
    let total = FIXED_BYTES + size;
    if ProxyHeader::BYTES_MAX < total {
        return Err(ProxyHeaderError::TooLong { got: total });
    }
    let want = match (command, family) {
        (PROXY, TCP4) => 12,
        (PROXY, TCP6) => 36,
        _ => 0,
    };
    if size < want {
        return Err(ProxyHeaderError::ShortAddresses { got: size, want });
    }
    let Some(rest) = bytes.get(FIXED_BYTES..total) else { return Ok(None) };
    let header = match want {
        12 => proxied::<4, Ipv4Addr>(rest),
        36 => proxied::<16, Ipv6Addr>(rest),
        _ => Some(ProxyHeader::Direct),
    };
    let header = header.ok_or(ProxyHeaderError::ShortAddresses { got: size, want })?;
    Ok(Some((header, total)))
}

/// Two addresses, then two ports.
fn proxied<const N: usize, A: From<[u8; N]> + Into<IpAddr>>(bytes: &[u8]) -> Option<ProxyHeader> {
    let (source, rest) = bytes.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (source_port, rest) = rest.split_first_chunk::<2>()?;
    let destination_port = rest.first_chunk::<2>()?;
    let addr = |address: &[u8; N], port: &[u8; 2]| {
        SocketAddr::new(A::from(*address).into(), u16::from_be_bytes(*port))
    };
    Some(ProxyHeader::Proxied {
        source: addr(source, source_port),
        destination: addr(destination, destination_port),
    })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::{FIXED_BYTES, ProxyHeader, ProxyHeaderError, SIGNATURE};

    /// The second version.
    fn binary(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let size = u16::try_from(payload.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &size, payload].concat()
    }

    fn payload(source: SocketAddr, destination: SocketAddr) -> (u8, Vec<u8>) {
        let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
        match (source, destination) {
            (SocketAddr::V4(one), SocketAddr::V4(other)) => {
                (0x11, [&one.ip().octets()[..], &other.ip().octets(), &ports].concat())
            }
            (SocketAddr::V6(one), SocketAddr::V6(other)) => {
                (0x21, [&one.ip().octets()[..], &other.ip().octets(), &ports].concat())
            }
            _ => panic!("of two families"),
        }
    }

    fn proxied(source: &str, destination: &str) -> ProxyHeader {
        ProxyHeader::Proxied {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        }
    }

    #[track_caller]
    fn check(bytes: &[u8], want: Result<ProxyHeader, ProxyHeaderError>) {
        let got = ProxyHeader::parse(bytes);
        match want {
            Ok(header) => {
                assert_eq!(got, Ok(Some((header, bytes.len()))));
                for end in 0..bytes.len() {
                    assert_eq!(ProxyHeader::parse(&bytes[..end]), Ok(None), "{end} octets");
                }
                let more = [bytes, b"AMQP"].concat();
                assert_eq!(ProxyHeader::parse(&more), Ok(Some((header, bytes.len()))));
            }
            Err(error) => assert_eq!(got, Err(error)),
        }
    }

    #[test]
    fn lines() {
        let line = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 5672\r\n";
        check(line, Ok(proxied("192.0.2.1:56324", "198.51.100.1:5672")));
        let line = b"PROXY TCP6 2001:db8::1 ::1 65535 0\r\n";
        check(line, Ok(proxied("[2001:db8::1]:65535", "[::1]:0")));
        check(b"PROXY UNKNOWN\r\n", Ok(ProxyHeader::Direct));
        check(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", Ok(ProxyHeader::Direct));
        for bad in [
            &b"PROXY \r\n"[..],
            b"PROXY TCP5 192.0.2.1 198.51.100.1 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 1\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2 3\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 1 65536\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 1 +2\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 01 2\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP4  192.0.2.1 198.51.100.1 1 2\r\n",
            b"PROXY \xff\xfe\r\n",
        ] {
            check(bad, Err(ProxyHeaderError::BadLine));
        }
        check(&[b"PROXY UNKNOWN ", &[b'x'; 100][..]].concat(), Err(ProxyHeaderError::LongLine));
        for other in [&b"AMQP\0\0\x09\x01"[..], b"PROXX", b"GET / HTTP/1.1", b"\r\n\r\n\0\r\nQUIX"]
        {
            check(other, Err(ProxyHeaderError::Missing));
        }
    }

    #[test]
    fn octets() {
        let (source, destination) = ("192.0.2.1:56324", "198.51.100.1:5672");
        let (family, addresses) = payload(source.parse().unwrap(), destination.parse().unwrap());
        check(&binary(0x21, family, &addresses), Ok(proxied(source, destination)));
        let more = [&addresses[..], b"\x04\0\x01x"].concat();
        check(&binary(0x21, family, &more), Ok(proxied(source, destination)));
        check(&binary(0x20, family, &addresses), Ok(ProxyHeader::Direct));
        check(&binary(0x20, 0, b""), Ok(ProxyHeader::Direct));
        // Unix sockets and datagrams.
        check(&binary(0x21, 0x31, &[0; 216]), Ok(ProxyHeader::Direct));
        check(&binary(0x21, 0x12, &addresses), Ok(ProxyHeader::Direct));
        check(&binary(0x22, family, &addresses), Err(ProxyHeaderError::BadCommand(0x22)));
        check(&binary(0x11, family, &addresses), Err(ProxyHeaderError::BadCommand(0x11)));
        let short = ProxyHeaderError::ShortAddresses { got: 11, want: 12 };
        check(&binary(0x21, family, &addresses[..11]), Err(short));
        let long = binary(0x21, family, &vec![0; ProxyHeader::BYTES_MAX]);
        let got = FIXED_BYTES + ProxyHeader::BYTES_MAX;
        check(&long, Err(ProxyHeaderError::TooLong { got }));
    }

    fn addr() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
        prop_oneof![
            any::<([u8; 4], [u8; 4], u16, u16)>().prop_map(|(one, other, p, q)| {
                (SocketAddr::new(one.into(), p), SocketAddr::new(other.into(), q))
            }),
            any::<([u8; 16], [u8; 16], u16, u16)>().prop_map(|(one, other, p, q)| {
                (SocketAddr::new(one.into(), p), SocketAddr::new(other.into(), q))
            }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            (source, destination) in addr(), tlvs in prop::collection::vec(any::<u8>(), 0..64), rest in any::<Vec<u8>>()
        ) {
            let header = ProxyHeader::Proxied { source, destination };
            let name = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (ip, other) = (source.ip(), destination.ip());
            let line = format!("PROXY {name} {ip} {other} {} {}\r\n", source.port(), destination.port());
            let (family, addresses) = payload(source, destination);
            for bytes in [line.into_bytes(), binary(0x21, family, &[addresses, tlvs].concat())] {
                let whole = [&bytes[..], &rest].concat();
                prop_assert_eq!(ProxyHeader::parse(&whole), Ok(Some((header, bytes.len()))));
            }
        }

        #[test]
        fn any_octets_are_a_header_or_none(bytes in prop::collection::vec(any::<u8>(), 0..300), signed in any::<bool>()) {
            let bytes = if signed { [&SIGNATURE[..], &bytes].concat() } else { bytes };
            if let Ok(Some((_, count))) = ProxyHeader::parse(&bytes) {
                prop_assert!(count <= bytes.len() && count <= ProxyHeader::BYTES_MAX);
                // Nothing behind it matters.
                prop_assert_eq!(ProxyHeader::parse(&bytes[..count]), ProxyHeader::parse(&bytes));
            }
        }
    }
}
