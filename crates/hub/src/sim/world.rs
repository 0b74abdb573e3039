//! The world: its clock, its agenda, and whose turn it is.
//!
//! One step of the world, on the thread of whoever runs the simulation:
//!
//! ```text
//!   bury the dead -> do what the agenda has for now -> one turn of one hub that has work, drawn by lot
//!                                                   -> nobody has: the clock jumps to what comes next
//! ```
//! Nodes are never entered from within one another: what one does to another (a crash, a segment on its way) is put
//! down and done between turns. So no hub is borrowed while another runs.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use super::net::Network;
use super::node::{Corpse, Machine};
use super::random::Random;
use super::trace::{Step, Trace};
use super::{Net, Node, Simulation};
use crate::driver::Job;
use crate::hub::{self, Entered};

/// The time of day at which every simulation begins: some moment in 2030.
const DAWN: Duration = Duration::from_secs(1_900_000_000);
/// How long a call on another thread takes.
const JOB: std::ops::RangeInclusive<Duration> =
    Duration::from_micros(20)..=Duration::from_millis(5);

/// What is done between turns.
type Action = Box<dyn FnOnce(&Rc<Core>)>;

/// How a simulation fails.
pub(super) enum Failure {
    /// By a panic, of which the hook has told.
    Panic(Box<dyn Any + Send>),
    /// The world cannot go on.
    Report(String),
}

pub(super) struct Core {
    pub(super) seed: u64,
    pub(super) random: Random,
    trace: Trace,
    settings: Simulation,
    base: Instant,
    offset: Cell<Duration>,
    turns: Cell<u64>,
    agenda: RefCell<BTreeMap<(Duration, u64), Action>>,
    last_action: Cell<u64>,
    /// The first is the controller's.
    pub(super) machines: RefCell<Vec<Rc<Machine>>>,
    pub(super) corpses: RefCell<Vec<Corpse>>,
    pub(super) network: Network,
    failure: RefCell<Option<Failure>>,
    /// Those with work, reused.
    able: RefCell<Vec<usize>>,
    /// How often a fiber other than the first in line is resumed.
    disorder: f64,
}

impl Core {
    pub(super) fn new(settings: Simulation) -> Rc<Self> {
        let random = Random::new(settings.seed);
        // Some bugs need an orderly world in which one thing is late.
        let disorder = *random.choose(&[0.05, 0.5, 1.0, 1.0]).unwrap_or(&1.0);
        Rc::new(Self {
            seed: settings.seed,
            trace: Trace::new(settings.print),
            settings,
            base: Instant::now(),
            offset: Cell::new(Duration::ZERO),
            turns: Cell::new(0),
            agenda: RefCell::default(),
            last_action: Cell::new(0),
            machines: RefCell::default(),
            corpses: RefCell::default(),
            network: Network::new(),
            failure: RefCell::default(),
            able: RefCell::default(),
            disorder,
            random,
        })
    }

    /// Time since the beginning.
    pub(super) fn now(&self) -> Duration {
        self.offset.get()
    }

    pub(super) fn instant(&self) -> Instant {
        self.base + self.offset.get()
    }

