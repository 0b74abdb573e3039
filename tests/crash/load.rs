//! The load: fibers that publish and consume in different ways, each until its connection breaks.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use warren::amqp::client::{
    Channel, Connection, ConsumeOptions, Delivery, Error, ExchangeOptions, Publish, QueueOptions,
};
use warren::amqp::{BasicProperties, FieldTable};
use warren::hub::{JoinHandle, sleep, spawn, yield_now};

use crate::chance::{Chance, body, id_of};
use crate::ledger::{Ack, Entry, Found, Ledger, now_ms};
use crate::places::{self, LATER, VHOSTS, place_of, sync_of};

/// What is wrong with the server.
pub(crate) type Faults = Rc<RefCell<Vec<String>>>;

/// The longest wait of a delayed message.
pub(crate) const DELAY_MS_MAX: u64 = 250;
/// Where bindings that come and go begin.
pub(crate) const BOUND: &str = "amq.direct";

/// A fiber's surroundings.
#[derive(Clone)]
pub(crate) struct Flow {
    url: String,
    pub(crate) ledger: Ledger,
    pub(crate) faults: Faults,
    pub(crate) chance: Chance,
    /// Its number, another one with each load.
    pub(crate) publisher: u64,
    /// The path of its virtual host.
    vhost: &'static str,
}

/// Declares what is not there yet.
pub(crate) fn declare(url: &str) -> Result<(), Error> {
    for vhost in VHOSTS {
        let connection = Connection::open(&format!("{url}{vhost}"))?;
        places::declare(&connection.channel()?, vhost)?;
        connection.close()?;
    }
    Ok(())
}

type Work = fn(&mut Flow) -> Result<(), Error>;

const WORK: [Work; 26] = [
    |flow| flow.publish("", "plain", &["plain"], Flow::plainly),
    |flow| flow.publish("", "plain", &["plain"], Flow::plainly),
    |flow| flow.publish("", "requeued", &["requeued"], Flow::plainly),
    |flow| flow.publish("fan", "", &["fan.0", "fan.1", "fan.2"], Flow::plainly),
    |flow| flow.publish("", "priority", &["priority"], Flow::with_priority),
    |flow| flow.publish("", "taken", &["taken"], Flow::plainly),
    |flow| flow.publish("", "rejected", &["rejected"], Flow::plainly),
    |flow| flow.publish("", "expired", &["expired"], Flow::plainly),
    |flow| flow.publish("", "overflown", &["overflown"], Flow::plainly),
    |flow| flow.publish("", "careful", &["careful"], Flow::plainly),
    |flow| flow.publish("", "limited", &["limited"], Flow::plainly),
    |flow| flow.publish(LATER, "delayed", &["delayed"], Flow::plainly),
    |flow| flow.consume("plain", Flow::acknowledge),
    |flow| flow.consume("fan.1", Flow::acknowledge),
    |flow| flow.consume("requeued", Flow::give_back),
    |flow| flow.consume("priority", Flow::acknowledge),
    |flow| flow.consume("rejected", Flow::reject),
    |flow| flow.consume("careful", Flow::reject),
    |flow| flow.consume("limited", Flow::give_back),
    |flow| flow.consume("delayed", Flow::give_back),
    |flow| flow.take("taken"),
    Flow::transactions,
    Flow::moves,
    Flow::write_stream,
    Flow::read_stream,
    Flow::definitions,
];

const SECOND: [Work; 5] = [
    |flow| flow.publish("", "plain", &["two: plain"], Flow::plainly),
    |flow| flow.publish("", "priority", &["two: priority"], Flow::with_priority),
    |flow| flow.publish("", "limited", &["two: limited"], Flow::plainly),
    |flow| flow.consume("two: plain", Flow::acknowledge),
    |flow| flow.consume("two: limited", Flow::give_back),
];

/// Starts fibers, more than half of all there are. Each ends when its connection breaks.
pub(crate) fn start(
    url: &str,
    ledger: &Ledger,
    faults: &Faults,
    chance: &mut Chance,
) -> Vec<JoinHandle<()>> {
    let first = WORK.into_iter().map(|work| (work, VHOSTS[0]));
    let all = first.chain(SECOND.into_iter().map(|work| (work, VHOSTS[1])));
    let mut fibers = Vec::new();
    for (work, vhost) in all {
        if chance.one_in(3) {
            continue;
        }
        let (ledger, faults) = (ledger.clone(), faults.clone());
        let (url, publisher) = (format!("{url}{vhost}"), chance.next());
        let mut flow = Flow { url, ledger, faults, chance: chance.fork(), publisher, vhost };
        // How it ends is the killer's doing.
        fibers.push(spawn(move || drop(work(&mut flow))));
    }
    fibers
}

