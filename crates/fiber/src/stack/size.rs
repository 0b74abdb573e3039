//! The sizes that stacks come in.

/// How large a stack is. Address space, not memory: only touched pages cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StackSize {
    /// 64 KiB: enough for small callbacks in release builds.
    Small,
    /// 256 KiB: the default; fits a TLS handshake or a panic with a backtrace.
    #[default]
    Normal,
    /// 1 MiB: deep recursion in debug builds.
    Large,
    /// 8 MiB: what a thread's main stack has.
    Huge,
}

impl StackSize {
    /// From the smallest to the largest.
    pub const ALL: [StackSize; 4] =
        [StackSize::Small, StackSize::Normal, StackSize::Large, StackSize::Huge];

    /// The size in bytes, guard included.
    pub const fn bytes(self) -> usize {
        match self {
            StackSize::Small => 64 << 10,
            StackSize::Normal => 256 << 10,
            StackSize::Large => 1 << 20,
            StackSize::Huge => 8 << 20,
        }
    }

    /// The smallest class with at least `bytes` bytes; `None` beyond 8 MiB.
    pub fn at_least(bytes: usize) -> Option<StackSize> {
        Self::ALL.into_iter().find(|class| bytes <= class.bytes())
    }

    pub(super) const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_found_by_size() {
        assert_eq!(StackSize::at_least(0), Some(StackSize::Small));
        assert_eq!(StackSize::at_least(64 << 10), Some(StackSize::Small));
        assert_eq!(StackSize::at_least((64 << 10) + 1), Some(StackSize::Normal));
        assert_eq!(StackSize::at_least((8 << 20) + 1), None);
    }
}
