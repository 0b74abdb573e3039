//! One direction of a [`Pump`](super::Pump): what is on its way, and what has arrived and waits to be read.
//!
//! ```text
//!   write -> [ segment | segment | ... ] -- each at its time --> arrived -> piece -> data_received
//!             \______________ within the window: `unread` ____________/
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Fragmentation, Loss};

/// With a bandwidth, bytes travel in segments of this size, as over Ethernet.
const SEGMENT_BYTES: usize = 1460;
/// Bytes told in one call at most, as by a socket.
const PIECE_BYTES_MAX: usize = 128 * 1024;

/// What travels.
pub(super) enum Segment {
    Data(Vec<u8>),
    /// No more will come.
    End,
    Reset,
}

pub(super) struct Link {
    pub(super) latency: Duration,
    /// In bytes per second.
    pub(super) bandwidth: Option<u64>,
    pub(super) window_bytes: usize,
    pub(super) fragmentation: Fragmentation,
    random: u64,
    /// When what was sent last arrives. Nothing overtakes it.
    last_arrival: Option<Instant>,
    /// When the line is free for the next segment.
    free_at: Option<Instant>,
    way: VecDeque<(Option<Instant>, Segment)>,
    arrived: VecDeque<u8>,
    /// Bytes sent that have not been read.
    unread: usize,
    /// Bytes read.
    pub(super) read: u64,
    /// Where the connection is lost.
    pub(super) loss: Option<(u64, Loss)>,
    /// The end has arrived.
    pub(super) ended: bool,
    /// Nothing more is sent: it has been ended.
    pub(super) finished: bool,
    /// The sender was told that there is no room.
    pub(super) starved: bool,
}

impl Link {
    pub(super) fn new() -> Self {
        Self {
            latency: Duration::ZERO,
            bandwidth: None,
            window_bytes: super::WINDOW_BYTES,
            fragmentation: Fragmentation::Whole,
            random: 0,
            last_arrival: None,
            free_at: None,
            way: VecDeque::new(),
            arrived: VecDeque::new(),
            unread: 0,
            read: 0,
            loss: None,
            ended: false,
            finished: false,
            starved: false,
        }
    }

    pub(super) fn fragment(&mut self, fragmentation: Fragmentation) {
        if let Fragmentation::Random { seed, .. } = fragmentation {
            self.random = seed;
        }
        self.fragmentation = fragmentation;
    }

    /// Bytes that may be sent now.
    pub(super) fn room(&self) -> usize {
        self.window_bytes.saturating_sub(self.unread)
    }

    /// Puts `data`, for which there is room, on its way.
    pub(super) fn send(&mut self, data: Vec<u8>, now: Option<Instant>) {
        self.unread += data.len();
        if self.bandwidth.is_none() {
            return self.dispatch(Segment::Data(data), 0, now);
        }
        for segment in data.chunks(SEGMENT_BYTES) {
            self.dispatch(Segment::Data(segment.to_vec()), segment.len(), now);
        }
    }

    /// Ends the direction behind what is on its way.
    pub(super) fn finish(&mut self, now: Option<Instant>) {
        if !std::mem::replace(&mut self.finished, true) {
            self.dispatch(Segment::End, 0, now);
        }
    }

    /// Ends it at once: what is on its way is lost.
    pub(super) fn reset(&mut self, now: Option<Instant>) {
        self.clear();
        self.finished = true;
        self.dispatch(Segment::Reset, 0, now);
    }

    fn dispatch(&mut self, segment: Segment, bytes: usize, now: Option<Instant>) {
        let Some(now) = now else { return self.way.push_back((None, segment)) };
        let mut leaves = now;
        if let Some(bandwidth) = self.bandwidth {
            let nanos = bytes as u128 * 1_000_000_000 / u128::from(bandwidth);
            leaves = self.free_at.map_or(now, |free| free.max(now))
                + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            self.free_at = Some(leaves);
        }
        let arrival = leaves + self.latency;
        let arrival = self.last_arrival.map_or(arrival, |last| last.max(arrival));
        self.last_arrival = Some(arrival);
        self.way.push_back((Some(arrival), segment));
    }

    /// When the next segment arrives, if one is on its way: `Some(None)` stands for at once.
    pub(super) fn next_arrival(&self) -> Option<Option<Instant>> {
        self.way.front().map(|(arrival, _)| *arrival)
    }

    /// Lets arrive what has had its time. What came last, other than bytes.
    pub(super) fn arrive(&mut self, now: Option<Instant>) -> (bool, Option<Segment>) {
        let mut moved = false;
        while self.way.front().is_some_and(|(arrival, _)| *arrival <= now) {
            let Some((_, segment)) = self.way.pop_front() else { break };
            moved = true;
            match segment {
                Segment::Data(data) => self.arrived.extend(data),
                Segment::End => {
                    self.ended = true;
                    return (true, Some(Segment::End));
                }
                Segment::Reset => return (true, Some(Segment::Reset)),
            }
        }
        (moved, None)
    }

    /// Bytes that have arrived and not been read.
    pub(super) fn waiting(&self) -> usize {
        self.arrived.len()
    }

    /// The next piece to be told.
    pub(super) fn piece(&mut self) -> Vec<u8> {
        let waiting = self.arrived.len().min(PIECE_BYTES_MAX);
        if waiting == 0 {
            return Vec::new();
        }
        let mut size = match &self.fragmentation {
            Fragmentation::Whole => waiting,
            Fragmentation::Bytes(most) => *most,
            Fragmentation::At(cuts) => {
                let next = cuts.iter().filter(|&&cut| self.read < cut).min();
                next.map_or(waiting, |cut| usize::try_from(cut - self.read).unwrap_or(waiting))
            }
            Fragmentation::Random { most, .. } => {
                1 + next_random(&mut self.random) as usize % (*most).max(1)
            }
        };
        if let Some((at, _)) = self.loss {
            size = size.min(usize::try_from(at.saturating_sub(self.read)).unwrap_or(size));
        }
        let piece: Vec<u8> = self.arrived.drain(..size.min(waiting)).collect();
        self.unread -= piece.len();
        self.read += piece.len() as u64;
        piece
    }

    /// Whether the connection is to be lost here.
    pub(super) fn is_loss_due(&self) -> bool {
        self.loss.is_some_and(|(at, _)| at <= self.read)
    }

    /// How, if it is to be lost here.
    pub(super) fn take_loss(&mut self) -> Option<Loss> {
        let due = self.is_loss_due();
        self.loss.take_if(|_| due).map(|(_, loss)| loss)
    }

    /// What has arrived is of no use to a receiver that is gone.
    pub(super) fn discard(&mut self) -> bool {
        let bytes = self.arrived.len();
        self.arrived.clear();
        self.unread -= bytes;
        self.read += bytes as u64;
        bytes > 0
    }

    /// Forgets all that is under way.
    pub(super) fn clear(&mut self) {
        self.way.clear();
        self.arrived.clear();
        self.unread = 0;
    }
}

/// `SplitMix64`: any seed will do.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
