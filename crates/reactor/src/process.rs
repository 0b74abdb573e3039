//! Child processes: their pipes as callbacks (Twisted's `ProcessProtocol`).
//!
//! ```text
//!            stdin 0 <-- write                       process_exited: it has ended
//!   child    stdout 1 --> out_received                       |
//!            stderr 2 --> err_received                       v
//!            others   --> child_data_received        process_ended: and all its pipes are closed
//! ```
//! Each pipe is a [`Transport`](crate::Transport) of its own, so it has water marks and producers as a connection has.
//! The end of a child is heard by the hub ([`warren_hub::process`]), which also reaps it.

mod collect;
mod command;
mod reason;
mod transport;

pub use collect::{
    ErrorOutput, ProcessError, ProcessOutput, get_process_output, get_process_output_and_value,
    get_process_value,
};
pub use command::{ChildFd, ProcessCommand, spawn_process};
pub use reason::{ProcessDone, ProcessReason, ProcessTerminated};
pub use transport::{ProcessTransport, ToSignal};

/// What is told of a child process. All calls come from the loop, one at a time, and must not block; but for
/// [`connection_made`](Self::connection_made), which comes from within [`spawn_process`]. A callback that panics is
/// logged; one that was told of data loses the pipe.
pub trait ProcessProtocol {
    /// The child runs. Keep a clone of the transport to write later on one's own account.
    fn connection_made(&mut self, _transport: &ProcessTransport) {}

    /// The child has written to its descriptor `child_fd`: any number of bytes but zero, cut anywhere. Unless told
    /// otherwise, this calls [`out_received`](Self::out_received) and [`err_received`](Self::err_received).
    fn child_data_received(&mut self, transport: &ProcessTransport, child_fd: i32, data: &[u8]) {
        match child_fd {
            1 => self.out_received(transport, data),
            2 => self.err_received(transport, data),
            _ => {}
        }
    }

    /// The child has written to its standard output, or its terminal.
    fn out_received(&mut self, _transport: &ProcessTransport, _data: &[u8]) {}

    /// The child has written to its standard error.
    fn err_received(&mut self, _transport: &ProcessTransport, _data: &[u8]) {}

    /// The pipe to or from the child's descriptor `child_fd` is gone, whoever closed it. Unless told otherwise, this
    /// calls one of the next three. Not called for a terminal.
    fn child_connection_lost(&mut self, transport: &ProcessTransport, child_fd: i32) {
        match child_fd {
            0 => self.in_connection_lost(transport),
            1 => self.out_connection_lost(transport),
            2 => self.err_connection_lost(transport),
            _ => {}
        }
    }

    /// The child's standard input is closed.
    fn in_connection_lost(&mut self, _transport: &ProcessTransport) {}

    /// The child's standard output is closed.
    fn out_connection_lost(&mut self, _transport: &ProcessTransport) {}

    /// The child's standard error is closed.
    fn err_connection_lost(&mut self, _transport: &ProcessTransport) {}

    /// More than the high-water mark waits for a child that does not read its descriptor `child_fd`. Producing more
    /// only costs memory, until [`resume_producing`](Self::resume_producing).
    fn pause_producing(&mut self, _transport: &ProcessTransport, _child_fd: i32) {}

    /// What waits for the child has fallen to the low-water mark.
    fn resume_producing(&mut self, _transport: &ProcessTransport, _child_fd: i32) {}

    /// The child has ended. What it wrote last may still come, and its own children may have its pipes.
    fn process_exited(&mut self, _reason: &ProcessReason) {}

    /// The child has ended, and all its pipes are closed; the last call.
    fn process_ended(&mut self, _reason: &ProcessReason) {}
}
