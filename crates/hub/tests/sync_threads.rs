//! Channels, semaphores and events between hubs and threads.

mod support;

use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use support::run;
use warren_hub::sync::{Closed, GetError, PutError};
use warren_hub::{
    HubGroup, Receiver, Sender, SharedEvent, SharedSemaphore, TimedOut, channel, sleep, spawn,
    unbounded_channel, yield_now,
};

const SHORT: Duration = Duration::from_millis(2);
const LONG: Duration = Duration::from_secs(60);

#[test]
fn items_arrive_in_order_between_hubs() {
    let group = HubGroup::start(2).unwrap();
    for capacity in [0, 1, 7, usize::MAX] {
        let (numbers, received) = channel(capacity);
        let sending = group.spawn_on(0, move || {
            for n in 0..500 {
                numbers.send(n).unwrap();
            }
        });
        let receiving = group.spawn_on(1, move || received.iter().collect::<Vec<i32>>());
        sending.unwrap().join().unwrap();
        assert_eq!(receiving.unwrap().join().unwrap(), (0..500).collect::<Vec<_>>());
    }
    group.shutdown();
}

#[test]
fn threads_without_a_hub_block() {
    let (to_hub, in_hub) = channel(1);
    let (to_thread, in_thread) = channel(0);
    let hub = thread::spawn(move || {
        run(move || {
            for n in in_hub.iter() {
                to_thread.send(2 * n).unwrap();
            }
        })
    });
    for n in 0..100 {
        to_hub.send(n).unwrap();
        assert_eq!(in_thread.recv(), Ok(2 * n));
    }
    drop(to_hub);
    assert_eq!(in_thread.recv(), Err(Closed));
    hub.join().unwrap();
}

/// Runs `check` on a fiber and on a thread that has no hub.
fn on_both(check: fn()) {
    run(check);
    check();
}

#[test]
fn nothing_there_and_no_room() {
    on_both(|| {
        let (sender, receiver) = channel(1);
        assert_eq!(receiver.try_recv(), Err(GetError::Empty));
        assert_eq!(receiver.recv_timeout(SHORT), Err(GetError::Empty));
        sender.send(1).unwrap();
        assert_eq!(sender.try_send(2), Err(PutError::Full(2)));
        assert_eq!(sender.send_timeout(2, SHORT), Err(PutError::Full(2)));
        assert_eq!((sender.len(), receiver.is_empty()), (1, false));
        assert_eq!(receiver.recv_timeout(LONG), Ok(1));
        let (sender, receiver) = channel(0);
        assert_eq!(sender.try_send(1), Err(PutError::Full(1)));
        assert_eq!(sender.send_timeout(1, SHORT), Err(PutError::Full(1)));
        assert_eq!(receiver.recv_timeout(SHORT), Err(GetError::Empty));
    });
}

#[test]
fn when_one_side_has_gone_the_other_is_told() {
    on_both(|| {
        let (sender, receiver) = channel(9);
        let other = sender.clone();
        sender.send(1).unwrap();
        drop(sender);
        assert_eq!((receiver.recv(), receiver.try_recv()), (Ok(1), Err(GetError::Empty)));
        drop(other);
        assert_eq!((receiver.recv(), receiver.try_recv()), (Err(Closed), Err(GetError::Closed)));
        let (sender, receiver) = channel(9);
        let item = Arc::new(());
        sender.send(item.clone()).unwrap();
        drop((receiver.clone(), receiver));
        assert_eq!(Arc::strong_count(&item), 1, "what nobody can receive is dropped");
        assert_eq!(sender.send(item.clone()), Err(PutError::Closed(item.clone())));
        assert_eq!(sender.send_timeout(item.clone(), LONG), Err(PutError::Closed(item)));
    });
}

#[test]
fn those_who_wait_are_told_that_the_other_side_has_gone() {
    run(|| {
        let (sender, receiver) = channel(0);
        let receiving = spawn(move || receiver.recv());
        yield_now();
        drop::<Sender<()>>(sender);
        assert_eq!(receiving.join().unwrap(), Err(Closed));
        let (sender, receiver) = channel(0);
        let sending = spawn(move || sender.send(1));
        yield_now();
        drop::<Receiver<_>>(receiver);
        assert_eq!(sending.join().unwrap(), Err(PutError::Closed(1)));
    });
}

