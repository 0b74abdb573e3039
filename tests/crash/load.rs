//! The load: fibers that publish and consume in different ways, each until its connection breaks.

use std::cell::RefCell;
use std::rc::Rc;

use warren::amqp::client::{
    Channel, Connection, ConsumeOptions, Delivery, Error, ExchangeOptions, Publish, QueueOptions,
};
use warren::amqp::{BasicProperties, FieldTable};
use warren::hub::{JoinHandle, spawn, yield_now};

use crate::chance::{Chance, body, id_of};
use crate::ledger::{Ack, Entry, Ledger};

/// What is wrong with the server.
pub(crate) type Faults = Rc<RefCell<Vec<String>>>;

/// A fiber's surroundings.
#[derive(Clone)]
struct Flow {
    url: String,
    ledger: Ledger,
    faults: Faults,
    chance: Chance,
    /// Its number, another one with each load.
    publisher: u64,
}

/// The queues of every place.
pub(crate) fn queues_of(place: &str) -> &'static [&'static str] {
    match place {
        "plain" => &["plain"],
        "requeued" => &["requeued"],
        "fan.0" => &["fan.0"],
        "fan.1" => &["fan.1"],
        "fan.2" => &["fan.2"],
        "priority" => &["priority"],
        "rejected" => &["rejected", "rejected.dead"],
        "expired" => &["expired", "expired.dead"],
        "overflown" => &["overflown", "overflown.dead"],
        "careful" => &["careful", "careful.dead"],
        "tx.0" => &["tx.0"],
        "tx.1" => &["tx.1"],
        "sync" => &["sync"],
        other => panic!("{other} is no place"),
    }
}

pub(crate) const PLACES: &[&str] = &[
    "plain",
    "requeued",
    "fan.0",
    "fan.1",
    "fan.2",
    "priority",
    "rejected",
    "expired",
    "overflown",
    "careful",
    "tx.0",
    "tx.1",
    "sync",
];

/// Declares what is not there yet.
pub(crate) fn declare(url: &str) -> Result<(), Error> {
    let connection = Connection::open(url)?;
    let channel = connection.channel()?;
    let queue = |name: &str, arguments| {
        channel.queue_declare(
            name,
            QueueOptions { durable: true, arguments, ..QueueOptions::default() },
        )
    };
    let dead = |name: &str| {
        FieldTable::new()
            .with("x-dead-letter-exchange", "")
            .with("x-dead-letter-routing-key", format!("{name}.dead").as_str())
    };
    for place in PLACES {
        for name in queues_of(place) {
            let arguments = match *name {
                "priority" => FieldTable::new().with("x-max-priority", 5),
                "rejected" => dead(name),
                "expired" => dead(name).with("x-message-ttl", 30),
                "overflown" => dead(name).with("x-max-length", 5),
                "careful" => dead(name)
                    .with("x-queue-type", "quorum")
                    .with("x-dead-letter-strategy", "at-least-once")
                    .with("x-overflow", "reject-publish"),
                _ => FieldTable::new(),
            };
            queue(name, arguments)?;
        }
    }
    let options = ExchangeOptions { durable: true, ..ExchangeOptions::default() };
    channel.exchange_declare("fan", "fanout", options)?;
    for name in ["fan.0", "fan.1", "fan.2"] {
        channel.queue_bind(name, "fan", "")?;
    }
    connection.close()
}

/// Starts all fibers. Each ends when its connection breaks.
pub(crate) fn start(
    url: &str,
    ledger: &Ledger,
    faults: &Faults,
    chance: &mut Chance,
) -> Vec<JoinHandle<()>> {
    type Work = fn(&mut Flow) -> Result<(), Error>;
    let work: [Work; 14] = [
        |flow| flow.publish("", "plain", &["plain"], Flow::plainly),
        |flow| flow.publish("", "plain", &["plain"], Flow::plainly),
        |flow| flow.publish("", "requeued", &["requeued"], Flow::plainly),
        |flow| flow.publish("fan", "", &["fan.0", "fan.1", "fan.2"], Flow::plainly),
        |flow| flow.publish("", "priority", &["priority"], Flow::with_priority),
        |flow| flow.publish("", "rejected", &["rejected"], Flow::plainly),
        |flow| flow.publish("", "expired", &["expired"], Flow::plainly),
        |flow| flow.publish("", "overflown", &["overflown"], Flow::plainly),
        |flow| flow.publish("", "careful", &["careful"], Flow::plainly),
        |flow| flow.consume("plain", Flow::acknowledge),
        |flow| flow.consume("fan.1", Flow::acknowledge),
        |flow| flow.consume("requeued", Flow::give_back),
        Flow::transactions,
        Flow::definitions,
    ];
    let rejects: [Work; 2] = [
        |flow| flow.consume("rejected", Flow::reject),
        |flow| flow.consume("careful", Flow::reject),
    ];
    let start = |work: Work| {
        let (ledger, faults) = (ledger.clone(), faults.clone());
        let (url, publisher) = (url.to_owned(), chance.next());
        let mut flow = Flow { url, ledger, faults, chance: chance.fork(), publisher };
        // How it ends is the killer's doing.
        spawn(move || drop(work(&mut flow)))
    };
    work.into_iter().chain(rejects).map(start).collect()
}

