//! Who publishes what, and who consumes it: the options, worked out.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustls::ClientConfig;
use warren_amqp::{AmqpUri, BasicProperties, FieldTable};
use warren_hub::net::tls::Connector;

use super::clock;
use super::options::{Options, table};
use super::pace::Pace;

/// All that producers, consumers and workers need to know.
pub(super) struct Plan {
    pub(super) options: Options,
    pub(super) id: String,
    pub(super) servers: Vec<AmqpUri>,
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) exchange: String,
    /// The type to declare the exchange with; `None`: it is not declared.
    pub(super) kind: Option<String>,
    pub(super) queues: Vec<String>,
    pub(super) queue_arguments: FieldTable,
    pub(super) durable: bool,
    pub(super) auto_delete: bool,
    pub(super) sizes: (usize, usize),
    /// What bodies are made of, in turn; none: they are made up.
    pub(super) bodies: Vec<Vec<u8>>,
    /// What the times that messages carry are ahead of our clock.
    pub(super) clock_offset: u64,
    /// Encoded, flags included.
    pub(super) properties: Vec<u8>,
    pub(super) mandatory: bool,
    /// Queues that each message goes to, as far as can be foretold.
    pub(super) copies: u64,
    pub(super) recovery: Option<Duration>,
}

impl Plan {
    pub(super) fn new(options: &Options) -> Result<Self> {
        options.check()?;
        let servers = options.servers()?;
        let id = options.id.clone().unwrap_or_else(|| format!("perf-{}", std::process::id()));
        let queues = options.queue_names(&id)?;
        let exchange = match (&options.exchange, &options.kind) {
            (Some(name), _) if name == "amq.default" => String::new(),
            (Some(name), _) => name.clone(),
            (None, Some(kind)) => kind.clone(),
            (None, None) => String::new(),
        };
        let declares =
            !(options.predeclared || exchange.is_empty() || exchange.starts_with("amq."));
        let kind = options.kind.clone().unwrap_or_else(|| "direct".into());
        let everywhere = !exchange.is_empty()
            && (kind == "fanout" || exchange == "amq.fanout" || options.routing_key.is_some());
        let copies = if everywhere { queues.len() as u64 } else { 1 };
        let mut queue_arguments = table(&options.queue_args);
        for (wanted, name) in [(options.quorum_queue, "quorum"), (options.stream_queue, "stream")] {
            if wanted {
                queue_arguments.insert("x-queue-type", name);
            }
        }
        let replicated = options.quorum_queue || options.stream_queue;
        let persistent = options.has_flag("persistent");
        let mut properties = Vec::new();
        message_properties(options, persistent)?.encode(&mut properties);
        Ok(Self {
            id,
            tls: servers.iter().any(|uri| uri.tls).then(|| tls(options)).transpose()?,
            servers,
            exchange,
            kind: declares.then_some(kind),
            queues,
            queue_arguments,
            durable: persistent || replicated,
            auto_delete: options.auto_delete.unwrap_or(!replicated && !options.verify),
            sizes: options.sizes()?,
            bodies: options.body.iter().map(|path| read_body(path)).collect::<Result<_>>()?,
            clock_offset: if options.use_millis { clock::of_the_day() } else { 0 },
            properties,
            mandatory: options.has_flag("mandatory"),
            copies,
            recovery: options.recovery(),
            options: options.clone(),
        })
    }

    /// The server for connection `index`.
    pub(super) fn server(&self, index: usize) -> &AmqpUri {
        &self.servers[index % self.servers.len()]
    }

    /// The queues of connection `index` of so many: of as few as there are, each has its share; of many, they share.
    pub(super) fn share(&self, index: usize, count: usize) -> Vec<usize> {
        let queues = self.queues.len();
        if queues <= count {
            vec![index % queues]
        } else {
            (index..queues).step_by(count).collect()
        }
    }

    /// Where producer `index` publishes to. With an exchange that hands a message to all queues, or with messages that say
    /// themselves where they go, that is one place.
    pub(super) fn targets(&self, index: usize) -> Vec<usize> {
        let elsewhere = self.copies > 1 || !self.options.messages.is_empty();
        if elsewhere { vec![0] } else { self.share(index, self.options.producers) }
    }

    /// The queues that a message for target `queue` comes to.
    pub(super) fn arrivals(&self, queue: usize) -> Vec<usize> {
        if self.copies > 1 { (0..self.queues.len()).collect() } else { vec![queue] }
    }

