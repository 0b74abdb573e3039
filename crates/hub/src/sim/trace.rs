//! What happened, as one number: two runs that did the same have the same.

use std::cell::Cell;
use std::fmt;
use std::time::Duration;

use super::random::mix;

/// What a step of the world was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A fiber was resumed.
    Resume,
    /// A node began or ended a life.
    Start,
    End,
    Kill,
    Crash,
    /// Readiness was told to a node.
    Ready,
    Listen,
    Connect,
    Accept,
    Read,
    Write,
    Close,
    /// Bytes, or the end of a stream, reached their peer.
    Arrive,
    Reset,
    Send,
    Receive,
    /// The network or a disk was changed by the controller.
    Fault,
    Job,
    Random,
    File,
    /// Noted by the hub or by the user.
    Note,
}

/// The digest, and the printing of it all on demand.
pub(super) struct Trace {
    hash: Cell<u64>,
    count: Cell<u64>,
    print: bool,
}

impl Trace {
    /// `print`: every step to standard error, to find where two runs part.
    pub(super) fn new(print: bool) -> Self {
        Self { hash: Cell::new(0), count: Cell::new(0), print }
    }

    pub(super) fn note(&self, now: Duration, node: usize, step: Step, what: u64, more: u64) {
        let mut hash = self.hash.get();
        for word in [now.as_nanos() as u64, (node as u64) << 8 | step as u64, what, more] {
            hash = mix(hash.rotate_left(7) ^ word);
        }
        self.hash.set(hash);
        self.count.set(self.count.get() + 1);
        if self.print {
            eprintln!("{now:>14?} node {node} {step:?} {what:#x} {more:#x}");
        }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash.get()
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x} after {} steps", self.hash.get(), self.count.get())
    }
}

/// A number for bytes.
pub(super) fn digest(bytes: &[u8]) -> u64 {
    let mut hash = bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash =
            (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
    mix(hash)
}
