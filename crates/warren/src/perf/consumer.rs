//! One connection that consumes.
//!
//! Cost of a delivery: its method is read by hand, for its tag and its flag, the rest is walked over where it lies;
//! an acknowledgement is appended to the output. Nothing is allocated.

use std::collections::HashMap;

use anyhow::{Context as _, Result, bail};
use warren_amqp::frame::{self, Frame};
use warren_amqp::method::{basic, channel};
use warren_amqp::{FieldTable, Method};

use super::body::{self, Reading};
use super::ledger::Delivered;
use super::link::{Link, refusal};
use super::options::{Options, table};
use super::pace::{Cycle, Pace};
use super::plan::{Plan, nanoseconds};
use super::worker::{Context, Wake};

pub(super) struct Consumer {
    channels: Vec<Channel>,
    settings: Settings,
    pace: Option<Pace>,
    /// When the next message may be taken, of a consumer that takes its time.
    ready_at: u64,
    taken: u64,
    /// Whether it has asked for messages.
    begun: bool,
    done: bool,
}

struct Settings {
    autoack: bool,
    multi_ack_every: u64,
    latency: u64,
    /// Times that change as time goes by.
    changing: Option<Cycle>,
    /// Whether messages are refused, and go back.
    nack: Option<bool>,
    /// When consuming begins, in nanoseconds after the start.
    begins: u64,
    clock_offset: u64,
    arguments: FieldTable,
    limit: Option<u64>,
    /// Nanoseconds until an empty queue is asked again; `None`: deliveries come by themselves.
    polling: Option<u64>,
    queues: Vec<String>,
}

struct Channel {
    number: u16,
    /// Those consumed from, by their index in the plan.
    queues: Vec<usize>,
    /// Of those, the one asked next when polling.
    turn: usize,
    /// Deliveries not acknowledged since the last acknowledgement.
    unacked: u64,
    current: Current,
    /// When polling: the next question.
    ask_at: Option<u64>,
    /// Of each queue and lane one more than the highest number that came without a flag. It outlives connections.
    last: HashMap<(usize, u32), u64>,
}

/// The message that is coming in.
#[derive(Default)]
struct Current {
    tag: u64,
    redelivered: bool,
    queue: usize,
    /// Bytes of its body still to come.
    left: u64,
    bytes: u64,
    begun: bool,
    reading: Reading,
}

impl Consumer {
    pub(super) fn new(plan: &Plan, index: usize) -> Self {
        let options = &plan.options;
        let queues = plan.share(index, options.consumers);
        let channels = (1..=options.consumer_channel_count).map(|number| Channel {
            number,
            queues: queues.clone(),
            turn: 0,
            unacked: 0,
            current: Current::default(),
            ask_at: None,
            last: HashMap::new(),
        });
        Self {
            channels: channels.collect(),
            settings: Settings {
                autoack: options.autoack,
                multi_ack_every: options.multi_ack_every,
                latency: options.consumer_latency * 1000,
                changing: Cycle::new(&options.variable_latency),
                nack: options.nack.then_some(options.requeue),
                begins: nanoseconds(options.consumer_start_delay),
                clock_offset: plan.clock_offset,
                arguments: arguments(options),
                limit: options.cmessages,
                polling: options.polling.then_some(options.polling_interval * 1_000_000),
                queues: plan.queues.clone(),
            },
            pace: options.consumer_rate.map(|rate| Pace::constant(rate, 0)),
            ready_at: 0,
            taken: 0,
            begun: false,
            done: false,
        }
    }

    /// Opens the channels of a new connection. Blocks.
    pub(super) fn open(plan: &Plan, link: &mut Link, index: usize, again: bool) -> Result<()> {
        let options = &plan.options;
        for number in 1..=options.consumer_channel_count {
            link.call(number, &channel::Open {}, "channel.open-ok")?;
            for (prefetch_count, global) in [(options.global_qos, true), (options.qos, false)] {
                if prefetch_count != 0 {
                    let qos = basic::Qos { prefetch_size: 0, prefetch_count, global };
                    link.call(number, &qos, "basic.qos-ok")?;
                }
            }
        }
        if again {
            link.declare(plan, 1, &plan.share(index, options.consumers))?;
        }
        Ok(())
    }

