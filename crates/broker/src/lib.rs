//! Warren's broker.
