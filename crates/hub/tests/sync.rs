//! Events, semaphores, locks, queues and results.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use warren_hub::sync::{AsyncResult, Closed, Event, GetError, Mutex, PutError, Queue, Semaphore};
use warren_hub::{TimedOut, join_all, run, spawn, yield_now};

const SHORT: Duration = Duration::from_millis(2);

#[test]
fn an_event_wakes_all_and_stays_set() {
    run(|| {
        let event = Rc::new(Event::new());
        let waiting = (0..3).map(|_| {
            spawn({
                let event = event.clone();
                move || event.wait()
            })
        });
        let waiting: Vec<_> = waiting.collect();
        yield_now();
        assert!(waiting.iter().all(|fiber| !fiber.is_finished()));
        event.set();
        join_all(waiting);
        event.wait();
        event.clear();
        assert_eq!(event.wait_timeout(SHORT), Err(TimedOut));
    });
}

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
        assert_eq!((most.get(), semaphore.available()), (2, 2));
    });
}

#[test]
fn permits_go_to_those_who_wait_in_turn_and_nobody_overtakes() {
    run(|| {
        let semaphore = Rc::new(Semaphore::new(1));
        let order = Rc::new(RefCell::new(Vec::new()));
        let permit = semaphore.acquire();
        let waiting: Vec<_> = (0..3)
            .map(|n| {
                let (semaphore, order) = (semaphore.clone(), order.clone());
                spawn(move || {
                    let _permit = semaphore.acquire();
                    order.borrow_mut().push(n);
                })
            })
            .collect();
        yield_now();
        drop(permit);
        assert!(semaphore.try_acquire().is_none());
        join_all(waiting);
        assert_eq!(order.take(), [0, 1, 2]);
    });
}

#[test]
fn one_who_gives_up_or_dies_takes_no_permit_with_him() {
    run(|| {
        let semaphore = Rc::new(Semaphore::new(1));
        let permit = semaphore.acquire();
        assert!(semaphore.acquire_timeout(SHORT).is_err());
        let dying = spawn({
            let semaphore = semaphore.clone();
            move || drop(semaphore.acquire())
        });
        yield_now();
        dying.kill();
        let _ = dying.join();
        drop(permit);
        assert_eq!(semaphore.available(), 1);
    });
}

#[test]
fn a_permit_handed_to_a_fiber_that_is_killed_at_once_comes_back() {
    run(|| {
        let semaphore = Rc::new(Semaphore::new(1));
        let permit = semaphore.acquire();
        let dying = spawn({
            let semaphore = semaphore.clone();
            move || {
                let _permit = semaphore.acquire();
                yield_now();
            }
        });
        yield_now();
        drop(permit);
        dying.kill();
        let _ = dying.join();
        assert_eq!(semaphore.available(), 1);
    });
}

#[test]
fn a_mutex_keeps_its_value_whole_across_waits() {
    run(|| {
        let value = Rc::new(Mutex::new(0));
        join_all((0..10).map(|_| {
            let value = value.clone();
            spawn(move || {
                let mut value = value.lock();
                let seen = *value;
                yield_now();
                *value = seen + 1;
            })
        }));
        assert_eq!(*value.lock(), 10);
        let held = value.lock();
        assert!(value.try_lock().is_none());
        drop(held);
        assert!(value.try_lock().is_some());
    });
}

#[test]
fn a_full_queue_holds_its_producer_back() {
    run(|| {
        let queue = Rc::new(Queue::bounded(2));
        let put = Rc::new(Cell::new(0));
        let producer = spawn({
            let (queue, put) = (queue.clone(), put.clone());
            move || {
                for n in 0..5 {
                    queue.put(n).unwrap();
                    put.set(n + 1);
                }
            }
        });
        yield_now();
        assert_eq!((put.get(), queue.len()), (2, 2));
        assert_eq!(queue.try_put(9), Err(PutError::Full(9)));
        let got: Vec<_> = (0..5).map(|_| queue.get().unwrap()).collect();
        assert_eq!(got, [0, 1, 2, 3, 4]);
        producer.join().unwrap();
        assert_eq!(queue.get_timeout(SHORT), Err(GetError::Empty));
    });
}

#[test]
fn a_closed_queue_gives_what_it_has_and_wakes_those_who_wait() {
    run(|| {
        let queue = Rc::new(Queue::bounded(1));
        queue.put("last").unwrap();
        let putting = spawn({
            let queue = queue.clone();
            move || queue.put("too late")
        });
        yield_now();
        queue.close();
        assert_eq!(putting.join().unwrap(), Err(Closed));
        assert_eq!(queue.get(), Ok("last"));
        assert_eq!(queue.get(), Err(Closed));
        assert_eq!(queue.try_put("never"), Err(PutError::Closed("never")));
    });
}

#[test]
fn items_go_to_consumers_in_turn() {
    run(|| {
        let queue = Rc::new(Queue::unbounded());
        let got = Rc::new(RefCell::new(Vec::new()));
        let consumers: Vec<_> = (0..2)
            .map(|consumer| {
                let (queue, got) = (queue.clone(), got.clone());
                spawn(move || {
                    for item in queue.iter() {
                        got.borrow_mut().push((consumer, item));
                    }
                })
            })
            .collect();
        yield_now();
        for item in 0..4 {
            queue.put(item).unwrap();
            yield_now();
        }
        queue.close();
        join_all(consumers);
        assert_eq!(got.take(), [(0, 0), (1, 1), (0, 2), (1, 3)]);
    });
}

#[test]
fn an_async_result_is_set_once_for_all() {
    run(|| {
        let result = Rc::new(AsyncResult::new());
        assert_eq!(result.get_timeout(SHORT), Err(TimedOut));
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                spawn({
                    let result = result.clone();
                    move || result.get()
                })
            })
            .collect();
        yield_now();
        assert_eq!(result.set(1), Ok(()));
        assert_eq!(result.set(2), Err(2));
        for value in join_all(waiting) {
            assert_eq!(value.unwrap(), 1);
        }
        assert_eq!(result.peek(), Some(1));
    });
}
