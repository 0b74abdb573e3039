//! Bytes of a known number, cut out of a stream that comes in pieces.

use std::borrow::Cow;

/// Memory taken on a peer's word that so many bytes will come. Beyond it, what has come is doubled.
const RESERVED_BYTES_MAX: usize = 64 * 1024;

/// What has come of a body that is not whole yet; empty between bodies.
#[derive(Default)]
pub(super) struct Body(Vec<u8>);

impl Body {
    /// The next `length` bytes, once they are there: cut from the front of `rest`, without a copy when all of them
    /// lie in it. Until then it takes all of `rest`. `length` stays the same from call to call until then.
    pub(super) fn next<'a>(&mut self, rest: &mut &'a [u8], length: usize) -> Option<Cow<'a, [u8]>> {
        if self.0.is_empty()
            && let Some((whole, after)) = rest.split_at_checked(length)
        {
            *rest = after;
            return Some(Cow::Borrowed(whole));
        }
        let missing = length - self.0.len();
        let (piece, after) = rest.split_at(missing.min(rest.len()));
        if self.0.capacity() < self.0.len() + piece.len() {
            let likely = RESERVED_BYTES_MAX.max(self.0.len()).max(piece.len());
            self.0.reserve_exact(missing.min(likely));
        }
        self.0.extend_from_slice(piece);
        *rest = after;
        (piece.len() == missing).then(|| Cow::Owned(std::mem::take(&mut self.0)))
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::{Body, RESERVED_BYTES_MAX};

    #[test]
    fn what_lies_whole_in_a_piece_is_borrowed() {
        let mut rest = &b"abcdef"[..];
        let mut body = Body::default();
        assert!(matches!(body.next(&mut rest, 3), Some(Cow::Borrowed(b"abc"))));
        assert!(matches!(body.next(&mut rest, 0), Some(Cow::Borrowed(b""))));
        assert!(matches!(body.next(&mut rest, 3), Some(Cow::Borrowed(b"def"))));
        assert!(body.next(&mut rest, 1).is_none());
    }

    #[test]
    fn pieces_are_put_together_and_the_memory_is_given_back() {
        let mut body = Body::default();
        assert!(body.next(&mut &b"ab"[..], 5).is_none());
        assert!(body.next(&mut &b""[..], 5).is_none());
        let mut rest = &b"cdefg"[..];
        assert_eq!(body.next(&mut rest, 5).unwrap(), &b"abcde"[..]);
        assert_eq!((rest, body.0.capacity()), (&b"fg"[..], 0));
    }

    #[test]
    fn memory_grows_with_what_has_come_and_not_with_what_was_announced() {
        let mut body = Body::default();
        assert!(body.next(&mut &b"x"[..], 1 << 40).is_none());
        assert_eq!(body.0.capacity(), RESERVED_BYTES_MAX);
        let piece = vec![0; 1000];
        for _ in 0..1000 {
            assert!(body.next(&mut &piece[..], 1 << 40).is_none());
            assert!(body.0.capacity() <= RESERVED_BYTES_MAX.max(3 * body.0.len()));
        }
    }
}
