//! The suite once more, on io_uring.

#![allow(
    clippy::duplicate_mod,
    reason = "each file of the suite has the support as its own module"
)]

#[path = "bridge_future.rs"]
mod bridge_future;
#[path = "diagnostics.rs"]
mod diagnostics;
#[path = "fibers.rs"]
mod fibers;
#[path = "fs.rs"]
mod fs;
#[path = "handles.rs"]
mod handles;
#[path = "net.rs"]
mod net;
#[path = "pipe.rs"]
mod pipe;
#[path = "pool.rs"]
mod pool;
#[path = "pool_threads.rs"]
mod pool_threads;
#[path = "process.rs"]
mod process;
#[path = "scope.rs"]
mod scope;
#[path = "sync/main.rs"]
mod sync;
#[path = "sync_threads.rs"]
mod sync_threads;
#[path = "threads.rs"]
mod threads;
#[path = "udp.rs"]
mod udp;
#[path = "wait_fd.rs"]
mod wait_fd;
