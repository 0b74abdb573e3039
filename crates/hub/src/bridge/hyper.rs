//! hyper on a hub, without tokio's runtime: its `Read` and `Write` for our streams, and what runs its tasks and timers.
//!
//! A connection's future is waited for by a fiber of its own; HTTP/2 starts more through [`HubExecutor`]. The example
//! `hyper_server` shows a server and a client.
//!
//! ```
//! use std::cell::Cell;
//! use std::rc::Rc;
//! use std::time::Duration;
//! use hyper::rt::{Executor, Timer};
//! use warren_hub::bridge::hyper::{HubExecutor, HubTimer};
//! use warren_hub::{future, run};
//!
//! run(|| {
//!     let done = Rc::new(Cell::new(false));
//!     let task = done.clone();
//!     HubExecutor.execute(async move { task.set(true) });
//!     future::wait(HubTimer.sleep(Duration::from_millis(1)));
//!     assert!(done.get());
//! });
//! ```

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use ::hyper::rt::{Executor, Read, ReadBufCursor, Sleep, Timer, Write};

use super::polled::{Ends, Polled, for_readers, for_writers};
use crate::future;
use crate::hub;
use crate::net::socket::Direction;

fn read(
    stream: &impl Polled,
    cx: &mut Context<'_>,
    mut buffer: ReadBufCursor<'_>,
) -> Poll<io::Result<()>> {
    let room = buffer.remaining();
    // SAFETY: the bytes are handed to a call that only writes to them, and initialises those it writes.
    let unfilled = unsafe { buffer.as_mut() };
    let read = stream.polled().poll_read(cx, room, |source| source.read_uninit(unfilled));
    let count = ready!(read)?;
    // SAFETY: the call above has initialised so many bytes from the start of what was unfilled.
    unsafe { buffer.advance(count) };
    Poll::Ready(Ok(()))
}

macro_rules! read {
    ($stream:ty) => {
        impl Read for $stream {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffer: ReadBufCursor<'_>,
            ) -> Poll<io::Result<()>> {
                read(&*self, cx, buffer)
            }
        }
    };
}
for_readers!(read);

macro_rules! write {
    ($stream:ty) => {
        impl Write for $stream {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                data: &[u8],
            ) -> Poll<io::Result<usize>> {
                self.polled().poll_ready(Direction::Write, cx, |source| source.write(data))
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                data: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                self.polled().poll_ready(Direction::Write, cx, |source| source.write_vectored(data))
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(self.end())
            }
        }
    };
}
for_writers!(write);

/// Runs hyper's tasks: each on a fiber of this thread's hub. The futures need not be `Send`.
#[derive(Clone, Copy, Debug, Default)]
pub struct HubExecutor;

impl<F> Executor<F> for HubExecutor
where
    F: Future + 'static,
{
    /// # Panics
    /// When no hub runs on this thread, or no stack can be mapped.
    fn execute(&self, future: F) {
        crate::spawn_raw(move || drop(future::wait(future)));
    }
}

/// hyper's timers on the wheel of this thread's hub.
#[derive(Clone, Copy, Debug, Default)]
pub struct HubTimer;

impl Timer for HubTimer {
    /// # Panics
    /// When no hub runs on this thread.
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(future::sleep(duration))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(future::sleep_until(deadline))
    }

    /// # Panics
    /// When no hub runs on this thread.
    fn now(&self) -> Instant {
        hub::with(|hub| hub.driver.now())
    }
}

impl Sleep for future::Sleep {}
