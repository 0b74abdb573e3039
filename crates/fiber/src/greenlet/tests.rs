use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use super::Greenlet;
use crate::Generator;

type Log = Rc<RefCell<Vec<String>>>;

fn log() -> (Log, impl Fn(&str) + Clone) {
    let log = Log::default();
    let notes = log.clone();
    (log, move |text: &str| notes.borrow_mut().push(text.to_owned()))
}

struct Noted(Log, &'static str);

impl Drop for Noted {
    fn drop(&mut self) {
        self.0.borrow_mut().push(self.1.to_owned());
    }
}

fn panic_text<T>(f: impl FnOnce() -> T) -> String {
    let Err(payload) = catch_unwind(AssertUnwindSafe(f)) else { panic!("no panic") };
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload.downcast_ref::<&str>().unwrap().to_string(),
    }
}

#[test]
fn values_pass_in_and_out() {
    let greenlet = Greenlet::new(|first: i32| {
        let second = Greenlet::parent_switch(first * 2);
        second * 3
    });
    assert!(!greenlet.is_started() && !greenlet.is_alive());
    assert_eq!(greenlet.switch(1), 2);
    assert!(greenlet.is_started() && greenlet.is_alive());
    assert_eq!(greenlet.switch(10), 30);
    assert!(greenlet.is_dead() && !greenlet.is_alive());
}

#[test]
fn two_switch_to_each_other_without_piling_up() {
    let slot = Rc::new(RefCell::new(None::<Greenlet<u64>>));
    let pong = Greenlet::new(|mut n: u64| {
        loop {
            n = Greenlet::parent_switch(n + 1);
        }
    });
    let other = pong.clone();
    let ping = Greenlet::new(move |mut n: u64| {
        while n < 100_000 {
            n = other.switch(n);
        }
        n
    });
    pong.set_parent(Some(&ping));
    *slot.borrow_mut() = Some(ping.clone());
    assert_eq!(ping.switch(0), 100_000);
    assert!(ping.is_dead() && pong.is_alive());
}

#[test]
fn a_dead_greenlet_passes_the_value_to_its_parent() {
    let greenlet = Greenlet::new(|n: i32| n);
    greenlet.switch(1);
    assert_eq!(greenlet.switch(7), 7);
    // Through a dead parent to a living grandparent.
    let (log, note) = log();
    let grandparent = Greenlet::new(move |_: i32| {
        let parent = Greenlet::new(|n: i32| n);
        let child = Greenlet::new(|n: i32| n + 1);
        child.set_parent(Some(&parent));
        parent.switch(0);
        note(&format!("child gave {}", child.switch(4)));
        note(&format!("dead child gave {}", child.switch(9)));
        0
    });
    grandparent.switch(0);
    assert_eq!(*log.borrow(), ["child gave 5", "dead child gave 9"]);
}

#[test]
fn the_value_of_a_finished_greenlet_goes_to_its_parent_not_to_its_caller() {
    let child = Greenlet::new(|n: i32| n + 1);
    let caller = child.clone();
    let middle = Greenlet::new(move |n: i32| {
        caller.switch(n);
        unreachable!("nobody switches back here");
    });
    // Made in the root, so its parent is the root.
    assert_eq!(middle.switch(1), 2);
    assert!(child.is_dead() && middle.is_alive());
}

#[test]
fn a_panic_crosses_to_the_parent() {
    let greenlet = Greenlet::new(|_: ()| panic!("inside"));
    assert_eq!(panic_text(|| greenlet.switch(())), "inside");
    assert!(greenlet.is_dead());
    // And may be caught there, in a greenlet too.
    let parent = Greenlet::new(|_: i32| {
        let child = Greenlet::new(|_: i32| panic!("of the child"));
        i32::from(panic_text(|| child.switch(0)) == "of the child")
    });
    assert_eq!(parent.switch(0), 1);
}

