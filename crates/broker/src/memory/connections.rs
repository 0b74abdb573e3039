//! What connections may keep waiting: output for clients who do not read, and bodies that come in pieces.
//!
//! ```text
//!   output:  all connections together 1/16 of the limit, but each at least 32 KiB
//!   bodies:  up to 1/4 of the limit; then one goes on at a time, and the others are not read
//! ```
//! One goes on because what is whole can go to disk and what is not cannot: were all stopped, all would wait for ever. One
//! that does not go on has to let the next.

use std::collections::VecDeque;

use warren_reactor::WriteLimits;

use super::parts;
use crate::alarms::Resource;
use crate::connection::ConnectionKey;
use crate::engine::Engine;

/// What may wait for one client, where there are few.
const OUTPUT_BYTES_MAX: usize = 512 * 1024;
const OUTPUT_BYTES_MIN: usize = 32 * 1024;
/// Answers that wait for a client who asks and does not read, by its share of output: it is not heard until it has read.
const ANSWERS_SHARES: usize = 16;

/// Output that waits for a client who reads slowly: more is not produced for it.
#[derive(Clone, Copy)]
pub(crate) struct OutputShare(usize);

impl Default for OutputShare {
    fn default() -> Self {
        Self(OUTPUT_BYTES_MAX)
    }
}

impl OutputShare {
    fn new(memory_bytes: Option<u64>, connections: usize) -> Self {
        let all = memory_bytes.map_or(usize::MAX, |bytes| (bytes / 16) as usize);
        let share = (all / connections.max(1)).clamp(OUTPUT_BYTES_MIN, OUTPUT_BYTES_MAX);
        // In large steps, or each client that comes would change it for all.
        Self(1 << share.ilog2())
    }

    pub(crate) fn write_limits(self) -> WriteLimits {
        WriteLimits { high_bytes: self.0, low_bytes: self.0 / 4 }
    }

    pub(crate) fn answer_bytes_max(self) -> usize {
        self.0 * ANSWERS_SHARES
    }
}

/// Who goes on with a body while there is little room for such.
#[derive(Default)]
pub(crate) struct Bodies {
    passing: Option<ConnectionKey>,
    /// The one that goes on has done so since it was looked.
    moved: bool,
    waiting: VecDeque<ConnectionKey>,
}

impl Engine {
    /// Sets what may wait for each connection, by their number.
    pub(super) fn share_output(&mut self) {
        let share = OutputShare::new(self.alarms.memory_bytes_max, self.connections.len());
        if share.0 == self.output_share.0 {
            return;
        }
        self.output_share = share;
        for (_, connection) in self.connections.iter() {
            connection.transport.set_write_buffer_limits(share.write_limits());
        }
    }

    fn has_room_for_bodies(&self) -> bool {
        let Some(limit) = self.alarms.memory_bytes_max else { return true };
        parts() <= limit / 4 && !self.alarms.is_on(Resource::Memory)
    }

    /// A piece of a body has come. False: the connection was told to wait.
    pub(crate) fn may_go_on(&mut self, key: ConnectionKey) -> bool {
        if self.has_room_for_bodies() {
            return true;
        }
        let holder = self.bodies.passing.filter(|holder| self.connections.get(*holder).is_some());
        if holder.is_none_or(|holder| holder == key) {
            self.bodies.passing = Some(key);
            self.bodies.moved = true;
            return true;
        }
        self.bodies.waiting.push_back(key);
        if let Some(connection) = self.connections.get_mut(key) {
            connection.block("low on memory");
        }
        false
    }

    /// A body that came in pieces is whole, and no longer one that waits.
    pub(crate) fn body_came(&mut self, key: Option<ConnectionKey>) {
        if key.is_some() && self.bodies.passing == key {
            self.bodies.passing = None;
            self.pass_on();
        }
    }

    /// The next that waits goes on.
    fn pass_on(&mut self) {
        let clock = self.clock;
        while let Some(key) = self.bodies.waiting.pop_front() {
            if let Some(connection) = self.connections.get_mut(key)
                && connection.blocked
            {
                self.bodies.passing = Some(key);
                self.bodies.moved = true;
                return connection.unblock(clock);
            }
        }
    }

    /// Once a second: whoever can go on does.
    pub(super) fn watch_bodies(&mut self) {
        if self.bodies.waiting.is_empty() {
            return;
        }
        if self.has_room_for_bodies() {
            self.bodies.passing = None;
            let clock = self.clock;
            // An alarm for the disk has its own end.
            let stays = self.alarms.any();
            for key in std::mem::take(&mut self.bodies.waiting) {
                if let Some(connection) = self.connections.get_mut(key).filter(|_| !stays) {
                    connection.unblock(clock);
                }
            }
        } else if !std::mem::take(&mut self.bodies.moved) {
            self.bodies.passing = None;
            self.pass_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{OUTPUT_BYTES_MAX, OUTPUT_BYTES_MIN, OutputShare};

    #[test]
    fn many_connections_have_smaller_shares() {
        let share = |memory, connections| OutputShare::new(memory, connections).0;
        assert_eq!(share(None, 100_000), OUTPUT_BYTES_MAX);
        assert_eq!(share(Some(1 << 30), 0), OUTPUT_BYTES_MAX);
        assert_eq!(share(Some(1 << 30), 128), OUTPUT_BYTES_MAX);
        assert_eq!(share(Some(1 << 30), 129), OUTPUT_BYTES_MAX / 2);
        assert_eq!(share(Some(1 << 30), 1000), 64 * 1024);
        assert_eq!(share(Some(1 << 30), 100_000), OUTPUT_BYTES_MIN);
    }
}
