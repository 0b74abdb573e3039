//! Streams in two halves.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::rc::Rc;

use super::{TcpStream, UnixStream};

/// A stream that may be read and written at the same time by different fibers: what TLS runs over, and what can be
/// [split](TcpStream::into_split).
pub trait Duplex {
    /// As `std::io::Read::read`.
    ///
    /// # Suspends
    /// Until there is something to read.
    ///
    /// # Errors
    /// As the stream's own.
    fn read_some(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// As `std::io::Write::write`; what is written is on its way, without a flush.
    ///
    /// # Suspends
    /// While there is no room.
    ///
    /// # Errors
    /// As the stream's own.
    fn write_some(&self, data: &[u8]) -> io::Result<usize>;

    /// Says that nothing more will be written; reading goes on.
    ///
    /// # Suspends
    /// While there is no room for saying so.
    ///
    /// # Errors
    /// What the system says, such as that the peer has gone already.
    fn close_write(&self) -> io::Result<()>;
}

macro_rules! duplex {
    ($($stream:ty),*) => {$(
        impl Duplex for $stream {
            fn read_some(&self, buffer: &mut [u8]) -> io::Result<usize> {
                Read::read(&mut &*self, buffer)
            }

            fn write_some(&self, data: &[u8]) -> io::Result<usize> {
                Write::write(&mut &*self, data)
            }

            fn close_write(&self) -> io::Result<()> {
                self.shutdown(Shutdown::Write)
            }
        }
    )*};
}
duplex!(TcpStream, UnixStream);

impl<S: Duplex> Duplex for Rc<S> {
    fn read_some(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (**self).read_some(buffer)
    }

    fn write_some(&self, data: &[u8]) -> io::Result<usize> {
        (**self).write_some(data)
    }

    fn close_write(&self) -> io::Result<()> {
        (**self).close_write()
    }
}

/// Splits `stream`.
pub(crate) fn split<S: Duplex>(stream: S) -> (ReadHalf<S>, WriteHalf<S>) {
    let stream = Rc::new(stream);
    (ReadHalf(stream.clone()), WriteHalf { stream, open: true })
}

/// The reading half of a stream. The stream is closed when both halves have gone.
pub struct ReadHalf<S>(Rc<S>);

impl<S: Duplex> ReadHalf<S> {
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

impl<S: Duplex> Read for ReadHalf<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_some(buffer)
    }
}

impl<S: fmt::Debug> fmt::Debug for ReadHalf<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReadHalf").field(&self.0).finish()
    }
}

/// The writing half of a stream. Dropping it tells the peer that nothing more will come.
pub struct WriteHalf<S: Duplex> {
    stream: Rc<S>,
    /// The end is still to be told.
    open: bool,
}

impl<S: Duplex> WriteHalf<S> {
    /// The stream of both halves: for its addresses and settings.
    pub fn stream(&self) -> &S {
        &self.stream
    }
}

impl<S: Duplex> Write for WriteHalf<S> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.stream.write_some(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: Duplex> Drop for WriteHalf<S> {
    fn drop(&mut self) {
        if self.open {
            // A peer that has gone needs no telling.
            let _ = self.stream.close_write();
        }
    }
}

impl<S: Duplex + fmt::Debug> fmt::Debug for WriteHalf<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WriteHalf").field(&self.stream).finish()
    }
}
