//! What Python's generators do, after the documents that define it: PEP 255 (simple generators), PEP 342 (send,
//! throw, close) and PEP 380 (delegation).

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use warren_fiber::{Generator, GeneratorExit, StackPool, StackSize, Yielder};

type Log = Rc<RefCell<Vec<String>>>;

fn raise(payload: &'static str) -> ! {
    resume_unwind(Box::new(payload))
}

fn caught<T>(f: impl FnOnce() -> T) -> Box<dyn Any + Send> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(_) => panic!("nothing was raised"),
        Err(payload) => payload,
    }
}

#[track_caller]
fn check_raises<T>(text: &str, f: impl FnOnce() -> T) {
    let payload = caught(f);
    let raised = payload.downcast_ref::<&str>().copied();
    let raised = raised.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    assert!(raised.is_some_and(|raised| raised.contains(text)), "{raised:?}");
}

struct Noted(Rc<Cell<u32>>);

impl Drop for Noted {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

// PEP 255

#[test]
fn fibonacci() {
    let fib = Generator::<u64>::new(|g| {
        let (mut a, mut b) = (0, 1);
        loop {
            g.yield_(b);
            (a, b) = (b, a + b);
        }
    });
    assert_eq!(fib.take(8).collect::<Vec<_>>(), [1, 1, 2, 3, 5, 8, 13, 21]);
}

#[test]
fn calling_runs_nothing_and_next_runs_to_the_first_yield() {
    let runs = Rc::new(Cell::new(0));
    let count = runs.clone();
    let mut g = Generator::<()>::new(move |g| {
        count.set(1);
        g.yield_(());
        count.set(2);
    });
    assert_eq!(runs.get(), 0);
    g.next();
    assert_eq!(runs.get(), 1);
    assert_eq!(g.next(), None);
    assert_eq!(runs.get(), 2);
    // Once it has stopped, it stays so.
    assert_eq!((g.next(), g.next()), (None, None));
}

#[test]
fn an_exception_passes_to_the_caller_and_nothing_can_be_resumed() {
    let mut k = Generator::<u32>::new(|g| {
        let zero = std::hint::black_box(0);
        g.yield_(1_u32.checked_div(zero).unwrap_or_else(|| raise("ZeroDivisionError")));
        g.yield_(42);
    });
    check_raises("ZeroDivisionError", || k.next());
    assert_eq!(k.next(), None);
}

#[test]
fn try_finally_round_a_yield() {
    // PEP 255 example: the order of try, except, else and finally.
    let log = Log::default();
    let out = log.clone();
    let g = Generator::<u32>::new(move |g| {
        struct Finally(Log);
        impl Drop for Finally {
            fn drop(&mut self) {
                self.0.borrow_mut().push("finally".into());
            }
        }
        g.yield_(1);
        let finally = Finally(out.clone());
        let tried = catch_unwind(AssertUnwindSafe(|| {
            g.yield_(2);
            raise("ZeroDivisionError");
        }));
        assert!(tried.is_err());
        g.yield_(4);
        drop(finally);
        g.yield_(9);
    });
    assert_eq!(g.collect::<Vec<_>>(), [1, 2, 4, 9]);
    assert_eq!(*log.borrow(), ["finally"]);
}

#[test]
fn recursive_generators_walk_a_tree() {
    struct Tree(Option<Box<Tree>>, char, Option<Box<Tree>>);
    fn inorder(tree: Option<Box<Tree>>) -> Generator<char> {
        Generator::with_stack_size(StackSize::Small, |g| {
            if let Some(tree) = tree {
                let Tree(left, label, right) = *tree;
                g.yield_from(inorder(left));
                g.yield_(label);
                g.yield_from(inorder(right));
            }
        })
    }
    fn tree(labels: &[char]) -> Option<Box<Tree>> {
        let middle = labels.len() / 2;
        let label = *labels.get(middle)?;
        Some(Box::new(Tree(tree(&labels[..middle]), label, tree(&labels[middle + 1..]))))
    }
    let labels: Vec<char> = ('A'..='Z').collect();
    assert_eq!(inorder(tree(&labels)).collect::<Vec<_>>(), labels);
}

#[test]
fn iterator_adaptors_work_and_none_is_for_ever() {
    fn fused(_: &impl std::iter::FusedIterator) {}
    let words = Generator::<&str>::new(|g| g.yield_from(["a", "b", "c"]));
    fused(&words);
    let text: String = words.zip(1..).map(|(word, n)| word.repeat(n)).collect();
    assert_eq!(text, "abbccc");
    let mut numbers = Generator::<u32>::new(|g| g.yield_from(0..5)).peekable();
    assert_eq!(numbers.peek(), Some(&0));
    assert_eq!(numbers.by_ref().skip(1).step_by(2).sum::<u32>(), 4);
    assert_eq!(numbers.next(), None);
}

// PEP 342

#[test]
fn a_value_sent_is_the_result_of_yield_and_next_sends_none() {
    let mut echo = Generator::new(|g: Yielder<'_, Option<u32>, u32>| {
        let mut received = None;
        loop {
            received = g.yield_(received);
        }
    });
    assert_eq!(echo.next(), Some(None));
    assert_eq!(echo.send(5), Some(Some(5)));
    assert_eq!(echo.next(), Some(None));
}

