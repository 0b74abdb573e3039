//! Groups and pools.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use warren_hub::{Group, JoinHandle, Pool, sleep, yield_now};

use crate::said::{FOREVER, SHORT, after, caught, fails, finally, list, optional, value, yes};

scenarios! { on_hub:
    a_group_is_joined_as_one
    a_group_forgets_those_who_ended
    a_group_is_killed_as_one
    a_group_join_gives_up_after_a_timeout
    a_group_maps_in_order
    a_group_applies
    a_failure_in_a_map_is_raised
    a_pool_runs_as_many_as_it_may
    spawn_waits_for_a_place
    a_full_pool
    a_full_pool_refuses_who_will_not_wait
    wait_available_waits_for_a_place
    a_place_is_given_back_on_failure_and_kill
    a_pool_maps_in_order
    imap_gives_in_order
    imap_unordered_gives_as_they_end
    imap_is_bounded_by_the_pool
    imap_raises_at_the_place_of_the_failure
    apply_async_gives_a_fiber
    apply_waits_for_the_value
    a_pool_is_killed_as_one
}

fn say_len(group: &Group) {
    say!("{} in the group", group.len());
}

fn a_group_is_joined_as_one() {
    let group = Group::new();
    for name in ["a", "b"] {
        group.spawn(move || say!("{name}"));
    }
    say_len(&group);
    group.join();
    say_len(&group);
}

fn a_group_forgets_those_who_ended() {
    let group = Group::new();
    group.spawn(after(Duration::ZERO, "a"));
    group.spawn(after(FOREVER, "b"));
    sleep(SHORT);
    say_len(&group);
    group.kill_wait(None);
}

fn a_group_is_killed_as_one() {
    let group = Group::new();
    group.spawn(|| {
        let _finally = finally("a cleans up");
        sleep(FOREVER);
    });
    yield_now();
    group.kill_wait(None);
    say_len(&group);
}

fn a_group_join_gives_up_after_a_timeout() {
    let group = Group::new();
    group.spawn(after(FOREVER, "a"));
    let _ = group.join_timeout(SHORT);
    say_len(&group);
    group.kill_wait(None);
}

/// The later, the sooner.
fn square(item: u32) -> u32 {
    sleep((3 - item) * SHORT);
    item * item
}

fn bad_at_one(item: u32) -> u32 {
    if item == 1 { fails("bad 1") } else { item }
}

fn a_group_maps_in_order() {
    say!("{}", list(Group::new().map(square, [0, 1, 2])));
}

fn a_group_applies() {
    let (a, b) = (1, 2);
    say!("{}", Group::new().apply(move || a + b));
}

fn a_failure_in_a_map_is_raised() {
    let group = Group::new();
    say!("failed: {}", optional(caught(|| group.map(bad_at_one, 0..3))));
}

fn a_pool_runs_as_many_as_it_may() {
    let pool = Pool::new(2);
    for name in ["a", "b", "c", "d"] {
        pool.spawn(move || {
            say!("{name} in");
            sleep(SHORT);
            say!("{name} out");
        });
    }
    pool.join();
}

fn spawn_waits_for_a_place() {
    let pool = Pool::new(1);
    pool.spawn(after(Duration::ZERO, "a"));
    say!("first spawned");
    pool.spawn(|| say!("b"));
    say!("second spawned");
    pool.join();
}

fn a_full_pool() {
    let pool = Pool::new(2);
    let say_states = || say!("full {} free {}", yes(pool.is_full()), pool.free_count());
    say_states();
    pool.spawn(after(FOREVER, "a"));
    say_states();
    pool.spawn(after(FOREVER, "b"));
    say_states();
    pool.kill_wait(None);
    say_states();
}

fn a_full_pool_refuses_who_will_not_wait() {
    let pool = Pool::new(1);
    pool.spawn(after(FOREVER, "a"));
    if pool.try_spawn(|| say!("never")).is_err() {
        say!("full");
    }
    pool.kill_wait(None);
}

fn wait_available_waits_for_a_place() {
    let pool = Pool::new(1);
    pool.spawn(after(Duration::ZERO, "a"));
    say!("free {}", pool.free_count());
    pool.wait_available();
    say!("free {}", pool.free_count());
}

fn a_place_is_given_back_on_failure_and_kill() {
    let pool = Pool::new(1);
    pool.spawn(|| fails::<()>("no"));
    let second = pool.spawn(after(FOREVER, "b"));
    say!("failed made room");
    second.kill_wait(None);
    pool.spawn(|| say!("kill made room"));
    pool.join();
}

fn a_pool_maps_in_order() {
    say!("{}", list(Pool::new(2).map(square, [0, 1, 2])));
}

/// Three that end in another order than they began.
const DELAYS: [(&str, u32); 3] = [("a", 3), ("b", 1), ("c", 2)];

fn delayed((name, times): (&'static str, u32)) -> &'static str {
    sleep(times * SHORT);
    name
}

fn imap_gives_in_order() {
    Pool::new(3).imap(delayed, DELAYS).for_each(|name| say!("{name}"));
}

fn imap_unordered_gives_as_they_end() {
    Pool::new(3).imap_unordered(delayed, DELAYS).for_each(|name| say!("{name}"));
}

fn imap_is_bounded_by_the_pool() {
    let running = Rc::new(Cell::new(0));
    let body = move |item: u32| {
        running.set(running.get() + 1);
        say!("at most two {}", yes(running.get() <= 2));
        yield_now();
        running.set(running.get() - 1);
        item
    };
    say!("{}", list(Pool::new(2).imap(body, 0..4)));
}

fn imap_raises_at_the_place_of_the_failure() {
    let mut values = Pool::new(2).imap(bad_at_one, 0..3);
    say!("{}", optional(values.next()));
    say!("failed: {}", optional(caught(|| values.next())));
    say!("{}", optional(values.next()));
}

fn apply_async_gives_a_fiber() {
    let fiber = Pool::new(1).apply_async(after(Duration::ZERO, "value"));
    say!("ready {}", yes(fiber.ready()));
    say!("{}", fiber.get().unwrap());
}

fn apply_waits_for_the_value() {
    say!("{}", Pool::new(1).apply(after(SHORT, "value")));
}

fn a_pool_is_killed_as_one() {
    let pool = Pool::new(2);
    let fibers: Vec<JoinHandle<_>> =
        ["a", "b"].into_iter().map(|name| pool.spawn(after(FOREVER, name))).collect();
    yield_now();
    pool.kill_wait(None);
    say!("{} {} in the pool", list(fibers.iter().map(value)), pool.len());
}
