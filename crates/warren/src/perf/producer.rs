//! One connection that publishes.
//!
//! Cost of a message: its method and content header are copied as they were encoded once, the body's size and the time
//! are written over, the body follows; 64 KiB of that go to the socket at once. A confirm takes entries off a queue.

use std::collections::VecDeque;

use anyhow::{Result, bail, ensure};
use warren_amqp::Method;
use warren_amqp::constants::{CLASS_BASIC, FRAME_BODY, FRAME_END};
use warren_amqp::frame::{self, Frame};
use warren_amqp::method::{basic, channel, confirm, tx};

use super::body::{self, Numbered, Reading};
use super::ledger::Ledger;
use super::link::{Link, refusal};
use super::pace::{Cycle, Pace};
use super::plan::{Plan, nanoseconds};
use super::worker::{Context, Stage, Wake};

/// So much is encoded before it is written.
const BATCH_BYTES: usize = 64 * 1024;
/// Batches in one go; then others have their turn.
const BATCHES: usize = 8;
/// How soon a publisher that waits for consumers looks again.
const BACKLOG_WAIT: u64 = 50_000;

pub(super) struct Producer {
    channels: Vec<Channel>,
    /// The channel whose turn it is.
    turn: usize,
    pace: Option<Pace>,
    sizes: (usize, usize),
    /// Sizes that change as time goes by.
    changing: Option<Cycle>,
    /// What bodies are made of, in turn; none: they are made up.
    bodies: Vec<Vec<u8>>,
    clock_offset: u64,
    /// When a producer without a schedule begins, in nanoseconds after the start.
    begins: u64,
    /// A body of `x`, as long as the longest.
    filler: Vec<u8>,
    random: u64,
    frame_max: u32,
    sent: u64,
    limit: Option<u64>,
    mode: Mode,
    confirm_timeout: u64,
    done: bool,
}

/// How publishes are settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Never,
    /// Confirms, and how many may be owed on a channel.
    Confirms(usize),
    /// Transactions of so many publishes.
    Transactions(usize),
}

struct Channel {
    number: u16,
    targets: Vec<Target>,
    /// The target whose turn it is.
    turn: usize,
    /// Publishes without confirm, in order; the delivery tag of the first is `first_tag`.
    owed: VecDeque<Owed>,
    first_tag: u64,
    /// A commit is on its way.
    committing: bool,
    /// A message that comes back.
    returning: Option<Returning>,
}

/// Where messages go: a queue, as a rule.
struct Target {
    /// With `--verify`, what its messages are numbered by.
    lane: u32,
    next_number: u64,
    /// Method and content header, for each of the messages that are sent in turn.
    heads: Vec<Head>,
    key: usize,
}

struct Head {
    bytes: Vec<u8>,
    /// Where the body's size stands in it.
    size_at: usize,
    /// How long after its time a message is due.
    due_after: u64,
}

#[derive(Clone, Copy)]
struct Owed {
    /// When it was to be sent.
    time: u64,
    lane: u32,
    number: u64,
    settled: bool,
}

#[derive(Default)]
struct Returning {
    left: u64,
    reading: Reading,
}

impl Producer {
    pub(super) fn new(plan: &Plan, index: usize, ledger: Option<&Ledger>) -> Self {
        let targets = plan.targets(index);
        let channels = (1..=plan.options.producer_channel_count).map(|number| Channel {
            number,
            targets: targets
                .iter()
                .map(|&queue| Target {
                    lane: ledger.map_or(0, |ledger| ledger.add_lane(plan.arrivals(queue))),
                    next_number: 0,
                    heads: heads(plan, number, queue),
                    key: 0,
                })
                .collect(),
            turn: 0,
            owed: VecDeque::new(),
            first_tag: 1,
            committing: false,
            returning: None,
        });
        let mode = match (plan.options.window(), plan.options.ptxsize) {
            (Some(window), _) => Mode::Confirms(window),
            (None, Some(size)) => Mode::Transactions(size.max(1)),
            (None, None) => Mode::Never,
        };
        Self {
            channels: channels.collect(),
            turn: 0,
            pace: plan.publishing_pace(index),
            sizes: plan.sizes,
            changing: Cycle::new(&plan.options.variable_size),
            bodies: plan.bodies.clone(),
            clock_offset: plan.clock_offset,
            begins: plan.start_delay(index),
            filler: vec![b'x'; plan.sizes.1],
            random: 0x9E37_79B9_7F4A_7C15 ^ (index as u64 + 1),
            frame_max: 0,
            sent: 0,
            limit: plan.options.pmessages,
            mode,
            confirm_timeout: nanoseconds(plan.options.confirm_timeout),
            done: false,
        }
    }

