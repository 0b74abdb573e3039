//! The command line of `warren perf`, with PerfTest's names where it has one.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use warren_amqp::{AmqpUri, BasicProperties, FieldTable};

use super::body::NUMBERED_BYTES;

/// What `warren perf` is to do.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The server: amqp://USER:PASSWORD@HOST:PORT/VHOST, or amqps://
    #[arg(
        long,
        alias = "url",
        value_name = "URL",
        env = "WARREN_URL",
        default_value = "amqp://127.0.0.1:5672"
    )]
    pub uri: String,
    /// Several servers, separated by commas; connections go to them in turn
    #[arg(long, short = 'H', value_name = "URLS", value_delimiter = ',')]
    pub uris: Vec<String>,
    /// Trust the certificates in this PEM file, for amqps://, instead of the system's
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Name this run; its queue is named after it
    #[arg(long, short = 'd', value_name = "NAME")]
    pub id: Option<String>,

    /// Connections that publish
    #[arg(long, short = 'x', value_name = "COUNT", default_value_t = 1)]
    pub producers: usize,
    /// Connections that consume
    #[arg(long, short = 'y', value_name = "COUNT", default_value_t = 1)]
    pub consumers: usize,
    /// Channels of each connection that publishes
    #[arg(long, short = 'X', value_name = "COUNT", default_value_t = 1)]
    pub producer_channel_count: u16,
    /// Channels of each connection that consumes
    #[arg(long, short = 'Y', value_name = "COUNT", default_value_t = 1)]
    pub consumer_channel_count: u16,

    /// The exchange; without, the default exchange, or with --type one of that name
    #[arg(long, short = 'e', value_name = "NAME")]
    pub exchange: Option<String>,
    /// The type of the exchange: direct, fanout, topic, headers, ...
    #[arg(long = "type", short = 't', value_name = "TYPE")]
    pub kind: Option<String>,
    /// Queues, separated by commas
    #[arg(long, short = 'u', value_name = "NAMES", value_delimiter = ',')]
    pub queue: Vec<String>,
    /// Queues whose names are numbered, such as perf-%d
    #[arg(long, value_name = "PATTERN", conflicts_with = "queue", requires_all = ["queue_pattern_from", "queue_pattern_to"])]
    pub queue_pattern: Option<String>,
    /// The number of the first queue of the pattern
    #[arg(long, value_name = "NUMBER", requires = "queue_pattern")]
    pub queue_pattern_from: Option<u32>,
    /// The number of the last queue of the pattern
    #[arg(long, value_name = "NUMBER", requires = "queue_pattern")]
    pub queue_pattern_to: Option<u32>,
    /// Arguments of the queues: x-max-length=10,x-overflow=reject-publish
    #[arg(long, value_name = "NAME=VALUE", value_delimiter = ',', value_parser = pair)]
    pub queue_args: Vec<(String, String)>,
    /// Quorum queues, durable and not deleted automatically
    #[arg(long, conflicts_with = "stream_queue")]
    pub quorum_queue: bool,
    /// Streams, durable and not deleted automatically
    #[arg(long)]
    pub stream_queue: bool,
    /// Whether queues go with their last consumer [default: true, but for quorum queues, streams and --verify]
    #[arg(long, value_name = "BOOL")]
    pub auto_delete: Option<bool>,
    /// Read the names of the queues from this file, one a line
    #[arg(long, value_name = "FILE", conflicts_with_all = ["queue", "queue_pattern"])]
    pub queue_file: Option<PathBuf>,
    /// Declare nothing: exchange and queues are there
    #[arg(long, short = 'p')]
    pub predeclared: bool,
    /// Do not bind the queues to the exchange
    #[arg(long)]
    pub skip_binding_queues: bool,
    /// The routing key, and the key that queues are bound with; without, a queue's name
    #[arg(long, short = 'k', value_name = "KEY")]
    pub routing_key: Option<String>,
    /// Another routing key with every message
    #[arg(long, short = 'K', conflicts_with = "routing_key")]
    pub random_routing_key: bool,
    /// How many keys --random-routing-key has
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    pub routing_key_cache_size: usize,

    /// Bytes of a body, or the least and the most of them: 1000 or 16-4096
    #[arg(long, short = 's', value_name = "BYTES", value_parser = sizes)]
    pub size: Option<(usize, usize)>,
    /// Flags of messages: persistent (durable queues, too), mandatory
    #[arg(long, short = 'f', value_name = "FLAG", value_delimiter = ',', value_parser = ["persistent", "mandatory"])]
    pub flag: Vec<String>,
    /// Properties of messages: priority=5,expiration=1000; other names become headers
    #[arg(long, value_name = "NAME=VALUE", value_delimiter = ',', value_parser = pair)]
    pub message_properties: Vec<(String, String)>,
    /// Sizes that follow one another: BYTES:SECONDS; may be repeated
    #[arg(long, value_name = "BYTES:SECONDS", value_delimiter = ',', value_parser = number_stage, conflicts_with_all = ["size", "body"])]
    pub variable_size: Vec<(u64, Duration)>,
    /// Publish what is in these files, in turn; such messages carry no time, so there is no latency of deliveries
    #[arg(long, short = 'B', value_name = "FILES", value_delimiter = ',', conflicts_with_all = ["size", "verify"])]
    pub body: Vec<PathBuf>,
    /// What the bodies are: application/json, ...
    #[arg(long, short = 'T', value_name = "TYPE")]
    pub body_content_type: Option<String>,
    /// Messages per second of each producer, in an open loop: latency counts from the time a message was to be sent
    #[arg(long, short = 'r', value_name = "RATE", value_parser = rate)]
    pub rate: Option<f64>,
    /// Rates that follow one another: RATE:SECONDS; may be repeated
    #[arg(long, value_name = "RATE:SECONDS", value_delimiter = ',', value_parser = stage, conflicts_with = "rate")]
    pub variable_rate: Vec<(f64, Duration)>,
    /// Seconds between two messages of a producer: a rate below one per second
    #[arg(long, short = 'P', value_name = "SECONDS", value_parser = interval, conflicts_with_all = ["rate", "variable_rate"])]
    pub publishing_interval: Option<Duration>,
    /// Let producers begin at random moments within so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "0", hide_default_value = true)]
    pub producer_random_start_delay: Duration,
    /// Let the rate rise from nothing for so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds, requires = "rate")]
    pub ramp: Option<Duration>,
    /// Messages that are published and not yet consumed at most, of the whole run: publishers wait for consumers
    #[arg(long, value_name = "COUNT")]
    pub backlog_max: Option<u64>,
    /// Confirms, and how many messages may wait for theirs on each channel
    #[arg(long, short = 'c', value_name = "COUNT")]
    pub confirm: Option<usize>,
    /// Fail when no confirm comes for so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "30")]
    pub confirm_timeout: Duration,
    /// Transactions of so many publishes
    #[arg(long, short = 'm', value_name = "COUNT", conflicts_with = "confirm")]
    pub ptxsize: Option<usize>,

    /// Consume without acknowledgements
    #[arg(long, short = 'a')]
    pub autoack: bool,
    /// Acknowledge so many messages at once
    #[arg(
        long,
        short = 'A',
        value_name = "COUNT",
        default_value_t = 1,
        conflicts_with = "autoack"
    )]
    pub multi_ack_every: u64,
    /// Refuse messages (basic.nack) instead of acknowledging them
    #[arg(long, conflicts_with_all = ["autoack", "verify"])]
    pub nack: bool,
    /// Whether messages that are refused go back to their queue
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, requires = "nack")]
    pub requeue: bool,
    /// Prefetch of each consumer; 0: no limit
    #[arg(long, short = 'q', value_name = "COUNT", default_value_t = 0)]
    pub qos: u16,
    /// Prefetch of each channel; 0: no limit
    #[arg(long, short = 'Q', value_name = "COUNT", default_value_t = 0)]
    pub global_qos: u16,
    /// Messages per second of each consumer
    #[arg(long, short = 'R', value_name = "RATE", value_parser = rate)]
    pub consumer_rate: Option<f64>,
    /// Microseconds that a consumer takes for a message
    #[arg(long, short = 'L', value_name = "MICROSECONDS", default_value_t = 0)]
    pub consumer_latency: u64,
    /// Times that consumers take, which follow one another: MICROSECONDS:SECONDS; may be repeated
    #[arg(long, value_name = "MICROSECONDS:SECONDS", value_delimiter = ',', value_parser = number_stage, conflicts_with = "consumer_latency")]
    pub variable_latency: Vec<(u64, Duration)>,
    /// Begin to consume so many seconds later than to publish
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "0", hide_default_value = true)]
    pub consumer_start_delay: Duration,
    /// Where to begin to read streams: first, last, next, or a number
    #[arg(long, value_name = "OFFSET")]
    pub stream_consumer_offset: Option<String>,
    /// Arguments of the consumers: x-priority=5
    #[arg(long, value_name = "NAME=VALUE", value_delimiter = ',', value_parser = pair)]
    pub consumer_args: Vec<(String, String)>,
    /// Ask for messages one by one (basic.get) instead of consuming
    #[arg(long)]
    pub polling: bool,
    /// Milliseconds between a queue found empty and the next look
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 10)]
    pub polling_interval: u64,

    /// End after so many seconds; without limits the load goes on until it is interrupted
    #[arg(long, short = 'z', value_name = "SECONDS", value_parser = seconds)]
    pub time: Option<Duration>,
    /// Seconds before the measurement begins
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "0")]
    pub warm_up: Duration,
    /// Messages that each producer sends
    #[arg(long, short = 'C', value_name = "COUNT")]
    pub pmessages: Option<u64>,
    /// Messages that each consumer takes
    #[arg(long, short = 'D', value_name = "COUNT")]
    pub cmessages: Option<u64>,
    /// End when consumers have had nothing to do for a second (idle), or when the queues are empty, too (empty)
    #[arg(long, value_name = "WHEN", value_parser = ["idle", "empty"], conflicts_with = "verify")]
    pub exit_when: Option<String>,
    /// At the end, seconds without progress after which what has not come is given up
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "5")]
    pub shutdown_timeout: Duration,

    /// Number every message, and prove that none confirmed is lost, delivered twice without the redelivered flag, or
    /// overtaken; connections that break are opened again
    #[arg(long, conflicts_with_all = ["autoack", "ptxsize", "cmessages", "warm_up"])]
    pub verify: bool,
    /// Keep the ledger of --verify in this file, and begin with what it holds: what one run has published, another,
    /// after a crash of the whole machine, looks for
    #[arg(long, value_name = "FILE", requires = "verify")]
    pub ledger: Option<PathBuf>,
    /// Try for so many seconds to reach a server that is not there yet
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "0", hide_default_value = true)]
    pub servers_startup_timeout: Duration,
    /// Open connections again that break, after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub connection_recovery_interval: Option<Duration>,

    /// Take times from the clock of the day, when producers and consumers run on different machines: as exact as these
    /// clocks agree
    #[arg(long)]
    pub use_millis: bool,
    /// Seconds between lines of progress; 0: none
    #[arg(long, short = 'i', value_name = "SECONDS", value_parser = seconds, default_value = "1")]
    pub interval: Duration,
    /// Write the result as JSON to this file; -: to standard output, and nothing else
    #[arg(long, short = 'o', value_name = "FILE")]
    pub output_file: Option<PathBuf>,
    /// The server's process, whose processor time is measured; found by itself when it listens on this machine
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// Threads of the load; 0: half as many as there are processors, two at least, where there are so many connections
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub threads: usize,
    /// The largest frame, in bytes
    #[arg(long, short = 'M', value_name = "BYTES", default_value_t = 131_072)]
    pub framemax: u32,
    /// Seconds between signs of life; 0: none
    #[arg(long, short = 'b', value_name = "SECONDS", default_value_t = 0)]
    pub heartbeat: u16,

    /// What producers send in turn, in place of what the options above say of keys and properties.
    #[arg(skip)]
    pub messages: Vec<Message>,
}

