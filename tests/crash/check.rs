//! What the server has after a restart, held against the ledger.

use std::collections::{BTreeMap, BTreeSet};

use warren::amqp::BasicProperties;
use warren::amqp::client::{
    Channel, Connection, Error, ExchangeOptions, Publish, QueueDeclared, QueueOptions,
};
use warren::hub::yield_now;

use crate::ledger::{Ack, Found, Ledger};
use crate::load::{BOUND, last_delayed, sync};
use crate::places::{PLACES, Place, Promise, VHOSTS, sync_of};
use crate::streams;

/// Takes everything out of the queues. Gives what is wrong.
pub(crate) fn drain(url: &str, ledger: &Ledger) -> Result<Vec<String>, Error> {
    let mut faults = Vec::new();
    let mut transactions = BTreeMap::new();
    for vhost in VHOSTS {
        let connection = Connection::open(&format!("{url}{vhost}"))?;
        let channel = connection.channel()?;
        channel.confirm_select()?;
        for place in PLACES.iter().filter(|place| place.vhost == vhost) {
            let last = (place.promise == Promise::Time).then(|| last_delayed(&channel, ledger));
            let mut found = Vec::new();
            for queue in 0..place.queues.len() {
                empty(&channel, place, queue, &mut found, &mut faults)?;
            }
            if let Some(last) = last.transpose()? {
                // All that are delayed come before it.
                while found.iter().all(|found| found.id != last) {
                    yield_now();
                    empty(&channel, place, 0, &mut found, &mut faults)?;
                }
            }
            judge(place, &found, ledger, &mut transactions, &mut faults);
            let ids: Vec<u64> = found.iter().map(|found| found.id).collect();
            ledger.acks(place.name, &ids, Ack::Sent);
        }
        // From now on none of these may come back.
        sync(&channel, ledger, 0, vhost)?;
        ledger.with(|book| {
            for place in PLACES.iter().filter(|place| place.vhost == vhost) {
                let entries = book.places.entry(place.name).or_default();
                let is_kept = place.name == sync_of(vhost);
                entries.retain(|_, entry| is_kept && entry.ack == Ack::Not);
            }
        });
        if vhost == VHOSTS[0] {
            faults.extend(streams::look(&connection.channel()?, ledger)?);
        }
        connection.close()?;
    }
    for (transaction, (found, missing)) in transactions {
        if found != 0 && missing != 0 {
            let all = found + missing;
            faults.push(format!(
                "tx: of transaction {transaction:x} {found} of {all} messages are there"
            ));
        }
    }
    Ok(faults)
}

fn empty(
    channel: &Channel,
    place: &Place,
    queue: usize,
    found: &mut Vec<Found>,
    faults: &mut Vec<String>,
) -> Result<(), Error> {
    let name = place.queues[queue];
    while let Some(got) = channel.basic_get(name, true)? {
        match Found::new(&got.delivery, queue) {
            Some(one) => found.push(one),
            None => {
                faults.push(format!("{}: the body of a message in {name} is damaged", place.name));
            }
        }
    }
    Ok(())
}

fn judge(
    place: &Place,
    found: &[Found],
    ledger: &Ledger,
    transactions: &mut BTreeMap<u64, (u64, u64)>,
    faults: &mut Vec<String>,
) {
    let name = place.name;
    let mut seen = BTreeSet::new();
    let (mut lowest, mut last) = (u8::MAX, BTreeMap::new());
    for one in found {
        let id = one.id;
        let Some(entry) = ledger.with(|book| book.entry(name, id).copied()) else {
            faults.push(format!(
                "{name}: message {id} is there, and was never published or had gone"
            ));
            continue;
        };
        faults.extend(one.faults(place, &entry));
        let is_twice = !seen.insert(id);
        if is_twice && (place.is_one_queue() || place.promise == Promise::Moves) {
            faults.push(format!("{name}: message {id} is there twice"));
        }
        if !matches!(place.promise, Promise::Order | Promise::Loose) {
            continue;
        }
        if lowest < entry.priority {
            let priority = entry.priority;
            faults
                .push(format!("{name}: message {id} of priority {priority} comes after {lowest}"));
        }
        lowest = lowest.min(entry.priority);
        if let Some(last) = last.insert((entry.publisher, entry.priority), id)
            && id < last
        {
            faults.push(format!("{name}: message {id} comes after {last}"));
        }
    }
    ledger.with(|book| {
        for (&id, entry) in book.places.entry(name).or_default() {
            let is_there = seen.contains(&id);
            if entry.must_be_there() && !is_there && place.promise != Promise::Loose {
                faults.push(format!("{name}: message {id} was confirmed and is lost: {entry:?}"));
            }
            if let Some(transaction) = entry.transaction {
                let (found, missing) = transactions.entry(transaction).or_default();
                *(if is_there { found } else { missing }) += 1;
            }
        }
    });
}