    /// There is a new connection.
    pub(super) fn opened(&mut self) {
        self.begun = false;
        for channel in &mut self.channels {
            channel.unacked = 0;
            channel.current = Current::default();
            channel.ask_at = None;
        }
    }

    fn begin(&mut self, out: &mut Vec<u8>, now: u64) {
        self.begun = true;
        for channel in &mut self.channels {
            if self.settings.polling.is_some() {
                channel.ask_at = Some(now);
                continue;
            }
            for &queue in &channel.queues {
                let consume = basic::Consume {
                    queue: &self.settings.queues[queue],
                    consumer_tag: &queue.to_string(),
                    no_ack: self.settings.autoack,
                    arguments: self.settings.arguments.clone(),
                    ..basic::Consume::default()
                };
                frame::write_method(out, channel.number, &consume);
            }
        }
    }

    /// When the next message may be taken, if not now.
    pub(super) fn paused_until(&self, now: u64) -> Option<u64> {
        if self.done { Some(u64::MAX) } else { (now < self.ready_at).then_some(self.ready_at) }
    }

    pub(super) fn frame(
        &mut self,
        frame: Frame<'_>,
        out: &mut Vec<u8>,
        context: &mut Context<'_>,
    ) -> Result<()> {
        let Some(channel) = usize::from(frame.channel())
            .checked_sub(1)
            .and_then(|index| self.channels.get_mut(index))
        else {
            return context.connection_frame(frame);
        };
        match frame {
            Frame::Body { payload, .. } => {
                channel.current.body(payload, self.settings.clock_offset, context);
                if channel.current.left == 0 {
                    self.complete(usize::from(frame.channel()) - 1, out, context);
                }
            }
            Frame::Header { body_size, .. } => {
                channel.current.header(body_size);
                if body_size == 0 {
                    self.complete(usize::from(frame.channel()) - 1, out, context);
                }
            }
            Frame::Method { payload, .. } => {
                if !channel.deliver(payload)? {
                    match Method::decode(payload)? {
                        Method::BasicGetEmpty(_) => {
                            let wait = self.settings.polling.unwrap_or_default();
                            channel.ask_at = Some(context.now + wait);
                        }
                        Method::BasicCancel(cancel) => {
                            bail!("the server ended the consumer of queue {}", cancel.consumer_tag)
                        }
                        method => refusal(&method)?,
                    }
                }
            }
            Frame::Heartbeat => {}
        }
        Ok(())
    }

    /// A message is there as a whole.
    fn complete(&mut self, index: usize, out: &mut Vec<u8>, context: &mut Context<'_>) {
        let channel = &mut self.channels[index];
        let current = &channel.current;
        if let Some(ledger) = context.shared.ledger() {
            let message = current.reading.finish();
            let delivered = Delivered { queue: current.queue, redelivered: current.redelivered };
            let last = match message {
                Ok(Some(message)) => {
                    Some(channel.last.entry((current.queue, message.lane)).or_default())
                }
                _ => None,
            };
            ledger.delivered(message, delivered, last);
        }
        context.tally.counts.consumed += 1;
        context.tally.counts.consumed_bytes += current.bytes;
        context.tally.counts.redelivered += u64::from(current.redelivered);
        self.taken += 1;
        channel.unacked += 1;
        if !self.settings.autoack && self.settings.multi_ack_every <= channel.unacked {
            channel.ack(out, 1 < self.settings.multi_ack_every, self.settings.nack);
        }
        if self.settings.polling.is_some() {
            channel.ask_at = Some(context.now);
        }
        let latency = match &self.settings.changing {
            None => self.settings.latency,
            Some(changing) => changing.at(context.now.saturating_sub(context.start)) * 1000,
        };
        if 0 < latency {
            self.ready_at = context.now + latency;
        }
        if let Some(pace) = &mut self.pace {
            pace.advance();
            self.ready_at = self.ready_at.max(context.start + pace.due());
        }
        if self.settings.limit.is_some_and(|limit| limit <= self.taken) {
            self.acknowledge_all(out);
            self.done = true;
            context.shared.consumer_done();
        }
    }

