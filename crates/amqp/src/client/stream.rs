//! What a connection runs over: TCP, plain or encrypted.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::Shutdown;

use warren_hub::net::TcpStream;
#[cfg(feature = "tls")]
use warren_hub::net::tls::{Connector, TlsStream};

use crate::AmqpUri;

pub(super) enum Stream {
    Tcp(TcpStream),
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream>),
}

impl Stream {
    /// Connects to the host that a URL names, and encrypts if it says so.
    pub(super) fn connect(uri: &AmqpUri) -> io::Result<Self> {
        #[cfg(feature = "tls")]
        let connector = if uri.tls { Some(connector(uri)?) } else { None };
        #[cfg(not(feature = "tls"))]
        if uri.tls {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this program was built without TLS: turn on the feature `tls` of warren-amqp, or use an amqp:// URL",
            ));
        }
        let stream = TcpStream::connect((uri.host.as_str(), uri.port))?;
        stream.set_nodelay(true)?;
        #[cfg(feature = "tls")]
        if let Some(connector) = connector {
            let name = match &uri.server_name {
                crate::uri::ServerName::Other(name) => name,
                _ => &uri.host,
            };
            return Ok(Self::Tls(Box::new(connector.connect(name, stream)?)));
        }
        Ok(Self::Tcp(stream))
    }

    /// The end, for who reads and who writes.
    pub(super) fn shut_down(&self) {
        // It may have ended already.
        let _ = self.socket().shutdown(Shutdown::Both);
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Tcp(stream) => stream,
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.get_ref(),
        }
    }
}

/// The settings of a URL. Reads the files that it names.
#[cfg(feature = "tls")]
fn connector(uri: &AmqpUri) -> io::Result<Connector> {
    let read = |path: &std::path::Path| {
        warren_hub::fs::read_to_string(path)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    };
    let mut builder = Connector::builder()
        .verify(uri.verify_peer)
        .send_server_name(uri.server_name != crate::uri::ServerName::Untold)
        // Connecting as a whole has a limit.
        .handshake_timeout(None);
    if let Some(path) = &uri.cacertfile {
        builder = builder.roots_pem(&read(path)?);
    }
    if let Some(path) = &uri.certfile {
        let chain = read(path)?;
        let key = match &uri.keyfile {
            Some(path) => read(path)?,
            None => chain.clone(),
        };
        builder = builder.identity_pem(&chain, &key);
    }
    builder.build()
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).read(buffer),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => (&mut &**stream).read(buffer),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).write(data),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => (&mut &**stream).write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket().fmt(f)
    }
}
