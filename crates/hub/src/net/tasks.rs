//! Async code that waits for a socket.

use std::cell::Cell;
use std::task::Waker;

/// The tasks that wait for one direction of a source. Each is woken once, and asks again.
///
/// One that has given up stays until the next news. The waker of a fiber is always the same, so fibers leave at most
/// one each; only wakers of other making may pile up, on a source that stays silent.
#[derive(Default)]
pub(crate) struct Tasks(Cell<Vec<Waker>>);

impl Tasks {
    /// A task that asks twice is woken once.
    pub(crate) fn enlist(&self, waker: &Waker) {
        let mut wakers = self.0.take();
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
        self.0.set(wakers);
    }

    pub(crate) fn wake_all(&self) {
        let mut wakers = self.0.take();
        for waker in wakers.drain(..) {
            waker.wake();
        }
        // The room is used again, unless one of those woken has asked already.
        let since = self.0.take();
        self.0.set(if since.is_empty() { wakers } else { since });
    }
}

/// The methods that async code polls, with `read` or with `write`; with neither, what the [bridges](crate::bridge)
/// need to know of a type.
macro_rules! polled {
    ($stream:ty) => {
        #[cfg(any(feature = "futures-io", feature = "hyper", feature = "tokio"))]
        impl $crate::bridge::Polled for $stream {
            fn polled(&self) -> &Socket {
                &self.socket
            }
        }
    };
    ($stream:ty, read) => {
        impl $stream {
            /// Reads if there is something to read, else has the task woken when there is: for async code, which
            /// must not park. Timeouts do not apply. [`future::wait`](crate::future::wait) tells more.
            ///
            /// # Errors
            /// As reading does.
            pub fn poll_read(
                &self,
                cx: &mut std::task::Context<'_>,
                buffer: &mut [u8],
            ) -> std::task::Poll<io::Result<usize>> {
                self.socket.poll_read(cx, buffer.len(), |source| source.read(buffer))
            }
        }
    };
    ($stream:ty, write) => {
        impl $stream {
            /// Writes if there is room, else has the task woken when there is: for async code, which must not
            /// park. Timeouts do not apply.
            ///
            /// # Errors
            /// As writing does.
            pub fn poll_write(
                &self,
                cx: &mut std::task::Context<'_>,
                data: &[u8],
            ) -> std::task::Poll<io::Result<usize>> {
                self.socket.poll_ready(Direction::Write, cx, |source| source.write(data))
            }
        }
    };
}
pub(crate) use polled;