#[test]
fn throwing_raises_where_the_greenlet_waits() {
    let greenlet = Greenlet::new(|_: i32| {
        let caught = catch_unwind(|| Greenlet::parent_switch(1)).unwrap_err();
        *caught.downcast::<i32>().unwrap()
    });
    assert_eq!(greenlet.switch(0), 1);
    assert_eq!(greenlet.throw(Box::new(42)), 42);
    assert!(greenlet.is_dead());
}

#[test]
fn throwing_into_one_that_has_not_started_ends_it_unrun() {
    let greenlet = Greenlet::new(|_: i32| unreachable!("never runs"));
    let caught = catch_unwind(AssertUnwindSafe(|| greenlet.throw(Box::new("thrown")))).unwrap_err();
    assert_eq!(caught.downcast_ref::<&str>(), Some(&"thrown"));
    assert!(greenlet.is_dead());
}

#[test]
fn killing_unwinds_and_gives_the_parent_a_value() {
    let (log, _) = log();
    let noted = Noted(log.clone(), "dropped");
    let greenlet = Greenlet::new(move |_: i32| {
        let _noted = noted;
        Greenlet::parent_switch(1)
    });
    greenlet.switch(0);
    assert_eq!(greenlet.kill(5), 5);
    assert!(greenlet.is_dead());
    assert_eq!(*log.borrow(), ["dropped"]);
    assert_eq!(greenlet.kill(6), 6);
}

#[test]
fn dropping_a_suspended_one_unwinds_it() {
    let (log, _) = log();
    let noted = Noted(log.clone(), "dropped");
    let greenlet = Greenlet::new(move |_: ()| {
        let _noted = noted;
        Greenlet::parent_switch(());
    });
    greenlet.switch(());
    drop(greenlet);
    assert_eq!(*log.borrow(), ["dropped"]);
}

#[test]
fn current_and_parent_tell_who_is_who() {
    assert!(Greenlet::<i32>::current().is_none());
    let seen = Rc::new(RefCell::new(None));
    let notes = seen.clone();
    let outer = Greenlet::new(move |_: i32| {
        let me = Greenlet::<i32>::current().unwrap();
        let inner = Greenlet::new(|n: i32| n);
        assert!(inner.parent() == Some(me.clone()));
        inner.switch(1);
        *notes.borrow_mut() = Some(me);
        0
    });
    assert!(outer.parent().is_none());
    outer.switch(0);
    assert!(seen.take() == Some(outer));
}

#[test]
#[should_panic(expected = "its own ancestor")]
fn a_circle_of_parents_is_refused() {
    let one = Greenlet::new(|n: i32| n);
    let other = Greenlet::new(|n: i32| n);
    other.set_parent(Some(&one));
    one.set_parent(Some(&other));
}

#[test]
fn a_greenlet_of_another_type_is_a_root_of_its_own() {
    let text = Greenlet::new(|text: String| {
        let number = Greenlet::new(|n: usize| Greenlet::parent_switch(n + 1));
        assert!(Greenlet::<usize>::current().is_none());
        format!("{text} {}", number.switch(1))
    });
    assert_eq!(text.switch("two is".into()), "two is 2");
}

#[test]
fn one_that_runs_below_cannot_be_switched_to() {
    let slot = Rc::new(RefCell::new(None::<Greenlet<u8>>));
    let own = slot.clone();
    let greenlet = Greenlet::new(move |_: u8| {
        let me = own.take().unwrap();
        let other = Greenlet::new(move |_: &'static str| {
            me.switch(1);
            ""
        });
        u8::from(panic_text(|| other.switch("")).contains("further down on this stack"))
    });
    *slot.borrow_mut() = Some(greenlet.clone());
    assert_eq!(greenlet.switch(0), 1);
}

#[test]
fn a_switch_out_of_a_generator_takes_the_generator_along() {
    let greenlet = Greenlet::new(|_: i32| {
        let generator = Generator::<i32>::new(|g| {
            for n in 1..4 {
                g.yield_(Greenlet::parent_switch(n));
            }
        });
        generator.sum()
    });
    assert_eq!(greenlet.switch(0), 1);
    assert_eq!(greenlet.switch(10), 2);
    assert_eq!(greenlet.switch(20), 3);
    assert_eq!(greenlet.switch(30), 60);
}
