//! When messages are to be sent: an open loop, whose schedule knows nothing of the answers.
//!
//! A generator that waits for a slow server before it sends the next message measures the server in its best moments
//! only. Here the time of every message is fixed beforehand and its latency is counted from that time on, however late
//! it was really sent.

use std::time::Duration;

use super::clock::SECOND;
use super::plan::nanoseconds;

/// The schedule of one producer or consumer.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    /// Rates in messages per second, each for so many nanoseconds; the last is followed by the first.
    stages: Vec<(f64, u64)>,
    /// The rate rises from nothing during so many nanoseconds.
    ramp: u64,
    /// Messages scheduled so far.
    count: u64,
    /// When the next one is due, in nanoseconds after the start of this schedule.
    next: f64,
    /// When that is, in nanoseconds after the start of all.
    delay: u64,
}

impl Pace {
    /// The same rate all the time, after a ramp.
    pub(super) fn constant(rate: f64, ramp: u64) -> Self {
        Self { stages: vec![(rate, u64::MAX)], ramp, count: 0, next: 0.0, delay: 0 }
    }

    /// Rates that follow one another, over and over.
    pub(super) fn stages(stages: Vec<(f64, u64)>) -> Self {
        let mut pace = Self { stages, ramp: 0, count: 0, next: 0.0, delay: 0 };
        pace.skip_silence();
        pace
    }

    /// Begins later by this part of the time between two messages, so that many producers do not march in step.
    pub(super) fn shifted(mut self, part: f64) -> Self {
        if self.ramp == 0 {
            let (rate, _) = self.stage();
            self.next += part * SECOND as f64 / rate;
        }
        self
    }

    /// Begins later by so many nanoseconds.
    pub(super) fn delayed(mut self, delay: u64) -> Self {
        self.delay = delay;
        self
    }

    /// When the next message is due, in nanoseconds after the start.
    pub(super) fn due(&self) -> u64 {
        self.delay + self.next as u64
    }

    /// The next message has been sent: the one after it is next.
    pub(super) fn advance(&mut self) {
        self.count += 1;
        let second = SECOND as f64;
        if 0 < self.ramp {
            // Of a rate that has risen to `rate` at the end of the ramp, rate * ramp / 2 messages were sent by then.
            let (rate, _) = self.stages[0];
            let (count, ramp) = (self.count as f64, self.ramp as f64 / second);
            let during = rate * ramp / 2.0;
            let due = if count < during {
                (2.0 * count * ramp / rate).sqrt()
            } else {
                ramp + (count - during) / rate
            };
            self.next = due * second;
            return;
        }
        let (rate, _) = self.stage();
        self.next += second / rate;
        self.skip_silence();
    }

    /// The rate at the next message's time, and when it ends.
    fn stage(&self) -> (f64, u64) {
        let cycle = self.stages.iter().map(|stage| stage.1).fold(0, u64::saturating_add);
        let next = self.next as u64;
        let begun = next / cycle * cycle;
        let mut end = begun;
        for &(rate, length) in &self.stages {
            end = end.saturating_add(length);
            if next < end {
                return (rate, end);
            }
        }
        (self.stages[0].0, end)
    }

    /// A stage whose rate is 0 sends nothing.
    fn skip_silence(&mut self) {
        while let (rate, end) = self.stage()
            && rate <= 0.0
        {
            self.next = end as f64;
        }
    }
}

/// A number that changes as time goes by: each holds for so many nanoseconds, the last is followed by the first.
#[derive(Clone, Debug)]
pub(super) struct Cycle(Vec<(u64, u64)>);

impl Cycle {
    /// `None`: there is nothing that changes.
    pub(super) fn new(stages: &[(u64, Duration)]) -> Option<Self> {
        let timed = |&(number, time): &(u64, Duration)| (number, nanoseconds(time));
        (!stages.is_empty()).then(|| Self(stages.iter().map(timed).collect()))
    }

    /// So many nanoseconds after the start.
    pub(super) fn at(&self, time: u64) -> u64 {
        let cycle = self.0.iter().map(|stage| stage.1).fold(0, u64::saturating_add);
        let mut left = time % cycle;
        for &(number, length) in &self.0 {
            if left < length {
                return number;
            }
            left -= length;
        }
        self.0[0].0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(mut pace: Pace, count: usize) -> Vec<u64> {
        let next = |_| {
            let due = pace.due();
            pace.advance();
            due / 1_000_000
        };
        (0..count).map(next).collect()
    }

    #[test]
    fn a_constant_rate_is_even() {
        assert_eq!(schedule(Pace::constant(100.0, 0), 4), [0, 10, 20, 30]);
        assert_eq!(schedule(Pace::constant(100.0, 0).shifted(0.5), 3), [5, 15, 25]);
    }

    #[test]
    fn a_ramp_sends_half_of_what_its_end_would() {
        let times = schedule(Pace::constant(100.0, SECOND), 152);
        assert_eq!(times.iter().filter(|&&time| time < 1000).count(), 50);
        assert_eq!(times.iter().filter(|&&time| time < 2000).count(), 150);
        assert!(times[1] - times[0] > times[49] - times[48], "it accelerates");
    }

    #[test]
    fn numbers_follow_one_another() {
        let second = Duration::from_secs(1);
        assert!(Cycle::new(&[]).is_none());
        let cycle = Cycle::new(&[(5, second), (7, 2 * second)]).unwrap();
        let at = |tenths: u64| cycle.at(tenths * SECOND / 10);
        assert_eq!([0, 9, 10, 29, 30, 39, 40].map(at), [5, 5, 7, 7, 5, 5, 7]);
    }

    #[test]
    fn stages_follow_one_another_and_may_be_silent() {
        let stages = vec![(100.0, SECOND / 50), (0.0, SECOND), (1000.0, SECOND / 500)];
        let pace = Pace::stages(stages);
        assert_eq!(schedule(pace, 7), [0, 10, 1020, 1021, 1022, 1032, 2042]);
        let silent_first = Pace::stages(vec![(0.0, SECOND), (1.0, SECOND)]);
        assert_eq!(schedule(silent_first, 2), [1000, 3000]);
    }
}