    pub(super) fn system_time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + DAWN + self.offset.get()
    }

    pub(super) fn turns(&self) -> u64 {
        self.turns.get()
    }

    pub(super) fn trace_hash(&self) -> u64 {
        self.trace.hash()
    }

    pub(super) fn note(&self, node: usize, step: Step, what: u64, more: u64) {
        self.trace.note(self.now(), node, step, what, more);
    }

    /// Which of so many ready fibers goes on.
    pub(super) fn choose(&self, ready: usize) -> usize {
        if ready > 1 && self.random.chance(self.disorder) { self.random.index(ready) } else { 0 }
    }

    /// Does `action` after `delay`, between turns; of several at one time the first that was put down first.
    pub(super) fn after(&self, delay: Duration, action: impl FnOnce(&Rc<Core>) + 'static) {
        self.at(self.now() + delay, action);
    }

    /// As [`after`](Self::after), at a time.
    pub(super) fn at(&self, time: Duration, action: impl FnOnce(&Rc<Core>) + 'static) {
        let number = self.last_action.get() + 1;
        self.last_action.set(number);
        self.agenda.borrow_mut().insert((time, number), Box::new(action));
    }

    /// Runs what would block a thread, outside all hubs, some time later.
    pub(super) fn run_job(&self, node: usize, job: Job) {
        self.after(self.random.duration(JOB), move |core| {
            core.note(node, Step::Job, 0, 0);
            job();
        });
    }

    pub(super) fn fail(&self, failure: Failure) {
        self.failure.borrow_mut().get_or_insert(failure);
    }

    pub(super) fn machine(&self, number: usize) -> Rc<Machine> {
        self.machines.borrow()[number].clone()
    }

    /// Adds a machine that nothing runs on.
    pub(super) fn add_machine(&self, name: &str) -> Rc<Machine> {
        let mut machines = self.machines.borrow_mut();
        let taken = machines.iter().any(|machine| &*machine.name == name);
        assert!(!taken, "there is a node {name:?} already");
        let number = machines.len();
        let [high, low] = u16::try_from(number + 1).expect("fewer than 65,535 nodes").to_be_bytes();
        let machine = Rc::new(Machine::new(number, name, Ipv4Addr::new(10, 0, high, low)));
        machines.push(machine.clone());
        machine
    }

    /// The addresses of a name.
    pub(super) fn resolve(&self, name: &str) -> Option<IpAddr> {
        if name == "localhost" {
            return Some(Ipv4Addr::LOCALHOST.into());
        }
        let machines = self.machines.borrow();
        machines.iter().find(|machine| &*machine.name == name).map(|machine| machine.ip.into())
    }

    /// Lets the world go on until the controller's fiber has ended.
    pub(super) fn run(self: &Rc<Self>) -> Result<(), Failure> {
        loop {
            self.bury();
            self.act();
            if let Some(failure) = self.failure.take() {
                return Err(failure);
            }
            if self.machine(0).has_ended() {
                return Ok(());
            }
            match self.draw() {
                Some(node) => self.turn(node),
                None if self.wake_idle() || self.jump() => {}
                None => {
                    let text = "the simulation is stuck: no fiber can run, and no timer, message \
                                or disk is awaited";
                    return Err(Failure::Report(self.report(text)));
                }
            }
            let too_much = if self.settings.time_max < self.now() {
                format!("{:?} of simulated time", self.settings.time_max)
            } else if self.settings.turns_max < self.turns() {
                format!("{} turns", self.settings.turns_max)
            } else {
                continue;
            };
            let text = format!("the simulation takes more than {too_much}");
            return Err(Failure::Report(self.report(&text)));
        }
    }

    fn bury(self: &Rc<Self>) {
        loop {
            let corpse = self.corpses.borrow_mut().pop();
            let Some(corpse) = corpse else { return };
            corpse.bury();
        }
    }

    /// Does what the agenda has for now.
    fn act(self: &Rc<Self>) {
        loop {
            let mut agenda = self.agenda.borrow_mut();
            let due = agenda.first_entry().filter(|first| first.key().0 <= self.now());
            let Some(action) = due.map(|due| due.remove()) else { return };
            drop(agenda);
            action(self);
        }
    }

    /// One of the nodes that have work.
    fn draw(&self) -> Option<usize> {
        let mut able = self.able.borrow_mut();
        able.clear();
        let now = self.instant();
        let machines = self.machines.borrow();
        able.extend(machines.iter().filter(|machine| machine.has_work(now)).map(|one| one.number));
        self.random.choose(&able).copied()
    }

    fn turn(self: &Rc<Self>, node: usize) {
        self.turns.set(self.turns.get() + 1);
        // A computation takes time, too: who asks the clock again and again sees it move.
        let took = self.random.duration(Duration::from_nanos(100)..=Duration::from_micros(10));
        self.offset.set(self.now() + took);
        self.machine(node).turn(self);
    }

    /// Wakes a fiber that waits for its hub to be idle.
    fn wake_idle(&self) -> bool {
        let machines = self.machines.borrow();
        machines.iter().any(|machine| {
            let Some(life) = machine.running() else { return false };
            let _entered = Entered::new(&life.hub);
            life.hub.wake_first_idle()
        })
    }

    /// Moves the clock to what comes next. False when nothing does.
    fn jump(&self) -> bool {
        let machines = self.machines.borrow();
        let timers = machines.iter().filter_map(|machine| machine.next_deadline());
        let timer = timers.min().map(|timer| timer.saturating_duration_since(self.base));
        let action = self.agenda.borrow().first_key_value().map(|(key, _)| key.0);
        let Some(next) = timer.into_iter().chain(action).min() else { return false };
        self.offset.set(next.max(self.now()));
        true
    }

    /// Who waits for what.
    fn report(&self, what: &str) -> String {
        let mut text = format!("{what}. At {:?}:", self.now());
        for machine in &*self.machines.borrow() {
            text += &format!("\nnode {:?}", machine.name);
            match machine.life() {
                Some(life) => text += &format!(": {}", life.hub.run_info()),
                None => text += ": nothing runs",
            }
        }
        text
    }

    /// Ends everything, and takes the world's parts off each other.
    pub(super) fn tear_down(self: &Rc<Self>) {
        self.bury();
        let machines = self.machines.borrow().clone();
        for machine in &machines {
            machine.die(self);
        }
        self.bury();
        self.network.clear();
        // They may own anything, and put more down.
        loop {
            let actions = self.agenda.take();
            if actions.is_empty() {
                return;
            }
        }
    }
}

