//! Stackful coroutines: pooled stacks, generators and greenlets.
//!
//! The switch itself is [corosensei](https://docs.rs/corosensei)'s; this crate owns the stacks it runs on
//! ([`stack`]) and what is built from it ([`Generator`], [`Greenlet`]). It knows no sockets and no clock, and nothing
//! here leaves the thread it was made on.
//!
//! - [`Generator`]: a function that yields values one by one, as Python's do.
//! - [`Greenlet`]: functions that hand control to one another by name, as Python's `greenlet`.
//! - [`FiberLocal`]: a variable of which each greenlet, fiber and thread has its own.
//! - [`grow`]: more stack in the middle of a call.
//! - [`RawFiber`] on a [`Stack`], with a [`context::Context`]: what an event loop makes its fibers of.
//!
//! # Limits
//! Linux on 64-bit machines. Built with `panic = "abort"`, nothing can be unwound: dropping a suspended coroutine ends the
//! process. A library that keeps a reference in a thread-local for the time of a call (a *scoped* thread-local)
//! can be fooled by a switch within that call: see the documentation of such libraries before switching under them.
//!
//! # Features
//! `sanitizer` tells AddressSanitizer of each switch, and only links in a build with it. `valgrind` tells valgrind which
//! memory is stacks.

pub mod context;
pub mod generator;
pub mod greenlet;
mod grow;
pub mod local;
mod overflow;
pub mod stack;

pub use generator::{Generator, GeneratorExit, Yielder};
pub use greenlet::{Greenlet, GreenletExit};
pub use grow::{grow, remaining_stack};
pub use local::{FiberLocal, Locals};
pub use stack::{Owner, Stack, StackError, StackPool, StackSize};

/// A coroutine on a pooled stack: what an event loop resumes.
pub type RawFiber<Input, Yield, Return> = corosensei::Coroutine<Input, Yield, Return, Stack>;

/// The inside of a [`RawFiber`]: what it suspends itself with.
pub type RawYielder<Input, Yield> = corosensei::Yielder<Input, Yield>;

/// The largest closure, in bytes, that the first switch to a stack takes along: corosensei's 1 KiB, less a few pointers
/// for others to add. A larger one goes there in a box.
pub const BODY_BYTES_MAX: usize = 1024 - 64;
