//! Waiting for several things.

use std::rc::Rc;

use super::run;
use warren_hub::sync::{AsyncResult, Event, Semaphore};
use warren_hub::{WaitOptions, Waitable, iwait, spawn, wait, yield_now};

use super::{LONG, SHORT};

fn events<const N: usize>() -> [Rc<Event>; N] {
    std::array::from_fn(|_| Rc::new(Event::new()))
}

fn as_objects<T: Waitable>(objects: &[Rc<T>]) -> Vec<&dyn Waitable> {
    objects.iter().map(|object| &**object as &dyn Waitable).collect()
}

#[test]
fn indices_come_in_the_order_of_completion() {
    run(|| {
        let events: [_; 4] = events();
        events[2].set();
        let setters = events.clone();
        spawn(move || {
            setters[3].set();
            setters[0].set();
            yield_now();
            setters[1].set();
        });
        assert_eq!(wait(&as_objects(&events), WaitOptions::default()), [2, 3, 0, 1]);
        // All are set: nothing to wait for.
        assert_eq!(wait(&as_objects(&events), WaitOptions::default()), [0, 1, 2, 3]);
    });
}

#[test]
fn enough_are_as_many_as_were_asked_for() {
    run(|| {
        let events: [_; 3] = events();
        let setters = events.clone();
        spawn(move || setters.iter().for_each(|event| event.set()));
        let options = WaitOptions { count: Some(2), timeout: Some(LONG) };
        assert_eq!(wait(&as_objects(&events), options), [0, 1]);
        let none = WaitOptions { count: Some(0), ..options };
        assert_eq!(wait(&as_objects(&events), none), [0; 0]);
        assert_eq!(wait(&[], WaitOptions::default()), [0; 0]);
    });
}

#[test]
fn a_timeout_gives_what_there_is() {
    run(|| {
        let events: [_; 2] = events();
        events[1].set();
        let options = WaitOptions { timeout: Some(SHORT), ..WaitOptions::default() };
        assert_eq!(wait(&as_objects(&events), options), [1]);
        let mut steps = iwait(&[&*events[0]], options);
        assert_eq!((steps.next(), steps.next()), (None, None));
    });
}

#[test]
fn what_was_complete_for_a_moment_counts() {
    run(|| {
        let events: [_; 2] = events();
        let setters = events.clone();
        spawn(move || {
            setters[1].set();
            setters[1].clear();
            setters[0].set();
        });
        let objects = as_objects(&events);
        let mut steps = iwait(&objects, WaitOptions::default());
        assert_eq!(steps.next(), Some(1));
        // Between two steps too.
        assert_eq!(steps.next(), Some(0));
        assert_eq!(steps.next(), None);
    });
}

#[test]
fn objects_of_several_kinds() {
    run(|| {
        let event = Rc::new(Event::new());
        let result = Rc::new(AsyncResult::<i32, ()>::new());
        let semaphore = Rc::new(Semaphore::new(0));
        let (e, r, s) = (event.clone(), result.clone(), semaphore.clone());
        spawn(move || {
            s.release();
            yield_now();
            r.set_exception(()).unwrap();
            yield_now();
            e.set();
        });
        let objects: [&dyn Waitable; 3] = [&*event, &*result, &*semaphore];
        assert_eq!(wait(&objects, WaitOptions::default()), [2, 1, 0]);
        assert_eq!(semaphore.available(), 1, "waiting takes no permit");
    });
}

/// gevent's `joinall` and `wait` over greenlets.
#[test]
fn fibers_can_be_waited_for_without_taking_their_results() {
    run(|| {
        let turns = |turns: usize| {
            spawn(move || {
                (0..turns).for_each(|_| yield_now());
                turns
            })
        };
        let panics = spawn(|| panic!("waited for"));
        let (slow, quick) = (turns(9), turns(1));
        let objects: [&dyn Waitable; 3] = [&slow, &quick, &panics];
        assert_eq!(wait(&objects, WaitOptions { count: Some(2), timeout: None }), [2, 1]);
        assert!(!slow.is_finished());
        assert_eq!(iwait(&objects, WaitOptions::default()).collect::<Vec<_>>(), [1, 2, 0]);
        assert_eq!((slow.join().unwrap(), quick.join().unwrap()), (9, 1));
        assert_eq!(panics.join().unwrap_err().message(), Some("waited for"));
    });
}

#[test]
fn a_killed_fiber_leaves_all_it_waited_for() {
    run(|| {
        let events: [_; 2] = events();
        let objects = events.clone();
        let waiting = spawn(move || wait(&as_objects(&objects), WaitOptions::default()).len());
        yield_now();
        waiting.kill();
        let _ = waiting.join();
        let [first, second] = events;
        first.set();
        assert_eq!(wait(&[&*first, &*second], WaitOptions { count: Some(1), timeout: None }), [0]);
        assert_eq!((Rc::strong_count(&first), Rc::strong_count(&second)), (1, 1));
    });
}
