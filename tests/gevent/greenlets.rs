//! Greenlets by themselves, without a loop. greenlet's documentation is the list.
//!
//! A greenlet of ours exchanges values of one type. `None` for a parent is the root, which is no greenlet here.

use std::cell::OnceCell;
use std::rc::Rc;

use warren_fiber::Greenlet;
use warren_fiber::greenlet::{TraceEvent, gettrace, settrace};

use crate::said::{caught, fails, finally, optional, swallow, yes};

scenarios! { here:
    switching_to_and_fro
    values_are_passed
    ping_and_pong
    a_circle_of_three
    a_return_goes_to_the_parent
    a_failure_goes_to_the_parent
    a_failure_goes_to_the_parent_not_to_the_caller
    switches_to_the_dead_go_to_the_parent
    switches_to_the_dead_go_to_a_living_ancestor
    a_throw_may_be_caught_inside
    a_throw_not_caught_goes_to_the_parent
    a_throw_kills_one_that_has_not_started
    a_throw_at_the_dead_is_raised
    an_exit_is_not_raised_in_the_parent
    an_exit_of_one_that_has_not_started
    an_exit_of_the_dead
    an_exit_may_be_swallowed
    a_dropped_greenlet_cleans_up
    a_dropped_greenlet_that_has_not_started
    states_of_a_greenlet
    states_of_a_suspended_greenlet
    the_parent_is_who_made_it
    a_child_returns_through_its_parents
    a_parent_may_be_set
    a_circle_of_parents_is_refused
    the_current_greenlet
    a_switch_to_oneself
    a_switch_from_deep_within
    greenlets_make_greenlets
    a_generator_made_of_a_greenlet
    switches_are_traced
    a_failure_passes_through_parents
}

/// The failure that `throw` raises.
fn thrown() -> Box<dyn std::any::Any + Send> {
    Box::new("thrown")
}

/// A place for a greenlet that others have to know before it is made.
type Place<T> = Rc<OnceCell<Greenlet<T>>>;

fn at<T>(place: &Place<T>) -> &Greenlet<T> {
    place.get().expect("set before anyone switches")
}

fn set<T>(place: &Place<T>, greenlet: Greenlet<T>) {
    place.set(greenlet).expect("set once");
}

/// A place outlives its scenario where greenlets know one another; the suspended ones are unwound by taking a place
/// out of the circle.
fn switching_to_and_fro() {
    let (a, b) = (Place::<()>::default(), Place::<()>::default());
    let (other_a, other_b) = (a.clone(), b.clone());
    set(
        &a,
        Greenlet::new(move |()| {
            say!("12");
            at(&other_b).switch(());
            say!("34");
        }),
    );
    set(
        &b,
        Greenlet::new(move |()| {
            say!("56");
            at(&other_a).switch(());
            say!("78");
        }),
    );
    at(&a).switch(());
    say!("first dead {} second dead {}", yes(at(&a).is_dead()), yes(at(&b).is_dead()));
    // Nobody ends the second one: its stack is given up. So is Python's until the circle is collected.
}

fn values_are_passed() {
    let g = Greenlet::new(|value: String| {
        say!("first {value}");
        let value = Greenlet::parent_switch("a".to_owned());
        say!("second {value}");
        "b".to_owned()
    });
    say!("{}", g.switch("1".into()));
    say!("{}", g.switch("2".into()));
}

/// Who counts down together, and the last word.
type Count = Result<u32, &'static str>;

fn ping_and_pong() {
    let (ping, pong) = (Place::<Count>::default(), Place::<Count>::default());
    let player = |name: &'static str, other: &Place<Count>| {
        let other = other.clone();
        Greenlet::new(move |mut count: Count| {
            while let Ok(number @ 1..) = count {
                say!("{name} {number}");
                count = at(&other).switch(Ok(number - 1));
            }
            Err("over")
        })
    };
    set(&ping, player("ping", &pong));
    set(&pong, player("pong", &ping));
    say!("{}", at(&ping).switch(Ok(4)).unwrap_err());
}

fn a_circle_of_three() {
    let places: [Place<Count>; 3] = Default::default();
    for (index, name) in ["a", "b", "c"].into_iter().enumerate() {
        let next = places[(index + 1) % 3].clone();
        let body = move |mut count: Count| {
            loop {
                let Ok(number) = count else { return count };
                say!("{name} {number}");
                if number == 0 {
                    return Err("home");
                }
                count = at(&next).switch(Ok(number - 1));
            }
        };
        set(&places[index], Greenlet::new(body));
    }
    say!("{}", at(&places[0]).switch(Ok(5)).unwrap_err());
}

fn a_return_goes_to_the_parent() {
    let g = Greenlet::new(|value: u32| value + 1);
    let value = g.switch(1);
    say!("{value} dead {}", yes(g.is_dead()));
}