    /// What is published for a queue, in turn: key, properties, and how long after its time a message is due.
    pub(super) fn messages(&self, queue: usize) -> Vec<(String, Vec<u8>, u64)> {
        let options = &self.options;
        let plain = |key| (key, self.properties.clone(), 0);
        if !options.messages.is_empty() {
            let given = options.messages.iter().map(|message| {
                let mut properties = Vec::new();
                message.properties.encode(&mut properties);
                (message.routing_key.clone(), properties, nanoseconds(message.due_after))
            });
            return given.collect();
        }
        if options.random_routing_key {
            let keys = 0..options.routing_key_cache_size;
            return keys.map(|number| plain(format!("{}.key.{number}", self.id))).collect();
        }
        vec![plain(self.binding_key(queue))]
    }

    /// The key that a queue is bound with.
    pub(super) fn binding_key(&self, queue: usize) -> String {
        match &self.options.routing_key {
            Some(key) => key.clone(),
            None if self.options.random_routing_key => "#".into(),
            None => self.queues[queue].clone(),
        }
    }

    /// When producer `index` begins, in nanoseconds after the start.
    pub(super) fn start_delay(&self, index: usize) -> u64 {
        random_below(nanoseconds(self.options.producer_random_start_delay), index)
    }

    /// The schedule of producer `index`; `None`: as fast as it goes.
    pub(super) fn publishing_pace(&self, index: usize) -> Option<Pace> {
        let options = &self.options;
        let shift = index as f64 / options.producers as f64;
        let delay = self.start_delay(index);
        let interval = options.publishing_interval.map(|time| 1.0 / time.as_secs_f64());
        if let Some(rate) = options.rate.or(interval) {
            let ramp = options.ramp.map_or(0, nanoseconds);
            return Some(Pace::constant(rate, ramp).shifted(shift).delayed(delay));
        }
        let stages = options.variable_rate.iter().map(|&(rate, time)| (rate, nanoseconds(time)));
        let stages: Vec<_> = stages.collect();
        (!stages.is_empty()).then(|| Pace::stages(stages).shifted(shift).delayed(delay))
    }
}

fn read_body(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read --body {}", path.display()))
}

/// Any spread will do.
fn random_below(most: u64, index: usize) -> u64 {
    let mixed = (clock::now() ^ index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    ((u128::from(most) * u128::from(mixed)) >> 32) as u64
}

pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn message_properties(options: &Options, persistent: bool) -> Result<BasicProperties> {
    let mut properties =
        if persistent { BasicProperties::persistent() } else { BasicProperties::new() };
    properties.content_type = options.body_content_type.as_deref().map(Into::into);
    let mut headers = Vec::new();
    for (name, value) in &options.message_properties {
        let number = || {
            value
                .parse::<u64>()
                .with_context(|| format!("message property {name}={value} is no number"))
        };
        let small = || {
            u8::try_from(number()?)
                .with_context(|| format!("message property {name}={value} is more than 255"))
        };
        let text = || Some(value.as_str().into());
        match name.as_str() {
            "contentType" => properties.content_type = text(),
            "contentEncoding" => properties.content_encoding = text(),
            "deliveryMode" => properties.delivery_mode = Some(small()?),
            "priority" => properties.priority = Some(small()?),
            "correlationId" => properties.correlation_id = text(),
            "replyTo" => properties.reply_to = text(),
            "expiration" => properties.expiration = text(),
            "messageId" => properties.message_id = text(),
            "timestamp" => properties.timestamp = Some(number()?),
            "type" => properties.kind = text(),
            "userId" => properties.user_id = text(),
            "appId" => properties.app_id = text(),
            _ => headers.push((name.clone(), value.clone())),
        }
    }
    if !headers.is_empty() {
        properties.headers = Some(table(&headers));
    }
    Ok(properties)
}

fn tls(options: &Options) -> Result<Arc<ClientConfig>> {
    let builder = Connector::builder();
    let builder = match &options.tls_ca {
        Some(path) => {
            let wrong = || format!("cannot read --tls-ca {}", path.display());
            builder.roots_pem(&fs::read_to_string(path).with_context(wrong)?)
        }
        None => builder.system_roots(),
    };
    match builder.build() {
        Ok(connector) => Ok(connector.config().clone()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("the system trusts no certificates: name yours with --tls-ca ({error})")
        }
        Err(error) => Err(error).context("no TLS"),
    }
}
