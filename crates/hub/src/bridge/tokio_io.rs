//! The traits of `tokio::io`, which need no runtime.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::polled::{Ends, Polled, for_readers, for_writers};
use crate::net::socket::Direction;

fn read(
    stream: &impl Polled,
    cx: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    let room = buffer.remaining();
    // SAFETY: the bytes are handed to a call that only writes to them, and initialises those it writes.
    let unfilled = unsafe { buffer.unfilled_mut() };
    let read = stream.polled().poll_read(cx, room, |source| source.read_uninit(unfilled));
    let count = ready!(read)?;
    // SAFETY: the call above has initialised so many bytes from the start of what was unfilled.
    unsafe { buffer.assume_init(count) };
    buffer.advance(count);
    Poll::Ready(Ok(()))
}

macro_rules! read {
    ($stream:ty) => {
        impl AsyncRead for $stream {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                read(&*self, cx, buffer)
            }
        }
    };
}
for_readers!(read);

macro_rules! write {
    ($stream:ty) => {
        impl AsyncWrite for $stream {
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
