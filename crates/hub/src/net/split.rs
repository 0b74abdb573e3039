//! Streams in two halves.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::rc::Rc;

/// A stream whose writing end can be closed by itself.
pub trait HalfClose {
    /// Says that nothing more will be written; reading goes on.
    ///
    /// # Errors
    /// What the system says, such as that the peer has gone already.
    fn close_write(&self) -> io::Result<()>;
}

/// Splits `stream`.
pub(crate) fn split<S: HalfClose>(stream: S) -> (ReadHalf<S>, WriteHalf<S>) {
    let stream = Rc::new(stream);
    (ReadHalf(stream.clone()), WriteHalf { stream, open: true })
}

/// The reading half of a stream. The stream is closed when both halves have gone.
pub struct ReadHalf<S>(Rc<S>);

impl<S: HalfClose> ReadHalf<S> {
    /// The stream of both halves: for its addresses and settings.
    pub fn stream(&self) -> &S {
        &self.0
    }

    /// Puts the halves together again.
    ///
    /// # Errors
    /// Both of them when they are not of the same stream.
    pub fn reunite(self, mut writer: WriteHalf<S>) -> Result<S, (Self, WriteHalf<S>)> {
        if !Rc::ptr_eq(&self.0, &writer.stream) {
            return Err((self, writer));
        }
        writer.open = false;
        drop(writer);
        match Rc::try_unwrap(self.0) {
            Ok(stream) => Ok(stream),
            Err(_) => unreachable!("a stream has two halves"),
        }
    }
}

impl<S> Read for ReadHalf<S>
where
    for<'a> &'a S: Read,
{
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(buffer)
    }

    fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self.0).read_vectored(buffers)
    }
}

impl<S: fmt::Debug> fmt::Debug for ReadHalf<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReadHalf").field(&self.0).finish()
    }
}

/// The writing half of a stream. Dropping it tells the peer that nothing more will come.
pub struct WriteHalf<S: HalfClose> {
    stream: Rc<S>,
    /// The end is still to be told.
    open: bool,
}

impl<S: HalfClose> WriteHalf<S> {
    /// The stream of both halves: for its addresses and settings.
    pub fn stream(&self) -> &S {
        &self.stream
    }
}

impl<S: HalfClose> Write for WriteHalf<S>
where
    for<'a> &'a S: Write,
{
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        (&*self.stream).write(data)
    }

    fn write_vectored(&mut self, data: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self.stream).write_vectored(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self.stream).flush()
    }
}

impl<S: HalfClose> Drop for WriteHalf<S> {
    fn drop(&mut self) {
        if self.open {
            // A peer that has gone needs no telling.
            let _ = self.stream.close_write();
        }
    }
}

impl<S: HalfClose + fmt::Debug> fmt::Debug for WriteHalf<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WriteHalf").field(&self.stream).finish()
    }
}
