//! Random programs of greenlets, beside a plain model that knows no stacks.
//!
//! Every greenlet, and the root, runs a script of its own. The model keeps for each where it stands in its
//! script, and interprets. Both write a log of what arrives where.

use std::cell::{Cell, OnceCell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use proptest::prelude::*;

use warren_fiber::{Greenlet, GreenletExit, StackPool, StackSize};

const GREENLETS: usize = 5;
/// In the place of a greenlet's index.
const ROOT: usize = GREENLETS;

/// In the place of an index: the root's script has ended.
const NOWHERE: usize = ROOT + 1;

#[derive(Clone, Copy, Debug)]
enum Op {
    Switch(usize),
    Throw(usize),
    Kill(usize),
    ParentSwitch,
    RootSwitch,
    SetParent(usize, usize),
    Return,
    Panic,
}

fn op() -> impl Strategy<Value = Op> {
    let any = || 0..GREENLETS;
    prop_oneof![
        8 => any().prop_map(Op::Switch),
        2 => any().prop_map(Op::Throw),
        2 => any().prop_map(Op::Kill),
        2 => Just(Op::ParentSwitch),
        2 => Just(Op::RootSwitch),
        3 => (any(), 0..=GREENLETS).prop_map(|(child, parent)| Op::SetParent(child, parent)),
        1 => Just(Op::Return),
        1 => Just(Op::Panic),
    ]
}

/// What a greenlet does, and whether it catches what is thrown into it.
type Script = (Vec<Op>, bool);

/// A script for each greenlet, and last the root's.
fn program() -> impl Strategy<Value = Vec<Script>> {
    let script = (prop::collection::vec(op(), 0..12), any::<bool>());
    prop::collection::vec(script, GREENLETS + 1)
}

/// What arrives. Each has a number of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Value(u32),
    Raised(u32),
    /// Is told to end.
    Exit,
    /// Had its wish for another parent refused, or not.
    SetParent(bool),
}

type Log = Vec<(usize, Event)>;

struct World {
    program: Vec<Script>,
    greenlets: OnceCell<Vec<Greenlet<u32>>>,
    log: RefCell<Log>,
    sent: Cell<u32>,
}

impl World {
    fn greenlet(&self, index: usize) -> &Greenlet<u32> {
        &self.greenlets.get().expect("made at the beginning")[index]
    }

    fn number(&self) -> u32 {
        self.sent.set(self.sent.get() + 1);
        self.sent.get()
    }

    fn note(&self, who: usize, event: Event) {
        self.log.borrow_mut().push((who, event));
    }

    fn perform(&self, op: Op) -> Option<Event> {
        let value = match op {
            Op::Switch(target) => self.greenlet(target).switch(self.number()),
            Op::Throw(target) => self.greenlet(target).throw(Box::new(self.number())),
            Op::Kill(target) => self.greenlet(target).kill(self.number()),
            Op::ParentSwitch => {
                Greenlet::<u32>::current()?;
                Greenlet::parent_switch(self.number())
            }
            Op::RootSwitch => Greenlet::root_switch(self.number()),
            Op::SetParent(child, parent) => {
                let parent = (parent != ROOT).then(|| self.greenlet(parent));
                // `panic!` calls the hook, which would fill the screen.
                let mut ancestor = parent.cloned();
                while ancestor.as_ref().is_some_and(|ancestor| ancestor != self.greenlet(child)) {
                    ancestor = ancestor.and_then(|ancestor| ancestor.parent());
                }
                let refused = ancestor.is_some();
                if !refused {
                    self.greenlet(child).set_parent(parent);
                }
                return Some(Event::SetParent(!refused));
            }
            Op::Return | Op::Panic => unreachable!("see `run`"),
        };
        Some(Event::Value(value))
    }

    /// The body of a greenlet, or of the root.
    fn run(&self, who: usize) -> u32 {
        let (script, catches) = &self.program[who];
        for op in script {
            match op {
                Op::Return => break,
                Op::Panic => resume_unwind(Box::new(self.number())),
                _ => {}
            }
            match catch_unwind(AssertUnwindSafe(|| self.perform(*op))) {
                Ok(None) => {}
                Ok(Some(event)) => self.note(who, event),
                Err(payload) if payload.is::<GreenletExit>() => {
                    self.note(who, Event::Exit);
                    resume_unwind(payload)
                }
                Err(payload) => {
                    self.note(who, Event::Raised(*payload.downcast_ref().expect("a number")));
                    if !catches {
                        resume_unwind(payload);
                    }
                }
            }
        }
        self.number()
    }

    /// Notes how something ended in the root.
    fn at_root(&self, f: impl FnOnce() -> u32) {
        let event = match catch_unwind(AssertUnwindSafe(f)) {
            Ok(value) => Event::Value(value),
            Err(payload) => Event::Raised(*payload.downcast_ref().expect("a number")),
        };
        self.note(ROOT, event);
    }
}

fn real(program: &[Script]) -> Log {
    let world = Rc::new(World {
        program: program.to_vec(),
        greenlets: OnceCell::new(),
        log: RefCell::default(),
        sent: Cell::new(0),
    });
    let make = |who| {
        let weak = Rc::downgrade(&world);
        Greenlet::with_stack_size(StackSize::Normal, move |first| {
            let world = weak.upgrade().expect("the world ends last");
            world.note(who, Event::Value(first));
            world.run(who)
        })
    };
    let made = world.greenlets.set((0..GREENLETS).map(make).collect());
    assert!(made.is_ok());
    world.at_root(|| world.run(ROOT));
    while let Some(who) = (0..GREENLETS).find(|who| world.greenlet(*who).is_alive()) {
        world.at_root(|| world.greenlet(who).kill(world.number()));
    }
    world.log.take()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Begun,
    Dead,
}

