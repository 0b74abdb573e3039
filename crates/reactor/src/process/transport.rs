//! [`ProcessTransport`]: a protocol's handle on its child.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::rc::{Rc, Weak};

use warren_hub::process::Child;
use warren_hub::signal::Signal;
use warren_hub::{contain, hub_local, no_wait};

use super::{ProcessProtocol, ProcessReason};
use crate::pipe;
use crate::pipe::open::{Input, Outlet};
use crate::{Consumer, Producer, Protocol, Reason, Transport};

/// Our ends of what lies between us and a child, by the child's numbers.
pub(super) type Ways = BTreeMap<i32, (Option<Input>, Option<Outlet>)>;

/// A handle on a child process. Cheap to clone; belongs to the hub it was made on. Dropping it leaves the child alone.
///
/// Methods never call a protocol. What is asked of a pipe that there is not, or not any more, does nothing.
#[derive(Clone)]
pub struct ProcessTransport(Rc<Process>);

/// The children of a hub, until they have ended and all their pipes are closed. They are forgotten with the hub.
#[derive(Default)]
struct Running {
    last: Cell<u64>,
    processes: RefCell<BTreeMap<u64, Rc<Process>>>,
}

struct Process {
    this: Weak<Self>,
    number: u64,
    child: Child,
    /// One of both directions, which stands for the three streams.
    is_terminal: bool,
    /// By the child's numbers, until they are closed.
    pipes: RefCell<BTreeMap<i32, Transport>>,
    /// How it has ended, once it has.
    reason: RefCell<Option<Rc<ProcessReason>>>,
    /// Borrowed during its callbacks; `None` once it has heard of the end.
    protocol: RefCell<Option<Box<dyn ProcessProtocol>>>,
}

impl ProcessTransport {
    /// The number of the process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.0.reason.borrow().is_none().then(|| self.0.child.id())
    }

    /// Writes to the child's standard input, or its terminal.
    pub fn write(&self, data: &[u8]) {
        self.write_to_child(self.0.input(), data);
    }

    /// Writes each of `pieces` to the child's standard input, or its terminal.
    pub fn write_sequence<I>(&self, pieces: I)
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        if let Some(pipe) = self.child_pipe(self.0.input()) {
            pipe.write_sequence(pieces);
        }
    }

    /// Writes to the pipe that the child reads under the number `child_fd`.
    pub fn write_to_child(&self, child_fd: i32, data: &[u8]) {
        if let Some(pipe) = self.child_pipe(child_fd) {
            pipe.write(data);
        }
    }

    /// Closes the child's standard input once all that was written is in the pipe. Not a terminal's.
    pub fn close_stdin(&self) {
        self.close_child_fd(0);
    }

    /// Reads the child's standard output no more: it will be told of a broken pipe. Not a terminal's.
    pub fn close_stdout(&self) {
        self.close_child_fd(1);
    }

    /// Reads the child's standard error no more. Not a terminal's.
    pub fn close_stderr(&self) {
        self.close_child_fd(2);
    }

    /// Closes the pipe to or from the child's descriptor `child_fd`. Not a terminal.
    pub fn close_child_fd(&self, child_fd: i32) {
        if !self.0.is_terminal || 2 < child_fd {
            self.0.close(child_fd);
        }
    }

    /// Closes the three streams, or the terminal, which is a hang-up to the child. What was written is handed over
    /// first. The child may live on.
    pub fn lose_connection(&self) {
        (0..=2).for_each(|child_fd| self.0.close(child_fd));
    }

    /// Sends a signal: `"TERM"`, or [`Signal::TERM`].
    ///
    /// # Errors
    /// `NotFound` when the child has ended; `InvalidInput` when there is no such signal; what the system says.
    pub fn signal_process(&self, signal: impl ToSignal) -> io::Result<()> {
        let signal = signal.to_signal()?;
        if self.pid().is_none() {
            let text = format!("no {signal:?} can be sent: the process has ended");
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
        self.0.child.signal(signal)
    }

    /// The pipe to or from the child's descriptor `child_fd` as a transport: for its water marks and producers. Its
    /// protocol is this crate's. A terminal is number 1.
    pub fn child_pipe(&self, child_fd: i32) -> Option<Transport> {
        self.0.pipes.borrow().get(&child_fd).cloned()
    }

    pub(super) fn start(
        child: Child,
        ways: Ways,
        is_terminal: bool,
        protocol: Box<dyn ProcessProtocol>,
    ) -> io::Result<Self> {
        let running = hub_local(Running::default);
        let number = running.last.get() + 1;
        running.last.set(number);
        let process = Rc::new_cyclic(|this: &Weak<Process>| Process {
            this: this.clone(),
            number,
            child,
            is_terminal,
            pipes: RefCell::default(),
            reason: RefCell::default(),
            protocol: RefCell::new(Some(protocol)),
        });
        for (child_fd, (input, outlet)) in ways {
            let end = Box::new(PipeEnd { process: Rc::downgrade(&process), child_fd });
            let adopted = pipe::adopt(input, outlet, end);
            // Nobody would hear of what it does.
            let pipe = adopted.inspect_err(|_| drop(process.child.kill()))?;
            process.pipes.borrow_mut().insert(child_fd, pipe);
        }
        running.processes.borrow_mut().insert(number, process.clone());
        let told = Rc::downgrade(&process);
        process.child.on_end(move |ended| {
            if let Some(process) = told.upgrade() {
                process.exited(ended.into());
            }
        });
        let transport = Self(process);
        // Also from a fiber, which must not wait in a callback any more than the loop.
        no_wait(|| transport.0.tell(|protocol| protocol.connection_made(&transport)));
        Ok(transport)
    }
}