#[test]
fn many_senders_and_many_receivers() {
    const EACH: usize = 300;
    let (sender, receiver) = channel(3);
    let group = HubGroup::start(2).unwrap();
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let sender = sender.clone();
            thread::spawn(move || (0..EACH).for_each(|n| sender.send(n).unwrap()))
        })
        .collect();
    let fibers: Vec<_> = (0..2)
        .map(|hub| {
            let sender = sender.clone();
            group.spawn_on(hub, move || (0..EACH).for_each(|n| sender.send(n).unwrap())).unwrap()
        })
        .collect();
    drop(sender);
    let receiving: Vec<_> = (0..2)
        .map(|hub| {
            let receiver = receiver.clone();
            group.spawn_on(hub, move || receiver.iter().sum::<usize>()).unwrap()
        })
        .collect();
    let here: usize = receiver.iter().sum();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
    let there: usize = receiving.into_iter().map(|fiber| fiber.join().unwrap()).sum();
    assert_eq!(here + there, 4 * EACH * (EACH - 1) / 2);
    group.shutdown();
}

#[test]
fn a_killed_fiber_takes_no_item_with_it() {
    run(|| {
        let (sender, receiver) = unbounded_channel();
        let receiver = Rc::new(receiver);
        let receive = || {
            let receiver = receiver.clone();
            spawn(move || receiver.recv())
        };
        let (dying, next) = (receive(), receive());
        yield_now();
        // Woken by a letter, and killed before it runs.
        sender.send(1).unwrap();
        dying.kill();
        match dying.join() {
            Err(_) => assert_eq!(next.join().unwrap(), Ok(1)),
            Ok(first) => {
                assert_eq!(first, Ok(1));
                next.kill();
            }
        }
        // A putter that is killed takes its item back.
        let (sender, receiver) = channel(0);
        let dying = spawn(move || sender.send(2));
        yield_now();
        dying.kill();
        assert!(dying.join().is_err());
        assert_eq!(receiver.recv(), Err(Closed));
    });
}

#[test]
fn a_permit_is_held_by_one_across_hubs_and_threads() {
    let semaphore = SharedSemaphore::new(1);
    let inside = Arc::new(AtomicUsize::new(0));
    let enter = {
        let (semaphore, inside) = (semaphore.clone(), inside.clone());
        move |wait: fn()| {
            for _ in 0..20 {
                let _permit = semaphore.acquire();
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                wait();
                inside.fetch_sub(1, Ordering::SeqCst);
            }
        }
    };
    let group = HubGroup::start(2).unwrap();
    let fibers: Vec<_> = (0..4)
        .map(|n| {
            let enter = enter.clone();
            group.spawn_on(n % 2, move || enter(yield_now)).unwrap()
        })
        .collect();
    let thread = thread::spawn(move || enter(thread::yield_now));
    fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
    thread.join().unwrap();
    group.shutdown();
    assert_eq!(semaphore.available(), 1);
}

#[test]
fn shared_permits_can_be_tried_for_and_forgotten() {
    on_both(|| {
        let semaphore = SharedSemaphore::new(1);
        let permit = semaphore.try_acquire().unwrap();
        assert!(semaphore.try_acquire().is_none());
        assert_eq!(semaphore.acquire_timeout(SHORT).map(drop), Err(TimedOut));
        permit.forget();
        assert_eq!(semaphore.available(), 0);
        semaphore.release();
        assert!(semaphore.acquire_timeout(LONG).is_ok());
    });
}

#[test]
fn a_permit_of_a_killed_fiber_goes_on() {
    run(|| {
        let semaphore = SharedSemaphore::new(0);
        let acquire = || {
            let semaphore = semaphore.clone();
            spawn(move || drop(semaphore.acquire()))
        };
        let (dying, next) = (acquire(), acquire());
        yield_now();
        dying.kill();
        semaphore.release();
        next.join().unwrap();
        let _ = dying.join();
        assert_eq!(semaphore.available(), 1);
    });
}

#[test]
fn an_event_wakes_fibers_and_threads() {
    let event = SharedEvent::new();
    assert_eq!(event.wait_timeout(SHORT), Err(TimedOut));
    let waiting = Arc::new(Barrier::new(2));
    let thread = thread::spawn({
        let (event, waiting) = (event.clone(), waiting.clone());
        move || {
            waiting.wait();
            event.wait();
        }
    });
    waiting.wait();
    run({
        let event = event.clone();
        move || {
            let fiber = spawn({
                let event = event.clone();
                move || event.wait_timeout(LONG)
            });
            let killed = spawn({
                let event = event.clone();
                move || event.wait()
            });
            sleep(SHORT);
            killed.kill();
            assert!(killed.join().is_err());
            event.set();
            assert_eq!(fiber.join().unwrap(), Ok(()));
            event.wait();
        }
    });
    thread.join().unwrap();
    event.clear();
    assert!(!event.is_set());
    assert_eq!(event.wait_timeout(SHORT), Err(TimedOut));
}

#[test]
#[should_panic(expected = "callbacks must not wait")]
fn a_callback_of_the_loop_cannot_wait_for_another_thread() {
    run(|| {
        let (_sender, receiver) = channel::<()>(1);
        warren_hub::call_soon(move || assert!(receiver.recv().is_err()));
        sleep(LONG);
    });
}