/// One of the messages that producers send in turn: for programs that want more than the command line can say.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// Where it goes.
    pub routing_key: String,
    /// What it says of itself.
    pub properties: BasicProperties,
    /// Its latency counts from so long after the time it was to be sent: of a message that is to be delayed.
    pub due_after: Duration,
}

impl Options {
    /// What the command line means when nothing is said.
    pub fn new(uri: &str) -> Self {
        #[derive(clap::Parser)]
        struct Alone {
            #[command(flatten)]
            options: Options,
        }
        let alone: Alone = clap::Parser::parse_from(["perf", "--uri", uri]);
        alone.options
    }

    pub(super) fn servers(&self) -> Result<Vec<AmqpUri>> {
        let given: Vec<&String> =
            if self.uris.is_empty() { vec![&self.uri] } else { self.uris.iter().collect() };
        given.into_iter().map(|uri| Ok(uri.parse()?)).collect()
    }

    /// Least and most bytes of a body.
    pub(super) fn sizes(&self) -> Result<(usize, usize)> {
        let default = if self.verify { NUMBERED_BYTES } else { super::body::TIMED_BYTES };
        let variable = self.variable_size.iter().map(|stage| stage.0 as usize);
        let (least, most) = match (variable.clone().min(), variable.max()) {
            (Some(least), Some(most)) => (least, most),
            _ => self.size.unwrap_or((default, default)),
        };
        ensure!(most <= BODY_BYTES_MAX, "--variable-size {most} is more than {BODY_BYTES_MAX}");
        if self.verify && least < NUMBERED_BYTES {
            bail!(
                "--verify needs bodies of at least {NUMBERED_BYTES} bytes for its numbers, not --size {least}"
            );
        }
        Ok((least, most))
    }

