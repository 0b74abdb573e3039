//! Stackful coroutines: pooled stacks, generators and greenlets.
//!
//! The switch itself is [corosensei](https://docs.rs/corosensei)'s; this crate owns the stacks it runs on
//! ([`stack`]) and what is built from it ([`Generator`], [`Greenlet`]). It knows no sockets and no clock, and nothing
//! here leaves the thread it was made on.

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
