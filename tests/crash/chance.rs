//! Chance that a seed decides.

/// xorshift64*.
#[derive(Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        // Neighbouring seeds are to differ, and 0 would stay 0.
        Self((seed ^ 0x9E37_79B9_7F4A_7C15).wrapping_mul(0xBF58_476D_1CE4_E5B9) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// From 0 on, below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Once in so many times.
    pub(crate) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// Another one, for somebody else.
    pub(crate) fn fork(&mut self) -> Self {
        Self::new(self.next())
    }
}

/// The body of a message: its number, and bytes that follow from it. Most are small, some have several frames.
pub(crate) fn body(id: u64) -> Vec<u8> {
    let mut chance = Chance::new(id);
    let length = match chance.below(100) {
        0 => 150_000 + chance.below(200_000),
        1..10 => chance.below(20_000),
        _ => chance.below(200),
    };
    let mut body = id.to_be_bytes().to_vec();
    while (body.len() as u64) < 8 + length {
        body.extend_from_slice(&chance.next().to_be_bytes());
    }
    body
}

/// The number of the message with this body, if that is as it was made.
pub(crate) fn id_of(found: &[u8]) -> Option<u64> {
    let id = u64::from_be_bytes(*found.first_chunk()?);
    (found == body(id)).then_some(id)
}
