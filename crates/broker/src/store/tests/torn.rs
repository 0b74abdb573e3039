//! The end of the log cut off at every byte, and bits of every byte flipped: each record, and each group of records, is
//! there as a whole or not at all, and what it has nothing to do with is there in any case.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::super::disk::{Disk, read_all};
use super::super::log::{Log, Sizes};
use super::super::reader::LogReader;
use super::super::recovery::{self, RecoveredPlace};
use super::super::{Damage, Filler, pages, segment};
use super::message;
use super::simulated::disk::SimulatedDisk;

const QUEUES: [u64; 3] = [1, 2, 3];

/// By queue: messages, whether they are flagged, and how often they came back.
type Contents = BTreeMap<u64, Vec<(u64, bool, u32)>>;

/// What is done at the end of the log, each in a batch of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A message for all queues.
    Publish,
    /// The messages 2 to 4 of the first queue, which have places in a row.
    AckRange,
    /// The message 1 has come back three times.
    Count,
    /// Up to the message 5 the first queue has delivered.
    Deliver,
    /// Two messages, and the end of the message 6.
    Transaction,
    /// The message 7 in the second of its queues.
    Ack,
    /// A message in a batch with acknowledgements: of 8, 10, and 12.
    PublishAndAck,
    /// The last message, for one queue.
    PublishOne,
}

const STEPS: [Step; 8] = [
    Step::Publish,
    Step::AckRange,
    Step::Count,
    Step::Deliver,
    Step::Transaction,
    Step::Ack,
    Step::PublishAndAck,
    Step::PublishOne,
];

/// A log with messages in the first two queues, and then the steps.
struct Written {
    bytes: Vec<u8>,
    /// Where the records of each step are. Those of one are one after the other.
    steps: Vec<(Step, Range<usize>)>,
}

fn open(disk: &Arc<SimulatedDisk>) -> (Log, Vec<RecoveredPlace>, Vec<Damage>) {
    let (queues, mut damage): (FxHashSet<u64>, _) = (QUEUES.into_iter().collect(), Vec::new());
    let sizes = &Sizes::DEFAULT;
    let (log, messages) = recovery::open(disk.clone(), sizes, &queues, &mut damage).unwrap();
    let mut places = Vec::new();
    messages.for_each(|place| places.push(place));
    (log, places, damage)
}

fn write() -> Written {
    let disk = Arc::new(SimulatedDisk::new(1));
    let (mut log, ..) = open(&disk);
    let mut filler = Filler::new(log.number(), &Sizes::DEFAULT);
    let publish = |filler: &mut Filler, id, queues: &[u64]| {
        let mut message = message(id, format!("the body of {id}").as_bytes());
        filler.publish(&mut message, queues);
        message.stored.unwrap().first
    };
    let mut places = vec![0];
    for id in 1..=6 {
        places.push(publish(&mut filler, id, &[1]));
    }
    for id in 7..=12 {
        places.push(publish(&mut filler, id, &[1, 2]));
    }
    log.append(&filler.take().unwrap()).unwrap();
    let mut steps = Vec::new();
    for step in STEPS {
        match step {
            Step::Publish => {
                publish(&mut filler, 20, &QUEUES);
            }
            Step::AckRange => [4, 2, 3].into_iter().for_each(|id| filler.ack(places[id])),
            Step::Count => filler.counted(places[1], 3, 0),
            Step::Deliver => filler.delivered(1, places[5]),
            Step::Transaction => {
                filler.begin_group();
                publish(&mut filler, 21, &[2, 3]);
                filler.ack(places[6]);
                publish(&mut filler, 22, &[1]);
                filler.end_group();
            }
            Step::Ack => filler.ack(places[7] + 1),
            Step::PublishAndAck => {
                publish(&mut filler, 23, &[3]);
                [8, 10, 12].into_iter().for_each(|id| filler.ack(places[id]));
            }
            Step::PublishOne => {
                publish(&mut filler, 24, &[3]);
            }
        }
        let batch = filler.take().unwrap();
        let begins = batch.offset as usize;
        let mut ends = vec![begins + batch.records.len()];
        if step == Step::PublishAndAck {
            // These stand for themselves.
            ends.clear();
            let mut at = 0;
            while at < batch.records.len() {
                at += super::super::record::total(&batch.records[at..]);
                ends.push(begins + at);
            }
        }
        let mut from = begins;
        for end in ends {
            steps.push((step, from..end));
            from = end;
        }
        log.append(&batch).unwrap();
    }
    let bytes = read_all(&*disk, &segment::name(log.number())).unwrap();
    assert_eq!(steps.last().unwrap().1.end, bytes.len());
    Written { bytes, steps }
}