fn a_failure_goes_to_the_parent() {
    let g = Greenlet::new(|message: &'static str| fails(message));
    say!("failed: {}", optional(caught(|| g.switch("bad"))));
    say!("dead {}", yes(g.is_dead()));
}

fn a_failure_goes_to_the_parent_not_to_the_caller() {
    let parent = Greenlet::new(|_: String| {
        let failure = caught(|| Greenlet::parent_switch("waiting".to_owned()));
        format!("parent caught {}", optional(failure))
    });
    let child = Greenlet::new(|_: String| fails("bad"));
    child.set_parent(Some(&parent));
    say!("{}", parent.switch(String::new()));
    // Its parent is another one, whoever switches to it.
    say!("{}", child.switch(String::new()));
}

fn switches_to_the_dead_go_to_the_parent() {
    let g = Greenlet::new(|value: &'static str| value);
    g.switch("1");
    say!("dead {}", yes(g.is_dead()));
    say!("{}", g.switch("passed on"));
}

fn switches_to_the_dead_go_to_a_living_ancestor() {
    let grandparent = Greenlet::new(|value: &'static str| {
        say!("grandparent {value}");
        let value = Greenlet::parent_switch("waiting");
        say!("grandparent {value}");
        "done"
    });
    let parent = Greenlet::new(|value: &'static str| value);
    parent.set_parent(Some(&grandparent));
    let child = Greenlet::new(|value: &'static str| value);
    child.set_parent(Some(&parent));
    say!("{}", grandparent.switch("start"));
    // Both die here: the child's value is the parent's first, the parent's goes to the grandparent.
    say!("{}", child.switch("through"));
    let dead = [&child, &parent, &grandparent].map(|g| yes(g.is_dead()));
    say!("dead {}", dead.join(" "));
}

fn a_throw_may_be_caught_inside() {
    let g = Greenlet::new(|_: String| {
        let failure = caught(|| Greenlet::parent_switch("waiting".to_owned()));
        format!("caught {}", optional(failure))
    });
    say!("{}", g.switch(String::new()));
    say!("{}", g.throw(thrown()));
}

/// One that waits and says that it is unwound.
fn waiting() -> Greenlet<&'static str> {
    let g = Greenlet::new(|_| {
        let _finally = finally("cleans up");
        Greenlet::parent_switch("waiting");
        say!("never");
        "end"
    });
    g.switch("");
    g
}

fn a_throw_not_caught_goes_to_the_parent() {
    let g = waiting();
    say!("failed: {}", optional(caught(|| g.throw(thrown()))));
    say!("dead {}", yes(g.is_dead()));
}

fn never_started() -> Greenlet<&'static str> {
    Greenlet::new(|value| {
        say!("never");
        value
    })
}

fn dead() -> Greenlet<&'static str> {
    let g = Greenlet::new(|value| value);
    g.switch("1");
    g
}

fn a_throw_kills_one_that_has_not_started() {
    let g = never_started();
    say!("failed: {}", optional(caught(|| g.throw(thrown()))));
    say!("dead {}", yes(g.is_dead()));
}

fn a_throw_at_the_dead_is_raised() {
    say!("failed: {}", optional(caught(|| dead().throw(thrown()))));
}

fn an_exit_is_not_raised_in_the_parent() {
    let g = waiting();
    say!("came back {}", g.kill("value"));
    say!("dead {}", yes(g.is_dead()));
}

fn an_exit_of_one_that_has_not_started() {
    let g = never_started();
    say!("came back {}", g.kill("value"));
    say!("dead {}", yes(g.is_dead()));
}

fn an_exit_of_the_dead() {
    say!("came back {}", dead().kill("value"));
}

fn an_exit_may_be_swallowed() {
    let g = Greenlet::new(|_: &'static str| {
        if swallow(|| {
            Greenlet::parent_switch("waiting");
        }) {
            say!("swallowed");
        }
        Greenlet::parent_switch("still here")
    });
    say!("{}", g.switch(""));
    say!("{}", g.kill("value"));
    say!("dead {}", yes(g.is_dead()));
    say!("{}", g.switch("end"));
}

fn a_dropped_greenlet_cleans_up() {
    drop(waiting());
    say!("dropped");
}

fn a_dropped_greenlet_that_has_not_started() {
    drop(never_started());
    say!("dropped");
}

/// Python's truth of a greenlet: started, and not dead.
fn states(g: &Greenlet<u32>) -> String {
    format!("started {} dead {}", yes(g.is_alive()), yes(g.is_dead()))
}

fn states_of_a_greenlet() {
    let g = Greenlet::new(|value: u32| {
        say!("running: {}", states(&Greenlet::current().expect("this one")));
        value
    });
    say!("new: {}", states(&g));
    g.switch(1);
    say!("dead: {}", states(&g));
}

