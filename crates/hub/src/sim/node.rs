//! Machines, the programs that run on them, and how those end.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Disk;
use super::disk::Storage;
use super::driver::SimDriver;
use super::trace::Step;
use super::world::{Core, Failure};
use crate::fiber::FiberRef;
use crate::hub::{Entered, Hub};
use crate::io::Readiness;
use crate::join::{JoinError, JoinHandle};
use crate::remote::{self, RemoteWaker};
use crate::remote_join::{self, RemoteJoin};
use crate::spawn::{Builder, can_wait, spawn_raw};

/// How long fibers that are killed when `main` has returned may take with their destructors.
const FAREWELL: Duration = Duration::from_secs(5);
/// How often a dead node's fibers are killed, each of which ends one wait, before they are given up.
const KILLS_MAX: usize = 64;

/// A machine of the world. A handle: it may be kept when nothing runs on the machine, or go while something does.
#[derive(Clone)]
pub struct Node {
    pub(super) core: Rc<Core>,
    pub(super) machine: Rc<Machine>,
}

impl Node {
    /// What it is called, and reached by.
    pub fn name(&self) -> &str {
        &self.machine.name
    }

    /// Its address, the same for all its lives.
    pub fn ip(&self) -> IpAddr {
        self.machine.ip.into()
    }

    /// Its disk.
    pub fn disk(&self) -> Disk {
        Disk { core: self.core.clone(), machine: self.machine.clone() }
    }

    /// Whether a program runs on it.
    pub fn is_running(&self) -> bool {
        self.machine.life().is_some()
    }

    /// Starts a program on it: switches the machine on if need be, with what its disk has kept.
    ///
    /// # Panics
    /// When one runs already.
    pub fn start(&self, main: impl FnOnce() + 'static) {
        self.machine.start(&self.core, Box::new(main));
    }

    /// Runs `body` on a fiber of its program, as if the program had spawned it. On a node where nothing runs it is
    /// dropped, which counts as killed.
    pub fn spawn<T: 'static>(&self, body: impl FnOnce() -> T + 'static) -> RemoteJoin<T> {
        let (join, body) = remote_join::remote(body);
        if let Some(life) = self.machine.life() {
            let _entered = Entered::new(&life.hub);
            spawn_raw(body);
        }
        join
    }

    /// Cuts its power. The program is gone between two instructions: what its destructors do reaches nobody. Its disk
    /// keeps what was synced, and by chance some of what was not. Its peers hear nothing more from it: their
    /// connections hang until they give up, or until it is [restarted](Self::restart) and refuses what it does not
    /// know.
    ///
    /// # Suspends
    /// Until it is dead, which takes no time. On the node itself, for ever: the fiber unwinds. Where waiting is not
    /// allowed it returns before that.
    pub fn crash(&self) {
        self.end(End::Crash);
    }

    /// Kills the program (`kill -9`) and leaves the machine running: its system closes the connections, and the disk
    /// keeps what was written.
    ///
    /// # Suspends
    /// As [`crash`](Self::crash).
    pub fn kill(&self) {
        self.end(End::Kill);
    }

    /// [Crashes](Self::crash) it if it runs, and starts `main` on it.
    ///
    /// # Suspends
    /// As [`crash`](Self::crash).
    pub fn restart(&self, main: impl FnOnce() + 'static) {
        self.crash();
        self.start(main);
    }

    /// Stops its program where it is (`SIGSTOP`, a busy machine): the system goes on and takes what arrives, the program
    /// does nothing, and finds out about the time when it is [resumed](Self::resume).
    pub fn pause(&self) {
        self.core.note(self.machine.number, Step::Fault, 7, 0);
        self.machine.paused.set(true);
    }

    /// Ends a [`pause`](Self::pause).
    pub fn resume(&self) {
        self.core.note(self.machine.number, Step::Fault, 8, 0);
        self.machine.paused.set(false);
    }

    /// Sets its time of day ahead of the others' by so much. Timers do not go by it.
    pub fn clock_ahead(&self, by: Duration) {
        self.machine.ahead.set(by);
    }

    /// Waits until no program runs on it.
    ///
    /// # Suspends
    /// Until then.
    ///
    /// # Panics
    /// Outside a fiber.
    pub fn join(&self) {
        if self.is_running() {
            remote::wait(|waker| self.machine.waiting.borrow_mut().push(waker));
        }
    }

    fn end(&self, how: End) {
        if !can_wait() {
            self.machine.end(&self.core, how, None);
            return;
        }
        remote::wait(|waker| self.machine.end(&self.core, how, Some(waker)));
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("name", &self.machine.name)
            .field("ip", &self.machine.ip)
            .field("is_running", &self.is_running())
            .finish()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Kill,
    Crash,
}

