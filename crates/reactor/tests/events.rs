//! Event queues: order, removal, failures, nesting, bounds, the loop and other threads.

use std::cell::{Cell, RefCell};
use std::fmt::Debug;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use warren_hub::sync::Event as Flag;
use warren_reactor::events::{
    Event, EventError, EventFailure, EventQueue, EventType, Fired, HandlerId,
};
use warren_reactor::testing::Clock;

const ON_TICK: EventType<u32> = EventType::new("on_tick");

/// What handlers say, in order.
#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    fn say(&self, text: impl Into<String>) {
        self.0.borrow_mut().push(text.into());
    }

    /// Registers a handler that says `name` and the payload.
    fn listen(&self, events: &EventQueue, name: &'static str) -> HandlerId {
        let log = self.clone();
        events.register(ON_TICK, move |tick| log.say(format!("{name}{}", **tick))).unwrap()
    }

    #[track_caller]
    fn check(&self, want: &[&str]) {
        assert_eq!(self.0.take(), want);
    }
}

fn failures(events: &EventQueue) -> Rc<RefCell<Vec<EventFailure>>> {
    let seen = Rc::<RefCell<Vec<EventFailure>>>::default();
    let keep = seen.clone();
    events.on_failure(move |failure| keep.borrow_mut().push(failure.clone()));
    seen
}

#[test]
fn handlers_are_called_by_priority_and_then_in_order() {
    let (events, log) = (EventQueue::new(), Log::default());
    log.listen(&events, "a");
    for (name, priority) in [("low", -1), ("high", 5), ("high too", 5), ("highest", 6)] {
        let log = log.clone();
        events.register_at(ON_TICK, priority, move |_| log.say(name)).unwrap();
    }
    log.listen(&events, "b");
    let fired = events.fire(ON_TICK, 1).unwrap();
    assert_eq!(fired, Fired { called: 6, failed: 0, stopped_by: None });
    log.check(&["highest", "high", "high too", "a1", "b1", "low"]);
    assert_eq!(events.handlers("on_tick"), 6);
}

#[test]
fn posted_events_wait_for_their_turn() {
    let (events, log) = (EventQueue::new(), Log::default());
    log.listen(&events, "a");
    for tick in 1..=3 {
        events.post(ON_TICK, tick).unwrap();
    }
    events.fire(ON_TICK, 0).unwrap();
    assert_eq!(events.len(), 3);
    assert_eq!(events.run(), 3);
    assert!(events.is_empty());
    log.check(&["a0", "a1", "a2", "a3"]);
}

#[test]
fn what_a_handler_posts_comes_last_and_can_be_left_for_later() {
    let (events, log) = (EventQueue::new(), Log::default());
    log.listen(&events, "a");
    events
        .register(ON_TICK, |tick| match **tick {
            number @ 1..=3 => tick.queue().post(ON_TICK, number + 1),
            _ => Ok(()),
        })
        .unwrap();
    events.post(ON_TICK, 1).unwrap();
    events.post(ON_TICK, 7).unwrap();
    assert_eq!(events.run_waiting(), 2);
    log.check(&["a1", "a7"]);
    assert_eq!(events.run(), 3);
    log.check(&["a2", "a3", "a4"]);
}

#[test]
fn a_handler_that_is_removed_before_its_turn_is_not_called() {
    let (events, log) = (EventQueue::new(), Log::default());
    let next = Rc::new(Cell::new(HandlerId::default()));
    let (seen, to_remove) = (log.clone(), next.clone());
    events
        .register(ON_TICK, move |tick| {
            seen.say("first");
            let queue = tick.queue();
            assert!(queue.unregister(tick.handler()), "itself");
            assert!(!queue.unregister(tick.handler()), "only once");
            queue.unregister(to_remove.get());
        })
        .unwrap();
    next.set(log.listen(&events, "removed"));
    log.listen(&events, "last");
    events.fire(ON_TICK, 1).unwrap();
    events.fire(ON_TICK, 2).unwrap();
    log.check(&["first", "last1", "last2"]);
}

#[test]
fn a_handler_that_comes_meanwhile_hears_the_next_event() {
    let (events, log) = (EventQueue::new(), Log::default());
    let seen = log.clone();
    events
        .register_once(ON_TICK, move |tick| {
            seen.listen(&tick.queue(), "new");
        })
        .unwrap();
    log.listen(&events, "old");
    events.fire(ON_TICK, 1).unwrap();
    log.check(&["old1"]);
    events.fire(ON_TICK, 2).unwrap();
    log.check(&["old2", "new2"]);
}

