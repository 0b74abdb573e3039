//! A connection for what is not load: to declare, to delete, to ask, or to be there and idle.

use std::io::{Read, Write};

use anyhow::{Result, bail};
use warren_amqp::frame::{self, Frame};
use warren_amqp::method::{EncodeMethod, channel};
use warren_amqp::{AmqpUri, Method};

use super::link::{Greeting, Link, refusal};

/// A plain connection with channel 1 open, whose calls block.
pub struct Client(Link);

impl Client {
    /// Connects, logs in, opens the channel.
    ///
    /// # Errors
    /// When the URL is none or asks for TLS, or the server cannot be reached or refuses.
    pub fn open(url: &str) -> Result<Self> {
        let uri: AmqpUri = url.parse()?;
        if uri.tls {
            bail!("only the load itself goes over TLS, not {url}");
        }
        let greeting =
            Greeting { name: "warren perf client".into(), frame_max: FRAME_MAX, heartbeat: 0 };
        let mut link = Link::connect(&uri, None, &greeting)?;
        link.call(1, &channel::Open {}, "channel.open-ok")?;
        Ok(Self(link))
    }

    /// Sends a method, and waits for the one that answers it.
    ///
    /// # Errors
    /// When the server refuses, or is gone.
    pub fn call(&mut self, method: &impl EncodeMethod) -> Result<()> {
        self.0.call(1, method, &format!("{}-ok", method.info().name))
    }

    /// Sends so many methods at once, then waits for as many answers. They must fit into the sockets' buffers.
    ///
    /// # Errors
    /// When the server refuses, or is gone.
    pub fn calls<M: EncodeMethod>(&mut self, methods: impl Iterator<Item = M>) -> Result<()> {
        let (mut requests, mut missing) = (Vec::new(), 0);
        for method in methods {
            frame::write_method(&mut requests, 1, &method);
            missing += 1;
        }
        self.0.socket.write_all(&requests)?;
        let mut buffer = [0; 16 * 1024];
        while 0 < missing {
            let count = self.0.socket.read(&mut buffer)?;
            if count == 0 {
                bail!("the server hung up");
            }
            let mut data = &buffer[..count];
            while let Some(frame) = self.0.reader.next_frame(&mut data)? {
                let Frame::Method { payload, .. } = frame else { continue };
                let method = Method::decode(payload)?;
                refusal(&method)?;
                missing -= usize::from(method.name().ends_with("-ok"));
            }
        }
        Ok(())
    }

    /// Messages that are ready in a queue.
    ///
    /// # Errors
    /// When there is no such queue.
    pub fn ready(&mut self, queue: &str) -> Result<u32> {
        self.0.ready(1, queue)
    }
}

/// Agreed with every server.
const FRAME_MAX: u32 = 131_072;
