//! A million greenlets and generators, one after the other, in memory that does not grow.

use warren_fiber::{Generator, Greenlet, StackPool, StackSize, grow};

const CYCLES: u32 = 1_000_000;
/// Before the first measurement: pools, buffers and the allocator's own stores have their size then.
const WARM_UP: u32 = 10_000;
/// What the allocator and the test harness may come to on their own.
const GROWTH_BYTES_MAX: usize = 2 << 20;

/// Memory of this process that is in use, in bytes.
fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size()
}

fn cycle(n: u32) {
    let greenlet = Greenlet::new(|n: u32| Greenlet::parent_switch(n) + 1);
    greenlet.switch(n);
    let mut generator = Generator::<u32>::with_stack_size(StackSize::Small, move |g| {
        grow(32 << 10, StackSize::Normal, || g.yield_from(n..n + 2));
    });
    generator.next();
    match n % 16 {
        // Unwinding takes a hundred times as long, so not every time.
        0 => {}
        1 => {
            greenlet.kill(0);
            generator.close();
        }
        _ => {
            greenlet.switch(n);
            assert_eq!(generator.count(), 1);
        }
    }
}

#[test]
fn a_million_leave_nothing_behind() {
    (0..WARM_UP).for_each(cycle);
    let before = resident_bytes();
    (0..CYCLES).for_each(cycle);
    let after = resident_bytes();
    assert!(after < before + GROWTH_BYTES_MAX, "{before} bytes before, {after} after");
    let stats = StackPool::local().stats();
    assert_eq!(stats.live, 0);
    assert!(stats.free <= 4, "{stats:?}");
}
