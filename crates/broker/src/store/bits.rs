//! Which places of a segment are dead: a bit each.

/// A set of small numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits {
    words: Vec<u64>,
    count: u32,
}

impl Bits {
    /// From words as [`words`](Self::words) gives them.
    pub(super) fn from_words(words: Vec<u64>) -> Self {
        let count = words.iter().map(|word| word.count_ones()).sum();
        Self { words, count }
    }

    pub(super) fn words(&self) -> &[u64] {
        &self.words
    }

    pub(super) fn has(&self, number: u32) -> bool {
        let word = self.words.get(number as usize / 64);
        word.is_some_and(|word| word & (1 << (number % 64)) != 0)
    }

    /// Adds the numbers from `first` up to, and without, `end`.
    pub(super) fn add(&mut self, first: u32, end: u32) {
        if end <= first {
            return;
        }
        let words = end.div_ceil(64) as usize;
        if self.words.len() < words {
            self.words.resize(words, 0);
        }
        let mut at = first;
        while at < end {
            let word = &mut self.words[at as usize / 64];
            let (from, to) = (at % 64, (end - at + at % 64).min(64));
            let mask = (u64::MAX >> (64 - (to - from))) << from;
            self.count += (mask & !*word).count_ones();
            *word |= mask;
            at += to - from;
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> u32 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::Bits;

    proptest! {
        #[test]
        fn it_holds_what_a_set_holds(ranges in prop::collection::vec((0..500u32, 0..200u32), 0..20)) {
            let (mut bits, mut model) = (Bits::default(), BTreeSet::new());
            for (first, count) in ranges {
                bits.add(first, first + count);
                model.extend(first..first + count);
                prop_assert_eq!(bits.count() as usize, model.len());
            }
            prop_assert!((0..800).all(|number| bits.has(number) == model.contains(&number)));
            prop_assert_eq!(Bits::from_words(bits.words().to_vec()), bits);
        }
    }
}
