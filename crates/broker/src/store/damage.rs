//! What is wrong with the files of a data directory.

use std::fmt;

/// A place that cannot be read, in words: which file, where there, and what is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    text: String,
    torn: bool,
}

impl Damage {
    /// Something that was there is lost.
    pub(crate) fn lost(text: impl Into<String>) -> Self {
        Self { text: text.into(), torn: false }
    }

    /// Something was never written whole, and promised to nobody.
    pub(crate) fn torn(text: impl Into<String>) -> Self {
        Self { text: text.into(), torn: true }
    }

    /// Whether it is what a machine that stops leaves behind: nothing is lost that anybody was told of.
    pub fn is_torn(&self) -> bool {
        self.torn
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
