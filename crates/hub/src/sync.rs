//! How fibers of one hub wait for one another.
//!
//! All wait in turn: the first to come is the first to be served, and what is handed to a fiber that is killed
//! before it has it goes to the next. None of these may leave its thread; other hubs and threads are reached by a
//! [`channel`](crate::channel()), a [`SharedSemaphore`](crate::SharedSemaphore), a
//! [`SharedEvent`](crate::SharedEvent), or by posting to a [`HubHandle`](crate::HubHandle).
//!
//! In a destructor that runs because its fiber unwinds, only locks, permits, results and the end of a fiber are really
//! waited for; every other wait is over at once, as if its time had run out or the queue were closed.
//!
//! | of gevent | here |
//! |---|---|
//! | `gevent.event` | [`Event`], [`AsyncResult`] |
//! | `gevent.lock` | [`Semaphore`], [`BoundedSemaphore`], [`DummySemaphore`], [`RLock`] |
//! | `gevent.queue` | [`Queue`], [`JoinableQueue`], [`LifoQueue`], [`PriorityQueue`], [`SimpleQueue`], [`Channel`] |
//! | of the standard library | [`Mutex`], [`RwLock`], [`Condvar`] |

mod async_result;
mod bounded_semaphore;
mod condvar;
mod dummy_semaphore;
mod event;
mod mutex;
mod queue;
mod rlock;
mod rwlock;
mod semaphore;
mod wait_list;

pub use async_result::AsyncResult;
pub use bounded_semaphore::{BoundedSemaphore, ReleasedTooOften};
pub use condvar::Condvar;
pub use dummy_semaphore::DummySemaphore;
pub use event::Event;
pub use mutex::{Mutex, MutexGuard};
pub(crate) use queue::Exchange;
pub use queue::{
    BaseQueue, Channel, Closed, Fifo, GetError, Heap, JoinableQueue, Lifo, LifoQueue,
    PriorityQueue, PutError, Queue, Rendezvous, SimpleQueue, Storage,
};
pub use rlock::{RLock, RLockGuard};
pub use rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use semaphore::{Permit, Semaphore};
pub(crate) use wait_list::{Place, WaitList, deadline};
