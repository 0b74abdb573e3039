//! A stack goes back to the pool of its thread.
use warren_fiber::{StackPool, StackSize};

fn main() {
    let stack = StackPool::local().take(StackSize::Small).unwrap();
    std::thread::spawn(move || drop(stack));
}