#[test]
fn an_event_can_be_stopped() {
    let (events, log) = (EventQueue::new(), Log::default());
    log.listen(&events, "a");
    let stopper = events.register(ON_TICK, |tick| tick.stop_propagation()).unwrap();
    log.listen(&events, "never");
    let fired = events.fire(ON_TICK, 1).unwrap();
    assert_eq!(fired, Fired { called: 2, failed: 0, stopped_by: Some(stopper) });
    log.check(&["a1"]);
}

#[test]
fn a_handler_once_is_called_once_even_when_it_fires_its_own_event() {
    let (events, log) = (EventQueue::new(), Log::default());
    let seen = log.clone();
    events
        .register_once(ON_TICK, move |tick| {
            seen.say("once");
            tick.queue().fire(ON_TICK, 2)
        })
        .unwrap();
    log.listen(&events, "a");
    events.fire(ON_TICK, 1).unwrap();
    log.check(&["once", "a2", "a1"]);
}

#[test]
fn failures_are_reported_and_the_others_called() {
    let (events, log) = (EventQueue::new(), Log::default());
    let failures = failures(&events);
    let erring = events.register(ON_TICK, |_| Err::<(), _>("no such file")).unwrap();
    let panicking = events
        .register(ON_TICK, |tick| {
            tick.stop_propagation();
            if **tick > 0 {
                panic!("expected by a test: {}", **tick);
            }
        })
        .unwrap();
    log.listen(&events, "never");
    let fired = events.fire(ON_TICK, 1).unwrap();
    assert_eq!(fired, Fired { called: 2, failed: 2, stopped_by: Some(panicking) });
    let said: Vec<String> = failures.take().iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            format!("{erring} of on_tick failed: no such file"),
            format!("{panicking} of on_tick panicked: expected by a test: 1"),
        ]
    );
    events.unregister(panicking);
    assert_eq!(events.fire(ON_TICK, 2).unwrap().failed, 1);
    log.check(&["never2"]);
}

#[test]
fn a_report_that_panics_harms_nobody() {
    let events = EventQueue::new();
    events.on_failure(|_| panic!("expected by a test"));
    events.register(ON_TICK, |_| Err::<(), _>("expected by a test")).unwrap();
    assert_eq!(events.fire(ON_TICK, 1).unwrap().failed, 1);
}

#[test]
fn a_full_queue_says_so() {
    let events = EventQueue::with_limit(2);
    let poster = events.poster();
    events.post(ON_TICK, 1).unwrap();
    poster.post(ON_TICK, 2).unwrap();
    let full = EventError::Full { event: "on_tick".into(), limit: 2 };
    assert_eq!(events.post(ON_TICK, 3), Err(full.clone()));
    assert_eq!(poster.post(ON_TICK, 3), Err(full.clone()));
    assert!(full.to_string().contains("2 events wait already"), "{full}");
    assert_eq!((events.len(), events.limit(), events.run()), (2, 2, 2));
    events.post(ON_TICK, 3).unwrap();
}

#[test]
fn events_fired_in_a_circle_end() {
    let events = EventQueue::new();
    let failures = failures(&events);
    let deepest = Rc::new(Cell::new(0));
    let seen = deepest.clone();
    events
        .register(ON_TICK, move |tick| {
            seen.set(seen.get().max(**tick));
            tick.queue().fire(ON_TICK, **tick + 1)
        })
        .unwrap();
    assert_eq!(events.fire(ON_TICK, 1).unwrap().failed, 0);
    assert_eq!(deepest.get(), 32);
    let failures = failures.take();
    assert_eq!(failures.len(), 1, "the innermost handler got the error");
    assert!(failures[0].error.contains("from within one another 32 times"), "{failures:?}");
    assert_eq!(events.fire(ON_TICK, 40).unwrap().called, 1, "the depth is counted down again");
}

