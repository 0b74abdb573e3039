//! What the traits of all the libraries have in common.

use std::io;

use crate::net::socket::Socket;
use crate::net::{Duplex, ReadHalf, TcpStream, UnixStream, WriteHalf};
use crate::pipe::PipeWriter;

/// What async code can read from or write to.
pub(crate) trait Polled {
    fn polled(&self) -> &Socket;
}

impl<S: Polled + Duplex> Polled for ReadHalf<S> {
    fn polled(&self) -> &Socket {
        self.stream().polled()
    }
}

impl<S: Polled + Duplex> Polled for WriteHalf<S> {
    fn polled(&self) -> &Socket {
        self.stream().polled()
    }
}

/// How the end of what is written is told.
pub(crate) trait Ends: Polled {
    fn end(&self) -> io::Result<()>;
}

impl Ends for TcpStream {
    fn end(&self) -> io::Result<()> {
        told(self.close_write())
    }
}

impl Ends for UnixStream {
    fn end(&self) -> io::Result<()> {
        told(self.close_write())
    }
}

impl<S: Ends + Duplex> Ends for WriteHalf<S> {
    fn end(&self) -> io::Result<()> {
        self.stream().end()
    }
}

impl Ends for PipeWriter {
    /// The reader is told when the last writer is dropped; there is no other way.
    fn end(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A peer that has gone needs no telling.
fn told(closed: io::Result<()>) -> io::Result<()> {
    match closed {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        closed => closed,
    }
}

/// Implements a reading trait of a library by its macro for every type that can be read from.
macro_rules! for_readers {
    ($implement:ident) => {
        $implement!($crate::net::TcpStream);
        $implement!($crate::net::UnixStream);
        $implement!($crate::net::ReadHalf<$crate::net::TcpStream>);
        $implement!($crate::net::ReadHalf<$crate::net::UnixStream>);
        $implement!($crate::pipe::PipeReader);
    };
}
pub(crate) use for_readers;

/// As [`for_readers`], for what can be written to.
macro_rules! for_writers {
    ($implement:ident) => {
        $implement!($crate::net::TcpStream);
        $implement!($crate::net::UnixStream);
        $implement!($crate::net::WriteHalf<$crate::net::TcpStream>);
        $implement!($crate::net::WriteHalf<$crate::net::UnixStream>);
        $implement!($crate::pipe::PipeWriter);
    };
}
pub(crate) use for_writers;
