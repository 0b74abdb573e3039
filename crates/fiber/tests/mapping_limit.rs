//! Where the kernel has no guards of its own, the number of mappings bounds that of stacks. A process of its own,
//! for it uses them all up.

use warren_fiber::stack::{GuardKind, StackPool, StackSize};

#[test]
fn the_error_tells_of_the_limit_on_old_kernels() {
    let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
    let mappings_max: usize = text.trim().parse().unwrap();
    if 200_000 < mappings_max {
        // Someone has raised it, so that nothing is to be seen in reasonable time.
        return;
    }
    let pool = StackPool::with_guard(GuardKind::Protect);
    let mut stacks = Vec::with_capacity(mappings_max);
    let error = loop {
        match pool.take(StackSize::Small) {
            Ok(stack) => stacks.push(stack),
            Err(error) => break error,
        }
    };
    let got = stacks.len();
    // The rest of the test needs mappings too.
    stacks.truncate(got - 1000);
    drop(pool);
    let text = error.to_string();
    assert!(mappings_max / 2 - 500 < got && got <= mappings_max / 2, "{got} of {mappings_max}");
    assert!(text.contains("no stack of 64 KiB"), "{text}");
    assert!(text.contains("vm.max_map_count"), "{text}");
    assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::OutOfMemory);
}