pub(super) struct Machine {
    pub(super) number: usize,
    pub(super) name: Box<str>,
    pub(super) ip: Ipv4Addr,
    /// Whether it answers at all.
    pub(super) up: Cell<bool>,
    pub(super) disk: Storage,
    /// No descriptor is left.
    pub(super) exhausted: Cell<bool>,
    /// Its program has no turns.
    paused: Cell<bool>,
    pub(super) ahead: Cell<Duration>,
    last_port: Cell<u16>,
    life: RefCell<Option<Rc<Life>>>,
    /// Wait for its program to end.
    waiting: RefCell<Vec<RemoteWaker>>,
}

/// A program that runs.
pub(super) struct Life {
    pub(super) process: Rc<Process>,
    pub(super) hub: Rc<Hub>,
    main: FiberRef,
    handle: JoinHandle<()>,
    /// `main` has returned.
    ending: Cell<bool>,
}

/// What a program's sockets belong to.
pub(super) struct Process {
    pub(super) node: usize,
    pub(super) alive: Cell<bool>,
    /// Its fibers are being unwound.
    pub(super) buried: Cell<bool>,
    /// Readiness it has not been told of, by key.
    events: RefCell<BTreeMap<u64, Readiness>>,
}

/// A program that was ended, and whoever waits for it to be buried.
pub(super) struct Corpse {
    life: Rc<Life>,
    _waker: Option<RemoteWaker>,
}

impl Machine {
    pub(super) fn new(number: usize, name: &str, ip: Ipv4Addr) -> Self {
        Self {
            number,
            name: name.into(),
            ip,
            up: Cell::new(true),
            disk: Storage::new(),
            exhausted: Cell::new(false),
            paused: Cell::new(false),
            ahead: Cell::new(Duration::ZERO),
            last_port: Cell::new(49_151),
            life: RefCell::default(),
            waiting: RefCell::default(),
        }
    }

    pub(super) fn life(&self) -> Option<Rc<Life>> {
        self.life.borrow().clone()
    }

    /// The program, while it may have a turn.
    pub(super) fn running(&self) -> Option<Rc<Life>> {
        self.life().filter(|_| !self.paused.get())
    }