#[test]
fn a_handler_with_a_state_is_not_called_from_within_itself() {
    let events = EventQueue::new();
    let failures = failures(&events);
    let total = Rc::new(Cell::new(0));
    let (mut sum, seen) = (0, total.clone());
    events
        .register_mut(ON_TICK, move |tick| {
            sum += **tick;
            seen.set(sum);
            if **tick == 1 {
                assert_eq!(tick.queue().fire(ON_TICK, 10).unwrap().failed, 1);
            }
        })
        .unwrap();
    events.fire(ON_TICK, 1).unwrap();
    events.fire(ON_TICK, 2).unwrap();
    assert_eq!(total.get(), 3);
    assert!(failures.take()[0].error.contains("while it runs"));
}

#[test]
fn one_name_means_one_type_of_payload() {
    #[track_caller]
    fn refused<T: Debug>(result: Result<T, EventError>) {
        match result {
            Err(EventError::OtherPayload { event, known, given }) => {
                assert_eq!((&*event, known, given), ("on_tick", "u32", "&str"));
            }
            other => panic!("{other:?}"),
        }
    }
    let events = EventQueue::new();
    let failures = failures(&events);
    // Nobody knows the type yet.
    events.post("on_tick", "text").unwrap();
    let poster = events.poster();
    poster.post("on_tick", "text").unwrap();
    events.register(ON_TICK, |_| ()).unwrap();
    refused(events.register("on_tick", |_: &Event<&str>| ()));
    refused(events.post("on_tick", "text"));
    refused(events.fire("on_tick", "text"));
    assert_eq!(events.run(), 1, "what another thread posted was found to be wrong on arrival");
    let lost = "on_tick was lost: the event on_tick carries a u32, and not a &str";
    for failure in failures.take() {
        assert!(failure.to_string().starts_with(lost), "{failure}");
    }
    assert!(events.is_empty());
    assert_eq!(events.fire(String::from("on_tick"), 7_u32).unwrap().called, 1);
    assert_eq!(events.fire("nobody listens", ()).unwrap(), Fired::default());
}

#[test]
fn a_closed_queue_calls_nobody() {
    let (events, log) = (EventQueue::new(), Log::default());
    let poster = events.poster();
    events.register(ON_TICK, |tick| tick.queue().close()).unwrap();
    log.listen(&events, "never");
    events.post(ON_TICK, 1).unwrap();
    events.post(ON_TICK, 2).unwrap();
    assert_eq!(events.run(), 1);
    log.check(&[]);
    assert_eq!(events.len(), 0);
    assert_eq!(events.post(ON_TICK, 3), Err(EventError::Closed));
    assert_eq!(events.fire(ON_TICK, 3), Err(EventError::Closed));
    assert_eq!(events.register(ON_TICK, |_| ()), Err(EventError::Closed));
    assert_eq!(poster.post(ON_TICK, 3), Err(EventError::Closed));
}

#[test]
fn handlers_and_payloads_go_with_the_queue() {
    struct Posting(EventQueue);
    impl Drop for Posting {
        fn drop(&mut self) {
            let _ = self.0.post("dropped", ());
        }
    }
    let counted = Rc::new(());
    let events = EventQueue::new();
    let (one, two) = (counted.clone(), counted.clone());
    let id = events.register(ON_TICK, move |_| drop(one.clone())).unwrap();
    events.post("kept", two).unwrap();
    assert_eq!(Rc::strong_count(&counted), 3);
    events.unregister(id);
    assert_eq!(Rc::strong_count(&counted), 2);
    // What is dropped may use the queue.
    let posting = Posting(events.clone());
    let id = events.register(ON_TICK, move |_| assert_eq!(posting.0.limit(), 10_000)).unwrap();
    events.unregister(id);
    assert_eq!(events.len(), 2);
    drop(events);
    assert_eq!(Rc::strong_count(&counted), 1);
}

#[test]
fn a_clock_that_advances_runs_what_the_loop_would() {
    let clock = Clock::install();
    let (events, log) = (EventQueue::new().on_loop(), Log::default());
    log.listen(&events, "a");
    events.post(ON_TICK, 1).unwrap();
    events.post(ON_TICK, 2).unwrap();
    log.check(&[]);
    clock.advance(Duration::ZERO);
    log.check(&["a1", "a2"]);
    assert_eq!(clock.delayed_calls(), 0);
}