impl Process {
    /// The number under which the child reads what is written to it.
    fn input(&self) -> i32 {
        i32::from(self.is_terminal)
    }

    fn close(&self, child_fd: i32) {
        if let Some(pipe) = self.pipes.borrow().get(&child_fd) {
            pipe.lose_connection();
        }
    }

    fn exited(&self, reason: ProcessReason) {
        let reason = Rc::new(reason);
        *self.reason.borrow_mut() = Some(reason.clone());
        self.tell(|protocol| protocol.process_exited(&reason));
        self.end();
    }

    fn pipe_lost(&self, child_fd: i32) {
        let pipe = self.pipes.borrow_mut().remove(&child_fd);
        drop(pipe);
        if !self.is_terminal || 2 < child_fd {
            self.tell_with(|protocol, transport| {
                protocol.child_connection_lost(transport, child_fd);
            });
        }
        self.end();
    }

    /// The last word, when the child has ended and all its pipes are closed.
    fn end(&self) {
        if !self.pipes.borrow().is_empty() {
            return;
        }
        let reason = self.reason.borrow().clone();
        let Some(reason) = reason else { return };
        let protocol = self.protocol.take();
        let Some(mut protocol) = protocol else { return };
        // What has gone wrong is in the log.
        let _ = contain("a process protocol", move || {
            protocol.process_ended(&reason);
            drop(protocol);
        });
        let this = hub_local(Running::default).processes.borrow_mut().remove(&self.number);
        drop(this);
    }

    fn tell(&self, call: impl FnOnce(&mut dyn ProcessProtocol)) {
        // What has gone wrong is in the log.
        let _ = contain("a process protocol", || self.call(call));
    }

    fn tell_with(&self, call: impl FnOnce(&mut dyn ProcessProtocol, &ProcessTransport)) {
        if let Some(this) = self.this.upgrade() {
            let transport = ProcessTransport(this);
            self.tell(|protocol| call(protocol, &transport));
        }
    }

    fn call(&self, call: impl FnOnce(&mut dyn ProcessProtocol)) {
        if let Some(protocol) = self.protocol.borrow_mut().as_mut() {
            call(protocol.as_mut());
        }
    }
}

/// The protocol of one pipe.
struct PipeEnd {
    process: Weak<Process>,
    child_fd: i32,
}