    pub(super) fn has_flag(&self, flag: &str) -> bool {
        self.flag.iter().any(|given| given == flag) || (flag == "persistent" && self.verify)
    }

    /// Messages that may wait for their confirm, on each channel; `None`: no confirms.
    pub(super) fn window(&self) -> Option<usize> {
        self.confirm.or(self.verify.then_some(1000)).map(|window| window.max(1))
    }

    /// How long to wait before a connection is opened again; `None`: the run ends with its connection.
    pub(super) fn recovery(&self) -> Option<Duration> {
        let fast = Duration::from_millis(100);
        self.connection_recovery_interval.or(self.verify.then_some(fast))
    }

    pub(super) fn queue_names(&self, id: &str) -> Result<Vec<String>> {
        if let Some(path) = &self.queue_file {
            let wrong = || format!("cannot read --queue-file {}", path.display());
            let text = fs::read_to_string(path).with_context(wrong)?;
            let names: Vec<_> =
                text.lines().map(str::trim).filter(|name| !name.is_empty()).collect();
            ensure!(!names.is_empty(), "--queue-file {} names no queue", path.display());
            return Ok(names.into_iter().map(str::to_owned).collect());
        }
        let Some(pattern) = &self.queue_pattern else {
            let named = !self.queue.is_empty();
            return Ok(if named { self.queue.clone() } else { vec![id.to_owned()] });
        };
        ensure!(pattern.contains("%d"), "--queue-pattern '{pattern}' has no %d for the number");
        let from = self.queue_pattern_from.unwrap_or_default();
        let to = self.queue_pattern_to.unwrap_or_default();
        ensure!(from <= to, "--queue-pattern-from {from} is more than --queue-pattern-to {to}");
        Ok((from..=to).map(|number| pattern.replace("%d", &number.to_string())).collect())
    }

