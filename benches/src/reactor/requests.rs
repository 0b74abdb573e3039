//! The servers that are measured, as far as they are written in Rust.

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use warren_reactor::{Protocol, Reason, Transport};

use super::{Job, Peer, echo, tokio_local};
use crate::harness::client::REQUEST_BYTES;

/// Serves for ever. Prints the address as the first line.
pub(super) fn serve(peer: Peer, job: Job) {
    match (job, peer) {
        (Job::Requests, Peer::Tokio) => tokio_local(echo::tokio_serve(|stream| {
            tokio::task::spawn_local(tokio_requests(stream));
        })),
        (Job::Requests, _) => echo::serve_protocol(|| Box::new(Requests::default())),
        _ => echo::serve(peer, job),
    }
}

/// Answers each request on its own.
#[derive(Default)]
struct Requests {
    /// The beginning of a request: shorter than one.
    begun: Vec<u8>,
}

impl Protocol for Requests {
    fn connection_made(&mut self, _transport: &Transport) {}

    fn data_received(&mut self, transport: &Transport, mut data: &[u8]) {
        if !self.begun.is_empty() {
            let missing = (REQUEST_BYTES - self.begun.len()).min(data.len());
            self.begun.extend_from_slice(&data[..missing]);
            data = &data[missing..];
            if self.begun.len() == REQUEST_BYTES {
                transport.write(&self.begun);
                self.begun.clear();
            }
        }
        let requests = data.chunks_exact(REQUEST_BYTES);
        self.begun.extend_from_slice(requests.remainder());
        for request in requests {
            transport.write(request);
        }
    }

    fn connection_lost(&mut self, _reason: &Reason) {}
}

async fn tokio_requests(mut stream: tokio::net::TcpStream) {
    let mut buffer = BytesMut::with_capacity(echo::BUFFER_BYTES);
    let mut answers = Vec::with_capacity(echo::BUFFER_BYTES);
    while let Ok(1..) = stream.read_buf(&mut buffer).await {
        while let Some(request) = buffer.get(..REQUEST_BYTES) {
            answers.extend_from_slice(request);
            buffer.advance(REQUEST_BYTES);
        }
        if stream.write_all(&answers).await.is_err() {
            break;
        }
        answers.clear();
        buffer.reserve(echo::BUFFER_BYTES);
    }
}