fn states_of_a_suspended_greenlet() {
    let g = Greenlet::new(|_: u32| Greenlet::parent_switch(0));
    g.switch(0);
    say!("{}", states(&g));
}

fn the_parent_is_who_made_it() {
    let outer = Greenlet::new(|_: &'static str| {
        let inner = Greenlet::new(|value: &'static str| value);
        say!("inner's parent is the outer {}", yes(inner.parent() == Greenlet::current()));
        inner.switch("from the inner")
    });
    say!("the outer's parent is the root {}", yes(outer.parent().is_none()));
    say!("{}", outer.switch(""));
}

fn a_child_returns_through_its_parents() {
    let middle = Greenlet::new(|value: String| {
        let child = Greenlet::new(|value: String| value + " child");
        child.switch(value) + " middle"
    });
    say!("{}", middle.switch("from".into()));
}

fn a_parent_may_be_set() {
    let parent = Greenlet::new(|value: String| {
        say!("new parent got {value}");
        "end".to_owned()
    });
    let child = Greenlet::new(|value: String| format!("child of {value}"));
    child.set_parent(Some(&parent));
    say!("set {}", yes(child.parent().as_ref() == Some(&parent)));
    say!("{}", child.switch("value".into()));
    say!("dead {} {}", yes(child.is_dead()), yes(parent.is_dead()));
}

fn a_circle_of_parents_is_refused() {
    let (a, b) = (dead(), dead());
    b.set_parent(Some(&a));
    // A mistake of the program, and so a panic.
    if swallow(|| a.set_parent(Some(&b))) {
        say!("refused");
    }
    if swallow(|| a.set_parent(Some(&a))) {
        say!("refused");
    }
}

fn the_current_greenlet() {
    let place = Place::<&str>::default();
    let own = place.clone();
    let body = move |_| {
        let current = Greenlet::current();
        let (itself, root) = (current.as_ref() == own.get(), current.is_none());
        say!("itself {} the root {}", yes(itself), yes(root));
        "end"
    };
    set(&place, Greenlet::new(body));
    at(&place).switch("");
    say!("back in the root {}", yes(Greenlet::<&str>::current().is_none()));
}

fn a_switch_to_oneself() {
    let g = Greenlet::new(|_: &'static str| {
        let own = Greenlet::current().expect("this one");
        say!("to itself {}", own.switch("value"));
        "end"
    });
    say!("{}", g.switch(""));
}

fn a_switch_from_deep_within() {
    fn down(depth: usize) -> &'static str {
        if depth == 0 {
            return Greenlet::parent_switch("from the depth");
        }
        down(depth - 1)
    }
    let g = Greenlet::new(|_| down(50));
    say!("{}", g.switch(""));
    say!("{}", g.switch("back in the depth"));
}

fn greenlets_make_greenlets() {
    fn body(depth: Count) -> Count {
        let depth = depth.unwrap();
        say!("depth {depth}");
        if depth == 3 {
            return Err("bottom");
        }
        let value = Greenlet::new(body).switch(Ok(depth + 1));
        say!("back at {depth}");
        value
    }
    say!("{}", Greenlet::new(body).switch(Ok(0)).unwrap_err());
}

fn a_generator_made_of_a_greenlet() {
    let g = Greenlet::new(|_: String| {
        for item in 0..3 {
            Greenlet::parent_switch(item.to_string());
        }
        "end".to_owned()
    });
    while !g.is_dead() {
        say!("{}", g.switch(String::new()));
    }
}

fn switches_are_traced() {
    let b = Greenlet::new(|_: &'static str| fails("bad"));
    let inner = b.clone();
    let a = Greenlet::new(move |value| inner.switch(value));
    b.set_parent(Some(&a));
    let name = {
        let (a, b) = (a.id(), b.id());
        move |id: Option<u64>| match id {
            Some(id) if id == a => "a",
            Some(id) if id == b => "b",
            _ => "root",
        }
    };
    let before = settrace(Some(Rc::new(move |transfer| {
        let event = match transfer.event {
            TraceEvent::Switch => "switch",
            TraceEvent::Throw => "throw",
        };
        say!("{event} {} to {}", name(transfer.origin), name(transfer.target));
    })));
    swallow(|| {
        a.switch("");
    });
    settrace(before);
    say!("traced before {}", yes(gettrace().is_some()));
}

fn a_failure_passes_through_parents() {
    let middle = Greenlet::new(|value: &'static str| {
        let _finally = finally("middle cleans up");
        Greenlet::new(|_: &'static str| fails("bad")).switch(value)
    });
    say!("failed: {}", optional(caught(|| middle.switch(""))));
}