    pub(super) fn check(&self) -> Result<()> {
        ensure!(
            0 < self.producers + self.consumers,
            "neither producers nor consumers: nothing to do"
        );
        ensure!(
            0 < self.producer_channel_count,
            "--producer-channel-count 0: nothing to publish on"
        );
        ensure!(
            0 < self.consumer_channel_count,
            "--consumer-channel-count 0: nothing to consume on"
        );
        ensure!(
            0 < self.multi_ack_every,
            "--multi-ack-every 0: write --autoack for no acknowledgements"
        );
        ensure!(
            0 < self.routing_key_cache_size,
            "--routing-key-cache-size 0: no keys to publish with"
        );
        for prefetch in [self.qos, self.global_qos] {
            ensure!(
                prefetch == 0 || self.multi_ack_every <= prefetch.into(),
                "--multi-ack-every {} is more than the prefetch of {prefetch}: nothing would be acknowledged",
                self.multi_ack_every
            );
        }
        if self.verify {
            ensure!(
                0 < self.producers || self.ledger.is_some(),
                "--verify without producers needs the --ledger of the run that published"
            );
            ensure!(
                self.message_properties.iter().all(|(name, _)| name != "deliveryMode"),
                "--verify publishes persistent messages: leave deliveryMode out"
            );
        }
        let rates: f64 = self.variable_rate.iter().map(|stage| stage.0).sum();
        ensure!(
            self.variable_rate.is_empty() || 0.0 < rates,
            "--variable-rate is 0 all the time: nothing would be sent"
        );
        Ok(())
    }
}

