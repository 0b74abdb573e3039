//! Where the kernel grants no large chunk, stacks come from smaller ones. A process of its own, for it takes the
//! address space away from everything in it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use warren_fiber::{StackPool, StackSize};

/// Address space of this process, in bytes.
fn mapped_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split(' ').next().unwrap().parse().unwrap();
    pages * rustix::param::page_size() as u64
}

#[test]
fn a_refused_chunk_is_asked_for_in_smaller_pieces() {
    let pool = StackPool::default();
    let mut stacks = Vec::with_capacity(100);
    stacks.push(pool.take(StackSize::Small).unwrap());
    // Room for a few stacks of 1 MiB, and not for a chunk of sixteen.
    let before = getrlimit(Resource::As);
    let room = mapped_bytes() + (13 << 20);
    setrlimit(Resource::As, Rlimit { current: Some(room), ..before }).unwrap();
    let error = loop {
        match pool.take(StackSize::Large) {
            Ok(stack) => stacks.push(stack),
            Err(error) => break error,
        }
    };
    setrlimit(Resource::As, before).unwrap();
    let got = stacks.iter().filter(|stack| stack.size() == StackSize::Large).count();
    assert!((8..=13).contains(&got), "{got} stacks; {error}");
    assert!(error.to_string().contains("no stack of 1024 KiB"), "{error}");
    // With room again, it goes on.
    stacks.extend((0..20).map(|_| pool.take(StackSize::Large).unwrap()));
    assert_eq!(pool.stats().live, stacks.len());
}
