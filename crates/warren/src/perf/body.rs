//! What a message carries: when it was to be sent, and with `--verify` its number.
//!
//! ```text
//! | mark 4 | time, ns u64 |                                            plain, from 12 bytes on
//! | mark 4 | time, ns u64 | run u32 | lane u32 | number u64 | crc u32 |   numbered, from 32 bytes on
//! ```
//! Big-endian; what is left of the body is `x`. The checksum (CRC32C) is over all bytes of the body, its own four as 0.

/// Bytes that a time takes; smaller bodies carry nothing.
pub(super) const TIMED_BYTES: usize = 12;
/// Bytes that a number takes.
pub(super) const NUMBERED_BYTES: usize = 32;

const TIMED_MARK: [u8; 4] = *b"wpT1";
const NUMBERED_MARK: [u8; 4] = *b"wpN1";
const CRC_AT: usize = 28;

/// Which message this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbered {
    /// Of the run that published it.
    pub(super) run: u32,
    /// Of the channel and the target it was published by and to.
    pub(super) lane: u32,
    /// Within its lane, from 0.
    pub(super) number: u64,
}

/// Writes the time into a body of `x`.
pub(super) fn stamp(body: &mut [u8], time: u64) {
    if TIMED_BYTES <= body.len() {
        body[..4].copy_from_slice(&TIMED_MARK);
        body[4..12].copy_from_slice(&time.to_be_bytes());
    }
}

/// Writes time and number into a body of at least [`NUMBERED_BYTES`], all of `x` but for its beginning.
pub(super) fn number(body: &mut [u8], time: u64, message: Numbered) {
    body[..4].copy_from_slice(&NUMBERED_MARK);
    body[4..12].copy_from_slice(&time.to_be_bytes());
    body[12..16].copy_from_slice(&message.run.to_be_bytes());
    body[16..20].copy_from_slice(&message.lane.to_be_bytes());
    body[20..28].copy_from_slice(&message.number.to_be_bytes());
    body[CRC_AT..NUMBERED_BYTES].fill(0);
    let crc = crc32c::crc32c(body);
    body[CRC_AT..NUMBERED_BYTES].copy_from_slice(&crc.to_be_bytes());
}

/// When the message was to be sent, if its body begins as ours do.
#[inline]
pub(super) fn time(body: &[u8]) -> Option<u64> {
    let (mark, rest) = body.split_first_chunk::<4>()?;
    let time = rest.first_chunk::<8>()?;
    (*mark == TIMED_MARK || *mark == NUMBERED_MARK).then(|| u64::from_be_bytes(*time))
}

/// Reads a numbered body that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct Reading {
    head: Vec<u8>,
    crc: u32,
}

impl Reading {
    /// For the next body.
    pub(super) fn clear(&mut self) {
        self.head.clear();
        self.crc = 0;
    }

    /// The next piece.
    pub(super) fn add(&mut self, mut piece: &[u8]) {
        if self.head.len() < NUMBERED_BYTES {
            let (head, rest) = piece.split_at(piece.len().min(NUMBERED_BYTES - self.head.len()));
            self.head.extend_from_slice(head);
            piece = rest;
            if self.head.len() < NUMBERED_BYTES {
                return;
            }
            self.crc = crc32c::crc32c_append(crc32c::crc32c(&self.head[..CRC_AT]), &[0; 4]);
        }
        self.crc = crc32c::crc32c_append(self.crc, piece);
    }

    /// Which message it was. `None`: none of a run with `--verify`. An error: it was damaged.
    pub(super) fn finish(&self) -> Result<Option<Numbered>, Damaged> {
        let head: &[u8; NUMBERED_BYTES] = match self.head.first_chunk() {
            Some(head) if head[..4] == NUMBERED_MARK => head,
            _ => return Ok(None),
        };
        let word =
            |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if word(CRC_AT) != self.crc {
            return Err(Damaged);
        }
        let number = u64::from(word(20)) << 32 | u64::from(word(24));
        Ok(Some(Numbered { run: word(12), lane: word(16), number }))
    }
}

/// The checksum of a body is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damaged;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &[u8], piece: usize) -> Result<Option<Numbered>, Damaged> {
        let mut reading = Reading::default();
        reading.clear();
        body.chunks(piece).for_each(|piece| reading.add(piece));
        reading.finish()
    }

    #[test]
    fn what_was_written_is_read_in_any_pieces() {
        for length in [32, 33, 100, 5000] {
            let mut body = vec![b'x'; length];
            let message = Numbered { run: 1, lane: 2, number: 3 << 33 };
            number(&mut body, 77, message);
            assert_eq!(time(&body), Some(77));
            for piece in [1, 7, 31, 32, 33, length] {
                assert_eq!(read(&body, piece), Ok(Some(message)));
            }
            for at in 4..length {
                body[at] ^= 1;
                assert_eq!(read(&body, length), Err(Damaged), "byte {at} of {length}");
                body[at] ^= 1;
            }
        }
    }

    #[test]
    fn other_peoples_bodies_are_no_messages_of_ours() {
        for body in [&b""[..], b"short", &[b'x'; 40]] {
            assert_eq!((time(body), read(body, 40)), (None, Ok(None)));
        }
        let mut timed = vec![b'x'; TIMED_BYTES];
        stamp(&mut timed, 5);
        assert_eq!((time(&timed), read(&timed, 40)), (Some(5), Ok(None)));
    }
}
