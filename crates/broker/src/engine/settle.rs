//! Acknowledgements in both directions: of deliveries by consumers, of publishes by us; and transactions.

use warren_amqp::ReplyCode;
use warren_amqp::method::{basic, tx};

use super::Engine;
use super::deadletter::Reason;
use crate::channel::{
    Channel, ChannelKey, Confirms, Fetcher, Held, Mode, Owed, REFUSED, Tx, Unacked, Verdict,
    count_held,
};
use crate::connection::Connection;
use crate::exception::Exception;
use crate::queue::QueueKey;

/// Of the deliveries of a channel that holds many, so many stay in memory.
const HERE_MIN_OF_LONG: usize = 8 * 1024;

impl Engine {
    /// Settles one delivery, or all up to `tag` (all there are for 0). In a transaction, at its commit.
    pub(crate) fn settle(
        &mut self,
        key: ChannelKey,
        tag: u64,
        multiple: bool,
        verdict: Verdict,
    ) -> Result<(), Exception> {
        let Some(channel) = self.channels.get_mut(key) else { return Ok(()) };
        let unknown = || Exception::precondition(format!("unknown delivery tag {tag}"));
        let (in_tx, limited) = (matches!(channel.mode, Mode::Tx(_)), channel.prefetch_all != 0);
        // What nearly every consumer does with nearly every message: nothing is allocated.
        let plain = matches!(verdict, Verdict::Ack | Verdict::Discard) && !in_tx;
        if plain && !multiple {
            let unacked = channel.settle(tag).ok_or_else(unknown)?;
            self.finish(unacked, verdict);
        } else if plain {
            for _ in 0..channel.places_up_to(tag).ok_or_else(unknown)? {
                let unacked = self.channels.get_mut(key).and_then(Channel::take_first);
                if let Some(unacked) = unacked {
                    self.finish(unacked, verdict);
                }
            }
        } else {
            let settled = if multiple {
                channel.settle_up_to(tag)
            } else {
                channel.settle(tag).map(|unacked| vec![(tag, unacked)])
            };
            let settled = settled.ok_or_else(unknown)?;
            if let Mode::Tx(tx) = &mut channel.mode {
                // The channel has no more room than before until the commit.
                channel.held += count_held(settled.iter().map(|(_, unacked)| unacked));
                let verdicts = settled.into_iter().map(|(tag, unacked)| (tag, unacked, verdict));
                tx.verdicts.extend(verdicts);
                return Ok(());
            }
            self.apply(settled, verdict);
        }
        if limited {
            self.mark_consumed(key);
        }
        Ok(())
    }

    fn apply(&mut self, settled: Vec<(u64, Unacked)>, verdict: Verdict) {
        if matches!(verdict, Verdict::Requeue | Verdict::Fail) {
            return self.requeue(settled, verdict == Verdict::Fail);
        }
        for (_, unacked) in settled {
            self.finish(unacked, verdict);
        }
    }

    /// A delivery is done with.
    fn finish(&mut self, unacked: Unacked, verdict: Verdict) {
        self.release(&unacked);
        match unacked.held {
            Held::Here(entry) if verdict == Verdict::Discard => {
                self.discard(unacked.queue, entry, Reason::Rejected);
            }
            Held::Here(entry) => self.forget(unacked.queue, entry),
            away => self.finish_away(unacked.queue, away, verdict),
        }
    }

    /// The same, when its message is on disk.
    #[cold]
    fn finish_away(&mut self, queue: QueueKey, held: Held, verdict: Verdict) {
        match held {
            Held::Away(away) if verdict != Verdict::Discard => self.forget_all([away.place]),
            held => {
                if let Some(entry) = Fetcher::default().fetch(held) {
                    self.discard(queue, entry, Reason::Rejected);
                }
            }
        }
    }

    /// A channel holds more deliveries than should be in memory.
    #[cold]
    pub(super) fn shorten_unacked(&mut self, key: ChannelKey) {
        self.page_unacked(key, HERE_MIN_OF_LONG);
    }

    /// Writes what a channel holds to disk, all but the `keep` youngest.
    pub(crate) fn page_unacked(&mut self, key: ChannelKey, keep: usize) {
        let (Some(pages), Some(channel)) = (&self.pages, self.channels.get_mut(key)) else {
            return;
        };
        let queues = &self.queues;
        let is_stream = |key| queues.get(key).is_none_or(|queue| queue.stream.is_some());
        channel.page_out(pages, keep, is_stream);
    }

    /// The consumer has room for one more.
    fn release(&mut self, unacked: &Unacked) {
        if let Some(key) = unacked.consumer
            && let Some(consumer) = self.consumers.get_mut(key)
        {
            consumer.unacked -= 1;
            self.wake(unacked.queue, key);
        }
    }