    /// Opens the channels of a new connection. Blocks.
    pub(super) fn open(plan: &Plan, link: &mut Link, index: usize, again: bool) -> Result<()> {
        for number in 1..=plan.options.producer_channel_count {
            link.call(number, &channel::Open {}, "channel.open-ok")?;
            if plan.options.window().is_some() {
                link.call(number, &confirm::Select { no_wait: false }, "confirm.select-ok")?;
            } else if plan.options.ptxsize.is_some() {
                link.call(number, &tx::Select {}, "tx.select-ok")?;
            }
        }
        if again {
            link.declare(plan, 1, &plan.targets(index))?;
        }
        Ok(())
    }

    /// There is a new connection. What the old one owed stays in doubt: it may or may not be in its queues.
    pub(super) fn opened(&mut self, link: &Link, context: &mut Context<'_>) {
        self.frame_max = link.frame_max;
        for channel in &mut self.channels {
            let owed = channel.owed.iter().filter(|owed| !owed.settled).count() as u64;
            context.shared.add_in_doubt(owed);
            channel.owed.clear();
            channel.first_tag = 1;
            channel.committing = false;
            channel.returning = None;
        }
    }

    pub(super) fn frame(&mut self, frame: Frame<'_>, context: &mut Context<'_>) -> Result<()> {
        let Some(channel) = usize::from(frame.channel())
            .checked_sub(1)
            .and_then(|index| self.channels.get_mut(index))
        else {
            return context.connection_frame(frame);
        };
        match frame {
            Frame::Method { payload, .. } => match Method::decode(payload)? {
                Method::BasicAck(ack) => {
                    channel.settle(ack.delivery_tag, ack.multiple, true, context)
                }
                Method::BasicNack(nack) => {
                    channel.settle(nack.delivery_tag, nack.multiple, false, context)
                }
                Method::TxCommitOk(_) => {
                    channel.committing = false;
                    let last = channel.first_tag + channel.owed.len() as u64;
                    channel.settle(last.saturating_sub(1), true, true, context)
                }
                Method::BasicReturn(_) => {
                    context.tally.counts.returned += 1;
                    channel.returning = Some(Returning::default());
                    Ok(())
                }
                method => refusal(&method),
            },
            Frame::Header { body_size, .. } => {
                if let Some(returning) = &mut channel.returning {
                    returning.left = body_size;
                }
                Ok(())
            }
            Frame::Body { payload, .. } => channel.returned(payload, context),
            Frame::Heartbeat => Ok(()),
        }
    }

    /// Publishes what is due and what may be.
    pub(super) fn pump(&mut self, link: &mut Link, context: &mut Context<'_>) -> Result<Wake> {
        for _ in 0..BATCHES {
            if !link.flush()? {
                return Ok(Wake::OnEvent);
            }
            if context.stage != Stage::Running || self.done {
                return Ok(Wake::OnEvent);
            }
            let wake = self.fill(&mut link.out, context);
            if wake != Wake::Again {
                link.flush()?;
                return Ok(wake);
            }
        }
        Ok(Wake::Again)
    }

