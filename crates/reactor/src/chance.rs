//! Random numbers of the hub, or of a seed.

use std::cell::Cell;
use std::f64::consts::TAU;

use warren_hub::fill_random;

pub(crate) enum Chance {
    /// The hub's, which a simulation decides.
    Hub,
    /// Steele, Lea, Flood: "Fast splittable pseudorandom number generators" (SplitMix64).
    Seed(Cell<u64>),
}

impl Chance {
    pub(crate) fn new(seed: Option<u64>) -> Self {
        seed.map_or(Self::Hub, |seed| Self::Seed(Cell::new(seed)))
    }

    fn next(&self) -> u64 {
        match self {
            Self::Hub => {
                let mut bytes = [0; 8];
                fill_random(&mut bytes);
                u64::from_le_bytes(bytes)
            }
            Self::Seed(state) => {
                state.set(state.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
                let mixed = (state.get() ^ (state.get() >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                mixed ^ (mixed >> 31)
            }
        }
    }

    /// 0 or more, below 1, all equally likely.
    pub(crate) fn uniform(&self) -> f64 {
        // As many bits as the mantissa has.
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Normally distributed round `mean` (Box and Muller).
    pub(crate) fn normal(&self, mean: f64, deviation: f64) -> f64 {
        // From above 0, whose logarithm is finite.
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        mean + deviation * radius * (TAU * self.uniform()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::Chance;

    #[test]
    fn numbers_are_spread_as_they_should() {
        let chance = Chance::new(Some(7));
        let count = 20_000;
        let uniform: Vec<f64> = (0..count).map(|_| chance.uniform()).collect();
        assert!(uniform.iter().all(|x| (0.0..1.0).contains(x)));
        let normal: Vec<f64> = (0..count).map(|_| chance.normal(10.0, 2.0)).collect();
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        assert!((mean(&uniform) - 0.5).abs() < 0.01);
        assert!((mean(&normal) - 10.0).abs() < 0.05);
        let squares: Vec<f64> = normal.iter().map(|x| (x - 10.0).powi(2)).collect();
        assert!((mean(&squares) - 4.0).abs() < 0.2);
        let again = Chance::new(Some(7));
        assert!(uniform.iter().all(|x| *x == again.uniform()));
    }
}