    /// Puts deliveries back where they were, to be delivered again, after a wait if the queue says so. In the order
    /// of their tags; `failed` if their consumer could not do with them.
    pub(super) fn requeue(&mut self, settled: Vec<(u64, Unacked)>, failed: bool) {
        let (mut given_up, mut fetcher) = (Vec::new(), Fetcher::default());
        // The last first: each then goes to the front.
        for (_, unacked) in settled.into_iter().rev() {
            self.release(&unacked);
            self.mark(unacked.queue);
            let Some(mut entry) = fetcher.fetch(unacked.held) else { continue };
            if let Some(queue) = self.queues.get_mut(unacked.queue) {
                if queue.stream.is_some() {
                    // It is still there; its consumer goes on, as in RabbitMQ.
                    continue;
                }
                entry.redelivered = true;
                entry.delivery_count += 1;
                let limit = queue.settings.delivery_limit;
                if limit.is_some_and(|limit| limit < entry.delivery_count) {
                    given_up.push((unacked.queue, entry));
                    continue;
                }
                let count = entry.delivery_count;
                let delay_ms =
                    queue.settings.retry.map_or(0, |retry| retry.delay_ms(failed, count));
                let due_ms = if delay_ms == 0 { 0 } else { self.now_ms.saturating_add(delay_ms) };
                if entry.place != 0
                    && let Some(store) = &mut self.store
                {
                    store.counted(entry.place, count, due_ms);
                }
                if due_ms == 0 {
                    queue.put_back(entry);
                } else {
                    queue.wait(entry, due_ms);
                    self.arm_retry(unacked.queue);
                }
            } else {
                self.forget(unacked.queue, entry);
            }
        }
        for (queue, entry) in given_up.into_iter().rev() {
            self.discard(queue, entry, Reason::DeliveryLimit);
        }
    }

    /// `basic.recover`: everything the channel holds is delivered again.
    pub(crate) fn recover(&mut self, key: ChannelKey) {
        let held = self.channels.get_mut(key).and_then(|channel| channel.settle_up_to(0));
        self.requeue(held.unwrap_or_default(), false);
        self.mark_consumed(key);
    }

    /// `basic.qos`. A prefetch for the channel holds at once, one for consumers with the next consumer.
    pub(crate) fn set_prefetch(&mut self, key: ChannelKey, count: u16, global: bool) {
        let Some(channel) = self.channels.get_mut(key) else { return };
        if global {
            channel.prefetch_all = count.into();
            self.mark_consumed(key);
        } else {
            channel.prefetch_new = count.into();
        }
    }

    pub(crate) fn select_confirms(&mut self, key: ChannelKey) -> Result<(), Exception> {
        let Some(channel) = self.channels.get_mut(key) else { return Ok(()) };
        match channel.mode {
            Mode::Tx(_) => Err(Exception::precondition("cannot switch from tx to confirm mode")),
            Mode::Confirm(_) => Ok(()),
            Mode::Plain => {
                channel.mode = Mode::Confirm(Confirms::default());
                Ok(())
            }
        }
    }

    pub(crate) fn select_tx(&mut self, key: ChannelKey) -> Result<(), Exception> {
        let Some(channel) = self.channels.get_mut(key) else { return Ok(()) };
        match channel.mode {
            Mode::Confirm(_) => {
                Err(Exception::precondition("cannot switch from confirm to tx mode"))
            }
            Mode::Tx(_) => Ok(()),
            Mode::Plain => {
                channel.mode = Mode::Tx(Tx::default());
                Ok(())
            }
        }
    }

    /// Does what the transaction has gathered. `commit-ok` is sent once it is on disk.
    pub(crate) fn commit(&mut self, key: ChannelKey) -> Result<(), Exception> {
        let (publishes, verdicts) = self.take_tx(key)?;
        let waits_for = self.at_once(|engine| {
            let mut waits_for = 0;
            for publish in publishes {
                // What a full queue refuses is lost without a word, as in RabbitMQ.
                waits_for = waits_for.max(engine.publish_now(key, publish).0);
            }
            engine.give_room(key, &verdicts);
            for (tag, unacked, verdict) in verdicts {
                engine.apply(vec![(tag, unacked)], verdict);
            }
            // What it has settled does not come again.
            let settled = engine.store.as_mut().map_or(0, crate::store::Store::await_settled);
            waits_for.max(settled)
        });
        self.mark_consumed(key);
        if let Some(Mode::Tx(tx)) = self.channels.get_mut(key).map(|channel| &mut channel.mode) {
            tx.committing = Some(waits_for);
        }
        self.owe(key);
        Ok(())
    }

    /// Forgets what the transaction has gathered. Deliveries settled in it are unsettled again.
    pub(crate) fn rollback(&mut self, key: ChannelKey) -> Result<(), Exception> {
        let (_, verdicts) = self.take_tx(key)?;
        self.give_room(key, &verdicts);
        if let Some(channel) = self.channels.get_mut(key) {
            for (tag, unacked, _) in verdicts {
                channel.hold_again(tag, unacked);
            }
        }
        Ok(())
    }