    /// When its next timer fires.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.running()?.hub.next_deadline()
    }

    /// Whether the fiber it was started with has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.life().is_none_or(|life| life.hub.fiber(life.main).is_none())
    }

    pub(super) fn has_work(&self, now: Instant) -> bool {
        self.running().is_some_and(|life| {
            life.hub.has_work()
                || !life.process.events.borrow().is_empty()
                || life.hub.next_deadline().is_some_and(|deadline| deadline <= now)
        })
    }

    /// A port that a connection may come from.
    pub(super) fn next_port(&self) -> u16 {
        let port = self.last_port.get().checked_add(1).unwrap_or(49_152);
        self.last_port.set(port);
        port
    }

    pub(super) fn start(self: &Rc<Self>, core: &Rc<Core>, main: Box<dyn FnOnce()>) {
        assert!(self.life.borrow().is_none(), "a program runs on node {:?} already", self.name);
        core.note(self.number, Step::Start, 0, 0);
        let process = Rc::new(Process {
            node: self.number,
            alive: Cell::new(true),
            buried: Cell::new(false),
            events: RefCell::default(),
        });
        let driver = SimDriver::new(core.clone(), process.clone());
        let hub = Hub::new(Box::new(driver)).expect("a simulated hub needs nothing of the system");
        let entered = Entered::new(&hub);
        let mut target = None;
        let spawned = Builder::new().name(self.name.clone()).prepare(main, |hub, fiber| {
            hub.start(fiber);
            target = Some(fiber);
        });
        drop(entered);
        match (spawned, target) {
            (Ok(handle), Some(main)) => {
                let life = Life { process, hub, main, handle, ending: Cell::new(false) };
                *self.life.borrow_mut() = Some(Rc::new(life));
            }
            (Err(error), _) => panic!("no stack for a node: {error}"),
            (Ok(_), None) => unreachable!("`prepare` starts what it has prepared"),
        }
        if !self.up.replace(true) {
            core.network.came_back(core, self.number);
        }
    }

    /// A turn of its hub.
    pub(super) fn turn(&self, core: &Rc<Core>) {
        let Some(life) = self.life() else { return };
        let hub = &life.hub;
        let entered = Entered::new(hub);
        if let Err(error) = hub.poll(Some(Duration::ZERO)) {
            panic!("a simulated hub cannot be polled: {error}");
        }
        let ended = || hub.fiber(life.main).is_none();
        hub.turn(&ended);
        if !life.process.alive.get() {
            // By its own hand.
            return;
        }
        if ended() && !life.ending.replace(true) {
            match life.handle.outcome().take() {
                Some(Err(JoinError::Panicked(panic))) => {
                    core.fail(Failure::Panic(panic.into_payload()));
                }
                Some(Err(JoinError::Killed)) | Some(Ok(())) | None => {}
            }
            if self.number == 0 {
                // The end of all.
                return;
            }
            hub.kill_all();
            let machine = core.machine(self.number);
            let late = life.clone();
            core.after(FAREWELL, move |core| machine.finish(core, &late));
        }
        drop(entered);
        if life.ending.get() && hub.fibers.live() == 0 {
            self.finish(core, &life);
        }
    }

    /// Ends a program whose `main` has returned.
    fn finish(&self, core: &Rc<Core>, life: &Rc<Life>) {
        let same = self.life().is_some_and(|present| Rc::ptr_eq(&present, life));
        if same {
            core.note(self.number, Step::End, 0, 0);
            life.clear();
            self.remove(core);
        }
    }

    fn end(&self, core: &Rc<Core>, how: End, waker: Option<RemoteWaker>) {
        if how == End::Crash {
            core.note(self.number, Step::Crash, 0, 0);
            self.up.set(false);
        }
        let life = self.life();
        if life.is_some() {
            core.note(self.number, Step::Kill, 0, 0);
        }
        self.paused.set(false);
        self.remove(core);
        if how == End::Crash {
            core.network.went_down(core, self.number);
            self.disk.crash(&core.random);
        }
        // When nothing runs, the waker goes at once, and the wait with it.
        if let Some(life) = life {
            core.corpses.borrow_mut().push(Corpse { life, _waker: waker });
        }
    }

    /// Takes the program off the machine, whose system closes what it had open.
    fn remove(&self, core: &Rc<Core>) {
        let Some(life) = self.life.take() else { return };
        life.process.alive.set(false);
        life.process.events.take();
        if self.up.get() {
            core.network.close_all(core, &life.process);
        } else {
            core.network.forget_all(&life.process);
        }
        self.waiting.take();
    }

    /// At the end of the world.
    pub(super) fn die(&self, core: &Rc<Core>) {
        self.end(core, End::Crash, None);
    }
}

impl Life {
    /// Drops what the hub still has.
    fn clear(&self) {
        let _entered = Entered::new(&self.hub);
        if self.hub.fibers.live() > 0 {
            self.hub.leak_all();
        }
        self.hub.clear();
    }
}

impl Process {
    /// Tells its hub that something has become ready.
    pub(super) fn tell(&self, key: u64, ready: Readiness) {
        if self.alive.get() {
            let mut events = self.events.borrow_mut();
            *events.entry(key).or_insert(Readiness::empty()) |= ready;
        }
    }

    pub(super) fn take_events(&self) -> BTreeMap<u64, Readiness> {
        self.events.take()
    }
}

impl Corpse {
    /// Unwinds the fibers of a program that has ended. Its driver refuses everything by now.
    pub(super) fn bury(self) {
        let hub = &self.life.hub;
        let entered = Entered::new(hub);
        self.life.process.buried.set(true);
        for _ in 0..KILLS_MAX {
            if hub.fibers.live() == 0 {
                break;
            }
            hub.kill_all();
            hub.wind_down();
        }
        drop(entered);
        self.life.clear();
    }
}
