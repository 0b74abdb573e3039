//! How records stand in our files: size, checksum, payload.
//!
//! ```text
//! | size u32 | crc32c u32 of the payload | payload, `size` octets |        integers: little-endian
//! ```

/// Octets before a payload.
pub const HEADER_BYTES: usize = 8;
/// No payload is larger: what says so is damaged. A body is at most 512 MiB, and there are properties besides.
pub const PAYLOAD_BYTES_MAX: usize = 544 * 1024 * 1024;

/// What stands at the start of some bytes of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Framed<'a> {
    /// A payload whose checksum is right, and how many bytes it takes with its header.
    Payload(&'a [u8], usize),
    /// Bytes that end within the record, or that are none.
    Unfinished,
    /// The checksum is wrong; how many bytes the record says it takes.
    Damaged(usize),
}

/// Reads the frame at the start of `bytes`. Never panics, whatever they are.
pub(crate) fn unframe(bytes: &[u8]) -> Framed<'_> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Framed::Unfinished;
    };
    let [s0, s1, s2, s3, c0, c1, c2, c3] = *header;
    let size = u32::from_le_bytes([s0, s1, s2, s3]) as usize;
    if size > PAYLOAD_BYTES_MAX {
        return Framed::Unfinished;
    }
    let Some(payload) = rest.get(..size) else { return Framed::Unfinished };
    let total = HEADER_BYTES + size;
    // No payload is empty; a run of zeros, as some file systems leave after a crash, would pass otherwise.
    if size == 0 || crc32c::crc32c(payload) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Framed::Damaged(total);
    }
    Framed::Payload(payload, total)
}

/// Leaves room for a header; where the payload begins.
pub(crate) fn begin(out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(&[0; HEADER_BYTES]);
    out.len()
}

/// Fills in the header of the payload that began at `payload_at`.
pub(crate) fn end(out: &mut [u8], payload_at: usize) {
    let payload = &out[payload_at..];
    let (size, crc) = ((payload.len() as u32).to_le_bytes(), crc32c::crc32c(payload).to_le_bytes());
    out[payload_at - 8..payload_at - 4].copy_from_slice(&size);
    out[payload_at - 4..payload_at].copy_from_slice(&crc);
}

/// Appends a text of at most 255 octets, as short strings of the protocol are.
pub(crate) fn put_short_str(out: &mut Vec<u8>, text: &str) {
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

/// Appends octets with their number in front.
pub(crate) fn put_octets(out: &mut Vec<u8>, octets: &[u8]) {
    out.extend_from_slice(&(octets.len() as u32).to_le_bytes());
    out.extend_from_slice(octets);
}

/// Reads a payload from its start.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    pub(crate) fn short_str(&mut self) -> Option<&'a str> {
        let size = self.u8()?;
        std::str::from_utf8(self.take(size.into())?).ok()
    }

    pub(crate) fn octets(&mut self) -> Option<&'a [u8]> {
        let size = self.u32()? as usize;
        self.take(size)
    }
}

/// Appends a number, seven bits an octet, the lowest first; the highest bit says that more follow.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while 0x80 <= number {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a difference, small ones of either sign as small numbers.
pub(crate) fn put_signed(out: &mut Vec<u8>, number: i64) {
    put_varint(out, ((number << 1) ^ (number >> 63)) as u64);
}

impl Reader<'_> {
    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let octet = self.u8()?;
            let bits = u64::from(octet & 0x7f);
            if shift == 63 && 1 < bits {
                return None;
            }
            number |= bits << shift;
            if octet < 0x80 {
                // Written in as few octets as it takes, or it is not what we write.
                return (octet != 0 || shift == 0).then_some(number);
            }
        }
        None
    }

    pub(crate) fn signed(&mut self) -> Option<i64> {
        let number = self.varint()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }
}
