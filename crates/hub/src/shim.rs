//! What the protocols between threads are made of. The model test (`tests/model`) compiles the same files with
//! another `shim`, whose types let a checker choose who runs when.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
pub(crate) use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use crossbeam_queue::SegQueue;