    /// Asks for the next messages when polling, and writes what there is to write.
    pub(super) fn pump(&mut self, link: &mut Link, context: &mut Context<'_>) -> Result<Wake> {
        let mut wake = Wake::OnEvent;
        if !self.begun {
            match context.start + self.settings.begins {
                time if time <= context.now => self.begin(&mut link.out, context.now),
                time => wake = Wake::At(time),
            }
        }
        for channel in &mut self.channels {
            match channel.ask_at {
                Some(time) if time <= context.now && !self.done => {
                    channel.ask_at = None;
                    let queue = channel.queues[channel.turn];
                    channel.turn = (channel.turn + 1) % channel.queues.len();
                    channel.current.queue = queue;
                    let name = &self.settings.queues[queue];
                    let get = basic::Get { queue: name, no_ack: self.settings.autoack };
                    frame::write_method(&mut link.out, channel.number, &get);
                }
                Some(time) => wake = wake.or_at(time),
                None => {}
            }
        }
        link.flush()?;
        Ok(wake)
    }

    /// Acknowledges what was taken and not acknowledged yet.
    pub(super) fn acknowledge_all(&mut self, out: &mut Vec<u8>) {
        for channel in &mut self.channels {
            if 0 < channel.unacked && !self.settings.autoack {
                channel.ack(out, true, self.settings.nack);
            }
        }
    }
}

fn arguments(options: &Options) -> FieldTable {
    let mut arguments = table(&options.consumer_args);
    if let Some(offset) = &options.stream_consumer_offset {
        match offset.parse::<i64>() {
            Ok(number) => arguments.insert("x-stream-offset", number),
            Err(_) => arguments.insert("x-stream-offset", offset.as_str()),
        }
    }
    arguments
}

impl Channel {
    /// Reads a method that brings a message; `false`: another one.
    fn deliver(&mut self, payload: &[u8]) -> Result<bool> {
        let cut = || "the server sent a delivery that is cut off";
        let Some((ids, rest)) = payload.split_first_chunk::<4>() else { return Ok(false) };
        let rest = match ids {
            // basic.deliver: the consumer's tag comes first, which is the number of a queue.
            [0, 60, 0, 60] => {
                let (&length, rest) = rest.split_first().with_context(cut)?;
                let (tag, rest) = rest.split_at_checked(length.into()).with_context(cut)?;
                self.current.queue = tag
                    .iter()
                    .fold(0, |number, digit| number * 10 + usize::from(digit.wrapping_sub(b'0')));
                rest
            }
            // basic.get-ok
            [0, 60, 0, 71] => rest,
            _ => return Ok(false),
        };
        let (tag, rest) = rest.split_first_chunk::<8>().with_context(cut)?;
        self.current.tag = u64::from_be_bytes(*tag);
        self.current.redelivered = rest.first().with_context(cut)? & 1 != 0;
        Ok(true)
    }

    /// Acknowledges the message that was last completed, or with `multiple` all up to it; or refuses them, and says
    /// whether they go back.
    fn ack(&mut self, out: &mut Vec<u8>, multiple: bool, nack: Option<bool>) {
        let delivery_tag = self.current.tag;
        match nack {
            None => frame::write_method(out, self.number, &basic::Ack { delivery_tag, multiple }),
            Some(requeue) => {
                let nack = basic::Nack { delivery_tag, multiple, requeue };
                frame::write_method(out, self.number, &nack);
            }
        }
        self.unacked = 0;
    }
}

impl Current {
    fn header(&mut self, body_size: u64) {
        self.left = body_size;
        self.bytes = body_size;
        self.begun = false;
        self.reading.clear();
    }

    fn body(&mut self, piece: &[u8], clock_offset: u64, context: &mut Context<'_>) {
        if !self.begun {
            self.begun = true;
            if let Some(time) = body::time(piece) {
                context
                    .tally
                    .deliveries
                    .push(context.now.saturating_sub(time.wrapping_sub(clock_offset)));
            }
        }
        if context.shared.ledger().is_some() {
            self.reading.add(piece);
        }
        self.left = self.left.saturating_sub(piece.len() as u64);
    }
}
