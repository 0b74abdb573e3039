//! An event loop that switches fibers on I/O, with gevent's vocabulary.
//!
//! [`run`] starts a *hub* on the present thread: a loop that knows which fibers can go on and waits for the
//! kernel when none can. Code on a fiber reads as if it blocked: [`net::TcpStream`] is `Read` and `Write`,
//! [`sleep`] sleeps, [`sync::Queue::get`] waits. Each of these *parks* the fiber and lets others run; nothing
//! else does, so between two waits a fiber has its thread for itself. Functions that may park say so under
//! "Suspends".
//!
//! ```
//! use std::time::{Duration, Instant};
//! use warren_hub::{join_all, run, sleep, spawn};
//!
//! let started = Instant::now();
//! run(|| join_all((0..10).map(|_| spawn(|| sleep(Duration::from_millis(20))))));
//! assert!(started.elapsed() < Duration::from_millis(200));
//! ```
//!
//! - Fibers never leave their thread. Another hub is reached by [`handle`] and [`HubHandle::post`]; [`HubGroup`]
//!   runs one hub per core; what blocks the thread goes to [`offload`].
//! - [`JoinHandle::kill`] and [`with_timeout`] unwind a fiber from where it waits.
//! - [`fs`] has files, [`process`] child processes, [`signal`] signals, shaped like the standard library's.
//! - [`sim`] runs the same code in a world in memory that a seed decides, to find what goes wrong once in a while.
//! - Event-driven code registers a handler ([`io::register`]) and is called back on the loop; there it must
//!   not wait.
//!
//! # For those who know gevent
//!
//! | gevent | here |
//! |---|---|
//! | `spawn`, `spawn_later`, `spawn_raw` | [`spawn()`], [`spawn_later`], [`spawn_raw`]; [`scope()`] for what borrows |
//! | `Greenlet.get`, `join`, `link`, `kill`, ... | [`JoinHandle`]: `get` copies, `join` takes the result, `wait` only waits |
//! | `joinall`, `killall`, `wait`, `iwait` | [`join_all`], [`kill_all`], [`wait()`], [`iwait`] |
//! | `sleep`, `sleep(0)`, `idle` | [`sleep`], [`yield_now`], [`idle`] |
//! | `Timeout`, `with_timeout` | [`Timeout`], [`with_timeout`]: an error value, not an exception |
//! | `event`, `lock`, `queue` | [`sync`] |
//! | `pool`, `threadpool` | [`Group`], [`Pool`], [`ThreadPool`], [`offload`] |
//! | `socket`, `ssl`, `dns`, `server` | [`net`], `net::tls` (feature `tls`), [`net::dns`], [`server`] |
//! | `os`, `subprocess`, `signal` | [`pipe`], [`process`], [`signal`] |
//! | `local` | [`fiber_local!`] |
//! | `monkey` | the crate `warren-patch` |
//! | `backdoor`, `print_run_info`, the monitor thread | [`backdoor()`], [`print_run_info`], [`Watchdog`] |
//! | `LoopExit` | a panic in the main fiber that tells who waits for what |
//!
//! # What the types cannot rule out
//!
//! A library that keeps a pointer to a caller's stack in a thread-local for the time of a closure, and trusts that
//! closures end in the reverse order of their beginning (`scoped-tls` is one): two fibers that wait inside such
//! closures break that. Do not wait in another library's closure unless you know it to be harmless; [`no_wait`]
//! forbids it, and a [`SwitchHook`] can save and restore such a value for each fiber.

mod arena;
mod backdoor;
pub mod bridge;
mod channel;
mod driver;
mod fiber;
pub mod fs;
pub mod future;
mod group;
mod hold;
mod hub;
mod inbox;
pub mod io;
mod join;
mod links;
mod mailbox;
mod memory;
pub mod net;
mod offload;
mod options;
pub mod pipe;
mod pool;
mod pooled;
mod prefetch;
pub mod process;
mod remote;
mod remote_join;
mod report;
mod scope;
pub mod selectors;
pub mod server;
mod shared;
mod shim;
pub mod signal;
pub mod sim;
mod spawn;
mod switch;
pub mod sync;
mod threadpool;
mod timer;
mod turn;
mod wait;
mod watchdog;
mod wheel;

pub use backdoor::{Backdoor, backdoor};
pub use channel::{Receiver, Sender, channel, unbounded_channel};
pub use group::HubGroup;
pub use hold::{Interrupted, hold_interrupts};
pub use inbox::{HubGone, HubHandle};
pub use join::{FiberId, JoinError, JoinHandle, Panic, contain, join_all, kill_all};
pub use links::LinkId;
pub use memory::{release_code, release_memory};
pub use offload::offload;
pub use options::{DriverKind, Options, hub_local, run, try_run};
pub use pool::{Group, Imap, ImapUnordered, Pool, PoolFull};
pub use remote_join::RemoteJoin;
pub use report::{
    FiberInfo, RunInfo, Stack, StackFrame, print_run_info, print_run_info_on, run_info,
};
pub use scope::{Scope, ScopedJoinHandle, scope};
pub use shared::{SharedEvent, SharedPermit, SharedSemaphore};
pub use spawn::{Builder, can_wait, current, spawn, spawn_later, spawn_raw};
pub use switch::{SwitchHook, SwitchHookGuard, on_switch};
pub use threadpool::ThreadPool;
pub use timer::{
    TimedOut, Timeout, idle, no_wait, shield, sleep, sleep_until, with_timeout, yield_now,
};
pub use turn::{
    Phase, Timer, TurnHook, TurnHookGuard, call_later, call_soon, fill_random, now, on_turn_end,
    system_time,
};
pub use wait::{Iwait, WaitOptions, Waitable, iwait, wait};
pub use warren_fiber::{FiberLocal, StackSize, fiber_local, grow, remaining_stack};
pub use watchdog::{Blocked, Watchdog};

/// A handle to the hub of this thread, for other threads.
///
/// # Panics
/// When no hub runs on this thread.
pub fn handle() -> HubHandle {
    hub::with(|hub| hub.handle())
}

/// Whether a hub runs on this thread: on one of its fibers or in a callback of its loop.
pub fn is_running() -> bool {
    hub::try_with(|_| ()).is_some()
}
