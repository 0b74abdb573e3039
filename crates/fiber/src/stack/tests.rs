use std::collections::HashSet;
use std::panic::Location;
use std::ptr;

use super::*;

/// The word at the top of the stack, which is not in use.
fn top_word(stack: &Stack) -> *mut u64 {
    ptr::with_exposed_provenance_mut(stack.top() - 8)
}

#[test]
fn the_last_stack_given_back_is_the_next_taken() {
    let pool = StackPool::default();
    let first = pool.take(StackSize::Normal).unwrap();
    let second = pool.take(StackSize::Normal).unwrap();
    let low = first.limit();
    assert_ne!(low, second.limit());
    drop(first);
    assert_eq!(pool.take(StackSize::Normal).unwrap().limit(), low);
    assert_eq!(pool.stats().live, 1, "only `second` is still out");
}

#[test]
fn live_stacks_never_overlap_and_keep_their_size() {
    let pool = StackPool::default();
    let stacks: Vec<Stack> =
        (0..200).map(|index| pool.take(StackSize::ALL[index % 4]).unwrap()).collect();
    let mut spans: Vec<(usize, usize)> =
        stacks.iter().map(|stack| (stack.limit(), stack.top())).collect();
    spans.sort_unstable();
    for pair in spans.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "{pair:x?} overlap");
    }
    for stack in &stacks {
        let lost = stack.size().bytes() - (stack.top() - stack.limit());
        assert!(lost <= page_bytes() + 4096, "{lost} bytes are lost to guard, owner and colour");
        assert_eq!(stack.top() % corosensei::stack::STACK_ALIGNMENT, 0);
        let slot = region::find(stack.top() - 1).unwrap();
        assert_eq!(slot.low + page_bytes(), stack.limit());
        assert_eq!(region::find(slot.low), Some(slot), "the guard belongs to it too");
    }
}

#[test]
fn neighbours_begin_at_different_cache_lines() {
    let pool = StackPool::default();
    // Those of the first chunk; further chunks may lie anywhere.
    let stacks: Vec<Stack> = (0..16).map(|_| pool.take(StackSize::Normal).unwrap()).collect();
    let lines: HashSet<usize> = stacks.iter().map(|stack| stack.top() % 4096).collect();
    assert_eq!(lines.len(), stacks.len());
}

#[test]
fn a_stack_outlives_the_handle_of_its_pool() {
    let pool = StackPool::default();
    let stack = pool.take(StackSize::Small).unwrap();
    drop(pool);
    // SAFETY: the word belongs to `stack`, which nothing runs on.
    unsafe {
        top_word(&stack).write_volatile(7);
        assert_eq!(top_word(&stack).read_volatile(), 7);
    }
    let place = stack.top() - 8;
    assert!(region::find(place).is_some());
    drop(stack);
    // Tests in other threads may have mapped something there meanwhile, of this or another size: nothing to check
    // but that asking is harmless.
    let _ = region::find(place);
}

#[test]
fn an_owner_stays_as_long_as_the_stack_is_lent() {
    let pool = StackPool::default();
    let stack = pool.take(StackSize::Normal).unwrap();
    let slot = region::find(stack.top()).unwrap();
    let owner = Owner::new("fiber", 7, Location::caller()).named("seven");
    // SAFETY: a static name; and the slot is in use, by this thread.
    unsafe {
        assert!(slot.owner().is_none());
        stack.set_owner(owner);
        assert_eq!(slot.owner().map(|owner| owner.id), Some(7));
    }
    let low = stack.limit();
    drop(stack);
    let next = pool.take(StackSize::Normal).unwrap();
    assert_eq!(next.limit(), low);
    // SAFETY: as above.
    assert!(unsafe { slot.owner() }.is_none(), "the next one starts without");
}