/// Whether the queues, exchanges and bindings are there that should be, and only these.
pub(crate) fn definitions(url: &str, ledger: &Ledger) -> Result<Vec<String>, Error> {
    let connection = Connection::open(url)?;
    let passive = |name: &str| -> Result<QueueDeclared, Error> {
        let options = QueueOptions { passive: true, ..QueueOptions::default() };
        connection.channel()?.queue_declare(name, options)
    };
    let mut faults = Vec::new();
    let mut note = |what: &str, name: &str, there: Option<bool>, found: bool| {
        if there.is_some_and(|there| there != found) {
            let words = if found { "was deleted and is there" } else { "was made and is gone" };
            faults.push(format!("{name}: the {what} {words}"));
        }
    };
    for (name, there) in ledger.with(|book| book.queues.clone()) {
        let found = passive(&name).is_ok();
        note("queue", &name, there, found);
        ledger.with(|book| book.queues.insert(name, Some(found)));
    }
    for (name, there) in ledger.with(|book| book.exchanges.clone()) {
        let options = ExchangeOptions { passive: true, ..ExchangeOptions::default() };
        let found = connection.channel()?.exchange_declare(&name, "topic", options).is_ok();
        note("exchange", &name, there, found);
        ledger.with(|book| book.exchanges.insert(name, Some(found)));
    }
    let channel = connection.channel()?;
    channel.confirm_select()?;
    for (name, there) in ledger.with(|book| book.bindings.clone()) {
        channel.basic_publish(Publish::to(BOUND, &name), &BasicProperties::new(), b"bound")?;
        channel.wait_for_confirms()?;
        let found = match passive(&name) {
            Ok(queue) => queue.message_count != 0,
            Err(_) => false,
        };
        if found {
            channel.queue_purge(&name)?;
        }
        note("binding", &name, there, found);
        ledger.with(|book| book.bindings.insert(name, Some(found)));
    }
    connection.close()?;
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Book, Entry};
    use crate::places::place_of;

    /// The first words of what is wrong when these are found where 1 to 4 were confirmed, 5 was not, 6 was acknowledged,
    /// a client had 2, and 4 was given back four times, the last of which may not have come.
    #[track_caller]
    fn check(place: &'static str, found: &[Found], wrong: &[&str]) {
        let ledger = Ledger::new(Book::default());
        let of = place_of(place);
        for id in 1..=6 {
            let (priority, transaction) = if id < 3 { (1, None) } else { (0, Some(9)) };
            let due_ms = if of.promise == Promise::Time { 1000 } else { 0 };
            let entry = Entry { priority, transaction, due_ms, ..Entry::default() };
            assert_eq!(ledger.publish(&[place], entry), id);
        }
        ledger.confirm(&[place], &[1, 2, 3, 4]);
        assert!(ledger.deliver(of, &FRESH.of(2)).is_empty());
        for _ in 0..3 {
            ledger.returns(place, &[4]);
        }
        ledger.returned(place, &[4, 4, 4]);
        ledger.returns(place, &[4]);
        ledger.acks(place, &[6], Ack::Synced);
        let mut faults = Vec::new();
        judge(of, found, &ledger, &mut BTreeMap::new(), &mut faults);
        assert_eq!(faults.len(), wrong.len(), "{faults:?}");
        for (fault, wrong) in faults.iter().zip(wrong) {
            assert!(fault.contains(wrong), "{fault}");
        }
    }

    const FRESH: Found = Found { id: 0, redelivered: false, queue: 0, returns: 0, now_ms: 2000 };
    const AGAIN: Found = Found { redelivered: true, ..FRESH };

    impl Found {
        fn of(self, id: u64) -> Self {
            Self { id, ..self }
        }
    }

    fn fresh(ids: &[u64]) -> Vec<Found> {
        ids.iter().map(|id| FRESH.of(*id)).collect()
    }

    fn again(ids: &[u64]) -> Vec<Found> {
        ids.iter().map(|id| if *id == 2 { AGAIN.of(*id) } else { FRESH.of(*id) }).collect()
    }

    #[test]
    fn faults_are_seen() {
        check("plain", &again(&[1, 2, 3, 4]), &[]);
        check("plain", &again(&[1, 2, 3, 4, 5]), &[]);
        check("plain", &fresh(&[1, 2, 3, 4]), &["is not flagged"]);
        check("plain", &again(&[1, 2, 4]), &["3 was confirmed and is lost"]);
        check("plain", &again(&[2, 1, 3, 4]), &["1 comes after 2"]);
        let late = ["1 of priority 1 comes after 0", "2 of priority 1 comes after 0"];
        check("plain", &again(&[3, 1, 2, 4]), &late);
        check("plain", &again(&[1, 2, 3, 4, 6]), &["its acknowledgement was on disk"]);
        check("plain", &again(&[1, 1, 2, 3, 4]), &["there twice"]);
        check("plain", &again(&[1, 2, 3, 4, 7]), &["never published"]);
    }

    #[test]
    fn faults_of_letters_and_of_what_waits_are_seen() {
        let letter = |id| Found { queue: 1, ..FRESH.of(id) };
        // Of dead letters neither order nor flags are known.
        check("rejected", &[letter(3), letter(1), letter(2), letter(4), letter(4)], &[]);
        check("rejected", &[letter(3), letter(1), letter(4)], &["2 was confirmed and is lost"]);
        check("rejected", &fresh(&[1, 2, 3, 4]), &["is not flagged"]);
        check("moved", &fresh(&[4, 2, 3, 1]), &[]);
        check(
            "moved",
            &[FRESH.of(1), FRESH.of(2), FRESH.of(3), FRESH.of(4), letter(4)],
            &["twice"],
        );
        check("delayed", &again(&[4, 2, 1, 3]), &[]);
        let early = Found { now_ms: 999, ..FRESH.of(1) };
        check("delayed", &[early, AGAIN.of(2), FRESH.of(3), FRESH.of(4)], &["1 ms before"]);
        let four = |returns| Found { returns, ..AGAIN.of(4) };
        let rest = again(&[1, 2, 3]);
        check("limited", &[&rest[..], &[four(3)]].concat(), &[]);
        check("limited", &[&rest[..], &[letter(4)]].concat(), &[]);
        check("limited", &[&rest[..], &[four(2)]].concat(), &["came back 2 times, not 3 to 4"]);
        check("limited", &[&rest[..], &[four(4)]].concat(), &["is not dead"]);
        let dead = [letter(1), AGAIN.of(2), FRESH.of(3), letter(4)];
        check("limited", &dead, &["is dead after it came back 0 times"]);
    }
}