struct Model {
    program: Vec<Script>,
    state: [State; GREENLETS + 1],
    /// The next operation of its script.
    at: [usize; GREENLETS + 1],
    parent: [usize; GREENLETS],
    exit: [Option<u32>; GREENLETS],
    /// The root's script has ended, and what comes to it is only noted.
    root_kills: bool,
    log: Log,
    sent: u32,
}

impl Model {
    fn new(program: &[Script]) -> Self {
        let mut state = [State::New; GREENLETS + 1];
        state[ROOT] = State::Begun;
        Self {
            program: program.to_vec(),
            state,
            at: [0; GREENLETS + 1],
            parent: [ROOT; GREENLETS],
            exit: [None; GREENLETS],
            root_kills: false,
            log: Log::new(),
            sent: 0,
        }
    }

    fn number(&mut self) -> u32 {
        self.sent += 1;
        self.sent
    }

    fn living(&self, mut target: usize) -> usize {
        while self.state[target] == State::Dead {
            target = self.parent[target];
        }
        target
    }

    /// Runs from the root's script on until that has ended, and notes how.
    fn run(&mut self) {
        self.go_on(ROOT);
    }

    fn go_on(&mut self, mut current: usize) {
        loop {
            let (target, event) = match self.next_op(current) {
                None => {
                    let value = self.number();
                    self.end(current, Event::Value(value))
                }
                Some(Op::Panic) => {
                    let value = self.number();
                    self.end(current, Event::Raised(value))
                }
                Some(Op::SetParent(child, parent)) => {
                    let done = self.set_parent(child, parent);
                    self.log.push((current, Event::SetParent(done)));
                    continue;
                }
                Some(Op::ParentSwitch) if current == ROOT => continue,
                Some(op) => self.leave(current, op),
            };
            match self.arrive(target, event) {
                Some(next) => current = next,
                None => return,
            }
        }
    }

    fn next_op(&mut self, who: usize) -> Option<Op> {
        let op = self.program[who].0.get(self.at[who]).copied()?;
        self.at[who] += 1;
        (!matches!(op, Op::Return)).then_some(op)
    }

    /// Where an operation goes, and with what.
    fn leave(&mut self, current: usize, op: Op) -> (usize, Event) {
        let number = self.number();
        match op {
            Op::Switch(target) => (target, Event::Value(number)),
            Op::Throw(target) => (target, Event::Raised(number)),
            Op::Kill(target) if self.state[target] == State::Dead => (target, Event::Value(number)),
            Op::Kill(target) => {
                self.exit[target] = Some(number);
                (target, Event::Exit)
            }
            Op::ParentSwitch => (self.parent[current], Event::Value(number)),
            Op::RootSwitch => (ROOT, Event::Value(number)),
            Op::SetParent(..) | Op::Return | Op::Panic => unreachable!("see `run`"),
        }
    }

    /// Whose turn it is when `event` comes to `target`; `None` when the root's script has ended of it.
    fn arrive(&mut self, target: usize, event: Event) -> Option<usize> {
        let (mut target, mut event) = (target, event);
        loop {
            if target == NOWHERE {
                return None;
            }
            target = self.living(target);
            if target == ROOT && self.root_kills {
                self.log.push((ROOT, event));
                return None;
            }
            if self.state[target] == State::Begun {
                self.log.push((target, event));
                match event {
                    Event::Value(_) => return Some(target),
                    Event::Raised(_) if self.program[target].1 => return Some(target),
                    _ => {}
                }
            } else if let Event::Value(_) = event {
                self.state[target] = State::Begun;
                self.log.push((target, event));
                return Some(target);
            }
            (target, event) = self.end(target, event);
        }
    }

    /// Where it goes on when one has ended with `event`.
    fn end(&mut self, who: usize, event: Event) -> (usize, Event) {
        if who == ROOT {
            self.log.push((ROOT, event));
            return (NOWHERE, event);
        }
        self.state[who] = State::Dead;
        let event = match (event, self.exit[who].take()) {
            (Event::Exit, Some(value)) => Event::Value(value),
            (event, _) => event,
        };
        (self.parent[who], event)
    }

    fn set_parent(&mut self, child: usize, parent: usize) -> bool {
        let mut ancestor = parent;
        while ancestor != ROOT && ancestor != child {
            ancestor = self.parent[ancestor];
        }
        if ancestor != child {
            self.parent[child] = parent;
        }
        ancestor != child
    }

    /// As the real one does at its end.
    fn kill_all(&mut self) {
        self.root_kills = true;
        while let Some(who) = (0..GREENLETS).find(|who| self.state[*who] == State::Begun) {
            let (target, event) = self.leave(ROOT, Op::Kill(who));
            if let Some(next) = self.arrive(target, event) {
                self.go_on(next);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn greenlets_do_as_the_model_does(program in program()) {
        let mut model = Model::new(&program);
        model.run();
        model.kill_all();
        prop_assert_eq!(real(&program), model.log);
        prop_assert_eq!(StackPool::local().stats().live, 0);
    }
}
