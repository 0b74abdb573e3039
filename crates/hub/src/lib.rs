//! The event loop that switches fibers on I/O. Nothing is here yet.
