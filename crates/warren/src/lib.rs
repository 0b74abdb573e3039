//! Warren's warren.