#[test]
fn the_loop_runs_what_is_posted_turn_by_turn() {
    let seen = warren_hub::run(|| {
        let events = EventQueue::new().on_loop();
        let (log, done) = (Log::default(), Rc::new(Flag::new()));
        let (seen, last) = (log.clone(), done.clone());
        events
            .register(ON_TICK, move |tick| {
                assert!(!warren_hub::can_wait(), "a callback of the loop");
                seen.say(format!("{}", **tick));
                match **tick {
                    3 => last.set(),
                    more => tick.queue().post(ON_TICK, more + 1).unwrap(),
                }
            })
            .unwrap();
        events.post(ON_TICK, 1).unwrap();
        log.check(&[]);
        done.wait();
        log.0.take()
    });
    assert_eq!(seen, ["1", "2", "3"]);
}

#[test]
fn threads_post_in_order_and_wake_the_loop() {
    const EACH: u32 = 500;
    let (poster, closed) = warren_hub::run(|| {
        let events = EventQueue::new().on_loop();
        let poster = events.poster();
        let done = Rc::new(Flag::new());
        let (mut next, last) = ([0, 0], done.clone());
        events
            .register_mut("on_number", move |number: &Event<(usize, u32)>| {
                let (thread, number) = **number;
                assert_eq!(number, next[thread]);
                next[thread] += 1;
                if next == [EACH, EACH] {
                    last.set();
                }
            })
            .unwrap();
        let threads = [0_usize, 1].map(|thread| {
            let poster = poster.clone();
            thread::spawn(move || {
                for number in 0..EACH {
                    poster.post("on_number", (thread, number)).unwrap();
                }
            })
        });
        done.wait();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let other = events.poster();
        events.close();
        (poster, other)
    });
    assert_eq!(closed.post("on_number", (0, 0)), Err(EventError::Closed));
    assert_eq!(poster.post("on_number", (0, 0)), Err(EventError::Closed));
}

#[test]
fn a_full_queue_has_room_again_when_the_loop_has_run() {
    let (refused, told) = mpsc::channel();
    let sum = warren_hub::run(move || {
        let events = EventQueue::with_limit(4).on_loop();
        let poster = events.poster();
        let (sum, done) = (Rc::new(Cell::new(0)), Rc::new(Flag::new()));
        let (total, last) = (sum.clone(), done.clone());
        events
            .register(ON_TICK, move |tick| {
                total.set(total.get() + **tick);
                if **tick == 100 {
                    last.set();
                }
            })
            .unwrap();
        let thread = thread::spawn(move || {
            for tick in 0..=100 {
                while let Err(error) = poster.post(ON_TICK, tick) {
                    assert!(matches!(error, EventError::Full { limit: 4, .. }));
                    let _ = refused.send(());
                    thread::yield_now();
                }
            }
        });
        // It fills up: nothing is dispatched before this fiber waits.
        told.recv().unwrap();
        done.wait();
        thread.join().unwrap();
        sum.get()
    });
    assert_eq!(sum, 5050);
}

#[derive(Clone, Debug)]
enum Step {
    Register(i32),
    Unregister(usize),
    Fire,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (-2..3).prop_map(Step::Register),
        2 => (0..20_usize).prop_map(Step::Unregister),
        2 => Just(Step::Fire),
    ];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    /// Against a plain list that is sorted anew each time.
    #[test]
    fn handlers_keep_their_order(steps in steps()) {
        let (events, log) = (EventQueue::new(), Log::default());
        let mut model: Vec<(i32, HandlerId, usize)> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Register(priority) => {
                    let log = log.clone();
                    let say = move |_: &Event<u32>| log.say(number.to_string());
                    let id = events.register_at(ON_TICK, priority, say).unwrap();
                    model.push((priority, id, number));
                }
                Step::Unregister(place) if place < model.len() => {
                    let (_, id, _) = model.remove(place);
                    prop_assert!(events.unregister(id));
                    prop_assert!(!events.unregister(id));
                }
                Step::Unregister(_) => {}
                Step::Fire => {
                    let mut sorted = model.clone();
                    sorted.sort_by_key(|(priority, id, _)| (-priority, *id));
                    events.fire(ON_TICK, 0).unwrap();
                    let want: Vec<String> = sorted.iter().map(|(.., n)| n.to_string()).collect();
                    prop_assert_eq!(log.0.take(), want);
                }
            }
        }
        prop_assert_eq!(events.handlers("on_tick"), model.len());
    }
}
