//! Random chains beside a plain model of them, which keeps all in tables and calls itself.

use std::cell::RefCell;
use std::panic::resume_unwind;
use std::rc::Rc;

use proptest::prelude::*;

use crate::deferred::Settled;
use crate::{Canceller, Deferred, Failure, Resolver, UnhandledFailures};

#[derive(Clone, Debug)]
enum Op {
    Add(i64),
    Fail,
    Panic,
    Recover,
    Refail,
    /// Whether it was a value.
    Both,
    /// Waits for another chain.
    Inner(Plan),
    /// When there is a failure.
    InnerOnFailure(Plan),
}

#[derive(Clone, Debug)]
struct Plan {
    /// Instead of firing later.
    fired: Option<bool>,
    ops: Vec<Op>,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Fire(usize, bool),
    Drop(usize),
    Cancel,
}

/// The number of a chain, the place in it, and what the callback there was called with.
type Call = (usize, usize, String);

fn show(result: &Settled<i64, String>) -> String {
    match result {
        Ok(value) => value.to_string(),
        Err(failure) => failure.to_string(),
    }
}

/// Builds what is planned. Chains are numbered in the order in which they begin.
#[derive(Default)]
struct World {
    resolvers: Vec<Option<Resolver<i64, String>>>,
    calls: Rc<RefCell<Vec<Call>>>,
}

impl World {
    fn build(&mut self, plan: &Plan) -> Deferred<i64, String> {
        let (deferred, resolver) = Deferred::pending();
        let chain = self.resolvers.len();
        let resolver = match plan.fired {
            Some(ok) => {
                resolver.resolve(fired(chain, ok));
                None
            }
            None => Some(resolver),
        };
        self.resolvers.push(resolver);
        plan.ops.iter().enumerate().fold(deferred, |deferred, (place, op)| {
            let calls = self.calls.clone();
            let called = move |what: String| calls.borrow_mut().push((chain, place, what));
            match op {
                Op::Add(n) => {
                    let n = *n;
                    deferred.add_callback(move |value| {
                        called(value.to_string());
                        Ok(value + n)
                    })
                }
                Op::Fail => deferred.add_callback(move |value| {
                    called(value.to_string());
                    Err(Failure::Error(format!("failed at {value}")))
                }),
                Op::Panic => deferred.add_callback(move |value| -> Settled<i64, String> {
                    called(value.to_string());
                    // Without a word from the panic hook.
                    resume_unwind(Box::new("thrown"))
                }),
                Op::Recover => deferred.add_errback(move |failure| {
                    called(failure.to_string());
                    Ok(0)
                }),
                Op::Refail => deferred.add_errback(move |failure| {
                    called(failure.to_string());
                    Err(failure)
                }),
                Op::Both => deferred.add_both(move |result| {
                    called(show(&result));
                    Ok(result.is_ok().into())
                }),
                Op::Inner(plan) => {
                    let inner = self.build(plan);
                    deferred.add_callback(move |value| {
                        called(value.to_string());
                        inner
                    })
                }
                Op::InnerOnFailure(plan) => {
                    let inner = self.build(plan);
                    deferred.add_errback(move |failure| {
                        called(failure.to_string());
                        inner
                    })
                }
            }
        })
    }
}

fn fired(chain: usize, ok: bool) -> Settled<i64, String> {
    let number = i64::try_from(chain).unwrap() * 100;
    if ok { Ok(number) } else { Err(Failure::Error(format!("source {chain}"))) }
}

/// The model: what `World` has, as tables.
#[derive(Default)]
struct Model {
    chains: Vec<Modelled>,
    calls: Vec<Call>,
}

struct Modelled {
    ops: Vec<ModelOp>,
    place: usize,
    /// `None` while something is waited for.
    result: Option<Result<i64, String>>,
    source_settled: bool,
    waits_for: Option<usize>,
    handle: Handle,
}

#[derive(Clone, Copy, PartialEq)]
enum Handle {
    Held,
    Dropped,
    /// The chain that waits for this one.
    Given(usize),
    /// The result was taken.
    Through,
}

#[derive(Clone)]
enum ModelOp {
    Plain(Op),
    Inner { on_failure: bool, chain: usize },
}

impl Model {
    fn build(&mut self, plan: &Plan) -> usize {
        let chain = self.chains.len();
        let result = plan.fired.map(|ok| fired(chain, ok).map_err(|failure| failure.to_string()));
        self.chains.push(Modelled {
            ops: Vec::new(),
            place: 0,
            source_settled: result.is_some(),
            result,
            waits_for: None,
            handle: Handle::Held,
        });
        for op in &plan.ops {
            let op = match op {
                Op::Inner(plan) => ModelOp::Inner { on_failure: false, chain: self.build(plan) },
                Op::InnerOnFailure(plan) => {
                    ModelOp::Inner { on_failure: true, chain: self.build(plan) }
                }
                op => ModelOp::Plain(op.clone()),
            };
            self.chains[chain].ops.push(op);
            // What has fired goes on with each op that is added.
            self.advance(chain);
        }
        chain
    }

    fn settle(&mut self, chain: usize, result: Result<i64, String>) {
        if !std::mem::replace(&mut self.chains[chain].source_settled, true) {
            self.chains[chain].result = Some(result);
            self.advance(chain);
        }
    }

    fn cancel(&mut self, mut chain: usize) {
        while let Some(inner) = self.chains[chain].waits_for {
            chain = inner;
        }
        self.settle(chain, Err("cancelled".into()));
    }