impl Flow {
    pub(crate) fn open(&self) -> Result<(Connection, Channel), Error> {
        let connection = Connection::open(&self.url)?;
        let channel = connection.channel()?;
        Ok((connection, channel))
    }

    fn plainly(&mut self) -> u8 {
        0
    }

    fn with_priority(&mut self) -> u8 {
        self.chance.below(6) as u8
    }

    /// Publishes batches with confirms, for ever.
    fn publish(
        &mut self,
        exchange: &str,
        key: &str,
        places: &[&'static str],
        priority: fn(&mut Self) -> u8,
    ) -> Result<(), Error> {
        let (_connection, channel) = self.open()?;
        channel.confirm_select()?;
        loop {
            let mut ids = Vec::new();
            for _ in 0..=self.chance.below(20) {
                let (priority, publisher) = (priority(self), self.publisher);
                let mut entry = Entry { priority, publisher, ..Entry::default() };
                let mut properties =
                    BasicProperties { priority: Some(priority), ..BasicProperties::persistent() };
                if exchange == LATER {
                    let delay_ms = self.chance.below(DELAY_MS_MAX);
                    entry.due_ms = now_ms() + delay_ms;
                    properties = properties.with_header("x-delay", delay_ms as i64);
                }
                let id = self.ledger.publish(places, entry);
                ids.push(id);
                channel.basic_publish(Publish::to(exchange, key), &properties, &body(id))?;
            }
            channel.wait_for_confirms()?;
            self.ledger.confirm(places, &ids);
        }
    }

    /// Queues, exchanges and bindings that come and go.
    fn definitions(&mut self) -> Result<(), Error> {
        let (_connection, channel) = self.open()?;
        loop {
            let name = format!("passing.{}", self.chance.below(20));
            let there = self.ledger.with(|book| book.queues.get(&name).copied().flatten());
            match self.chance.below(3) {
                0 => {
                    let there = self
                        .ledger
                        .with(|book| book.exchanges.insert(name.clone(), None).flatten());
                    if there == Some(true) {
                        channel.exchange_delete(&name, false)?;
                    } else {
                        let options = ExchangeOptions { durable: true, ..Default::default() };
                        channel.exchange_declare(&name, "topic", options)?;
                    }
                    self.ledger.with(|book| book.exchanges.insert(name, Some(there != Some(true))));
                }
                1 if there == Some(true) => {
                    let bound =
                        self.ledger.with(|book| book.bindings.insert(name.clone(), None).flatten());
                    if bound == Some(true) {
                        channel.queue_unbind(&name, BOUND, &name, FieldTable::new())?;
                    } else {
                        channel.queue_bind(&name, BOUND, &name)?;
                    }
                    self.ledger.with(|book| book.bindings.insert(name, Some(bound != Some(true))));
                }
                _ => {
                    self.ledger.with(|book| {
                        book.queues.insert(name.clone(), None);
                        book.bindings.insert(name.clone(), None);
                    });
                    if there == Some(true) {
                        channel.queue_delete(&name, false, false)?;
                    } else {
                        let options = QueueOptions { durable: true, ..QueueOptions::default() };
                        channel.queue_declare(&name, options)?;
                    }
                    self.ledger.with(|book| {
                        // Of a queue that may have been there the bindings may be, too.
                        let bound = (there.is_some()).then_some(false);
                        book.bindings.insert(name.clone(), bound);
                        book.queues.insert(name, Some(there != Some(true)));
                    });
                }
            }
        }
    }

    /// Takes note of a delivery from a place's first queue.
    fn had(&self, place: &'static str, delivery: &Delivery) {
        let Some(found) = Found::new(delivery, 0) else {
            self.faults.borrow_mut().push(format!("{place}: the body of a message is damaged"));
            return;
        };
        let faults = self.ledger.deliver(place_of(place), &found);
        self.faults.borrow_mut().extend(faults);
    }

    /// Consumes, for ever. `settle` is given what has gathered.
    fn consume(
        &mut self,
        place: &'static str,
        settle: fn(&mut Self, &mut Vec<Delivery>, &mut Settled) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (_connection, channel) = self.open()?;
        channel.confirm_select()?;
        channel.basic_qos(30, false)?;
        let mut sent = Settled { place, ..Settled::default() };
        let mut held = Vec::new();
        let queue = place_of(place).queues[0];
        for delivery in channel.basic_consume(queue, ConsumeOptions::default())? {
            let delivery = delivery?;
            self.had(place, &delivery);
            held.push(delivery);
            if held.len() < 10 && !self.chance.one_in(4) {
                continue;
            }
            settle(self, &mut held, &mut sent)?;
            if self.chance.one_in(5) {
                // What was sent before this was on disk when it is confirmed.
                sync(&channel, &self.ledger, self.publisher, self.vhost)?;
                self.ledger.acks(place, &sent.acked, Ack::Synced);
                self.ledger.returned(place, &sent.returned);
                sent = Settled { place, ..Settled::default() };
            }
            yield_now();
        }
        Ok(())
    }

    /// Gets messages that are settled by that alone, or gives them back.
    fn take(&mut self, place: &'static str) -> Result<(), Error> {
        let (_connection, channel) = self.open()?;
        let queue = place_of(place).queues[0];
        if self.chance.one_in(2) {
            let options = ConsumeOptions { no_ack: true, ..ConsumeOptions::default() };
            for delivery in channel.basic_consume(queue, options)? {
                self.had(place, &delivery?);
            }
        }
        loop {
            let no_ack = self.chance.one_in(2);
            match channel.basic_get(queue, no_ack)? {
                Some(got) => {
                    self.had(place, &got.delivery);
                    if !no_ack {
                        got.delivery.nack(true)?;
                    }
                }
                None => sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Some one by one in any order, some together.
    fn acknowledge(&mut self, held: &mut Vec<Delivery>, sent: &mut Settled) -> Result<(), Error> {
        if let (Some(last), true) = (held.last(), self.chance.one_in(2)) {
            held.iter().for_each(|delivery| sent.ack(self, delivery));
            last.channel().basic_ack(last.delivery_tag, true)?;
            held.clear();
            return Ok(());
        }
        for _ in 0..held.len() / 2 {
            let index = self.chance.below(held.len() as u64) as usize;
            let delivery = held.swap_remove(index);
            sent.ack(self, &delivery);
            delivery.ack()?;
        }
        held.sort_by_key(|delivery| delivery.delivery_tag);
        Ok(())
    }

    /// Most go back into the queue.
    fn give_back(&mut self, held: &mut Vec<Delivery>, sent: &mut Settled) -> Result<(), Error> {
        for delivery in held.drain(..) {
            if self.chance.one_in(3) {
                sent.ack(self, &delivery);
                delivery.ack()?;
            } else {
                sent.give_back(self, &delivery);
                delivery.nack(true)?;
            }
        }
        Ok(())
    }

    /// They become dead letters, within the same place.
    fn reject(&mut self, held: &mut Vec<Delivery>, _: &mut Settled) -> Result<(), Error> {
        held.drain(..).try_for_each(|delivery| delivery.reject(false))
    }
}

/// Messages of which a client says something, noted before it says it: it may come, whatever becomes of the client.
#[derive(Default)]
struct Settled {
    place: &'static str,
    acked: Vec<u64>,
    returned: Vec<u64>,
}

impl Settled {
    fn ack(&mut self, flow: &Flow, delivery: &Delivery) {
        if let Some(id) = id_of(&delivery.body) {
            flow.ledger.acks(self.place, &[id], Ack::Sent);
            self.acked.push(id);
        }
    }

    fn give_back(&mut self, flow: &Flow, delivery: &Delivery) {
        if let Some(id) = id_of(&delivery.body) {
            flow.ledger.returns(self.place, &[id]);
            self.returned.push(id);
        }
    }
}

/// A persistent message on this channel, confirmed: all that the channel has sent before is on disk, too.
pub(crate) fn sync(
    channel: &Channel,
    ledger: &Ledger,
    publisher: u64,
    vhost: &str,
) -> Result<(), Error> {
    let place = sync_of(vhost);
    let id = ledger.publish(&[place], Entry { publisher, ..Entry::default() });
    let to = Publish::to("", place_of(place).queues[0]);
    channel.basic_publish(to, &BasicProperties::persistent(), &body(id))?;
    channel.wait_for_confirms()?;
    ledger.confirm(&[place], &[id]);
    Ok(())
}

/// A message that is due after all that were delayed before it.
pub(crate) fn last_delayed(channel: &Channel, ledger: &Ledger) -> Result<u64, Error> {
    let due_ms = now_ms() + DELAY_MS_MAX;
    let id = ledger.publish(&["delayed"], Entry { due_ms, ..Entry::default() });
    let properties = BasicProperties::persistent().with_header("x-delay", DELAY_MS_MAX as i64);
    channel.basic_publish(Publish::to(LATER, "delayed"), &properties, &body(id))?;
    channel.wait_for_confirms()?;
    ledger.confirm(&["delayed"], &[id]);
    Ok(id)
}
