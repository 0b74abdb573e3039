//! Whoever swaps a context in has to keep it alive.
use warren_fiber::context::{Context, swap};

fn main() {
    let context = Context::new();
    swap(&context);
}
