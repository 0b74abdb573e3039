//! Queues of all kinds.

use std::cell::Cell;
use std::rc::Rc;

use super::run;
use warren_hub::sync::{
    Channel, Closed, GetError, JoinableQueue, LifoQueue, PriorityQueue, PutError, Queue,
};
use warren_hub::{TimedOut, join_all, spawn, yield_now};

use super::{LONG, Log, SHORT, start};

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
        assert_eq!((put.get(), queue.len(), queue.is_full()), (2, 2, true));
        assert_eq!(queue.try_put(9), Err(PutError::Full(9)));
        assert_eq!(queue.put_timeout(9, SHORT), Err(PutError::Full(9)));
        let got: Vec<_> = (0..5).map(|_| queue.get().unwrap()).collect();
        assert_eq!(got, [0, 1, 2, 3, 4]);
        producer.join().unwrap();
        assert_eq!(queue.get_timeout(SHORT), Err(GetError::Empty));
        assert_eq!(queue.try_get(), Err(GetError::Empty));
        assert_eq!((queue.capacity(), Queue::<()>::unbounded().capacity()), (Some(2), None));
    });
}

/// gevent, changed in 1.1: those who block in `put` are "awakened to put their items into the queue in the order
/// in which they arrived".
#[test]
fn putters_are_served_in_turn_and_nobody_overtakes() {
    run(|| {
        let queue = Rc::new(Queue::bounded(1));
        queue.put(0).unwrap();
        let putting: Vec<_> =
            (1..4).map(|n| start(&queue, move |queue| queue.put(n).unwrap())).collect();
        assert_eq!(queue.get(), Ok(0));
        // The room is the first waiter's.
        assert_eq!(queue.try_put(9), Err(PutError::Full(9)));
        let got: Vec<_> = (0..3).map(|_| queue.get().unwrap()).collect();
        assert_eq!(got, [1, 2, 3]);
        join_all(putting);
    });
}

#[test]
fn items_go_to_consumers_in_turn_and_nobody_overtakes() {
    run(|| {
        let queue = Rc::new(Queue::unbounded());
        let got: Log<(i32, i32)> = Log::default();
        let consumers: Vec<_> = (0..2)
            .map(|consumer| {
                let got = got.clone();
                start(&queue, move |queue| {
                    for item in queue.iter() {
                        got.borrow_mut().push((consumer, item));
                    }
                })
            })
            .collect();
        for item in 0..4 {
            queue.put(item).unwrap();
            assert_eq!(queue.try_get(), Err(GetError::Empty), "it is the first waiter's");
            yield_now();
        }
        queue.close();
        join_all(consumers);
        assert_eq!(got.take(), [(0, 0), (1, 1), (0, 2), (1, 3)]);
    });
}

#[test]
fn a_closed_queue_gives_what_it_has_and_wakes_those_who_wait() {
    run(|| {
        let queue = Rc::new(Queue::bounded(1));
        queue.put("last").unwrap();
        let putting = start(&queue, |queue| queue.put("too late"));
        let waiting_long = start(&queue, |queue| queue.put_timeout("too late", LONG));
        queue.close();
        assert_eq!(putting.join().unwrap(), Err(Closed));
        assert_eq!(waiting_long.join().unwrap(), Err(PutError::Closed("too late")));
        assert_eq!(queue.peek(), Ok("last"));
        assert_eq!(queue.get(), Ok("last"));
        assert_eq!(queue.get(), Err(Closed));
        assert_eq!(queue.get_timeout(LONG), Err(GetError::Closed));
        assert_eq!((queue.peek(), queue.try_peek()), (Err(Closed), Err(GetError::Closed)));
        assert_eq!(queue.try_put("never"), Err(PutError::Closed("never")));
        assert_eq!(queue.put("never"), Err(Closed));
    });
}

#[test]
fn closing_wakes_all_who_wait_for_an_item() {
    run(|| {
        let queue = Rc::new(Queue::<i32>::unbounded());
        let getting: Vec<_> = (0..3).map(|_| start(&queue, |queue| queue.get())).collect();
        let peeking = start(&queue, |queue| queue.peek_timeout(LONG));
        queue.close();
        assert!(join_all(getting).into_iter().all(|got| got.unwrap() == Err(Closed)));
        assert_eq!(peeking.join().unwrap(), Err(GetError::Closed));
    });
}

