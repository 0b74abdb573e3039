//! Warren's reactor.
