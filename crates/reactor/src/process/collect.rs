//! A program run for what it writes, or for its exit code.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use warren_hub::signal::Signal;

use super::{ProcessCommand, ProcessProtocol, ProcessReason, ProcessTransport, spawn_process};
use crate::deferred::{Deferred, Resolver};

/// What a program has written, and how it has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessOutput {
    /// To its standard output.
    pub out: Vec<u8>,
    /// To its standard error.
    pub err: Vec<u8>,
    /// Its exit code.
    pub code: i32,
}

/// What [`get_process_output`] makes of what is written to standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorOutput {
    /// The program has failed: [`ProcessError::ErrorOutput`].
    Fails,
    /// It is output like the other, in the order in which it was read.
    Joins,
}

/// Why there is no result of a program.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// It could not be started.
    #[error(transparent)]
    Spawn(#[from] io::Error),
    /// It has written to its standard error. Its pipes have been closed.
    #[error("the program has written to its standard error: {}", String::from_utf8_lossy(.0).trim_end())]
    ErrorOutput(Vec<u8>),
    /// It has not ended by itself.
    #[error("{reason}")]
    Ended {
        /// What it had written to its standard output.
        out: Vec<u8>,
        /// What it had written to its standard error.
        err: Vec<u8>,
        /// How it has ended: by a signal.
        reason: ProcessReason,
    },
}

/// Runs a program for what it writes to its standard output, whatever its exit code: all of it is kept in memory. Its
/// input is empty. When the Deferred is cancelled, such as by its timeout, the program is killed.
///
/// ```
/// use std::time::Duration;
/// use warren_reactor::{ErrorOutput, ProcessCommand, get_process_output};
///
/// let words = warren_hub::run(|| {
///     let command = ProcessCommand::new("echo").args(["one", "two"]);
///     get_process_output(command, ErrorOutput::Fails).add_timeout(Duration::from_secs(60)).wait()
/// });
/// assert_eq!(words.unwrap(), b"one two\n");
/// ```
///
/// # Errors
/// [`ProcessError`] by the Deferred.
///
/// # Panics
/// When no hub runs on this thread.
#[track_caller]
pub fn get_process_output(
    command: ProcessCommand,
    error_output: ErrorOutput,
) -> Deferred<Vec<u8>, ProcessError> {
    collect(command, Vec::new(), Keep::Output(error_output)).add_callback(|output| Ok(output.out))
}

/// Runs a program for its exit code; what it writes is dropped. As [`get_process_output`].
///
/// # Errors
/// [`ProcessError`] by the Deferred, also when it is ended by a signal.
///
/// # Panics
/// When no hub runs on this thread.
#[track_caller]
pub fn get_process_value(command: ProcessCommand) -> Deferred<i32, ProcessError> {
    collect(command, Vec::new(), Keep::Nothing).add_callback(|output| Ok(output.code))
}

/// Runs a program for all it writes and its exit code. `stdin` is written to it, and its input closed. As
/// [`get_process_output`].
///
/// # Errors
/// [`ProcessError`] by the Deferred: when it is ended by a signal, with what it had written.
///
/// # Panics
/// When no hub runs on this thread.
#[track_caller]
pub fn get_process_output_and_value(
    command: ProcessCommand,
    stdin: impl Into<Vec<u8>>,
) -> Deferred<ProcessOutput, ProcessError> {
    collect(command, stdin.into(), Keep::Both)
}

#[track_caller]
fn collect(
    command: ProcessCommand,
    stdin: Vec<u8>,
    keep: Keep,
) -> Deferred<ProcessOutput, ProcessError> {
    let started = Rc::new(RefCell::new(None::<ProcessTransport>));
    let kill = started.clone();
    let (deferred, resolver) = Deferred::pending_with_canceller(move || {
        if let Some(transport) = kill.take() {
            // It may have ended meanwhile.
            let _ = transport.signal_process(Signal::KILL);
            // What it has started may have its pipes, and go on.
            transport.lose_connection();
        }
    });
    let resolver = Rc::new(RefCell::new(Some(resolver)));
    let collector = Box::new(Collector {
        resolver: resolver.clone(),
        stdin,
        keep,
        out: Vec::new(),
        err: Vec::new(),
    });
    match spawn_process(collector, command) {
        Ok(transport) => *started.borrow_mut() = Some(transport),
        Err(error) => {
            if let Some(resolver) = resolver.take() {
                resolver.errback(ProcessError::Spawn(error));
            }
        }
    }
    deferred
}

/// What is kept of what a program writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Nothing,
    Output(ErrorOutput),
    Both,
}

struct Collector {
    resolver: Rc<RefCell<Option<Resolver<ProcessOutput, ProcessError>>>>,
    stdin: Vec<u8>,
    keep: Keep,
    out: Vec<u8>,
    err: Vec<u8>,
}

impl ProcessProtocol for Collector {
    fn connection_made(&mut self, transport: &ProcessTransport) {
        transport.write(&std::mem::take(&mut self.stdin));
        transport.close_stdin();
    }

    fn out_received(&mut self, _transport: &ProcessTransport, data: &[u8]) {
        if self.keep != Keep::Nothing {
            self.out.extend_from_slice(data);
        }
    }

    fn err_received(&mut self, transport: &ProcessTransport, data: &[u8]) {
        match self.keep {
            Keep::Nothing => {}
            Keep::Both => self.err.extend_from_slice(data),
            Keep::Output(ErrorOutput::Joins) => self.out.extend_from_slice(data),
            Keep::Output(ErrorOutput::Fails) => {
                transport.lose_connection();
                let resolver = self.resolver.take();
                if let Some(resolver) = resolver {
                    resolver.errback(ProcessError::ErrorOutput(data.to_vec()));
                }
            }
        }
    }

    fn process_ended(&mut self, reason: &ProcessReason) {
        let resolver = self.resolver.take();
        let Some(resolver) = resolver else { return };
        let (out, err) = (std::mem::take(&mut self.out), std::mem::take(&mut self.err));
        match reason.exit_code() {
            Some(code) => resolver.callback(ProcessOutput { out, err, code }),
            None => resolver.errback(ProcessError::Ended { out, err, reason: reason.again() }),
        }
    }
}