/// What is there when the records of these steps count.
fn contents(steps: &[(Step, Range<usize>)], counts: impl Fn(&Range<usize>) -> bool) -> Contents {
    let mut held = BTreeMap::<(u64, u64), (bool, u32)>::new();
    for id in 1..=12 {
        held.insert((1, id), (false, 0));
        if 7 <= id {
            held.insert((2, id), (false, 0));
        }
    }
    let mut acked = [8, 10, 12].into_iter();
    let mut published = false;
    for (step, range) in steps {
        let nth = match step {
            // The message, then one acknowledgement after the other.
            Step::PublishAndAck if std::mem::replace(&mut published, true) => acked.next(),
            _ => None,
        };
        if !counts(range) {
            continue;
        }
        let mut publish = |queues: &[u64], id| {
            held.extend(queues.iter().map(|queue| ((*queue, id), (false, 0))));
        };
        match step {
            Step::Publish => publish(&QUEUES, 20),
            Step::AckRange => held.retain(|key, _| !(2..=4).contains(&key.1)),
            Step::Count => held.get_mut(&(1, 1)).unwrap().1 = 3,
            Step::Deliver => {
                held.range_mut((1, 0)..=(1, 5)).for_each(|(_, (flagged, _))| *flagged = true);
            }
            Step::Transaction => {
                publish(&[2, 3], 21);
                publish(&[1], 22);
                held.retain(|key, _| *key != (1, 6));
            }
            Step::Ack => held.retain(|key, _| *key != (2, 7)),
            Step::PublishAndAck => match nth {
                None => publish(&[3], 23),
                Some(id) => held.retain(|key, _| *key != (1, id)),
            },
            Step::PublishOne => publish(&[3], 24),
        }
    }
    let mut contents = Contents::new();
    for ((queue, id), (flagged, count)) in held {
        contents.entry(queue).or_default().push((id, flagged, count));
    }
    contents
}

fn found(disk: &Arc<SimulatedDisk>, log: &Log, places: &[RecoveredPlace]) -> Contents {
    let reader = LogReader::new(disk.clone(), log.synced());
    let mut contents = Contents::new();
    for place in places {
        let message = pages::message(&reader, place.message, place.spot).unwrap();
        let id: u64 = message.routing_key.parse().unwrap();
        assert!(message.content.body().starts_with(format!("the body of {id}").as_bytes()));
        let entry = (id, place.redelivered, place.delivery_count);
        contents.entry(place.queue).or_default().push(entry);
    }
    contents
}

/// What a start finds in a segment of these bytes, and the next one, after another message. Whether it says anything.
#[track_caller]
fn check(bytes: &[u8], mut want: Contents, what: &str) -> bool {
    let disk = Arc::new(SimulatedDisk::new(2));
    let file = disk.create(&segment::name(1)).unwrap();
    file.write_at(bytes, 0).unwrap();
    let (mut log, places, damage) = open(&disk);
    assert_eq!(found(&disk, &log, &places), want, "{what}: {damage:?}");
    let mut filler = Filler::new(log.number(), &Sizes::DEFAULT);
    filler.begin_group();
    for id in [98, 99] {
        let body = format!("the body of {id}");
        filler.publish(&mut message(id, body.as_bytes()), &[2]);
        want.entry(2).or_default().push((id, false, 0));
    }
    filler.end_group();
    log.append(&filler.take().unwrap()).unwrap();
    log.sync().unwrap();
    drop(log);
    let (log, places, _) = open(&disk);
    assert_eq!(found(&disk, &log, &places), want, "{what}, at the start after that");
    !damage.is_empty()
}

#[test]
fn what_was_written_in_part_is_there_whole_or_not_at_all() {
    let Written { bytes, steps } = write();
    for cut in steps[0].1.start..=bytes.len() {
        let want = contents(&steps, |range| range.end <= cut);
        let told = check(&bytes[..cut], want, &format!("cut at {cut}"));
        let is_boundary =
            cut == steps[0].1.start || steps.iter().any(|(_, range)| range.end == cut);
        assert_eq!(told, !is_boundary, "cut at {cut}");
        // As file systems leave files that have grown and were not written.
        let mut zeros = bytes[..cut].to_vec();
        zeros.resize(bytes.len() + 100, 0);
        // What ends with zeros is whole nevertheless.
        let want = contents(&steps, |range| zeros[range.clone()] == bytes[range.clone()]);
        check(&zeros, want, &format!("zeros from {cut} on"));
    }
}

#[test]
fn a_bit_that_is_wrong_costs_what_it_stands_in() {
    let Written { bytes, steps } = write();
    for (_, range) in &steps {
        let want = contents(&steps, |other| other != range);
        for at in range.clone() {
            for bit in [0, 4, 7] {
                let mut torn = bytes.clone();
                torn[at] ^= 1 << bit;
                let what = format!("bit {bit} of {at} flipped, in {range:?}");
                assert!(check(&torn, want.clone(), &what), "{what}: not a word");
            }
        }
    }
}