#[test]
fn a_value_cannot_be_sent_to_one_that_has_just_started() {
    let mut g = Generator::new(|g: Yielder<'_, u32, u32>| {
        g.yield_(1);
    });
    check_raises("has not started", || g.send(1));
    assert_eq!(g.next(), Some(1), "that has not hurt it");
    assert_eq!(g.send(1), None);
    assert_eq!(g.send(1), None, "one that has ended takes no notice");
}

#[test]
fn throw_raises_at_the_point_where_it_was_paused() {
    let mut g = Generator::<&str>::new(|g| {
        let payload = caught(|| g.yield_("first"));
        assert_eq!(payload.downcast_ref(), Some(&"ValueError"));
        g.yield_("caught it");
    });
    assert_eq!(g.next(), Some("first"));
    // If it yields again, that is the value of throw().
    assert_eq!(g.throw(Box::new("ValueError")), Some("caught it"));
    // If it does not catch, or raises another, that propagates to the caller.
    check_raises("TypeError", || g.throw(Box::new("TypeError")));
    // If it has ended, throw() raises the exception it was given.
    check_raises("KeyError", || g.throw(Box::new("KeyError")));
    // If it catches and returns, that is StopIteration.
    let mut g = Generator::<u8>::new(|g| {
        caught(|| g.yield_(1));
    });
    g.next();
    assert_eq!(g.throw(Box::new("any")), None);
}

#[test]
fn throw_into_one_that_has_not_started_raises_at_its_beginning() {
    let mut g = Generator::<u8>::new(|_| unreachable!("never runs"));
    check_raises("early", || g.throw(Box::new("early")));
    assert!(g.is_finished());
    assert_eq!(g.next(), None);
}

#[test]
fn close_raises_generator_exit() {
    let dropped = Rc::new(Cell::new(0));
    let noted = Noted(dropped.clone());
    let mut g = Generator::<u8>::new(move |g| {
        let _noted = noted;
        let payload = caught(|| g.yield_(1));
        assert!(payload.is::<GeneratorExit>());
        resume_unwind(payload);
    });
    g.next();
    assert_eq!(g.close(), None);
    assert_eq!((dropped.get(), g.is_finished()), (1, true));
    // Closing one that has ended, by exit or by exception, does nothing.
    assert_eq!(g.close(), None);
    assert_eq!(g.next(), None);
    // Closing one that has not started runs nothing.
    let mut g = Generator::<u8>::new(|_| unreachable!("never runs"));
    g.close();
    assert_eq!(g.next(), None);
}

#[test]
fn close_gives_what_is_returned_upon_the_exit() {
    // Python 3.13. Before that it was lost.
    let mut g = Generator::new(|g: Yielder<'_, u8>| {
        caught(|| g.yield_(1));
        "tidied up"
    });
    g.next();
    assert_eq!(g.close(), Some("tidied up"));
    assert_eq!(g.take_return(), None);
}

#[test]
fn one_that_yields_upon_the_exit_is_reported() {
    let mut g = Generator::<u8>::new(|g| {
        caught(|| g.yield_(1));
        g.yield_(2);
        g.yield_(3);
    });
    g.next();
    check_raises("ignored GeneratorExit", || g.close());
    // It is still there.
    assert_eq!(g.next(), Some(3));
    assert_eq!(g.next(), None);
}

