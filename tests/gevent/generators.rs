//! Generators, which Python has built in.

use warren_fiber::Generator;

use crate::said::{caught, fails, finally, list, optional};

scenarios! { here:
    a_generator_runs_as_it_is_asked
    values_are_sent_in
    next_sends_nothing
    a_throw_may_be_caught
    a_throw_that_is_not_caught_comes_back
    a_throw_before_the_start_never_runs_it
    close_cleans_up
    close_before_the_start_never_runs_it
    a_dropped_generator_cleans_up
    a_failure_ends_a_generator
    yield_from_another_generator
    yield_from_a_list
    yield_from_passes_what_is_sent
    yield_from_passes_what_is_thrown
    generators_take_turns
    an_endless_generator_is_cut
    a_generator_within_a_generator
}

/// The failure that `throw` raises.
fn thrown() -> Box<dyn std::any::Any + Send> {
    Box::new("thrown")
}

fn a_generator_runs_as_it_is_asked() {
    let mut generator = Generator::<u32>::new(|g| {
        for item in [1, 2] {
            say!("yielding {item}");
            g.yield_(item);
        }
        say!("returning");
    });
    say!("made");
    for _ in 0..4 {
        say!("{}", optional(generator.next()));
    }
}

fn values_are_sent_in() {
    let mut generator = Generator::<u32, u32>::new(|g| {
        let mut total = 0;
        loop {
            total += g.yield_(total).unwrap_or_default();
        }
    });
    let first = generator.next().unwrap();
    let (second, third) = (generator.send(1).unwrap(), generator.send(10).unwrap());
    say!("{first} {second} {third}");
}

fn next_sends_nothing() {
    let mut generator = Generator::<u32, &str>::new(|g| {
        say!("sent {}", optional(g.yield_(1)));
        say!("sent {}", optional(g.yield_(2)));
    });
    generator.next();
    generator.next();
    if generator.send("value").is_none() {
        say!("over");
    }
}

fn a_throw_may_be_caught() {
    let mut generator = Generator::<String>::new(|g| {
        let failure = caught(|| g.yield_("1".into()));
        g.yield_(format!("caught {}", optional(failure)));
    });
    say!("{}", optional(generator.next()));
    say!("{}", optional(generator.throw(thrown())));
    say!("{}", optional(generator.next()));
}

fn a_throw_that_is_not_caught_comes_back() {
    let mut generator = Generator::<u32>::new(|g| {
        let _finally = finally("cleans up");
        g.yield_(1);
    });
    generator.next();
    say!("failed: {}", optional(caught(|| generator.throw(thrown()))));
    say!("{}", optional(generator.next()));
}

fn a_throw_before_the_start_never_runs_it() {
    let mut generator = Generator::<u32>::new(|g| {
        say!("never");
        g.yield_(1);
    });
    say!("failed: {}", optional(caught(|| generator.throw(thrown()))));
    say!("{}", optional(generator.next()));
}

fn close_cleans_up() {
    let mut generator = Generator::<u32>::new(|g| {
        let _finally = finally("cleans up");
        g.yield_(1);
        say!("never");
    });
    generator.next();
    generator.close();
    say!("closed");
    generator.close();
    say!("{}", optional(generator.next()));
}

fn close_before_the_start_never_runs_it() {
    let mut generator = Generator::<u32>::new(|g| {
        say!("never");
        g.yield_(1);
    });
    generator.close();
    say!("{}", optional(generator.next()));
}

fn a_dropped_generator_cleans_up() {
    let mut generator = Generator::<u32>::new(|g| {
        let _finally = finally("cleans up");
        g.yield_(1);
    });
    generator.next();
    drop(generator);
    say!("dropped");
}

fn a_failure_ends_a_generator() {
    let mut generator = Generator::<u32>::new(|g| {
        g.yield_(1);
        fails::<()>("bad");
    });
    say!("{}", optional(generator.next()));
    say!("failed: {}", optional(caught(|| generator.next())));
    say!("{}", optional(generator.next()));
}

fn yield_from_another_generator() {
    let inner = || {
        Generator::<u32>::new(|g| {
            g.yield_(1);
            g.yield_(2);
            say!("inner is over");
        })
    };
    let outer = Generator::<u32>::new(move |g| {
        g.yield_(0);
        g.yield_from(inner());
        g.yield_(3);
    });
    say!("{}", list(outer));
}

fn yield_from_a_list() {
    let generator = Generator::<u32>::new(|g| {
        g.yield_from([1, 2]);
        g.yield_(3);
    });
    say!("{}", list(generator));
}

fn yield_from_passes_what_is_sent() {
    let mut outer = Generator::<&str, u32>::new(|g| {
        let mut inner = Generator::<&str, u32, &str>::new(|g| {
            say!("inner got {}", optional(g.yield_("a")));
            say!("inner got {}", optional(g.yield_("b")));
            "result"
        });
        let result = g.delegate(&mut inner).expect("it returned");
        g.yield_(result);
    });
    say!("{}", optional(outer.next()));
    say!("{}", optional(outer.send(1)));
    say!("{}", optional(outer.send(2)));
}

fn yield_from_passes_what_is_thrown() {
    let mut outer = Generator::<String>::new(|g| {
        let mut inner = Generator::<String>::new(|g| {
            let failure = caught(|| g.yield_("a".into()));
            g.yield_(format!("inner caught {}", optional(failure)));
        });
        g.delegate(&mut inner);
        g.yield_("outer".into());
    });
    say!("{}", optional(outer.next()));
    say!("{}", optional(outer.throw(thrown())));
    say!("{}", optional(outer.next()));
}

fn generators_take_turns() {
    let generator = |name: &'static str| {
        Generator::<String>::new(move |g| {
            for step in 0..2 {
                g.yield_(format!("{name} {step}"));
            }
        })
    };
    for (a, b) in generator("a").zip(generator("b")) {
        say!("{a} {b}");
    }
}

fn an_endless_generator_is_cut() {
    let numbers = || {
        Generator::<u32>::new(|g| {
            for item in 0.. {
                g.yield_(item);
            }
        })
    };
    say!("{}", list(numbers().take(3)));
    say!("{}", list(numbers().take_while(|&item| item < 4)));
}

fn a_generator_within_a_generator() {
    let numbers = |limit| Generator::<u32>::new(move |g| g.yield_from(0..limit));
    let squares = Generator::<u32>::new(move |g| {
        for number in numbers(4) {
            g.yield_(number * number);
        }
    });
    say!("{}", list(squares));
}