#[test]
fn both_kinds_of_guard_serve() {
    for kind in [GuardKind::detect(), GuardKind::Protect] {
        let pool = StackPool::with_guard(kind);
        let stacks: Vec<Stack> = (0..100).map(|_| pool.take(StackSize::Small).unwrap()).collect();
        for stack in &stacks {
            // SAFETY: the lowest word of `stack`, which nothing runs on.
            unsafe { ptr::with_exposed_provenance_mut::<u64>(stack.limit()).write_volatile(1) };
        }
        drop(stacks);
        let stats = pool.stats();
        assert_eq!((stats.live, stats.free, stats.cold), (0, 100, 0));
        assert!(100 * StackSize::Small.bytes() <= stats.mapped);
    }
    assert_eq!(limit().is_none(), GuardKind::detect() == GuardKind::Install);
}

#[test]
fn trimming_empties_the_surplus_and_the_deep() {
    let pool = StackPool::default();
    let stacks: Vec<Stack> = (0..100).map(|_| pool.take(StackSize::Normal).unwrap()).collect();
    let deep = stacks[0].limit() + 8;
    for stack in &stacks {
        // SAFETY: a word of `stack`, which nothing runs on.
        unsafe { top_word(stack).write_volatile(7) };
    }
    // SAFETY: as above.
    unsafe { ptr::with_exposed_provenance_mut::<u64>(deep).write_volatile(7) };
    assert_eq!(pool.deepest(StackSize::Normal), StackSize::Normal.bytes() - page_bytes());
    let words: Vec<(usize, *mut u64)> =
        stacks.iter().map(|stack| (stack.limit(), top_word(stack))).collect();
    // The one that was used deeply is freed last, and so kept warm.
    stacks.into_iter().rev().for_each(drop);

    assert_eq!(pool.trim(10), 90);
    assert_eq!(pool.trim(10), 0, "nothing is left to do");
    assert_eq!(pool.stats().cold, 90);
    for (index, (_, word)) in words.iter().enumerate() {
        // SAFETY: mapped as long as the pool is.
        let kept = unsafe { word.read_volatile() };
        assert_eq!(kept, if index < 10 { 7 } else { 0 }, "stack {index}");
    }
    // SAFETY: as above.
    assert_eq!(unsafe { ptr::with_exposed_provenance::<u64>(deep).read_volatile() }, 0);
    assert_eq!(pool.deepest(StackSize::Normal), StackSize::Normal.bytes() - page_bytes());

    // Taken and given back, stacks are warm again, and no colder than they are.
    let again: Vec<Stack> = (0..50).map(|_| pool.take(StackSize::Normal).unwrap()).collect();
    assert_eq!(again[0].limit(), words[0].0);
    assert_eq!(pool.stats().cold, 50);
    drop(again);
    let stats = pool.stats();
    assert_eq!((stats.free, stats.cold), (100, 50));
    assert_eq!(pool.trim(0), 50);
    assert_eq!(pool.stats().cold, 100);
}

#[test]
fn many_stacks_are_few_mappings() {
    if GuardKind::detect() != GuardKind::Install {
        return;
    }
    let mappings = |pool: &StackPool| {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let lows =
            maps.lines().filter_map(|line| usize::from_str_radix(line.split('-').next()?, 16).ok());
        let own: HashSet<usize> = pool.chunk_lows().collect();
        lows.filter(|low| own.contains(low)).count()
    };
    let pool = StackPool::default();
    let stacks: Vec<Stack> = (0..20_000).map(|_| pool.take(StackSize::Small).unwrap()).collect();
    assert_eq!(pool.stats().live, stacks.len());
    assert!(mappings(&pool) <= 12, "{} mappings", mappings(&pool));
}

#[test]
fn threads_that_map_and_unmap_find_their_own_stacks() {
    let work = || {
        for round in 0..100 {
            let pool = StackPool::default();
            for size in [StackSize::ALL[round % 4], StackSize::ALL[(round + 1) % 4]] {
                let stacks: Vec<Stack> = (0..20).map(|_| pool.take(size).unwrap()).collect();
                for stack in &stacks {
                    let slot = region::find(stack.limit()).unwrap();
                    assert_eq!(
                        (slot.low + page_bytes(), slot.bytes),
                        (stack.limit(), size.bytes())
                    );
                    assert_eq!(region::find(stack.top() - 1), Some(slot));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(work);
        }
    });
}