    fn advance(&mut self, chain: usize) {
        while let Some(result) = self.chains[chain].result.clone() {
            let place = self.chains[chain].place;
            let Some(op) = self.chains[chain].ops.get(place).cloned() else {
                if let Handle::Given(outer) = self.chains[chain].handle {
                    self.chains[chain].handle = Handle::Through;
                    self.chains[outer].waits_for = None;
                    self.chains[outer].result = Some(result);
                    self.advance(outer);
                }
                return;
            };
            self.chains[chain].place += 1;
            let calls = &mut self.calls;
            let mut called = |what: &str| calls.push((chain, place, what.to_owned()));
            let next = match (op, result) {
                (ModelOp::Plain(op), Ok(value)) => match op {
                    Op::Recover | Op::Refail => Ok(value),
                    op => {
                        called(&value.to_string());
                        match op {
                            Op::Add(n) => Ok(value + n),
                            Op::Fail => Err(format!("failed at {value}")),
                            Op::Both => Ok(1),
                            _ => Err("panicked: thrown".to_owned()),
                        }
                    }
                },
                (ModelOp::Plain(op), Err(error)) => match op {
                    Op::Recover | Op::Both => {
                        called(&error);
                        Ok(0)
                    }
                    Op::Refail => {
                        called(&error);
                        Err(error)
                    }
                    _ => Err(error),
                },
                (ModelOp::Inner { on_failure, chain: inner }, result) => {
                    if result.is_err() != on_failure {
                        self.chains[inner].handle = Handle::Dropped;
                        result
                    } else {
                        let (Ok(what) | Err(what)) = result.map(|value| value.to_string());
                        called(&what);
                        self.chains[chain].result = None;
                        self.chains[chain].waits_for = Some(inner);
                        self.chains[inner].handle = Handle::Given(chain);
                        return self.advance(inner);
                    }
                }
            };
            self.chains[chain].result = Some(next);
        }
    }

    /// Failures that stand at the end of a chain of which nobody has the handle.
    fn unhandled(&self) -> usize {
        let lost = |chain: &&Modelled| {
            chain.handle == Handle::Dropped
                && chain.place == chain.ops.len()
                && matches!(chain.result, Some(Err(_)))
        };
        self.chains.iter().filter(lost).count()
    }
}

fn plans() -> impl Strategy<Value = Plan> {
    let plain = || {
        prop_oneof![
            4 => (1..10_i64).prop_map(Op::Add),
            1 => Just(Op::Fail),
            1 => Just(Op::Panic),
            1 => Just(Op::Recover),
            1 => Just(Op::Refail),
            1 => Just(Op::Both),
        ]
    };
    let plan = |op: BoxedStrategy<Op>| {
        (proptest::option::of(any::<bool>()), prop::collection::vec(op, 0..6))
            .prop_map(|(fired, ops)| Plan { fired, ops })
    };
    let leaf = plan(plain().boxed());
    leaf.prop_recursive(4, 60, 6, move |inner| {
        let op = prop_oneof![
            3 => plain(),
            2 => inner.clone().prop_map(Op::Inner),
            1 => inner.prop_map(Op::InnerOnFailure),
        ];
        plan(op.boxed())
    })
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => (0..20_usize, any::<bool>()).prop_map(|(chain, ok)| Event::Fire(chain, ok)),
        1 => (0..20_usize).prop_map(Event::Drop),
        1 => Just(Event::Cancel),
    ];
    prop::collection::vec(event, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn chains_do_as_the_model_does(plan in plans(), events in events(), keep in any::<bool>()) {
        let unhandled = UnhandledFailures::collect();
        let (mut world, mut model) = (World::default(), Model::default());
        let deferred = world.build(&plan);
        model.build(&plan);
        let canceller: Canceller = deferred.canceller();
        let deferred = keep.then_some(deferred);
        if !keep {
            model.chains[0].handle = Handle::Dropped;
        }
        let last = (0..world.resolvers.len()).map(Event::Drop);
        for event in events.into_iter().chain(last) {
            match event {
                Event::Fire(chain, ok) => {
                    let resolver = world.resolvers.get_mut(chain).and_then(Option::take);
                    if let Some(resolver) = resolver {
                        prop_assert_eq!(resolver.is_wanted(), !model.chains[chain].source_settled);
                        resolver.resolve(fired(chain, ok));
                        model.settle(chain, fired(chain, ok).map_err(|error| error.to_string()));
                    }
                }
                Event::Drop(chain) => {
                    if world.resolvers.get_mut(chain).and_then(Option::take).is_some() {
                        let failure = Failure::<String>::Dropped.to_string();
                        model.settle(chain, Err(failure));
                    }
                }
                Event::Cancel => {
                    canceller.cancel();
                    model.cancel(0);
                }
            }
            prop_assert_eq!(&*world.calls.borrow(), &model.calls);
            let fired = model.chains[0].result.is_some();
            prop_assert_eq!(deferred.as_ref().map_or(fired, Deferred::has_fired), fired);
        }
        if let Some(deferred) = deferred {
            let result = deferred.wait().map_err(|failure| failure.to_string());
            prop_assert_eq!(Some(result), model.chains[0].result.take());
        }
        prop_assert_eq!(unhandled.take().len(), model.unhandled());
        // No callback is kept by anybody.
        prop_assert_eq!(Rc::strong_count(&world.calls), 1);
    }
}
