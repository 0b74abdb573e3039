//! Semaphores.

use std::cell::Cell;
use std::rc::Rc;

use super::run;
use warren_hub::sync::{BoundedSemaphore, DummySemaphore, ReleasedTooOften, Semaphore};
use warren_hub::{TimedOut, join_all, spawn, yield_now};

use super::{LONG, Log, SHORT, start};

#[test]
fn a_semaphore_lets_in_as_many_as_it_has_permits() {
    run(|| {
        let semaphore = Rc::new(Semaphore::new(2));
        let (inside, most) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        join_all((0..6).map(|_| {
            let (semaphore, inside, most) = (semaphore.clone(), inside.clone(), most.clone());
            spawn(move || {
                let _permit = semaphore.acquire();
                inside.set(inside.get() + 1);
                most.set(most.get().max(inside.get()));
                yield_now();
                inside.set(inside.get() - 1);
            })
        }));
        assert_eq!((most.get(), semaphore.available(), semaphore.locked()), (2, 2, false));
    });
}

#[test]
fn permits_go_to_those_who_wait_in_turn_and_nobody_overtakes() {
    run(|| {
        let semaphore = Rc::new(Semaphore::new(1));
        let order: Log<u32> = Log::default();
        let permit = semaphore.acquire();
        let waiting: Vec<_> = (0..3)
            .map(|n| {
                let order = order.clone();
                start(&semaphore, move |semaphore| {
                    let _permit = semaphore.acquire();
                    order.borrow_mut().push(n);
                })
            })
            .collect();
        drop(permit);
        assert!(semaphore.try_acquire().is_none(), "it is the first waiter's already");
        join_all(waiting);
        assert_eq!(order.take(), [0, 1, 2]);
    });
}

#[test]
fn who_times_out_in_the_middle_leaves_the_others_in_order() {
    run(|| {
        let semaphore = Rc::new(Semaphore::new(0));
        let order: Log<u32> = Log::default();
        let first = start(&semaphore, {
            let order = order.clone();
            move |semaphore| {
                semaphore.acquire().forget();
                order.borrow_mut().push(1);
            }
        });
        let middle = start(&semaphore, |semaphore| semaphore.acquire_timeout(SHORT).map(drop));
        let last = start(&semaphore, {
            let order = order.clone();
            move |semaphore| {
                semaphore.acquire().forget();
                order.borrow_mut().push(3);
            }
        });
        assert_eq!(middle.join().unwrap(), Err(TimedOut));
        semaphore.release();
        semaphore.release();
        join_all([first, last]);
        assert_eq!((order.take(), semaphore.available()), (vec![1, 3], 0));
    });
}

/// gevent: `wait` "does not acquire", and returns at once when a permit is free.
#[test]
fn waiting_for_a_permit_does_not_take_it() {
    run(|| {
        let semaphore = Rc::new(Semaphore::new(1));
        semaphore.wait();
        let permit = semaphore.acquire();
        assert_eq!(semaphore.wait_timeout(SHORT), Err(TimedOut));
        let watching = start(&semaphore, |semaphore| {
            semaphore.wait();
            semaphore.available()
        });
        let acquiring = start(&semaphore, |semaphore| {
            let _permit = semaphore.acquire();
            yield_now();
        });
        drop(permit);
        yield_now();
        assert!(!watching.is_finished(), "the permit has gone to the one who acquires");
        acquiring.join().unwrap();
        assert_eq!(watching.join().unwrap(), 1);
        assert_eq!(semaphore.wait_timeout(LONG), Ok(()));
    });
}

#[test]
fn a_permit_that_is_forgotten_comes_back_by_release() {
    run(|| {
        let semaphore = Semaphore::default();
        semaphore.acquire().forget();
        assert!(semaphore.locked());
        semaphore.release();
        semaphore.release();
        assert_eq!(semaphore.available(), 2);
    });
}

#[test]
fn a_bounded_semaphore_refuses_to_be_released_beyond_its_value() {
    run(|| {
        let semaphore = Rc::new(BoundedSemaphore::new(2));
        assert_eq!(semaphore.release(), Err(ReleasedTooOften));
        let permit = semaphore.acquire();
        semaphore.acquire().forget();
        let waiting = start(&semaphore, |semaphore| semaphore.acquire().forget());
        assert_eq!(semaphore.release(), Ok(()));
        waiting.join().unwrap();
        assert_eq!(semaphore.available(), 0);
        assert_eq!(semaphore.release(), Ok(()));
        assert_eq!(semaphore.release(), Ok(()));
        // Whose place was released by hand already.
        drop(permit);
        assert_eq!((semaphore.available(), semaphore.release()), (2, Err(ReleasedTooOften)));
    });
}

#[test]
fn a_dummy_semaphore_holds_nobody_up() {
    let semaphore = DummySemaphore;
    semaphore.acquire();
    semaphore.acquire();
    assert!(!semaphore.locked());
    semaphore.release();
}
