//! What is the same for every socket of datagrams.

/// Sending and receiving with one peer, timeouts and the rest.
macro_rules! datagram {
    ($socket:ident, $std:ty) => {
        impl $socket {
            pub(super) fn of(socket: Socket) -> Self {
                Self {
                    socket: Rc::new(socket),
                    read_timeout: Cell::new(None),
                    write_timeout: Cell::new(None),
                }
            }

            /// Takes a socket over from the standard library.
            ///
            /// # Errors
            /// When it cannot be made non-blocking or be watched.
            ///
            /// # Panics
            /// When no hub runs on this thread.
            pub fn from_std(io: $std) -> io::Result<Self> {
                io.set_nonblocking(true)?;
                Ok(Self::of(Socket::new(Source::Kernel(OwnedFd::from(io)))?))
            }

            /// Another handle on the same socket, with timeouts of its own.
            ///
            /// # Errors
            /// None at present.
            pub fn try_clone(&self) -> io::Result<Self> {
                Ok(Self {
                    socket: self.socket.clone(),
                    read_timeout: self.read_timeout.clone(),
                    write_timeout: self.write_timeout.clone(),
                })
            }

            /// Sends a datagram to the peer this socket is connected to. Gives the bytes sent, which are all of them.
            ///
            /// # Suspends
            /// While there is no room, here or with a peer on the same machine.
            ///
            /// # Errors
            /// `TimedOut` after the write timeout; what the system says, such as that an earlier datagram was refused.
            pub fn send(&self, data: &[u8]) -> io::Result<usize> {
                let timeout = self.write_timeout.get();
                self.socket.when_ready(Direction::Write, timeout, |source| source.write(data))
            }

            /// The next datagram. What does not fit into `buffer` is lost.
            ///
            /// # Suspends
            /// Until there is one.
            ///
            /// # Errors
            /// `TimedOut` after the read timeout; what the system says, such as that a datagram was refused.
            pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
                let timeout = self.read_timeout.get();
                self.socket.when_ready(Direction::Read, timeout, |source| source.read(buffer))
            }

            /// As [`recv`](Self::recv), and leaves the datagram for the next call.
            ///
            /// # Suspends
            /// Until there is one.
            ///
            /// # Errors
            /// As [`recv`](Self::recv).
            pub fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
                let timeout = self.read_timeout.get();
                let peek = |source: &Source| source.peek(buffer).map(|(count, _)| count);
                self.socket.when_ready(Direction::Read, timeout, peek)
            }

            /// Lets receiving fail with `TimedOut` when nothing has come for so long; `None` for never.
            pub fn set_read_timeout(&self, timeout: Option<Duration>) {
                self.read_timeout.set(timeout);
            }

            /// Lets sending fail with `TimedOut` when there was no room for so long; `None` for never.
            pub fn set_write_timeout(&self, timeout: Option<Duration>) {
                self.write_timeout.set(timeout);
            }

            /// The error that waits on the socket, which this takes off.
            ///
            /// # Errors
            /// When the system cannot tell.
            pub fn take_error(&self) -> io::Result<Option<io::Error>> {
                self.socket.source().take_error()
            }
        }

        impl AsFd for $socket {
            /// # Panics
            /// In a simulation, where sockets have no descriptor.
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.socket.as_fd()
            }
        }

        impl fmt::Debug for $socket {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($socket))
                    .field("source", self.socket.source())
                    .finish_non_exhaustive()
            }
        }
    };
}
pub(crate) use datagram;