#[test]
fn another_exception_upon_the_exit_reaches_the_caller_of_close() {
    let mut g = Generator::<u8>::new(|g| {
        caught(|| g.yield_(1));
        raise("other");
    });
    g.next();
    check_raises("other", || g.close());
    assert!(g.is_finished());
}

#[test]
fn dropping_closes() {
    let log = Log::default();
    let out = log.clone();
    let mut g = Generator::<u8>::new(move |g| {
        let payload = caught(|| g.yield_(1));
        out.borrow_mut().push(format!("exit: {}", payload.is::<GeneratorExit>()));
    });
    g.next();
    drop(g);
    assert_eq!(*log.borrow(), ["exit: true"]);
    // One that yields a few times more is unwound all the same.
    let dropped = Rc::new(Cell::new(0));
    let noted = Noted(dropped.clone());
    let mut g = Generator::<u8>::new(move |g| {
        let _noted = noted;
        for n in 0..5 {
            caught(|| g.yield_(n));
        }
    });
    g.next();
    drop(g);
    assert_eq!((dropped.get(), StackPool::local().stats().live), (1, 0));
}

#[test]
fn one_that_never_ends_loses_its_stack_and_harms_nobody() {
    let dropped = Rc::new(Cell::new(0));
    let noted = Noted(dropped.clone());
    let mut g = Generator::<u8>::new(move |g| {
        let _noted = noted;
        loop {
            let _ = catch_unwind(AssertUnwindSafe(|| g.yield_(1)));
        }
    });
    g.next();
    drop(g);
    assert_eq!((dropped.get(), StackPool::local().stats().live), (0, 1));
}

#[test]
fn a_destructor_may_yield_while_it_unwinds() {
    // Python's `finally: yield`.
    struct Yields<'a>(Yielder<'a, &'static str>);
    impl Drop for Yields<'_> {
        fn drop(&mut self) {
            self.0.yield_("from the destructor");
        }
    }
    let mut g = Generator::<&str>::new(|g| {
        let yields = Yields(g);
        yields.0.yield_("first");
    });
    assert_eq!(g.next(), Some("first"));
    assert_eq!(g.throw(Box::new("broken")), Some("from the destructor"));
    check_raises("broken", || g.next());
    assert!(!std::thread::panicking());
    // And when it is dropped there, or while it is unwound by that.
    for thrown in [false, true] {
        let mut g = Generator::<&str>::new(|g| {
            let yields = Yields(g);
            yields.0.yield_("first");
        });
        g.next();
        if thrown {
            g.throw(Box::new("broken"));
            // The exception that was on its way goes on.
            check_raises("broken", || drop(g));
        } else {
            drop(g);
        }
        assert!(!std::thread::panicking());
    }
    assert_eq!(StackPool::local().stats().live, 0);
}

#[test]
fn a_coroutine_pipeline() {
    // PEP 342's example of a chain of consumers: thumbnails are grouped in pages.
    let pages: Rc<RefCell<Vec<Vec<u32>>>> = Rc::default();
    let out = pages.clone();
    let mut writer = Generator::new(move |g: Yielder<'_, (), Vec<u32>>| {
        while let Some(page) = g.yield_(()) {
            out.borrow_mut().push(page);
        }
    });
    writer.next();
    let mut pager = Generator::new(move |g: Yielder<'_, (), u32>| {
        let mut page = Vec::new();
        while let Some(picture) = g.yield_(()) {
            page.push(picture);
            if page.len() == 2 {
                writer.send(std::mem::take(&mut page));
            }
        }
        writer.send(page);
    });
    pager.next();
    for picture in 0..5 {
        pager.send(picture);
    }
    assert_eq!(pager.next(), None);
    assert_eq!(*pages.borrow(), [vec![0, 1], vec![2, 3], vec![4]]);
}

// PEP 380

/// Yields what it is sent, as text, and what is thrown at it; ends with "end".
fn inner(log: Log) -> Generator<String, u32, &'static str> {
    Generator::new(move |g: Yielder<'_, String, u32>| {
        let mut said = "start".to_owned();
        loop {
            match catch_unwind(AssertUnwindSafe(|| g.yield_(said))) {
                Ok(Some(0)) => return "end",
                Ok(sent) => said = format!("sent {sent:?}"),
                Err(payload) if payload.is::<GeneratorExit>() => {
                    log.borrow_mut().push("inner closed".into());
                    resume_unwind(payload)
                }
                Err(payload) => match payload.downcast_ref::<&str>() {
                    Some(&"stop") => return "stopped",
                    Some(&"fatal") => resume_unwind(payload),
                    other => said = format!("thrown {other:?}"),
                },
            }
        }
    })
}

