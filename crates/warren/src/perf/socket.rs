//! A TCP connection, plain or encrypted, that blocks while it is set up and never after that.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use warren_amqp::AmqpUri;

pub(super) enum Socket {
    Plain(TcpStream),
    Tls(Box<Tls>),
}

pub(super) struct Tls {
    stream: TcpStream,
    session: ClientConnection,
}

impl Socket {
    /// Connects, and greets when it is to be encrypted. Blocks.
    pub(super) fn connect(uri: &AmqpUri, tls: Option<&Arc<ClientConfig>>) -> io::Result<Self> {
        let mut failed = io::Error::new(ErrorKind::NotFound, "no address belongs to this name");
        for addr in (uri.host.as_str(), uri.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&addr, uri.connection_timeout) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(uri.connection_timeout))?;
                    return match tls.filter(|_| uri.tls) {
                        Some(config) => Self::encrypt(stream, &uri.host, config),
                        None => Ok(Self::Plain(stream)),
                    };
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    fn encrypt(mut stream: TcpStream, host: &str, config: &Arc<ClientConfig>) -> io::Result<Self> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let mut session = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(&mut stream)?;
        }
        Ok(Self::Tls(Box::new(Tls { stream, session })))
    }

    fn stream(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(tls) => &tls.stream,
        }
    }

    /// Whether all that can be read is told by events: what a session has decrypted is not.
    pub(super) fn tells_of_more(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// From now on, reads and writes that would block fail so.
    pub(super) fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.stream().set_nonblocking(nonblocking)
    }

    pub(super) fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.stream().set_read_timeout(Some(timeout))
    }

    /// Writes what encryption holds back. Gives whether nothing is left.
    pub(super) fn flush_held(&mut self) -> io::Result<bool> {
        match self {
            Self::Plain(_) => Ok(true),
            Self::Tls(tls) => tls.flush_held(),
        }
    }
}

impl Tls {
    fn flush_held(&mut self) -> io::Result<bool> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.stream) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let tls = match self {
            Self::Plain(stream) => return stream.read(buffer),
            Self::Tls(tls) => tls,
        };
        loop {
            match tls.session.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return result,
            }
            if tls.session.read_tls(&mut tls.stream)? == 0 {
                return Ok(0);
            }
            tls.session.process_new_packets().map_err(io::Error::other)?;
            // Such as an answer to a new key. What cannot be written now is written with the next data.
            tls.flush_held()?;
        }
    }
}

impl Write for Socket {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let tls = match self {
            Self::Plain(stream) => return stream.write(data),
            Self::Tls(tls) => tls,
        };
        // Only a socket that was found full says when it has room. A session that is full says nothing.
        if !tls.flush_held()? {
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = tls.session.writer().write(data)?;
        tls.flush_held()?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream().as_fd()
    }
}
