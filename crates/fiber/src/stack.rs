//! Stacks for coroutines, taken from a pool and given back.
//!
//! ```text
//! chunk:  | guard | stack ......^ owner | guard | stack ......^ owner | ...
//!         slot 0               top      slot 1               top, coloured
//! ```
//! Each pool reserves address space per size in chunks, each twice as large as the one before, and cuts it in
//! slots. The kernel merges neighbouring chunks, so a million stacks are a few dozen mappings. A stack is touched page
//! by page as it grows down, so a parked coroutine costs the pages it used and not its size. The lowest page of
//! each slot is a [guard](GuardKind), put there when the slot is first used: running over the end of a stack is
//! reported with the name of its [`Owner`] and ends the process, never silent damage. Stacks are reused last in,
//! first out, while their pages are warm; [`StackPool::trim`] gives the pages of the others back to the system.
//!
//! Invariant: a [`Stack`] keeps its pool alive, so memory is unmapped only when the pool and every stack
//! of it are gone. Leaking a suspended coroutine leaks its chunk; it never dangles.

mod guard;
mod owner;
mod pool;
pub(crate) mod region;
mod size;
mod trim;

pub(crate) use guard::page_bytes;
pub use guard::{GuardKind, limit};
pub use owner::Owner;
pub use pool::{Stack, StackError, StackPool, StackStats};
pub use size::StackSize;

#[cfg(test)]
mod tests;