fn outer(log: Log) -> Generator<String, u32, String> {
    Generator::new(move |g: Yielder<'_, String, u32>| {
        let mut inner = inner(log.clone());
        let delegated = catch_unwind(AssertUnwindSafe(|| g.delegate(&mut inner)));
        match delegated {
            Ok(returned) => {
                g.yield_(format!("inner returned {returned:?}"));
                "outer end".to_owned()
            }
            Err(payload) => {
                let exit = payload.is::<GeneratorExit>();
                log.borrow_mut().push(format!("outer raised, exit: {exit}"));
                resume_unwind(payload)
            }
        }
    })
}

#[test]
fn values_sent_go_to_the_inner_generator_and_its_return_value_comes_back() {
    let mut g = outer(Log::default());
    assert_eq!(g.next().unwrap(), "start");
    assert_eq!(g.send(5).unwrap(), "sent Some(5)");
    assert_eq!(g.next().unwrap(), "sent None");
    assert_eq!(g.send(0).unwrap(), "inner returned Some(\"end\")");
    assert_eq!(g.next(), None);
    assert_eq!(g.take_return().unwrap(), "outer end");
    assert_eq!(g.take_return(), None);
}

#[test]
fn exceptions_thrown_go_to_the_inner_generator() {
    let log = Log::default();
    let mut g = outer(log.clone());
    g.next();
    assert_eq!(g.throw(Box::new("mild")).unwrap(), "thrown Some(\"mild\")");
    // One that ends the inner one with a value resumes the outer one.
    assert_eq!(g.throw(Box::new("stop")).unwrap(), "inner returned Some(\"stopped\")");
    assert!(log.borrow().is_empty());
    // One that it does not catch is raised in the outer one, at the delegation.
    let mut g = outer(log.clone());
    g.next();
    check_raises("fatal", || g.throw(Box::new("fatal")));
    assert_eq!(*log.borrow(), ["outer raised, exit: false"]);
}

#[test]
fn closing_closes_the_inner_generator_first() {
    let log = Log::default();
    let mut g = outer(log.clone());
    g.next();
    g.close();
    assert_eq!(log.take(), ["inner closed", "outer raised, exit: true"]);
    let mut g = outer(log.clone());
    g.next();
    drop(g);
    assert_eq!(log.take(), ["inner closed", "outer raised, exit: true"]);
}

#[test]
fn an_inner_one_that_was_begun_or_has_ended_may_be_delegated_to() {
    let mut g = Generator::new(|g: Yielder<'_, u8>| {
        let mut inner = Generator::new(|g: Yielder<'_, u8>| {
            g.yield_from(1..4);
            "returned"
        });
        inner.next();
        [g.delegate(&mut inner), g.delegate(&mut inner)]
    });
    assert_eq!(g.by_ref().collect::<Vec<_>>(), [2, 3]);
    assert_eq!(g.take_return(), Some([Some("returned"), None]));
}

#[test]
fn delegation_goes_through_many_levels() {
    fn level(depth: u32) -> Generator<u32, u32, u32> {
        Generator::with_stack_size(StackSize::Small, move |g: Yielder<'_, u32, u32>| {
            if depth == 0 {
                return g.yield_(0).unwrap_or(0);
            }
            g.delegate(&mut level(depth - 1)).unwrap_or(0) + 1
        })
    }
    let mut g = level(50);
    assert_eq!(g.next(), Some(0));
    assert_eq!(g.send(7), None);
    assert_eq!(g.take_return(), Some(57));
}

#[test]
fn a_body_may_own_much() {
    let much = [1u32; 1000];
    let mut g = Generator::new(move |g: Yielder<'_, u32>| g.yield_from(much));
    assert_eq!(g.by_ref().sum::<u32>(), 1000);
    let greenlet = warren_fiber::Greenlet::new(move |n: u32| n + much.iter().sum::<u32>());
    assert_eq!(greenlet.switch(1), 1001);
}