impl Flow {
    fn open(&self) -> Result<(Connection, Channel), Error> {
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
                let priority = priority(self);
                let publisher = self.publisher;
                let entry = Entry { priority, publisher, ..Entry::default() };
                let id = self.ledger.publish(places, entry);
                let properties =
                    BasicProperties { priority: Some(priority), ..BasicProperties::persistent() };
                ids.push(id);
                channel.basic_publish(Publish::to(exchange, key), &properties, &body(id))?;
            }
            channel.wait_for_confirms()?;
            self.ledger.confirm(places, &ids);
        }
    }

    /// Transactions over two queues: all of it or nothing.
    fn transactions(&mut self) -> Result<(), Error> {
        let (_connection, channel) = self.open()?;
        channel.tx_select()?;
        loop {
            let mut ids = [Vec::new(), Vec::new()];
            let transaction = Some(self.chance.next());
            for _ in 0..2 + self.chance.below(10) {
                let queue = self.chance.below(2) as usize;
                let name = ["tx.0", "tx.1"][queue];
                let publisher = self.publisher;
                let entry = Entry { transaction, publisher, ..Entry::default() };
                let id = self.ledger.publish(&[name], entry);
                ids[queue].push(id);
                let to = Publish::to("", name);
                channel.basic_publish(to, &BasicProperties::persistent(), &body(id))?;
            }
            channel.tx_commit()?;
            self.ledger.confirm(&["tx.0"], &ids[0]);
            self.ledger.confirm(&["tx.1"], &ids[1]);
        }
    }

    /// Queues that come and go, with their bindings.
    fn definitions(&mut self) -> Result<(), Error> {
        let (_connection, channel) = self.open()?;
        loop {
            let name = format!("passing.{}", self.chance.below(20));
            let there = self.ledger.with(|book| book.queues.insert(name.clone(), None).flatten());
            if there == Some(true) {
                channel.queue_delete(&name, false, false)?;
            } else {
                let options = QueueOptions { durable: true, ..QueueOptions::default() };
                channel.queue_declare(&name, options)?;
            }
            self.ledger.with(|book| book.queues.insert(name, Some(there != Some(true))));
        }
    }

    /// Consumes, for ever. `settle` is given what has gathered, and gives what it has acknowledged.
    fn consume(
        &mut self,
        place: &'static str,
        settle: fn(&mut Self, &mut Vec<Delivery>) -> Result<Vec<u64>, Error>,
    ) -> Result<(), Error> {
        let (_connection, channel) = self.open()?;
        channel.confirm_select()?;
        channel.basic_qos(30, false)?;
        let mut sent = Vec::new();
        let mut held = Vec::new();
        for delivery in channel.basic_consume(queues_of(place)[0], ConsumeOptions::default())? {
            let delivery = delivery?;
            let noted = match id_of(&delivery.body) {
                Some(id) => self.ledger.deliver(place, id, delivery.redelivered),
                None => Err(format!("{place}: the body of a message is damaged")),
            };
            if let Err(fault) = noted {
                self.faults.borrow_mut().push(fault);
            }
            held.push(delivery);
            if held.len() < 10 && !self.chance.one_in(4) {
                continue;
            }
            let acked = settle(self, &mut held)?;
            self.ledger.acks(place, &acked, Ack::Sent);
            sent.extend(acked);
            if self.chance.one_in(5) {
                // What was sent before this was on disk when it is confirmed.
                sync(&channel, &self.ledger, self.publisher)?;
                self.ledger.acks(place, &sent, Ack::Synced);
                sent.clear();
            }
            yield_now();
        }
        Ok(())
    }

    /// Some one by one in any order, some together.
    fn acknowledge(&mut self, held: &mut Vec<Delivery>) -> Result<Vec<u64>, Error> {
        let mut acked = Vec::new();
        if let (Some(last), true) = (held.last(), self.chance.one_in(2)) {
            last.channel().basic_ack(last.delivery_tag, true)?;
            acked.extend(held.drain(..).filter_map(|delivery| id_of(&delivery.body)));
            return Ok(acked);
        }
        for _ in 0..held.len() / 2 {
            let index = self.chance.below(held.len() as u64) as usize;
            let delivery = held.swap_remove(index);
            delivery.ack()?;
            acked.extend(id_of(&delivery.body));
        }
        held.sort_by_key(|delivery| delivery.delivery_tag);
        Ok(acked)
    }

    /// Most go back into the queue.
    fn give_back(&mut self, held: &mut Vec<Delivery>) -> Result<Vec<u64>, Error> {
        let mut acked = Vec::new();
        for delivery in held.drain(..) {
            if self.chance.one_in(3) {
                delivery.ack()?;
                acked.extend(id_of(&delivery.body));
            } else {
                delivery.nack(true)?;
            }
        }
        Ok(acked)
    }

    /// They become dead letters, within the same place.
    fn reject(&mut self, held: &mut Vec<Delivery>) -> Result<Vec<u64>, Error> {
        held.drain(..).try_for_each(|delivery| delivery.reject(false))?;
        Ok(Vec::new())
    }
}

/// A persistent message on this channel, confirmed: all that the channel has sent before is on disk, too.
pub(crate) fn sync(channel: &Channel, ledger: &Ledger, publisher: u64) -> Result<(), Error> {
    let id = ledger.publish(&["sync"], Entry { publisher, ..Entry::default() });
    channel.basic_publish(Publish::to("", "sync"), &BasicProperties::persistent(), &body(id))?;
    channel.wait_for_confirms()?;
    ledger.confirm(&["sync"], &[id]);
    Ok(())
}
