//! Lets blocking calls of unmodified libraries park the fiber instead of the thread: gevent's monkey patching.
//!
//! [`patch_all`] once, and `std::net`, blocking clients of databases, and C libraries that are linked or loaded
//! become citizens of the hub: what they wait for, only their fiber waits for.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::net::{TcpListener, TcpStream};
//!
//! warren_patch::patch_all();
//! warren_hub::run(|| -> std::io::Result<()> {
//!     let listener = TcpListener::bind("127.0.0.1:0")?;
//!     let addr = listener.local_addr()?;
//!     // The standard library's sockets, on one thread: without the patch, `accept` would stop it for ever.
//!     let server = warren_hub::spawn(move || listener.accept()?.0.write_all(b"hello"));
//!     let mut text = String::new();
//!     TcpStream::connect(addr)?.read_to_string(&mut text)?;
//!     assert_eq!(text, "hello");
//!     server.join().unwrap()
//! })?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # How it works
//!
//! This crate defines functions of the names that the C library has: `recv`, `connect`, `poll`, ... The linker
//! binds the program to these, and the dynamic linker binds to them every library that is loaded. Each looks
//! whether it is called on a fiber and patched; if not, it calls the real one. On a fiber it tries the real one
//! without blocking, and parks the fiber when that would block. Descriptors stay as they are: those that are
//! non-blocking answer `EAGAIN` as ever, and `SO_RCVTIMEO` and `SO_SNDTIMEO` are kept. (`connect` makes its socket
//! non-blocking for the moment of the call: there is no other way.)
//!
//! [`detect`] uses the same functions to tell of calls that block, for tests.
//!
//! # Killing and timeouts
//!
//! C cannot be unwound. So in a patched call a kill ends the wait with `ECANCELED` and a timeout around the work with
//! `ETIMEDOUT`, and the fiber unwinds at its next wait in code that can be unwound, such as
//! [`warren_hub::sleep`]; a patched sleep is cut short. While a fiber unwinds, patched calls that would wait fail with
//! `ECANCELED`.
//!
//! # Limits
//!
//! Read these before you rest on it. Where you can choose, use libraries on the hub's own sockets: there, what
//! parks says so.
//!
//! - **What is held across a call is held while other fibers run.** A library that keeps a lock of the thread,
//!   or a value in a thread-local for the length of a call (`LocalKey::with` around I/O, scoped thread-locals,
//!   `errno`-like globals), was written for a thread that runs one thing at a time. Two fibers that lock the same
//!   `std::sync::Mutex` across patched calls lock the thread up. With scoped thread-locals by unsafe code
//!   (`scoped-tls` and its like) it is worse: the value of one fiber is seen by another, maybe after its end. Keep
//!   connections to one fiber each, and pools to the hub's own ([`warren_hub::sync`]); save and restore such values by
//!   [`warren_hub::on_switch`], or forbid waiting around them by [`warren_hub::no_wait`].
//! - **Locks between threads still block the thread**: `Mutex`, `Condvar`, `mpsc`, `thread::park`, joining threads.
//!   They call `futex` by the bare `syscall`, and much of what is built on it (`thread::park`, parking_lot) keeps
//!   one place of waiting for each thread: two fibers in it would break it. So it is not patched.
//! - **Calls that do not pass the C library's symbols are not seen**: rustix and others that make system calls by
//!   themselves, io_uring, what the C library calls within itself (`system`, `popen`, `fgets`, its resolver;
//!   `getaddrinfo` as a whole is seen), libraries linked with `-Bsymbolic` or loaded with `RTLD_DEEPBIND`.
//! - **Plain files block**, as disks do: give long ones to [`warren_hub::offload`]. So do opening a named pipe,
//!   `recvmmsg`, `sendmmsg`, `recvmsg` with `MSG_WAITALL`, `fcntl` locks, `gethostbyname`.
//! - **Standard streams are left alone**: `println!` holds a lock of the thread while it writes.
//! - `sendfile` and `splice` that may block answer `EINVAL`, as for files that they do not know; callers fall back to
//!   reading and writing, `std::io::copy` among them.
//! - A parked call never fails with `EINTR`. Sleeps are rounded up to a millisecond.
//! - A connection to accept that another *process* takes in between blocks the thread until the next comes; so does a
//!   byte of a pipe that another process takes, where the kernel is older than 6.4.
//! - A descriptor that is closed on another thread, or replaced by `dup2`, while a fiber waits for it leaves that fiber
//!   waiting.
//! - After `fork`, the child is not patched.
//! - Linux with glibc only; a static program has no second symbol to call. In programs only: built into a shared
//!   library, the functions serve that library at most.

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
compile_error!("warren-patch stands in for functions of glibc on Linux");

mod call;
mod detect;
mod hooks;
mod real;
mod state;

pub use detect::{BlockingCall, Detection, detect};
pub use state::Patch;

/// Patches everything: [`Patch::ALL`]. gevent's `monkey.patch_all`.
///
/// At any time, from any thread, and again; it lasts as long as the process. Fibers only are affected: on a thread
/// without a hub, and in callbacks of a hub's loop, every function blocks as it always has. The limits are
/// [above](crate#limits).
pub fn patch_all() {
    Patch::ALL.apply();
}

/// Whether anything is patched; [`Patch::applied`] says what.
pub fn is_patched() -> bool {
    Patch::applied() != Patch::NONE
}
