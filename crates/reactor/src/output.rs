//! Bytes on their way out of one connection.
//!
//! ```text
//!   pieces: [ owned | shared | owned ]  tail: being appended to
//!             ^ head: bytes of the first piece already gone
//! ```
//! Small writes are appended to `tail`. A large shared body is queued as it is, without a copy. What has been
//! drained goes back to a pool of the thread, so an idle connection holds no buffer.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::Bytes;

/// Below this, copying a shared body costs less than a slice of its own in `writev`.
const SHARE_BYTES_MIN: usize = 4 * 1024;
/// A buffer that has grown beyond this is given back to the allocator, not to the pool.
const POOLED_BYTES_MAX: usize = 512 * 1024;
/// Buffers the pool of a thread keeps.
const POOLED_BUFFERS_MAX: usize = 64;
/// Slices handed to one `writev`.
pub(crate) const SLICES_MAX: usize = 32;

thread_local! {
    static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes that lie together.
pub(crate) enum Piece {
    Owned(Vec<u8>),
    Shared(Bytes),
}

impl Piece {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

/// The queue of one transport.
#[derive(Default)]
pub(crate) struct Output {
    pieces: VecDeque<Piece>,
    tail: Vec<u8>,
    /// Bytes already gone of the first piece, or of `tail` when there is none.
    head: usize,
    /// Bytes of all pieces together, without `tail` and without regard to `head`.
    piece_bytes: usize,
}

impl Output {
    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.piece_bytes + self.tail.len() - self.head
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The buffer to append to.
    pub(crate) fn tail(&mut self) -> &mut Vec<u8> {
        if self.tail.capacity() == 0 {
            self.tail = pooled();
        }
        &mut self.tail
    }

    /// What has been appended to [`tail`](Self::tail) and not been written yet.
    pub(crate) fn last(&self) -> &[u8] {
        &self.tail
    }

    /// Appends a shared body, by reference when it is large.
    pub(crate) fn push(&mut self, bytes: Bytes) {
        if bytes.len() < SHARE_BYTES_MIN {
            self.tail().extend_from_slice(&bytes);
            return;
        }
        self.end_piece();
        self.piece_bytes += bytes.len();
        self.pieces.push_back(Piece::Shared(bytes));
    }

    /// Appends a buffer as it is.
    pub(crate) fn push_owned(&mut self, bytes: Vec<u8>) {
        if self.is_empty() {
            recycle(std::mem::replace(&mut self.tail, bytes));
            self.head = 0;
        } else if bytes.len() < SHARE_BYTES_MIN {
            self.tail().extend_from_slice(&bytes);
            recycle(bytes);
        } else {
            self.end_piece();
            self.piece_bytes += bytes.len();
            self.pieces.push_back(Piece::Owned(bytes));
        }
    }

    /// What has been appended so far is followed by something else.
    fn end_piece(&mut self) {
        if !self.tail.is_empty() {
            self.piece_bytes += self.tail.len();
            self.pieces.push_back(Piece::Owned(std::mem::take(&mut self.tail)));
        }
    }

    /// The first `max` bytes that wait, without a copy.
    pub(crate) fn take_pieces(&mut self, max: usize) -> Vec<Piece> {
        self.end_piece();
        let (mut taken, mut room) = (Vec::new(), max);
        while room != 0
            && let Some(piece) = self.pieces.pop_front()
        {
            let (size, head) = (piece.bytes().len(), std::mem::take(&mut self.head));
            self.piece_bytes -= size;
            if head == 0 && size <= room {
                room -= size;
                taken.push(piece);
                continue;
            }
            let mut bytes = match piece {
                Piece::Owned(bytes) => Bytes::from(bytes),
                Piece::Shared(bytes) => bytes,
            };
            drop(bytes.split_to(head));
            let now = bytes.split_to(room.min(bytes.len()));
            if !bytes.is_empty() {
                self.piece_bytes += bytes.len();
                self.pieces.push_front(Piece::Shared(bytes));
            }
            room -= now.len();
            taken.push(Piece::Shared(now));
        }
        taken
    }

    /// The first waiting bytes as slices for `writev`; how many slices were filled.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
        let mut count = 0;
        let mut skip = self.head;
        for bytes in self.pieces.iter().map(Piece::bytes).chain([self.tail.as_slice()]) {
            if count == SLICES_MAX {
                break;
            }
            let rest = &bytes[skip..];
            skip = 0;
            if !rest.is_empty() {
                slices[count] = IoSlice::new(rest);
                count += 1;
            }
        }
        count
    }

    /// The first waiting bytes that lie together. Empty only when nothing waits.
    #[cfg_attr(not(feature = "tls"), allow(dead_code))]
    pub(crate) fn first(&self) -> &[u8] {
        match self.pieces.front() {
            Some(piece) => &piece.bytes()[self.head..],
            None => &self.tail[self.head..],
        }
    }

    /// Forgets the first `count` bytes: they have been written.
    pub(crate) fn consume(&mut self, count: usize) {
        self.head += count;
        while let Some(piece) = self.pieces.front() {
            let size = piece.bytes().len();
            if self.head < size {
                return;
            }
            self.head -= size;
            self.piece_bytes -= size;
            if let Some(Piece::Owned(buffer)) = self.pieces.pop_front() {
                recycle(buffer);
            }
        }
        debug_assert!(self.head <= self.tail.len(), "consumed more than was there");
        if self.head == self.tail.len() {
            self.head = 0;
            recycle(std::mem::take(&mut self.tail));
        }
    }

    /// Writes by `write`, which tells how many bytes it has taken, until nothing waits or it would block.
    pub(crate) fn write_by(
        &mut self,
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<()> {
        while !self.is_empty() {
            let written = if self.pieces.is_empty() {
                // Nearly always: a list of many would take longer to make than all else here.
                write(&[IoSlice::new(&self.tail[self.head..])])
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let count = self.slices(&mut slices);
                write(&slices[..count])
            };
            match written {
                Ok(written) => self.consume(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        self.consume(self.len());
    }

    /// Everything that waits, in one piece.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len());
        for piece in &self.pieces {
            all.extend_from_slice(piece.bytes());
        }
        all.extend_from_slice(&self.tail);
        all.drain(..self.head);
        self.clear();
        all
    }
}

/// Gives the buffers that this thread keeps for its connections' next output back to the allocator.
pub fn drop_pooled_buffers() {
    POOL.with_borrow_mut(|pool| *pool = Vec::new());
}

/// An empty buffer, with room when the thread has one to spare.
pub(crate) fn pooled() -> Vec<u8> {
    POOL.with_borrow_mut(|pool| pool.pop()).unwrap_or_default()
}

/// Keeps `buffer` for another.
pub(crate) fn recycle(mut buffer: Vec<u8>) {
    if buffer.capacity() == 0 || POOLED_BYTES_MAX < buffer.capacity() {
        return;
    }
    buffer.clear();
    POOL.with_borrow_mut(|pool| {
        if pool.len() < POOLED_BUFFERS_MAX {
            pool.push(buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::{Output, SHARE_BYTES_MIN, SLICES_MAX};

    #[derive(Clone, Debug)]
    enum Step {
        Append(Vec<u8>),
        Share(Vec<u8>),
        Own(Vec<u8>),
        Drain(usize),
        Pieces(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let large = prop::collection::vec(any::<u8>(), 0..3 * SHARE_BYTES_MIN / 2);
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..50).prop_map(Step::Append),
            large.clone().prop_map(Step::Share),
            large.prop_map(Step::Own),
            (0..3 * SHARE_BYTES_MIN).prop_map(Step::Pieces),
            (0..3 * SHARE_BYTES_MIN).prop_map(Step::Drain),
        ]
    }

    proptest! {
        #[test]
        fn bytes_leave_in_the_order_they_came(steps in prop::collection::vec(step(), 0..60)) {
            let mut output = Output::default();
            let (mut wrote, mut read) = (Vec::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Append(bytes) => {
                        output.tail().extend_from_slice(&bytes);
                        wrote.extend(bytes);
                    }
                    Step::Share(bytes) => {
                        wrote.extend_from_slice(&bytes);
                        output.push(Bytes::from(bytes));
                    }
                    Step::Own(bytes) => {
                        wrote.extend_from_slice(&bytes);
                        output.push_owned(bytes);
                    }
                    Step::Pieces(max) => {
                        let wanted = max.min(output.len());
                        let pieces = output.take_pieces(max);
                        let taken: Vec<u8> =
                            pieces.iter().flat_map(|piece| piece.bytes().to_vec()).collect();
                        prop_assert_eq!(taken.len(), wanted);
                        read.extend(taken);
                    }
                    Step::Drain(count) => {
                        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                        let filled = output.slices(&mut slices);
                        let there: Vec<u8> =
                            slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
                        let count = count.min(there.len());
                        read.extend_from_slice(&there[..count]);
                        output.consume(count);
                    }
                }
                prop_assert_eq!(output.len(), wrote.len() - read.len());
            }
            read.extend(output.take());
            prop_assert!(output.is_empty());
            prop_assert_eq!(read, wrote);
        }
    }
}
