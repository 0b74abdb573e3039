//! Chance that a seed decides.

use std::cell::Cell;
use std::ops::RangeInclusive;
use std::time::Duration;

/// A source of numbers that depend on nothing but the seed (xoshiro256++ by Blackman and Vigna, seeded by splitmix64).
///
/// Not for secrets.
#[derive(Debug)]
pub struct Random(Cell<[u64; 4]>);

impl Random {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        Self(Cell::new(std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mix(state)
        })))
    }

    /// Any number.
    pub fn u64(&self) -> u64 {
        let [a, b, c, d] = self.0.get();
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c, d) = (c ^ a, d ^ b);
        self.0.set([a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)]);
        result
    }

    /// A number below `bound`; 0 for a bound of 0.
    pub fn below(&self, bound: u64) -> u64 {
        // The high half of the product: no division, and a bias of less than one in 2^32 for what simulations ask.
        ((u128::from(self.u64()) * u128::from(bound)) >> 64) as u64
    }

    /// As [`below`](Self::below), for what is counted in memory.
    pub fn index(&self, bound: usize) -> usize {
        self.below(bound as u64) as usize
    }

    /// A number of the range.
    ///
    /// # Panics
    /// When the range is empty.
    pub fn within(&self, range: RangeInclusive<u64>) -> u64 {
        let (low, high) = range.into_inner();
        assert!(low <= high, "an empty range has no number");
        match (high - low).checked_add(1) {
            Some(count) => low + self.below(count),
            None => self.u64(),
        }
    }

    /// A time of the range.
    ///
    /// # Panics
    /// When the range is empty.
    pub fn duration(&self, range: RangeInclusive<Duration>) -> Duration {
        let nanos = |time: &Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.within(nanos(range.start())..=nanos(range.end())))
    }

    /// True with this probability, from 0 to 1.
    pub fn chance(&self, probability: f64) -> bool {
        // Nothing is drawn where nothing is to be decided: an option that is off changes no run.
        probability > 0.0 && (self.u64() >> 11) as f64 / ((1u64 << 53) as f64) < probability
    }

    /// One of them; `None` of none.
    pub fn choose<'a, T>(&self, among: &'a [T]) -> Option<&'a T> {
        if among.len() < 2 { among.first() } else { among.get(self.index(among.len())) }
    }

    /// Puts them into another order.
    pub fn shuffle<T>(&self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }

    /// Fills `bytes`.
    pub fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.u64().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// Spreads every bit of a number over all of the result.
pub(super) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_the_published_one() {
        // The first outputs of the authors' C code for this state.
        let random = Random(Cell::new([1, 2, 3, 4]));
        assert_eq!([random.u64(), random.u64()], [41_943_041, 58_720_359]);
    }

    #[test]
    fn ranges_are_kept() {
        let random = Random::new(7);
        let mut seen = [false; 5];
        for _ in 0..200 {
            seen[random.within(3..=7) as usize - 3] = true;
            assert!(random.below(1) == 0 && random.below(0) == 0);
        }
        assert_eq!(seen, [true; 5]);
        assert!((0..100).all(|_| random.chance(1.0) && !random.chance(0.0)));
        let hits = (0..10_000).filter(|_| random.chance(0.25)).count();
        assert!((2_200..2_800).contains(&hits), "{hits}");
    }
}