/// The simulated world. A handle: clones are the same world.
///
/// Of the functions that start, end and disturb nodes, none has an effect on the node that calls it before that waits.
#[derive(Clone)]
pub struct World(pub(super) Rc<Core>);

impl World {
    /// The world this code runs in; `None` outside a simulation.
    pub fn current() -> Option<Self> {
        let core =
            hub::try_with(|hub| hub.driver.simulation().map(|driver| driver.core().clone()))??;
        Some(Self(core))
    }

    /// A node that runs `main`: a machine with an address and a disk of its own, and a hub on it. Others reach it by
    /// its name, as in `TcpStream::connect("name:80")`. When `main` returns, the program ends as after
    /// [`run`](crate::run): its other fibers are killed, its sockets closed. A panic of `main` fails the
    /// simulation.
    ///
    /// # Panics
    /// When there is a node of this name already.
    pub fn node(&self, name: &str, main: impl FnOnce() + 'static) -> Node {
        let node = self.machine(name);
        node.start(main);
        node
    }

    /// A node on which nothing runs yet: see [`Node::start`].
    ///
    /// # Panics
    /// When there is a node of this name already.
    pub fn machine(&self, name: &str) -> Node {
        Node { machine: self.0.add_machine(name), core: self.0.clone() }
    }

    /// The node of whoever calls this.
    ///
    /// # Panics
    /// Outside the nodes of this world.
    pub fn this_node(&self) -> Node {
        let number = hub::with(|hub| hub.driver.simulation().map(|driver| driver.node()));
        let number = number.expect("this is called from within a simulation");
        Node { machine: self.0.machine(number), core: self.0.clone() }
    }

    /// The network between the nodes.
    pub fn net(&self) -> Net {
        Net(self.0.clone())
    }

    /// The time since the simulation began.
    pub fn now(&self) -> Duration {
        self.0.now()
    }

    /// Lets the others live for so long.
    ///
    /// # Suspends
    /// For `duration`.
    ///
    /// # Panics
    /// Outside a fiber.
    pub fn advance(&self, duration: Duration) {
        crate::sleep(duration);
    }

    /// Chance, for whatever the scenario decides. Part of what the seed decides.
    pub fn random(&self) -> &Random {
        &self.0.random
    }

    /// The seed of this run.
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// Makes `what` part of the trace: two runs of a seed must note the same.
    pub fn note(&self, what: u64) {
        let node = hub::try_with(|hub| hub.driver.simulation().map(|driver| driver.node()));
        self.0.note(node.flatten().unwrap_or(0), Step::Note, what, 0);
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("seed", &self.0.seed)
            .field("now", &self.0.now())
            .field("turns", &self.0.turns())
            .finish_non_exhaustive()
    }
}
