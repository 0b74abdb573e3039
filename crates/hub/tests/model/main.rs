//! The protocols between hubs and threads, under a model checker.
//!
//! The files themselves are compiled here, with another `shim` (atomics and locks whose every use is a point at
//! which shuttle may let another thread run) and another `remote` (a thread stands for a hub with one fiber, which
//! sleeps and is rung awake as a hub is, and may be killed or time out wherever it waits). A wake-up that is lost
//! shows as a deadlock.

#[allow(dead_code, unreachable_pub, reason = "the crate's own file, of which not all is used here")]
#[path = "../../src/channel.rs"]
mod channel;
#[path = "../../src/future/flag.rs"]
mod flag;
#[allow(dead_code, reason = "the crate's own file, of which not all is used here")]
#[path = "../../src/mailbox.rs"]
mod mailbox;
mod remote;
#[allow(dead_code, unreachable_pub, reason = "the crate's own file, of which not all is used here")]
#[path = "../../src/shared.rs"]
mod shared;
mod shim;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the crate's own files, of which not all is used here"
)]
mod sync;

mod timer {
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct TimedOut;
}

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use shuttle::sync::Arc;
use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::thread;

use channel::{Receiver, Sender};
use flag::Flag;
use mailbox::Mailbox;
use remote::Bell;
use shared::{SharedEvent, SharedSemaphore};
use sync::{Closed, PutError};

/// Schedules tried for each case: chosen at random, and chosen to switch rarely, where it hurts most.
fn check(case: fn()) {
    const SCHEDULES: usize = 400;
    shuttle::check_random(case, SCHEDULES);
    shuttle::check_pct(case, SCHEDULES, 3);
}

/// Runs `f` with a fiber that may be killed wherever it waits. `None` when it was.
fn killable<T>(f: impl FnOnce() -> T) -> Option<T> {
    remote::let_kill(true);
    let ending = catch_unwind(AssertUnwindSafe(f));
    remote::let_kill(false);
    match ending {
        Ok(value) => Some(value),
        Err(payload) if payload.is::<remote::Killed>() => None,
        Err(payload) => std::panic::resume_unwind(payload),
    }
}

#[test]
fn a_sleeping_reader_is_woken_for_every_letter() {
    const EACH: usize = 3;
    check(|| {
        let mailbox = Arc::new((Mailbox::new(), Bell::default()));
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let mailbox = mailbox.clone();
                thread::spawn(move || {
                    for n in 0..EACH {
                        assert!(mailbox.0.post(n, || mailbox.1.ring()));
                    }
                })
            })
            .collect();
        let mut read = 0;
        while read < 2 * EACH {
            mailbox.0.drain(|_| read += 1);
            if read < 2 * EACH && mailbox.0.sleep() {
                mailbox.1.wait();
                mailbox.0.awake();
            }
        }
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        assert!(mailbox.0.is_empty());
    });
}

/// As a fiber waits for a future: it must not park for good while there is news that it has not seen.
#[test]
fn a_fiber_that_waits_for_a_future_sees_all_news() {
    const WAKERS: usize = 3;
    check(|| {
        let shared = Arc::new((Flag::new(), Mailbox::new(), Bell::default(), AtomicUsize::new(0)));
        let wakers: Vec<_> = (0..WAKERS)
            .map(|_| {
                let shared = shared.clone();
                thread::spawn(move || {
                    let (flag, mailbox, bell, news) = &*shared;
                    news.fetch_add(1, Ordering::Relaxed);
                    if flag.raise() {
                        assert!(mailbox.post((), || bell.ring()));
                    }
                })
            })
            .collect();
        let (flag, mailbox, bell, news) = &*shared;
        loop {
            flag.lower();
            if news.load(Ordering::Relaxed) == WAKERS {
                break;
            }
            if flag.is_up() {
                // A turn of the loop, in which letters wake nobody: the fiber is not parked.
                mailbox.drain(drop);
                continue;
            }
            let mut letters = 0;
            while letters == 0 {
                mailbox.drain(|()| letters += 1);
                if letters == 0 && mailbox.sleep() {
                    bell.wait();
                    mailbox.awake();
                }
            }
        }
        wakers.into_iter().for_each(|waker| waker.join().unwrap());
    });
}

#[test]
fn no_letter_stays_in_a_closed_mailbox() {
    check(|| {
        let mailbox = Arc::new((Mailbox::new(), Bell::default()));
        let letter = Arc::new(());
        let writer = thread::spawn({
            let (mailbox, letter) = (mailbox.clone(), letter.clone());
            move || {
                mailbox.0.post(letter.clone(), || mailbox.1.ring());
                mailbox.0.post(letter, || mailbox.1.ring());
            }
        });
        mailbox.0.drain(drop);
        mailbox.0.close();
        writer.join().unwrap();
        assert_eq!(Arc::strong_count(&letter), 1);
        assert!(!mailbox.0.post(letter.clone(), || ()));
    });
}

