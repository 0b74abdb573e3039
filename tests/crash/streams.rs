//! The stream: what is confirmed is there, in order, and an offset that somebody has seen is never another message's.

use std::collections::{BTreeMap, BTreeSet};

use warren::amqp::client::{Channel, ConsumeOptions, Consumer, Delivery, Error, Publish};
use warren::amqp::{BasicProperties, FieldTable, FieldValue};
use warren::hub::yield_now;

use crate::chance::{body, id_of};
use crate::ledger::Ledger;
use crate::load::Flow;
use crate::places::STREAM;

/// How many of the offsets that were seen are kept from one look to the next.
const SEEN_MAX: usize = 500;

/// What the clients know of the stream.
#[derive(Default)]
pub(crate) struct StreamBook {
    /// Messages and their publishers, since the last look.
    published: BTreeMap<u64, u64>,
    confirmed: BTreeSet<u64>,
    /// Which message has which offset.
    seen: BTreeMap<u64, u64>,
    /// Everything before this offset was looked at.
    next: u64,
}

/// Where a consumer is.
#[derive(Default)]
struct Reader {
    /// The offset that is to come, once that is known.
    next: Option<u64>,
    /// The last message of each publisher.
    last: BTreeMap<u64, u64>,
}

impl StreamBook {
    /// Takes note of what a consumer has got, and says what is wrong with it.
    fn take(&mut self, reader: &mut Reader, delivery: &Delivery) -> (u64, Vec<String>) {
        let headers = delivery.properties.headers.as_ref();
        let offset = headers.and_then(|headers| headers.get("x-stream-offset"));
        let offset = offset.and_then(FieldValue::as_i64).unwrap_or(-1) as u64;
        let mut faults = Vec::new();
        let Some(id) = id_of(&delivery.body) else {
            return (0, vec![format!("stream: the body at {offset} is damaged")]);
        };
        if let Some(next) = reader.next
            && next != offset
        {
            faults.push(format!("stream: offset {offset} instead of {next}"));
        }
        reader.next = Some(offset + 1);
        if let Some(before) = self.seen.insert(offset, id)
            && before != id
        {
            faults.push(format!("stream: offset {offset} was that of {before}, and is of {id}"));
        }
        if self.next <= offset {
            match self.published.get(&id) {
                None => {
                    faults.push(format!("stream: {id} at {offset} is old, or was never published"));
                }
                Some(publisher) => {
                    if let Some(last) = reader.last.insert(*publisher, id)
                        && id <= last
                    {
                        faults.push(format!("stream: {id} at {offset} comes after {last}"));
                    }
                }
            }
        }
        (id, faults)
    }
}

fn consume(channel: &Channel, offset: FieldValue) -> Result<Consumer, Error> {
    channel.basic_qos(50, false)?;
    let arguments = FieldTable::new().with("x-stream-offset", offset);
    channel.basic_consume(STREAM, ConsumeOptions { arguments, ..ConsumeOptions::default() })
}

impl Flow {
    /// Publishes batches with confirms, for ever.
    pub(crate) fn write_stream(&mut self) -> Result<(), Error> {
        let (_connection, channel) = self.open()?;
        channel.confirm_select()?;
        loop {
            let mut ids = Vec::new();
            for _ in 0..=self.chance.below(20) {
                ids.push(publish(&channel, &self.ledger, self.publisher)?);
            }
            channel.wait_for_confirms()?;
            self.ledger.with(|book| {
                book.confirmed += ids.len() as u64;
                book.stream.confirmed.extend(ids);
            });
        }
    }

    /// Reads from some place on, for ever.
    pub(crate) fn read_stream(&mut self) -> Result<(), Error> {
        let (_connection, channel) = self.open()?;
        let mut reader = Reader::default();
        let seen = self.ledger.with(|book| book.stream.seen.last_key_value().map(|(at, _)| *at));
        let offset = match (self.chance.below(4), seen) {
            (0, _) => FieldValue::from("last"),
            (1, _) => FieldValue::from("next"),
            (_, Some(seen)) => {
                let at = seen.saturating_sub(self.chance.below(200));
                reader.next = Some(at);
                FieldValue::I64(at as i64)
            }
            (_, None) => FieldValue::from("first"),
        };
        for (nth, delivery) in consume(&channel, offset)?.enumerate() {
            let delivery = delivery?;
            let (_, faults) = self.ledger.with(|book| book.stream.take(&mut reader, &delivery));
            self.faults.borrow_mut().extend(faults);
            if nth % 10 == 9 {
                channel.basic_ack(delivery.delivery_tag, true)?;
            }
            yield_now();
        }
        Ok(())
    }
}

fn publish(channel: &Channel, ledger: &Ledger, publisher: u64) -> Result<u64, Error> {
    let id = ledger.with(|book| {
        let id = book.next();
        book.stream.published.insert(id, publisher);
        id
    });
    let to = Publish::to("", STREAM);
    channel.basic_publish(to, &BasicProperties::persistent(), &body(id))?;
    Ok(id)
}

/// Reads all that has come since the last look. Gives what is wrong.
pub(crate) fn look(channel: &Channel, ledger: &Ledger) -> Result<Vec<String>, Error> {
    channel.confirm_select()?;
    let last = publish(channel, ledger, 0)?;
    channel.wait_for_confirms()?;
    let next = ledger.with(|book| book.stream.next);
    let mut reader = Reader { next: Some(next), ..Reader::default() };
    let (mut faults, mut found) = (Vec::new(), BTreeSet::new());
    let consumer = consume(channel, FieldValue::I64(next as i64))?;
    let tag = consumer.tag().to_owned();
    for delivery in consumer {
        let delivery = delivery?;
        delivery.ack()?;
        let (id, wrong) = ledger.with(|book| book.stream.take(&mut reader, &delivery));
        faults.extend(wrong);
        if !found.insert(id) {
            faults.push(format!("stream: {id} is there twice"));
        }
        if id == last {
            break;
        }
    }
    channel.basic_cancel(&tag)?;
    ledger.with(|book| {
        let stream = &mut book.stream;
        let lost = stream.confirmed.difference(&found);
        faults.extend(lost.map(|id| format!("stream: {id} was confirmed and is lost")));
        stream.confirmed.clear();
        stream.published.clear();
        stream.next = reader.next.unwrap_or(next);
        while SEEN_MAX < stream.seen.len() {
            stream.seen.pop_first();
        }
    });
    Ok(faults)
}
