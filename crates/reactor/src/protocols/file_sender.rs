//! Sending a file to a consumer that says when it has room.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::ops::Range;
use std::rc::Rc;

use warren_hub::fs::File;
use warren_hub::sync::Event;

use crate::{Consumer, Deferred, Failure, Producer, spawn_deferred};

/// Read at a time, unless told otherwise. Twisted reads 16 KiB, on its loop; here each piece is a way to another thread.
const CHUNK_BYTES: usize = 64 * 1024;

/// Sends a file to a consumer, one piece after the other as it has room: a pull producer.
///
/// The file is read on the hub's threads or ring, never on the loop, and one piece ahead, so that neither the disk nor
/// the network waits for the other. Two pieces are in memory at a time.
///
/// ```
/// use std::io::Read;
/// use warren_hub::fs::{self, File};
/// use warren_hub::net::TcpStream;
/// use warren_reactor::protocols::{FileSender, for_protocol};
/// use warren_reactor::{PeerAddr, Protocol, Reason, Transport, listen_tcp};
///
/// struct Download(std::path::PathBuf);
///
/// impl Protocol for Download {
///     fn connection_made(&mut self, transport: &Transport) {
///         let (path, transport) = (self.0.clone(), transport.clone());
///         // Opening a file may wait, so a fiber does it.
///         warren_hub::spawn(move || {
///             let file = File::open(path).unwrap();
///             let sent = FileSender::new().begin_file_transfer(file, transport.clone());
///             println!("{} bytes", sent.wait().unwrap());
///             transport.lose_connection();
///         });
///     }
///     fn data_received(&mut self, _transport: &Transport, _data: &[u8]) {}
///     fn connection_lost(&mut self, _reason: &Reason) {}
/// }
///
/// warren_hub::run(|| {
///     let folder = tempfile::tempdir().unwrap();
///     let path = folder.path().join("file");
///     fs::write(&path, b"contents").unwrap();
///     let factory = for_protocol(move || Download(path.clone()));
///     let port = listen_tcp("127.0.0.1:0".parse().unwrap(), Box::new(factory)).unwrap();
///     let PeerAddr::Tcp(addr) = *port.addr() else { unreachable!() };
///     let mut received = String::new();
///     TcpStream::connect(addr).unwrap().read_to_string(&mut received).unwrap();
///     assert_eq!(received, "contents");
/// });
/// ```
pub struct FileSender {
    chunk_bytes: usize,
    range: Range<u64>,
    transform: Option<Transform>,
}

type Transform = Box<dyn FnMut(Vec<u8>) -> Vec<u8>>;

impl FileSender {
    /// Sends a whole file, as it is.
    pub fn new() -> Self {
        Self { chunk_bytes: CHUNK_BYTES, range: 0..u64::MAX, transform: None }
    }

    /// How many bytes are read at a time: 65,536 unless set.
    ///
    /// # Panics
    /// When it is zero.
    #[must_use]
    pub fn chunk_size(mut self, bytes: usize) -> Self {
        assert!(0 < bytes, "a file cannot be read in pieces of no bytes");
        self.chunk_bytes = bytes;
        self
    }

    /// Which bytes of the file are sent, as far as it has them: the rest of one that was cut off, for example.
    #[must_use]
    pub fn range(mut self, range: Range<u64>) -> Self {
        self.range = range;
        self
    }

    /// Each piece passes through `transform` on its way to the consumer: to be changed, or to see how far it is.
    #[must_use]
    pub fn transform(mut self, transform: impl FnMut(Vec<u8>) -> Vec<u8> + 'static) -> Self {
        self.transform = Some(Box::new(transform));
        self
    }

    /// Begins to send `file` to `consumer`, which is a [`Transport`](crate::Transport) for example. Gives how many bytes
    /// of the file have been written, once all have (Twisted gives the last one). Cancelling it stops the transfer.
    ///
    /// A connection that is told to be lost meanwhile ends after the file.
    ///
    /// # Panics
    /// When the consumer has a producer already. When no hub runs on this thread.
    #[track_caller]
    pub fn begin_file_transfer(
        self,
        file: File,
        consumer: impl Consumer + 'static,
    ) -> Deferred<u64, FileSenderError> {
        let pull = Rc::new(Pull::default());
        consumer.register_producer(pull.clone(), false);
        // From here on it is unregistered however this ends.
        let consumer = Registered(consumer);
        spawn_deferred(move || self.send(&file, &consumer.0, &pull))
    }

    fn send(
        mut self,
        file: &File,
        consumer: &impl Consumer,
        pull: &Pull,
    ) -> Result<u64, Failure<FileSenderError>> {
        let Range { start, end } = self.range;
        let mut offset = start;
        let mut buffer = Vec::new();
        loop {
            buffer.clear();
            buffer.reserve_exact(self.chunk_bytes);
            let sent = offset - start;
            if offset < end && !pull.stopped.get() {
                let (read, filled) = file.read_owned_at(buffer, offset);
                read.map_err(|source| FileSenderError::Read { sent, source })?;
                buffer = filled;
                buffer.truncate(usize::try_from(end - offset).unwrap_or(usize::MAX));
            }
            pull.wanted.wait();
            pull.wanted.clear();
            if pull.stopped.get() {
                return Err(FileSenderError::Stopped { sent })?;
            }
            if buffer.is_empty() {
                return Ok(sent);
            }
            offset += buffer.len() as u64;
            if let Some(transform) = &mut self.transform {
                buffer = transform(buffer);
            }
            consumer.write(&buffer);
        }
    }
}

impl Default for FileSender {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for FileSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSender")
            .field("chunk_bytes", &self.chunk_bytes)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

/// What the consumer says.
#[derive(Default)]
struct Pull {
    /// It has room, or it is gone.
    wanted: Event,
    stopped: Cell<bool>,
}

impl Producer for Pull {
    fn resume_producing(&self) {
        self.wanted.set();
    }

    fn stop_producing(&self) {
        self.stopped.set(true);
        self.wanted.set();
    }
}

/// Unregisters when dropped.
struct Registered<C: Consumer>(C);

impl<C: Consumer> Drop for Registered<C> {
    fn drop(&mut self) {
        self.0.unregister_producer();
    }
}

/// Why a file was not sent to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileSenderError {
    /// The file could not be read.
    #[error("reading the file failed after {sent} bytes of it were sent")]
    Read {
        /// Bytes of the file that were written to the consumer.
        sent: u64,
        /// What the system says.
        source: io::Error,
    },
    /// The consumer takes no more: the connection is gone.
    #[error("the consumer has stopped the transfer after {sent} bytes of the file")]
    Stopped {
        /// Bytes of the file that were written to the consumer.
        sent: u64,
    },
}