/// Python 3.13: with `immediate`, gets fail at once, and the items count as done.
#[test]
fn an_immediate_shutdown_drops_the_items_and_ends_the_join() {
    struct Dropped(Rc<Cell<usize>>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    run(|| {
        let dropped = Rc::new(Cell::new(0));
        let queue = Rc::new(Queue::bounded(2));
        for _ in 0..2 {
            queue.put(Dropped(dropped.clone())).unwrap();
        }
        let joining = start(&queue, |queue| queue.join());
        let putting = start(&queue, {
            let item = Dropped(dropped.clone());
            move |queue| queue.put(item).is_err()
        });
        queue.shutdown(true);
        assert_eq!((dropped.get(), queue.len()), (2, 0));
        assert!(matches!(queue.try_get(), Err(GetError::Closed)));
        joining.join().unwrap();
        assert!(putting.join().unwrap());
        assert_eq!(dropped.get(), 3);
    });
}

#[test]
fn joining_waits_for_what_is_unfinished() {
    run(|| {
        let queue = Rc::new(JoinableQueue::unbounded());
        queue.join();
        for n in 0..3 {
            queue.put(n).unwrap();
        }
        assert_eq!(queue.unfinished_tasks(), 3);
        assert_eq!(queue.join_timeout(SHORT), Err(TimedOut));
        let joining = start(&queue, |queue| queue.join());
        for _ in 0..3 {
            queue.get().unwrap();
            assert!(!joining.is_finished());
            queue.task_done();
            yield_now();
        }
        joining.join().unwrap();
        assert_eq!((queue.unfinished_tasks(), queue.join_timeout(SHORT)), (0, Ok(())));
    });
}

#[test]
#[should_panic(expected = "more often than items were put")]
fn a_task_cannot_be_done_that_was_not_put() {
    run(|| Queue::<()>::unbounded().task_done());
}

#[test]
fn peeking_leaves_the_item_for_the_next() {
    run(|| {
        let queue = Rc::new(Queue::unbounded());
        assert_eq!(queue.peek_timeout(SHORT), Err(GetError::Empty));
        let peeking = start(&queue, |queue| queue.peek());
        let getting = start(&queue, |queue| queue.get());
        queue.put(1).unwrap();
        assert_eq!((peeking.join().unwrap(), getting.join().unwrap()), (Ok(1), Ok(1)));
        queue.put(2).unwrap();
        assert_eq!((queue.peek(), queue.try_peek(), queue.len()), (Ok(2), Ok(2), 1));
    });
}

#[test]
fn the_last_comes_first_and_the_smallest_comes_first() {
    run(|| {
        let lifo = Rc::new(LifoQueue::bounded(3));
        let sorted = Rc::new(PriorityQueue::bounded(3));
        for n in [2, 3, 1] {
            lifo.put(n).unwrap();
            sorted.put(n).unwrap();
        }
        assert_eq!((lifo.peek(), sorted.peek()), (Ok(1), Ok(1)));
        // What waits for room comes in its turn, and then is sorted in.
        let waiting = [
            start(&lifo, |queue| queue.put(0).unwrap()),
            start(&sorted, |queue| queue.put(0).unwrap()),
        ];
        let got = |mut get: Box<dyn FnMut() -> i32>| [(); 4].map(|_| get());
        let (l, s) = (lifo.clone(), sorted.clone());
        assert_eq!(got(Box::new(move || l.get().unwrap())), [1, 0, 3, 2]);
        assert_eq!(got(Box::new(move || s.get().unwrap())), [1, 0, 2, 3]);
        join_all(waiting);
    });
}

#[test]
fn a_channel_hands_over_from_fiber_to_fiber() {
    run(|| {
        let channel = Rc::new(Channel::new());
        assert_eq!((channel.len(), channel.is_empty(), channel.is_full()), (0, true, true));
        assert_eq!(channel.try_put(1), Err(PutError::Full(1)));
        assert_eq!(channel.put_timeout(1, SHORT), Err(PutError::Full(1)));
        assert_eq!(channel.try_get(), Err(GetError::Empty));
        // The getter waits first.
        let getting = start(&channel, |channel| channel.get());
        assert_eq!(channel.put(2), Ok(()));
        assert_eq!(getting.join().unwrap(), Ok(2));
        // The putter waits first.
        let putting = start(&channel, |channel| channel.put(3));
        assert!(!putting.is_finished());
        assert_eq!(channel.try_get(), Ok(3));
        assert_eq!(putting.join().unwrap(), Ok(()));
        // Without waiting, to one who waits.
        let getting = start(&channel, |channel| channel.get());
        assert_eq!(channel.try_put(4), Ok(()));
        assert_eq!(channel.try_put(5), Err(PutError::Full(5)));
        assert_eq!(getting.join().unwrap(), Ok(4));
        let putting = start(&channel, |channel| channel.put(6));
        channel.close();
        assert_eq!(putting.join().unwrap(), Err(Closed));
        assert_eq!((channel.get(), channel.put(7)), (Err(Closed), Err(Closed)));
    });
}