/// Named values as a table: numbers and truth values as such.
pub(super) fn table(pairs: &[(String, String)]) -> FieldTable {
    let mut table = FieldTable::new();
    for (name, value) in pairs {
        match (value.parse::<i64>(), value.parse::<bool>()) {
            (Ok(number), _) => table.insert(name, number),
            (_, Ok(truth)) => table.insert(name, truth),
            _ => table.insert(name, value.as_str()),
        }
    }
    table
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".into()),
    }
}

fn sizes(text: &str) -> Result<(usize, usize), String> {
    let (least, most) = text.split_once('-').unwrap_or((text, text));
    match (least.parse(), most.parse()) {
        (Ok(least), Ok(most)) if least <= most && most <= BODY_BYTES_MAX => Ok((least, most)),
        _ => Err(format!(
            "write bytes, or the least and the most: 16-4096; at most {BODY_BYTES_MAX}"
        )),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && 0.0 < rate => Ok(rate),
        _ => Err("write messages per second, more than 0".into()),
    }
}

fn stage(text: &str) -> Result<(f64, Duration), String> {
    let wrong = || "write RATE:SECONDS, such as 1000:30".to_owned();
    let (rate, time) = text.split_once(':').ok_or_else(wrong)?;
    let rate: f64 = rate.parse().map_err(|_| wrong())?;
    let time = seconds(time)?;
    if !rate.is_finite() || rate < 0.0 || time.is_zero() { Err(wrong()) } else { Ok((rate, time)) }
}

/// Of sizes and of latencies.
fn number_stage(text: &str) -> Result<(u64, Duration), String> {
    let wrong = || "write NUMBER:SECONDS, such as 1000:30".to_owned();
    let (number, time) = text.split_once(':').ok_or_else(wrong)?;
    let time = seconds(time)?;
    let number = number.parse().map_err(|_| wrong())?;
    if time.is_zero() { Err(wrong()) } else { Ok((number, time)) }
}

fn interval(text: &str) -> Result<Duration, String> {
    seconds(text).and_then(|time| match time.is_zero() {
        true => Err("write seconds, more than 0".into()),
        false => Ok(time),
    })
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "write seconds, such as 10 or 0.5".into())
}

/// What RabbitMQ and Warren can be configured to take at most.
const BODY_BYTES_MAX: usize = 512 * 1024 * 1024;
