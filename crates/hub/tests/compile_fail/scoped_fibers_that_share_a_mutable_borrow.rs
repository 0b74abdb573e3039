//! Fibers of a scope run in turns, but each may wait in the middle: only one has a mutable borrow.
use warren_hub::scope;

fn main() {
    let mut count = 0;
    scope(|s| {
        s.spawn(|| count += 1);
        s.spawn(|| count += 1);
    });
}