    /// What a transaction has settled takes up a channel's room no longer.
    fn give_room(&mut self, key: ChannelKey, verdicts: &[(u64, Unacked, Verdict)]) {
        if let Some(channel) = self.channels.get_mut(key) {
            channel.held -= count_held(verdicts.iter().map(|(_, unacked, _)| unacked));
        }
    }

    #[expect(clippy::type_complexity, reason = "the two halves of a transaction")]
    fn take_tx(
        &mut self,
        key: ChannelKey,
    ) -> Result<(Vec<crate::channel::Publish>, Vec<(u64, Unacked, Verdict)>), Exception> {
        match self.channels.get_mut(key).map(|channel| &mut channel.mode) {
            Some(Mode::Tx(tx)) => {
                Ok((std::mem::take(&mut tx.publishes), std::mem::take(&mut tx.verdicts)))
            }
            _ => Err(Exception::precondition("channel is not transactional")),
        }
    }

    /// Sends the answers and confirms that wait for nothing more.
    pub(super) fn pay(&mut self) {
        let mut owing = std::mem::take(&mut self.owing);
        let (mut broken, mut answered, mut ended) = (Vec::new(), Vec::new(), Vec::new());
        owing.retain(|key| {
            let (synced, failed) = (self.synced, self.failed);
            let Some(channel) = self.channels.get_mut(*key) else { return false };
            let Some(connection) = self.connections.get(channel.connection) else { return false };
            let waited = !channel.answers.is_empty();
            channel.pay(connection, synced, failed);
            if waited && channel.answers.is_empty() {
                answered.push(*key);
            }
            channel.owed = channel.is_owed();
            if channel.owed && failed {
                // It stays marked, and off the list: its connection is closed once.
                broken.push(channel.connection);
                return false;
            }
            if channel.ending.is_some() && !channel.owed {
                ended.push(*key);
            }
            channel.owed
        });
        owing.append(&mut self.owing);
        self.owing = owing;
        // A definition or a commit that cannot be kept has no answer of its own.
        let exception = Exception::hard(ReplyCode::INTERNAL_ERROR, "the store cannot write");
        for connection in broken {
            self.force_close(connection, &exception);
        }
        for channel in answered {
            // Deliveries must not overtake the answer to `basic.consume`.
            self.mark_consumed(channel);
            let connection = self.channels.get(channel).map(|channel| channel.connection);
            if let Some(connection) = connection.and_then(|key| self.connections.get_mut(key))
                && std::mem::take(&mut connection.awaits_answer)
                && !connection.blocked
            {
                connection.transport.resume_reading();
            }
        }
        for channel in ended {
            self.finish_channel(channel);
        }
    }
}

impl Channel {
    fn is_owed(&self) -> bool {
        let mode = match &self.mode {
            Mode::Plain => false,
            Mode::Tx(tx) => tx.committing.is_some(),
            Mode::Confirm(confirms) => !confirms.owed.is_empty(),
        };
        mode || !self.answers.is_empty()
    }

    fn pay(&mut self, connection: &Connection, synced: u64, failed: bool) {
        let number = self.number;
        while let Some((waits_for, frame)) = self.answers.front() {
            if synced < *waits_for {
                break;
            }
            connection.transport.write(frame);
            self.answers.pop_front();
        }
        match &mut self.mode {
            Mode::Plain => {}
            Mode::Tx(tx) => {
                if let Some(waits_for) = tx.committing
                    && waits_for <= synced
                {
                    tx.committing = None;
                    connection.send(number, &tx::CommitOk {});
                }
            }
            Mode::Confirm(confirms) => confirms.pay(synced, failed, |tag, multiple, done| {
                if done {
                    connection.send(number, &basic::Ack { delivery_tag: tag, multiple });
                } else {
                    connection
                        .send(number, &basic::Nack { delivery_tag: tag, multiple, requeue: false });
                }
            }),
        }
    }
}

impl Confirms {
    /// Calls `send` with number, whether it stands for all before it, and whether it is an ack.
    fn pay(&mut self, synced: u64, failed: bool, mut send: impl FnMut(u64, bool, bool)) {
        /// Publishes in a row with the same answer.
        #[derive(Clone, Copy)]
        struct Run {
            last: u64,
            count: u64,
            done: bool,
        }
        let mut run: Option<Run> = None;
        while let Some(Owed { last, count, waits_for }) = self.owed.front().copied() {
            let done = waits_for <= synced;
            if !done && !failed && waits_for != REFUSED {
                break;
            }
            self.owed.pop_front();
            run = Some(match run {
                Some(run) if run.done == done => Run { last, count: run.count + count, done },
                other => {
                    if let Some(run) = other {
                        send(run.last, run.count > 1, run.done);
                    }
                    Run { last, count, done }
                }
            });
        }
        if let Some(run) = run {
            send(run.last, run.count > 1, run.done);
        }
    }
}
