//! Side-by-side measurements against the peers. Nothing is here yet.