/// Two senders and two receivers. Each item must arrive once, and those of a sender in order.
fn exchange_items(capacity: usize) {
    const EACH: usize = 2;
    let (sender, receiver) = channel::channel(capacity);
    let send = |sender: Sender<(usize, usize)>, name| {
        thread::spawn(move || (0..EACH).for_each(|n| sender.send((name, n)).unwrap()))
    };
    let receive =
        |receiver: Receiver<_>| thread::spawn(move || receiver.iter().collect::<Vec<_>>());
    let receiving = [receive(receiver.clone()), receive(receiver)];
    let sending = [send(sender.clone(), 0), send(sender, 1)];
    sending.into_iter().for_each(|thread| thread.join().unwrap());
    let mut all = Vec::new();
    for got in receiving.map(|thread| thread.join().unwrap()) {
        for name in 0..2 {
            let of_one: Vec<usize> =
                got.iter().filter(|item| item.0 == name).map(|i| i.1).collect();
            assert!(of_one.is_sorted(), "{of_one:?}");
        }
        all.extend(got);
    }
    all.sort_unstable();
    assert_eq!(all, [(0, 0), (0, 1), (1, 0), (1, 1)]);
}

#[test]
fn items_arrive_once_and_in_order_from_hand_to_hand() {
    check(|| exchange_items(0));
}

#[test]
fn items_arrive_once_and_in_order_through_a_small_channel() {
    check(|| exchange_items(1));
}

#[test]
fn items_arrive_once_and_in_order_through_a_wide_channel() {
    check(|| exchange_items(usize::MAX));
}

/// Whoever is killed or gives up, on either side: an item is with its sender, with a receiver, or was dropped with a
/// sender that was killed while it held it; and the receiver that is left gets all that was sent.
fn exchange_among_the_dying(capacity: usize) {
    let (sender, receiver) = channel::channel(capacity);
    let item = Arc::new(());
    let sent = Arc::new(AtomicUsize::new(0));
    let dying = thread::spawn({
        let (sender, item, sent) = (sender.clone(), item.clone(), sent.clone());
        move || {
            if killable(|| sender.send(item)).is_some_and(|sending| sending.is_ok()) {
                sent.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let impatient = thread::spawn({
        let (item, sent) = (item.clone(), sent.clone());
        move || match sender.send_timeout(item, Duration::ZERO) {
            Ok(()) => drop(sent.fetch_add(1, Ordering::SeqCst)),
            Err(PutError::Full(_)) => {}
            Err(PutError::Closed(_)) => panic!("a receiver is left"),
        }
    });
    let got = Arc::new(AtomicUsize::new(0));
    let dying_too = thread::spawn({
        let (receiver, got) = (receiver.clone(), got.clone());
        move || {
            if killable(|| receiver.recv()).is_some_and(|received| received.is_ok()) {
                got.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let impatient_too = thread::spawn({
        let (receiver, got) = (receiver.clone(), got.clone());
        move || {
            if receiver.recv_timeout(Duration::ZERO).is_ok() {
                got.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let rest = receiver.iter().count();
    for thread in [dying, impatient, dying_too, impatient_too] {
        thread.join().unwrap();
    }
    assert_eq!(receiver.recv(), Err(Closed));
    let (sent, got) = (sent.load(Ordering::SeqCst), got.load(Ordering::SeqCst));
    // One that is killed after its item was taken does not know that it was.
    assert!(sent <= got + rest && got + rest <= 2, "sent {sent}, got {got} and {rest}");
    assert_eq!(Arc::strong_count(&item), 1);
}

#[test]
fn who_dies_at_a_rendezvous_loses_nothing_for_others() {
    check(|| exchange_among_the_dying(0));
}

#[test]
fn who_dies_at_a_channel_loses_nothing_for_others() {
    check(|| exchange_among_the_dying(1));
}

#[test]
fn the_end_of_one_side_is_told_to_all_who_wait() {
    check(|| {
        let (sender, receiver) = channel::channel::<u32>(0);
        let receiving =
            [receiver.clone(), receiver].map(|receiver| thread::spawn(move || receiver.recv()));
        drop(sender);
        for thread in receiving {
            assert_eq!(thread.join().unwrap(), Err(Closed));
        }
        let (sender, receiver) = channel::channel(0);
        let sending = [sender.clone(), sender].map(|sender| thread::spawn(move || sender.send(1)));
        drop(receiver);
        for thread in sending {
            assert_eq!(thread.join().unwrap(), Err(PutError::Closed(1)));
        }
    });
}

#[test]
fn a_permit_is_held_once_and_outlives_who_dies_waiting_for_it() {
    check(|| {
        let semaphore = SharedSemaphore::new(1);
        let inside = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..3)
            .map(|n| {
                let (semaphore, inside) = (semaphore.clone(), inside.clone());
                thread::spawn(move || {
                    let enter = || {
                        let _permit = match n {
                            0 => semaphore.acquire_timeout(Duration::ZERO).ok(),
                            _ => Some(semaphore.acquire()),
                        }?;
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        Some(())
                    };
                    if n == 1 { killable(enter).flatten() } else { enter() }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| assert!(thread.join().is_ok()));
        assert_eq!(semaphore.available(), 1);
    });
}

#[test]
fn an_event_wakes_all_who_wait() {
    check(|| {
        let event = SharedEvent::new();
        let threads: Vec<_> = (0..3)
            .map(|n| {
                let event = event.clone();
                thread::spawn(move || match n {
                    0 => drop(killable(|| event.wait())),
                    1 => drop(event.wait_timeout(Duration::ZERO).is_ok()),
                    _ => event.wait(),
                })
            })
            .collect();
        event.set();
        event.clear();
        event.set();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}
