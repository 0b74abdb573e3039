//! How fibers of one hub wait for one another.
//!
//! All wait in turn: the first to come is the first to be served. None of these may leave its thread; to reach
//! another hub, post to its [`HubHandle`](crate::HubHandle).

mod async_result;
mod event;
mod mutex;
mod queue;
mod semaphore;
mod wait_list;

pub use async_result::AsyncResult;
pub use event::Event;
pub use mutex::{Mutex, MutexGuard};
pub use queue::{Closed, GetError, PutError, Queue};
pub use semaphore::{Permit, Semaphore};
pub(crate) use wait_list::WaitList;