    /// An error when a confirm is late.
    pub(super) fn check(&self, now: u64) -> Result<()> {
        for channel in &self.channels {
            if let (Some(owed), true) = (channel.owed.front(), self.mode != Mode::Never)
                && self.confirm_timeout < now.saturating_sub(owed.time)
            {
                let seconds = self.confirm_timeout / super::clock::SECOND;
                bail!(
                    "no confirm for a message that was to be sent {seconds} s ago (--confirm-timeout)"
                );
            }
        }
        Ok(())
    }

    /// Encodes messages until there is a batch, or a reason to wait.
    fn fill(&mut self, out: &mut Vec<u8>, context: &mut Context<'_>) -> Wake {
        let before = self.sent;
        let wake = self.encode(out, context);
        context.shared.note_published(self.sent - before);
        wake
    }

    fn encode(&mut self, out: &mut Vec<u8>, context: &mut Context<'_>) -> Wake {
        let mut room = context.shared.room();
        while out.len() < BATCH_BYTES {
            if self.limit.is_some_and(|limit| limit <= self.sent) {
                self.finish(out);
                self.done = true;
                context.shared.producer_done();
                return Wake::OnEvent;
            }
            if room == 0 {
                return Wake::At(context.now + BACKLOG_WAIT);
            }
            let time = match &self.pace {
                None if context.now < context.start + self.begins => {
                    return Wake::At(context.start + self.begins);
                }
                None => context.now,
                Some(pace) => match context.start + pace.due() {
                    due if due <= context.now => due,
                    due => return Wake::At(due),
                },
            };
            let Some(index) = self.free_channel() else { return Wake::OnEvent };
            self.publish(index, time, out, context);
            if let Some(pace) = &mut self.pace {
                pace.advance();
            }
            room -= 1;
        }
        Wake::Again
    }

    /// The next channel that may publish.
    fn free_channel(&mut self) -> Option<usize> {
        let count = self.channels.len();
        let free = |channel: &Channel| match self.mode {
            Mode::Never => true,
            Mode::Confirms(window) => channel.owed.len() < window,
            Mode::Transactions(_) => !channel.committing,
        };
        let index = (self.turn..self.turn + count)
            .map(|index| index % count)
            .find(|&index| free(&self.channels[index]))?;
        self.turn = (index + 1) % count;
        Some(index)
    }

    fn publish(&mut self, index: usize, time: u64, out: &mut Vec<u8>, context: &mut Context<'_>) {
        let own = self.bodies.get(self.sent as usize % self.bodies.len().max(1));
        let size = match own {
            Some(body) => body.len(),
            None => size(
                &mut self.random,
                self.sizes,
                &self.changing,
                context.now.saturating_sub(context.start),
            ),
        };
        let channel = &mut self.channels[index];
        let turn = channel.turn;
        channel.turn = (turn + 1) % channel.targets.len();
        let target = &mut channel.targets[turn];
        let head = &target.heads[target.key];
        target.key = (target.key + 1) % target.heads.len();
        let at = out.len();
        out.extend_from_slice(&head.bytes);
        out[at + head.size_at..at + head.size_at + 8].copy_from_slice(&(size as u64).to_be_bytes());
        let due = (time + head.due_after).wrapping_add(self.clock_offset);
        let number = target.next_number;
        target.next_number += 1;
        let made = &mut self.filler[..if own.is_some() { 0 } else { size }];
        match context.shared.ledger() {
            Some(ledger) => {
                let run = ledger.run();
                body::number(made, due, Numbered { run, lane: target.lane, number });
                ledger.published(target.lane, number);
            }
            None => body::stamp(made, due),
        }
        let body = own.map_or(&*made, |body| body);
        for piece in body.chunks(frame::body_bytes_max(self.frame_max)) {
            out.extend_from_slice(&frame::frame_header(
                FRAME_BODY,
                channel.number,
                piece.len() as u32,
            ));
            out.extend_from_slice(piece);
            out.push(FRAME_END);
        }
        if self.mode != Mode::Never {
            channel.owed.push_back(Owed { time, lane: target.lane, number, settled: false });
        }
        if let Mode::Transactions(count) = self.mode
            && count <= channel.owed.len()
        {
            channel.commit(out);
        }
        self.sent += 1;
        context.tally.counts.published += 1;
        context.tally.counts.published_bytes += size as u64;
    }

