//! What the server has after a restart, held against the ledger.

use std::collections::{BTreeMap, BTreeSet};

use warren::amqp::client::{Channel, Connection, Error, QueueOptions};

use crate::chance::id_of;
use crate::ledger::{Ack, Ledger};
use crate::load::{PLACES, queues_of, sync};

/// A message as it came out of a queue.
struct Found {
    id: u64,
    redelivered: bool,
}

/// Takes everything out of the queues. Gives what is wrong.
pub(crate) fn drain(url: &str, ledger: &Ledger) -> Result<Vec<String>, Error> {
    let connection = Connection::open(url)?;
    let channel = connection.channel()?;
    channel.confirm_select()?;
    let mut faults = Vec::new();
    let mut transactions = BTreeMap::new();
    for place in PLACES {
        let mut found = Vec::new();
        for queue in queues_of(place) {
            found.extend(empty(&channel, place, queue, &mut faults)?);
        }
        judge(place, &found, ledger, &mut transactions, &mut faults);
        let ids: Vec<u64> = found.iter().map(|found| found.id).collect();
        ledger.acks(place, &ids, Ack::Sent);
    }
    for (transaction, (found, missing)) in transactions {
        if found != 0 && missing != 0 {
            let all = found + missing;
            faults.push(format!(
                "tx: of transaction {transaction:x} {found} of {all} messages are there"
            ));
        }
    }
    // From now on none of these may come back.
    sync(&channel, ledger, 0)?;
    ledger.with(|book| {
        for (place, entries) in &mut book.places {
            entries.retain(|_, entry| *place == "sync" && entry.ack == Ack::Not);
        }
    });
    connection.close()?;
    Ok(faults)
}

fn empty(
    channel: &Channel,
    place: &str,
    queue: &str,
    faults: &mut Vec<String>,
) -> Result<Vec<Found>, Error> {
    let mut messages = Vec::new();
    while let Some(got) = channel.basic_get(queue, true)? {
        match id_of(&got.delivery.body) {
            Some(id) => messages.push(Found { id, redelivered: got.delivery.redelivered }),
            None => faults.push(format!("{place}: the body of a message in {queue} is damaged")),
        }
    }
    Ok(messages)
}

fn judge(
    place: &str,
    found: &[Found],
    ledger: &Ledger,
    transactions: &mut BTreeMap<u64, (u64, u64)>,
    faults: &mut Vec<String>,
) {
    // A dead letter is a new message, and the order of several queues is none.
    let is_one_queue = queues_of(place).len() == 1;
    let mut seen = BTreeSet::new();
    let (mut lowest, mut last) = (u8::MAX, BTreeMap::new());
    for &Found { id, redelivered } in found {
        let Some(entry) = ledger.with(|book| book.entry(place, id).copied()) else {
            faults.push(format!(
                "{place}: message {id} is there, and was never published or had gone"
            ));
            continue;
        };
        if entry.must_be_gone() {
            faults.push(format!(
                "{place}: message {id} is there, and its acknowledgement was on disk"
            ));
        }
        if !is_one_queue {
            // A server that dies between two steps of a dead letter's way may have it in both queues.
            seen.insert(id);
            continue;
        }
        if !seen.insert(id) {
            faults.push(format!("{place}: message {id} is there twice"));
        }
        if entry.delivered && !redelivered {
            faults.push(format!("{place}: message {id} was delivered before and is not flagged"));
        }
        if lowest < entry.priority {
            let priority = entry.priority;
            faults
                .push(format!("{place}: message {id} of priority {priority} comes after {lowest}"));
        }
        lowest = lowest.min(entry.priority);
        if let Some(last) = last.insert((entry.publisher, entry.priority), id)
            && id < last
        {
            faults.push(format!("{place}: message {id} comes after {last}"));
        }
    }
    ledger.with(|book| {
        for (&id, entry) in book.places.entry(PLACES[position(place)]).or_default() {
            let is_there = seen.contains(&id);
            if entry.must_be_there() && !is_there {
                faults.push(format!("{place}: message {id} was confirmed and is lost: {entry:?}"));
            }
            if let Some(transaction) = entry.transaction {
                let (found, missing) = transactions.entry(transaction).or_default();
                *(if is_there { found } else { missing }) += 1;
            }
        }
    });
}

