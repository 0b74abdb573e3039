//! Command-line tools for any AMQP server.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::rc::Rc;

use anyhow::{Result, bail};
use clap::Args;
use warren_amqp::BasicProperties;
use warren_amqp::client::{Channel, Connection, ConsumeOptions, Publish as To, QueueOptions};

/// Where the server is.
#[derive(Args)]
pub(crate) struct Server {
    /// The server: amqp://USER:PASSWORD@HOST:PORT/VHOST
    #[arg(long, value_name = "URL", env = "WARREN_URL", default_value = "amqp://127.0.0.1:5672")]
    url: String,
}

impl Server {
    /// Runs `work` with a channel, on a fiber.
    pub(crate) fn with<T: 'static>(
        self,
        work: impl FnOnce(&Channel) -> Result<T> + 'static,
    ) -> Result<T> {
        warren_hub::run(move || {
            let connection = Connection::open(&self.url)?;
            let result = work(&connection.channel()?);
            // The work's own error says more than what closing has to say.
            let closed = connection.close();
            let value = result?;
            closed?;
            Ok(value)
        })
    }
}

/// `warren publish`.
#[derive(Args)]
pub(crate) struct Publish {
    #[command(flatten)]
    server: Server,
    /// Publish here; without, to the default exchange, where the key is a queue's name
    #[arg(long, short, default_value = "")]
    exchange: String,
    /// The routing key
    #[arg(long, short = 'k', default_value = "")]
    routing_key: String,
    /// Let the message survive the server, in durable queues
    #[arg(long)]
    persistent: bool,
    /// A header; may be repeated
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// The body; without, it is read from standard input
    body: Option<String>,
}

impl Publish {
    pub(crate) fn run(self) -> Result<()> {
        let body = match self.body {
            Some(body) => body.into_bytes(),
            None => {
                let mut body = Vec::new();
                std::io::stdin().read_to_end(&mut body)?;
                body
            }
        };
        let mut properties =
            if self.persistent { BasicProperties::persistent() } else { BasicProperties::new() };
        for (name, value) in &self.headers {
            properties = properties.with_header(name, value.as_str());
        }
        let (exchange, routing_key) = (self.exchange, self.routing_key);
        self.server.with(move |channel| {
            let returned = Rc::new(RefCell::new(None));
            let note = returned.clone();
            channel.on_return(move |message| *note.borrow_mut() = Some(message.text));
            channel.confirm_select()?;
            let to = To::to(&exchange, &routing_key).mandatory();
            channel.basic_publish(to, &properties, &body)?;
            channel.wait_for_confirms()?;
            if let Some(text) = returned.take() {
                bail!("no queue took the message: exchange '{exchange}', routing key '{routing_key}' ({text})");
            }
            Ok(())
        })
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err("write NAME=VALUE".into()),
    }
}

/// `warren consume`.
#[derive(Args)]
pub(crate) struct Consume {
    #[command(flatten)]
    server: Server,
    /// End after so many messages
    #[arg(long, short = 'n')]
    count: Option<usize>,
    /// The queue
    queue: String,
}

impl Consume {
    pub(crate) fn run(self) -> Result<()> {
        let Self { server, count, queue } = self;
        server.with(move |channel| {
            channel.basic_qos(100, false)?;
            let deliveries = channel.basic_consume(&queue, ConsumeOptions::default())?;
            for delivery in deliveries.take(count.unwrap_or(usize::MAX)) {
                let delivery = delivery?;
                if !print(&delivery.body)? {
                    break;
                }
                delivery.ack()?;
            }
            Ok(())
        })
    }
}

/// `warren get`.
#[derive(Args)]
pub(crate) struct Get {
    #[command(flatten)]
    server: Server,
    /// So many messages at most
    #[arg(long, short = 'n', default_value_t = 1)]
    count: usize,
    /// Leave the messages in the queue, flagged as redelivered
    #[arg(long)]
    requeue: bool,
    /// The queue
    queue: String,
}

impl Get {
    pub(crate) fn run(self) -> Result<()> {
        let Self { server, count, requeue, queue } = self;
        server.with(move |channel| {
            let mut last = None;
            for _ in 0..count {
                let Some(got) = channel.basic_get(&queue, false)? else { break };
                if !print(&got.delivery.body)? {
                    break;
                }
                last = Some(got.delivery.delivery_tag);
            }
            match last {
                Some(tag) if requeue => channel.basic_nack(tag, true, true)?,
                Some(tag) => channel.basic_ack(tag, true)?,
                None => {}
            }
            Ok(())
        })
    }
}

/// Shows queues by name: AMQP can ask for one, not for all of them.
pub(crate) fn show_queues(server: Server, queues: Vec<String>) -> Result<()> {
    server.with(move |channel| {
        print(b"messages\tconsumers\tqueue")?;
        for queue in &queues {
            let passive = QueueOptions { passive: true, ..QueueOptions::default() };
            let queue = channel.queue_declare(queue, passive)?;
            let line =
                format!("{}\t{}\t{}", queue.message_count, queue.consumer_count, queue.queue);
            print(line.as_bytes())?;
        }
        Ok(())
    })
}

/// Prints a line. False when nobody reads any more.
pub(crate) fn print(line: &[u8]) -> Result<bool> {
    let mut out = std::io::stdout().lock();
    let written =
        out.write_all(line).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}
