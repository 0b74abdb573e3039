//! Time in nanoseconds, on the clock that all processes of a machine share.
//!
//! A message carries the time when it was to be sent; a consumer in another process takes the difference.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of a second.
pub(super) const SECOND: u64 = 1_000_000_000;

/// What the clock of the day is ahead of [`now`].
pub(super) fn of_the_day() -> u64 {
    nanoseconds(ClockId::Realtime).wrapping_sub(now())
}

/// Now.
pub(super) fn now() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec.cast_unsigned() * SECOND + time.tv_nsec.cast_unsigned()
}