    /// Commits what is left of the last transactions.
    fn finish(&mut self, out: &mut Vec<u8>) {
        if let Mode::Transactions(_) = self.mode {
            for channel in &mut self.channels {
                if !channel.owed.is_empty() && !channel.committing {
                    channel.commit(out);
                }
            }
        }
    }
}

/// Of the next body.
fn size(
    random: &mut u64,
    (least, most): (usize, usize),
    changing: &Option<Cycle>,
    time: u64,
) -> usize {
    if least == most {
        return least;
    }
    if let Some(changing) = changing {
        return changing.at(time) as usize;
    }
    // xorshift64: any spread will do, and the same with every run.
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    least + (*random % (most - least + 1) as u64) as usize
}

impl Channel {
    fn commit(&mut self, out: &mut Vec<u8>) {
        frame::write_method(out, self.number, &tx::Commit {});
        self.committing = true;
    }

    /// The server has taken messages, or refused them.
    fn settle(
        &mut self,
        tag: u64,
        multiple: bool,
        taken: bool,
        context: &mut Context<'_>,
    ) -> Result<()> {
        let end = tag.checked_sub(self.first_tag).map(|index| index as usize);
        let end = match end {
            Some(index) if index < self.owed.len() => index,
            // A tag of 0 with `multiple` is all there are.
            None if tag == 0 && multiple && !self.owed.is_empty() => self.owed.len() - 1,
            _ => bail!("the server confirms delivery tag {tag}, which nobody waits for"),
        };
        for index in if multiple { 0..=end } else { end..=end } {
            let owed = &mut self.owed[index];
            if multiple && owed.settled {
                continue;
            }
            ensure!(!owed.settled, "the server confirms delivery tag {tag} twice");
            owed.settled = true;
            if taken {
                context.tally.counts.confirmed += 1;
                context.tally.confirms.push(context.now.saturating_sub(owed.time));
                if let Some(ledger) = context.shared.ledger() {
                    ledger.confirmed(owed.lane, owed.number);
                }
            } else {
                context.tally.counts.nacked += 1;
            }
        }
        while self.owed.front().is_some_and(|owed| owed.settled) {
            self.owed.pop_front();
            self.first_tag += 1;
        }
        Ok(())
    }

    /// A piece of the body of a message that no queue has taken: nobody is to wait for it.
    fn returned(&mut self, piece: &[u8], context: &mut Context<'_>) -> Result<()> {
        let Some(returning) = &mut self.returning else { return Ok(()) };
        returning.reading.add(piece);
        returning.left = returning.left.saturating_sub(piece.len() as u64);
        if returning.left == 0 {
            if let (Some(ledger), Ok(Some(message))) =
                (context.shared.ledger(), returning.reading.finish())
            {
                ledger.returned(message);
            }
            self.returning = None;
        }
        Ok(())
    }
}

/// What precedes the bodies of messages on this channel for this queue.
fn heads(plan: &Plan, number: u16, queue: usize) -> Vec<Head> {
    let messages = plan.messages(queue).into_iter();
    messages
        .map(|(routing_key, properties, due_after)| {
            let publish = basic::Publish {
                exchange: &plan.exchange,
                routing_key: &routing_key,
                mandatory: plan.mandatory,
                immediate: false,
            };
            let mut bytes = Vec::new();
            frame::write_method(&mut bytes, number, &publish);
            // Frame header, class and weight stand before the size.
            let size_at = bytes.len() + frame::frame_header(0, 0, 0).len() + 4;
            frame::write_content_header(&mut bytes, number, CLASS_BASIC, &properties, 0);
            Head { bytes, size_at, due_after }
        })
        .collect()
}
