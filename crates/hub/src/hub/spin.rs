//! Looking for events for a moment before going to sleep.
//!
//! A thread that sleeps in the kernel and is woken pays for both, and so does who waits for its answer: in a dialogue with
//! one peer most of the time goes there. A hub that has just been woken early looks a while before it sleeps again:
//!
//! ```text
//!   slept briefly --> looks --found--> looks next time, too
//!                       `--in vain--> sleeps; looks again only after 1, 2, 4 .. 256 more waits
//!   slept long ----> does not look
//! ```
//! So an idle hub never spins, and one that spins in vain stops it: what is lost is about what one sleep costs, now and
//! then.

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Not longer than sleeping and being woken take: spinning in vain then costs twice as much at most as not spinning. A peer
/// on this machine answers within it; twice as much gains little, and costs a few per cent where many connections leave
/// short gaps.
pub(crate) const SPIN: Duration = Duration::from_micros(10);
/// A sleep is brief when it takes less than so many of the longest spins. The waking is part of it.
const BRIEF: u32 = 3;
/// Waits that are let pass after many spins in vain.
const WAITS_MAX: u32 = 256;

/// Whether to look, and for how long.
pub(super) struct Spin {
    /// Zero: never.
    longest: Cell<Duration>,
    /// The last sleep was brief.
    brief: Cell<bool>,
    /// So many more waits are let pass before the next look.
    waits: Cell<u32>,
    /// How many there were after the last look in vain.
    penalty: Cell<u32>,
}

impl Spin {
    /// Never looks.
    pub(super) fn off() -> Self {
        Self {
            longest: Cell::default(),
            brief: Cell::default(),
            waits: Cell::default(),
            penalty: Cell::default(),
        }
    }

    /// Looks for at most `longest`, where another processor can make something happen meanwhile.
    pub(super) fn set(&self, longest: Duration) {
        self.longest.set(if has_other_processors() { longest } else { Duration::ZERO });
    }

    /// How long to look before this wait, if at all.
    pub(super) fn before_wait(&self) -> Option<Duration> {
        if !self.brief.get() {
            return None;
        }
        if let Some(left) = self.waits.get().checked_sub(1) {
            self.waits.set(left);
            return None;
        }
        Some(self.longest.get())
    }

    /// It has looked.
    pub(super) fn looked(&self, found: bool) {
        let penalty = if found { 0 } else { (2 * self.penalty.get()).clamp(1, WAITS_MAX) };
        self.penalty.set(penalty);
        self.waits.set(penalty);
    }

    /// What a sleep is measured from. `None` when that is of no interest.
    pub(super) fn sleeps(&self) -> Option<Instant> {
        (!self.longest.get().is_zero()).then(Instant::now)
    }

    /// A sleep has ended.
    pub(super) fn slept(&self, from: Option<Instant>) {
        if let Some(from) = from {
            self.slept_for(from.elapsed());
        }
    }

    fn slept_for(&self, time: Duration) {
        self.brief.set(time < BRIEF * self.longest.get());
    }
}

/// Whether others can run while this thread does. Not asked for: on which processors this thread may run; whoever it waits
/// for need not be bound to the same.
fn has_other_processors() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        // Such as `0-3,6`.
        std::fs::read_to_string("/sys/devices/system/cpu/online")
            .is_ok_and(|online| online.contains([',', '-']))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{SPIN, Spin, WAITS_MAX};

    fn spin() -> Spin {
        let spin = Spin::off();
        // Whatever machine this runs on.
        spin.longest.set(SPIN);
        spin
    }

    /// Waits that pass until it looks again.
    fn passed(spin: &Spin) -> usize {
        (0..).take_while(|_| spin.before_wait().is_none()).count()
    }

    #[test]
    fn looks_after_brief_sleeps_only() {
        let spin = spin();
        assert_eq!(spin.before_wait(), None);
        spin.slept_for(SPIN);
        assert_eq!(spin.before_wait(), Some(SPIN));
        spin.looked(true);
        assert_eq!(spin.before_wait(), Some(SPIN));
        spin.slept_for(Duration::from_millis(1));
        assert_eq!(spin.before_wait(), None);
    }

    #[test]
    fn looks_in_vain_less_and_less() {
        let spin = spin();
        spin.slept_for(SPIN);
        let mut waits = Vec::new();
        for _ in 0..11 {
            waits.push(passed(&spin));
            spin.looked(false);
        }
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 256]);
        assert_eq!(passed(&spin), WAITS_MAX as usize);
        spin.looked(true);
        assert_eq!(passed(&spin), 0);
    }

    #[test]
    fn never_looks_when_told_so() {
        let spin = Spin::off();
        spin.set(Duration::ZERO);
        assert!(spin.sleeps().is_none());
        spin.slept(spin.sleeps());
        assert_eq!(spin.before_wait(), None);
    }
}