impl PipeEnd {
    fn tell(&self, call: impl FnOnce(&mut dyn ProcessProtocol, &ProcessTransport)) {
        if let Some(process) = self.process.upgrade() {
            let transport = ProcessTransport(process);
            // A panic goes up to the pipe's transport, which ends it.
            transport.0.call(|protocol| call(protocol, &transport));
        }
    }
}

impl Protocol for PipeEnd {
    fn connection_made(&mut self, _pipe: &Transport) {}

    fn data_received(&mut self, _pipe: &Transport, data: &[u8]) {
        self.tell(|protocol, transport| {
            protocol.child_data_received(transport, self.child_fd, data);
        });
    }

    fn pause_producing(&mut self, _pipe: &Transport) {
        self.tell(|protocol, transport| protocol.pause_producing(transport, self.child_fd));
    }

    fn resume_producing(&mut self, _pipe: &Transport) {
        self.tell(|protocol, transport| protocol.resume_producing(transport, self.child_fd));
    }

    fn connection_lost(&mut self, _reason: &Reason) {
        if let Some(process) = self.process.upgrade() {
            process.pipe_lost(self.child_fd);
        }
    }
}

/// Its standard input, or its terminal.
impl Consumer for ProcessTransport {
    fn register_producer(&self, producer: Rc<dyn Producer>, streaming: bool) {
        match self.child_pipe(self.0.input()) {
            Some(pipe) => pipe.register_producer(producer, streaming),
            None => producer.stop_producing(),
        }
    }

    fn unregister_producer(&self) {
        if let Some(pipe) = self.child_pipe(self.0.input()) {
            pipe.unregister_producer();
        }
    }

    fn write(&self, data: &[u8]) {
        ProcessTransport::write(self, data);
    }
}

/// As the producer of what the child writes, to all its descriptors: pausing holds the child back.
impl Producer for ProcessTransport {
    fn resume_producing(&self) {
        self.0.pipes.borrow().values().for_each(Transport::resume_reading);
    }

    fn pause_producing(&self) {
        self.0.pipes.borrow().values().for_each(Transport::pause_reading);
    }

    fn stop_producing(&self) {
        self.lose_connection();
    }
}

impl fmt::Debug for ProcessTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessTransport")
            .field("pid", &self.pid())
            .field("pipes", &self.0.pipes.borrow().keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// What names a signal: a [`Signal`], or its name with or without `SIG`.
pub trait ToSignal {
    /// The signal.
    ///
    /// # Errors
    /// `InvalidInput` when there is none of the name.
    fn to_signal(&self) -> io::Result<Signal>;
}

impl ToSignal for Signal {
    fn to_signal(&self) -> io::Result<Signal> {
        Ok(*self)
    }
}

impl ToSignal for str {
    fn to_signal(&self) -> io::Result<Signal> {
        const NAMED: [(&str, Signal); 15] = [
            ("ABRT", Signal::ABORT),
            ("ALRM", Signal::ALARM),
            ("CHLD", Signal::CHILD),
            ("CONT", Signal::CONT),
            ("HUP", Signal::HUP),
            ("INT", Signal::INT),
            ("KILL", Signal::KILL),
            ("PIPE", Signal::PIPE),
            ("QUIT", Signal::QUIT),
            ("STOP", Signal::STOP),
            ("TERM", Signal::TERM),
            ("TSTP", Signal::TSTP),
            ("USR1", Signal::USR1),
            ("USR2", Signal::USR2),
            ("WINCH", Signal::WINCH),
        ];
        let name = self.strip_prefix("SIG").unwrap_or(self);
        let named = NAMED.iter().find(|(known, _)| *known == name);
        named.map(|(_, signal)| *signal).ok_or_else(|| {
            let text = format!("there is no signal of the name {self:?}: one is \"TERM\"");
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })
    }
}

impl<S: ToSignal + ?Sized> ToSignal for &S {
    fn to_signal(&self) -> io::Result<Signal> {
        (**self).to_signal()
    }
}
