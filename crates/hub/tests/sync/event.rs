//! Events and results.

use std::cell::Cell;
use std::rc::Rc;

use super::run;
use warren_hub::sync::{AsyncResult, Event};
use warren_hub::{TimedOut, join_all, sleep, spawn, yield_now};

use super::{LONG, Log, SHORT, start};

#[test]
fn an_event_wakes_all_in_turn_and_stays_set() {
    run(|| {
        let event = Rc::new(Event::new());
        let order: Log<u32> = Log::default();
        let waiting: Vec<_> = (0..3)
            .map(|n| {
                let order = order.clone();
                start(&event, move |event| {
                    event.wait();
                    order.borrow_mut().push(n);
                })
            })
            .collect();
        assert!(waiting.iter().all(|fiber| !fiber.is_finished()));
        event.set();
        join_all(waiting);
        assert_eq!(order.take(), [0, 1, 2]);
        event.wait();
        assert_eq!(event.wait_timeout(SHORT), Ok(()));
        event.clear();
        assert!(!event.is_set());
        assert_eq!(event.wait_timeout(SHORT), Err(TimedOut));
    });
}

/// gevent, changed in 1.1: the value returned by `wait` is of the time of the wait and not of its end.
#[test]
fn who_waited_for_an_event_goes_on_though_it_is_cleared_at_once() {
    run(|| {
        let event = Rc::new(Event::new());
        let waiting = start(&event, |event| event.wait_timeout(LONG));
        event.set();
        event.clear();
        assert_eq!(waiting.join().unwrap(), Ok(()));
    });
}

#[test]
fn a_timeout_beyond_what_the_clock_counts_is_none() {
    run(|| {
        let event = Rc::new(Event::new());
        let waiting = start(&event, |event| event.wait_timeout(std::time::Duration::MAX));
        event.set();
        assert_eq!(waiting.join().unwrap(), Ok(()));
    });
}

#[test]
fn a_result_is_set_once_for_all_who_wait() {
    run(|| {
        let result = Rc::new(AsyncResult::<i32>::new());
        assert_eq!(result.get_timeout(SHORT), Err(TimedOut));
        assert_eq!((result.ready(), result.try_get(), result.value()), (false, None, None));
        let waiting: Vec<_> = (0..2).map(|_| start(&result, |result| result.get())).collect();
        assert_eq!(result.set(1), Ok(()));
        assert_eq!(result.set(2), Err(2));
        for value in join_all(waiting) {
            assert_eq!(value.unwrap(), Ok(1));
        }
        let Ok(value) = result.get();
        assert_eq!((value, result.value(), result.ready()), (1, Some(1), true));
    });
}

#[test]
fn an_error_is_what_get_gives_and_not_what_wait_does() {
    run(|| {
        let result = Rc::new(AsyncResult::<i32, &str>::new());
        let getting = start(&result, |result| result.get_timeout(LONG));
        let waiting = start(&result, |result| result.wait());
        result.set_exception("broken").unwrap();
        assert_eq!(result.set(1), Err(1));
        assert_eq!(result.set_exception("again"), Err("again"));
        assert_eq!(getting.join().unwrap(), Ok(Err("broken")));
        waiting.join().unwrap();
        assert_eq!((result.ready(), result.successful()), (true, false));
        assert_eq!((result.value(), result.exception()), (None, Some("broken")));
        assert_eq!(result.wait_timeout(SHORT), Ok(()));
    });
}

#[test]
fn links_are_called_with_the_outcome_from_the_loop() {
    run(|| {
        let result = AsyncResult::<i32, &str>::new();
        let told: Log<Result<i32, &str>> = Log::default();
        let tell = || {
            let told = told.clone();
            move |outcome| told.borrow_mut().push(outcome)
        };
        result.link(tell());
        let unlinked = result.link(tell());
        assert!(result.unlink(unlinked));
        assert!(!result.unlink(unlinked));
        result.set(7).unwrap();
        assert!(told.borrow().is_empty(), "not in the middle of set");
        result.link(tell());
        while told.borrow().len() < 2 {
            yield_now();
        }
        assert_eq!(told.take(), [Ok(7), Ok(7)]);
    });
}

#[test]
fn an_event_set_from_a_callback_of_the_loop_wakes() {
    run(|| {
        let event = Rc::new(Event::new());
        let setter = event.clone();
        warren_hub::call_soon(move || setter.set());
        event.wait();
        let later = Rc::new(Cell::new(false));
        let done = later.clone();
        spawn(move || {
            sleep(SHORT);
            done.set(true);
        })
        .join()
        .unwrap();
        assert!(later.get());
    });
}
