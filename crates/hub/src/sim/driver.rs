//! What a hub of the simulation has in place of a kernel.

use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use super::disk::Storage;
use super::node::Process;
use super::trace::{Step, digest};
use super::world::Core;
use crate::driver::{Addr, Bell, Bind, Completion, Driver, Event, FileOp, Job, Listen, Source};
use crate::threadpool::ThreadPool;

/// The world as one program sees it.
pub(crate) struct SimDriver {
    core: Rc<Core>,
    process: Rc<Process>,
}

impl SimDriver {
    pub(super) fn new(core: Rc<Core>, process: Rc<Process>) -> Self {
        Self { core, process }
    }

    pub(super) fn core(&self) -> &Rc<Core> {
        &self.core
    }

    pub(super) fn node(&self) -> usize {
        self.process.node
    }

    fn note(&self, step: Step, what: u64, more: u64) {
        self.core.note(self.process.node, step, what, more);
    }
}

impl Driver for SimDriver {
    fn name(&self) -> &'static str {
        "simulation"
    }

    fn now(&self) -> Instant {
        self.core.instant()
    }

    fn system_time(&self) -> SystemTime {
        self.core.system_time() + self.core.machine(self.process.node).ahead.get()
    }

    fn random(&self, bytes: &mut [u8]) {
        self.core.random.fill(bytes);
        self.note(Step::Random, digest(bytes), 0);
    }

    fn is_simulated(&self) -> bool {
        true
    }

    fn choose(&self, ready: usize) -> usize {
        if !self.process.alive.get() && !self.process.buried.get() {
            // Out of range: nobody runs in what is left of the turn in which the node has died.
            return ready;
        }
        self.core.choose(ready)
    }

    fn burst(&self) -> usize {
        1 + self.core.random.index(8)
    }

    fn trace(&self, what: u64, which: u64) {
        self.note(Step::Resume, what, which);
    }

    fn simulation(&self) -> Option<&SimDriver> {
        Some(self)
    }

    fn resolve(&self, name: &str) -> Option<io::Result<Vec<IpAddr>>> {
        let unknown = || io::Error::new(io::ErrorKind::NotFound, "there is no node of this name");
        Some(self.core.resolve(name).map(|ip| vec![ip]).ok_or_else(unknown))
    }

    fn watch_fd(&self, _fd: BorrowedFd<'_>, _key: u64) -> io::Result<()> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "a simulation has no descriptors of the kernel",
        ))
    }

    fn unwatch_fd(&self, _fd: BorrowedFd<'_>, _key: u64) -> io::Result<()> {
        Ok(())
    }

    fn bell(&self, _key: u64) -> io::Result<Bell> {
        Ok(Bell::Silent)
    }

    fn wait(&self, _timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        events.extend(self.process.take_events());
        self.core.random.shuffle(events);
        for (key, ready) in events {
            self.note(Step::Ready, *key, ready.bits().into());
        }
        Ok(())
    }

    fn listen(&self, addr: &Addr, how: Listen) -> io::Result<Source> {
        self.core.network.listen(&self.core, &self.process, addr, how)
    }

    fn connect(&self, to: &Addr, from: Option<&Addr>) -> io::Result<Source> {
        self.core.network.connect(&self.core, &self.process, to, from)
    }

    fn pair(&self) -> io::Result<(Source, Source)> {
        self.core.network.pair(&self.core, &self.process)
    }

    fn datagram(&self, bind: &Addr, how: Bind) -> io::Result<Source> {
        self.core.network.datagram(&self.core, &self.process, bind, how.reuse_port)
    }

    fn file(&self, op: FileOp, done: Completion) {
        let machine = self.core.machine(self.process.node);
        Storage::begin(&self.core, machine, self.process.clone(), op, done);
    }

    fn run_blocking(&self, job: Job) -> io::Result<()> {
        if self.process.alive.get() {
            self.core.run_job(self.process.node, job);
        } else {
            // For a destructor that waits for it: nothing else will end that wait.
            job();
        }
        Ok(())
    }

    fn run_on(&self, _pool: &ThreadPool, job: Job) -> io::Result<()> {
        self.run_blocking(job)
    }
}