fn position(place: &str) -> usize {
    PLACES.iter().position(|name| *name == place).expect("places come from the list")
}

/// Whether the queues are there that should be, and only these.
pub(crate) fn definitions(url: &str, ledger: &Ledger) -> Result<Vec<String>, Error> {
    let connection = Connection::open(url)?;
    let mut faults = Vec::new();
    for (name, there) in ledger.with(|book| book.queues.clone()) {
        let options = QueueOptions { passive: true, ..QueueOptions::default() };
        let found = connection.channel()?.queue_declare(&name, options).is_ok();
        if there.is_some_and(|there| there != found) {
            let words = if found { "was deleted and is there" } else { "was declared and is gone" };
            faults.push(format!("{name}: the queue {words}"));
        }
        ledger.with(|book| book.queues.insert(name, Some(found)));
    }
    connection.close()?;
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Book, Entry};

    /// The first words of what is wrong when these are found where 1 to 4 were confirmed, 5 was not, 6 was acknowledged.
    #[track_caller]
    fn check(place: &'static str, found: &[(u64, bool)], wrong: &[&str]) {
        let ledger = Ledger::new(Book::default());
        for id in 1..=6 {
            let (priority, transaction) = if id < 3 { (1, None) } else { (0, Some(9)) };
            let entry = Entry { priority, transaction, ..Entry::default() };
            assert_eq!(ledger.publish(&[place], entry), id);
        }
        ledger.confirm(&[place], &[1, 2, 3, 4]);
        ledger.deliver(place, 2, false).unwrap();
        ledger.acks(place, &[6], Ack::Synced);
        let found: Vec<_> =
            found.iter().map(|&(id, redelivered)| Found { id, redelivered }).collect();
        let mut faults = Vec::new();
        judge(place, &found, &ledger, &mut BTreeMap::new(), &mut faults);
        assert_eq!(faults.len(), wrong.len(), "{faults:?}");
        for (fault, wrong) in faults.iter().zip(wrong) {
            assert!(fault.contains(wrong), "{fault}");
        }
    }

    #[test]
    fn faults_are_seen() {
        let (fresh, again) = (false, true);
        check("plain", &[(1, fresh), (2, again), (3, fresh), (4, fresh)], &[]);
        check("plain", &[(1, again), (2, again), (3, fresh), (4, fresh), (5, fresh)], &[]);
        check("plain", &[(1, fresh), (2, fresh), (3, fresh), (4, fresh)], &["is not flagged"]);
        check("plain", &[(1, fresh), (2, again), (4, fresh)], &["3 was confirmed and is lost"]);
        check("plain", &[(2, again), (1, fresh), (3, fresh), (4, fresh)], &["1 comes after 2"]);
        let late = ["1 of priority 1 comes after 0", "2 of priority 1 comes after 0"];
        check("plain", &[(3, fresh), (1, fresh), (2, again), (4, fresh)], &late);
        let gone = [(1, fresh), (2, again), (3, fresh), (4, fresh), (6, again)];
        check("plain", &gone, &["its acknowledgement was on disk"]);
        check(
            "plain",
            &[(1, fresh), (1, fresh), (2, again), (3, fresh), (4, fresh)],
            &["there twice"],
        );
        check(
            "plain",
            &[(1, fresh), (2, again), (3, fresh), (4, fresh), (7, fresh)],
            &["never published"],
        );
        // Of dead letters neither order nor flags are known.
        check("rejected", &[(3, fresh), (1, fresh), (2, fresh), (4, fresh), (4, fresh)], &[]);
        check("rejected", &[(3, fresh), (1, fresh), (4, fresh)], &["2 was confirmed and is lost"]);
    }
}
