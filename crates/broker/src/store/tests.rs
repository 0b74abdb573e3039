use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::mpsc;

use proptest::prelude::*;

use super::definitions::Definitions;
use super::disk::Folder;
use super::flusher::Writer;
use super::log::Sizes;
use super::record::{self, Decoded, Record};
use super::{
    Definition, Filler, QueueDefinition, Recovered, RecoveredPlace, Store, StoreError, pages,
    recovery,
};
use crate::message::{Content, Message, Spot};
use crate::stream;

mod legacy;
mod refusing;
mod simulated;
mod torn;

fn open(folder: &Path) -> (Store, Recovered) {
    Store::open(folder, Box::new(|outcome| assert!(outcome.is_ok()))).unwrap()
}

fn queue(id: u64) -> Definition {
    Definition::PutQueue(QueueDefinition {
        id,
        vhost: "/".into(),
        name: format!("queue {id}"),
        auto_delete: false,
        arguments: vec![],
    })
}

/// A message that is told by its routing key.
fn message(id: u64, body: &[u8]) -> Message {
    Message {
        id,
        exchange: Rc::from("amq.topic"),
        routing_key: id.to_string().into(),
        content: Content::new([&[0, 0], body].concat(), 2),
        expires_ms: u64::MAX,
        published_ms: 0,
        stored: None,
        deduplicated: false,
    }
}

impl Store {
    /// Publishes a message; its place in the first of the queues.
    fn put(&mut self, id: u64, body: &[u8], queues: &[u64]) -> u64 {
        let mut message = message(id, body);
        self.publish(&mut message, queues);
        message.stored.unwrap().first
    }
}

/// A place, and what is there.
type Held = (RecoveredPlace, Rc<Message>);

/// All that is in queues.
fn held(store: &Store, recovered: &mut Recovered) -> Vec<Held> {
    let mut found = Vec::new();
    std::mem::take(&mut recovered.messages).for_each(|place| {
        let message = pages::message(&store.reader(), place.message, place.spot).unwrap();
        assert_eq!(message.content.body().len(), place.body_bytes as usize);
        found.push((place, message));
    });
    found
}

/// Queue to the ids in it.
fn by_queue(held: &[Held]) -> BTreeMap<u64, Vec<u64>> {
    let mut queues = BTreeMap::<u64, Vec<u64>>::new();
    for (place, message) in held {
        queues.entry(place.queue).or_default().push(message.routing_key.parse().unwrap());
    }
    queues
}

/// What is on disk: opens, looks, and closes.
fn contents(folder: &Path) -> BTreeMap<u64, Vec<u64>> {
    let (store, mut recovered) = open(folder);
    let contents = by_queue(&held(&store, &mut recovered));
    assert_eq!(recovered.damage, [""; 0]);
    store.close();
    contents
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder.join("messages")).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|end| end == "seg")).collect();
    segments.sort();
    segments
}

/// As after a crash: what was written for a short start is not there.
fn forget_checkpoint(folder: &Path) {
    for entry in fs::read_dir(folder.join("messages")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "seg") {
            fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn counts_of_deliveries_outlive_restarts_and_shrinking() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path());
    store.define(queue(1));
    let body = vec![b'x'; 1024 * 1024];
    let first = store.put(1, &body, &[1]);
    let second = store.put(2, &body, &[1]);
    store.counted(first, 1, 0);
    store.counted(second, 5, 0);
    store.commit();
    store.counted(first, 2, 77);
    store.ack(second);
    store.close();
    let check = |held: &[Held]| {
        assert_eq!(by_queue(held), BTreeMap::from([(1, vec![1])]));
        let place = held[0].0;
        assert_eq!((place.redelivered, place.delivery_count, place.due_ms), (false, 2, 77));
    };
    let (mut store, mut recovered) = open(folder.path());
    check(&held(&store, &mut recovered));
    for id in 3..=120 {
        let place = store.put(id, &body, &[1]);
        store.commit();
        store.ack(place);
    }
    store.close();
    let (store, mut recovered) = open(folder.path());
    check(&held(&store, &mut recovered));
    store.close();
}

#[test]
fn what_was_written_is_there_again() {
    for crash in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, mut recovered) = open(folder.path());
        assert!(held(&store, &mut recovered).is_empty() && recovered.queues.is_empty());
        store.define(queue(1));
        store.define(queue(2));
        let first = store.put(1, b"one", &[1, 2]);
        store.put(2, b"two", &[1]);
        store.commit();
        store.delivered(1, first);
        store.ack(first + 1);
        store.close();
        if crash {
            forget_checkpoint(folder.path());
        }
        let (store, mut recovered) = open(folder.path());
        let held = held(&store, &mut recovered);
        assert_eq!(by_queue(&held), BTreeMap::from([(1, vec![1, 2])]));
        assert_eq!(held[0].1.content.body(), b"one");
        assert_eq!(&*held[0].1.exchange, "amq.topic");
        assert!(held[0].0.redelivered && !held[1].0.redelivered);
        assert_eq!(recovered.last_queue_id, 2);
        store.close();
    }
}

#[test]
fn a_batch_is_told_when_it_is_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (told, outcomes) = mpsc::channel();
    let (mut store, _) =
        Store::open(folder.path(), Box::new(move |outcome| told.send(outcome).unwrap())).unwrap();
    store.define(queue(1));
    let batch = store.publish(&mut message(1, b"x"), &[1]);
    store.commit();
    assert_eq!(outcomes.recv().unwrap(), Ok(batch));
    let next = store.publish(&mut message(2, b"y"), &[1]);
    assert!(batch < next);
    store.commit();
    assert_eq!(outcomes.recv().unwrap(), Ok(next));
}

#[test]
fn a_deleted_queue_leaves_nothing_and_its_number_does_not_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path());
    store.define(queue(1));
    store.put(1, b"x", &[1]);
    store.commit();
    store.define(Definition::DeleteQueue(1));
    store.close();
    assert_eq!(contents(folder.path()), BTreeMap::new());
    let (store, recovered) = open(folder.path());
    assert!(recovered.queues.is_empty());
    assert_eq!(recovered.last_queue_id, 1);
    store.close();
}

#[test]
fn a_second_store_on_the_same_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (_store, _) = open(folder.path());
    let second = Store::open(folder.path(), Box::new(|_| ()));
    let error = second.err().unwrap();
    assert!(matches!(error, StoreError::InUse(_)));
    assert!(error.to_string().ends_with("is in use by another server"), "{error}");
}

#[test]
fn a_folder_that_cannot_be_written_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Store::open(&file, Box::new(|_| ())).err().unwrap();
    assert!(error.to_string().starts_with("cannot make the data directory"), "{error}");
}

/// A data directory with what a server that was killed has left: definitions, and one segment with these bytes.
fn killed(folder: &Path, segment: &[u8]) -> PathBuf {
    let messages = folder.join("messages");
    fs::remove_dir_all(&messages).unwrap();
    fs::create_dir(&messages).unwrap();
    let path = messages.join("0000000001.seg");
    fs::write(&path, segment).unwrap();
    path
}

#[test]
fn a_torn_end_is_cut_wherever_it_was_torn() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path());
    store.define(queue(1));
    store.put(1, b"whole", &[1]);
    store.commit();
    let before = store.filler.batch.offset as usize;
    store.put(2, b"torn", &[1]);
    store.close();
    let whole = fs::read(&segments(folder.path())[0]).unwrap();
    for cut in before + 1..whole.len() {
        killed(folder.path(), &whole[..cut]);
        let (mut store, mut recovered) = open(folder.path());
        let found = by_queue(&held(&store, &mut recovered));
        assert_eq!(found, BTreeMap::from([(1, vec![1])]), "cut at {cut}");
        assert_eq!(recovered.damage.len(), 1);
        store.put(3, b"after", &[1]);
        store.close();
        assert_eq!(contents(folder.path()), BTreeMap::from([(1, vec![1, 3])]), "after {cut}");
    }
}

/// A transaction over three queues with an acknowledgement in it, cut off or damaged at every byte.
#[test]
fn a_transaction_is_whole_or_not_there_wherever_it_was_torn() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path());
    for id in 1..=3 {
        store.define(queue(id));
    }
    let first = store.put(1, b"before", &[1, 2]);
    store.commit();
    let before = store.filler.batch.offset as usize;
    store.begin_group();
    store.put(2, b"one", &[1]);
    store.put(3, b"two", &[2, 3]);
    store.begin_group();
    store.ack(first);
    store.end_group();
    store.end_group();
    store.close();
    let whole = fs::read(&segments(folder.path())[0]).unwrap();
    let nothing = BTreeMap::from([(1, vec![1]), (2, vec![1])]);
    let all = BTreeMap::from([(1, vec![2]), (2, vec![1, 3]), (3, vec![3])]);
    for cut in before..=whole.len() {
        killed(folder.path(), &whole[..cut]);
        let (store, mut recovered) = open(folder.path());
        let want = if cut < whole.len() { &nothing } else { &all };
        assert_eq!(by_queue(&held(&store, &mut recovered)), *want, "cut at {cut}");
        store.close();
    }
    for at in before..whole.len() {
        let mut torn = whole.clone();
        torn[at] ^= 0x40;
        killed(folder.path(), &torn);
        let (mut store, mut recovered) = open(folder.path());
        assert_eq!(by_queue(&held(&store, &mut recovered)), nothing, "damaged at {at}");
        assert!(!recovered.damage.is_empty());
        // What comes after it is not mistaken for its end, and it does not come up with the next start.
        store.begin_group();
        store.put(4, b"four", &[1]);
        store.put(5, b"five", &[1]);
        store.end_group();
        store.close();
        let (store, mut recovered) = open(folder.path());
        let want = BTreeMap::from([(1, vec![1, 4, 5]), (2, vec![1])]);
        assert_eq!(by_queue(&held(&store, &mut recovered)), want, "after damage at {at}");
        store.close();
    }
}

#[test]
fn a_group_of_one_record_needs_no_end() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path());
    store.define(queue(1));
    store.begin_group();
    store.end_group();
    store.begin_group();
    store.put(1, b"x", &[1]);
    store.end_group();
    store.close();
    let bytes = fs::read(&segments(folder.path())[0]).unwrap();
    assert!(
        matches!(record::decode(&bytes[24..]), Decoded::Record(_, size) if 24 + size == bytes.len())
    );
    assert_eq!(contents(folder.path()), BTreeMap::from([(1, vec![1])]));
}

#[test]
fn damage_in_the_middle_is_reported_and_the_rest_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path());
    store.define(queue(1));
    for id in 1..=3 {
        store.put(id, b"a body", &[1]);
    }
    store.close();
    let mut bytes = fs::read(&segments(folder.path())[0]).unwrap();
    let middle = 24 + (bytes.len() - 24) / 2;
    bytes[middle] ^= 1;
    killed(folder.path(), &bytes);
    let (store, mut recovered) = open(folder.path());
    assert_eq!(by_queue(&held(&store, &mut recovered)), BTreeMap::from([(1, vec![1, 3])]));
    assert!(recovered.damage[0].contains("are damaged"), "{:?}", recovered.damage);
    store.close();
}

/// Of a segment that is not read at a start for its index is there, a message that is damaged is told when it is wanted.
#[test]
fn damage_behind_an_index_costs_that_message_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path());
    store.define(queue(1));
    for id in 1..=3 {
        store.put(id, b"a body", &[1]);
    }
    store.close();
    let path = segments(folder.path())[0].clone();
    let mut bytes = fs::read(&path).unwrap();
    let middle = 24 + (bytes.len() - 24) / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (store, mut recovered) = open(folder.path());
    let mut read = Vec::new();
    std::mem::take(&mut recovered.messages).for_each(|place| {
        read.push(pages::message(&store.reader(), place.message, place.spot).is_some());
    });
    assert_eq!(read, [true, false, true]);
    store.close();
}

#[test]
fn a_file_of_another_format_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path());
    store.put(1, b"x", &[1]);
    store.close();
    let path = segments(folder.path())[0].clone();
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 9;
    killed(folder.path(), &bytes);
    let error = Store::open(folder.path(), Box::new(|_| ())).err().unwrap();
    assert!(error.to_string().contains("is of format 9; this server reads format 4"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
    bytes[0] = b'x';
    killed(folder.path(), &bytes);
    let error = Store::open(folder.path(), Box::new(|_| ())).err().unwrap();
    assert!(error.to_string().contains("is not a file of this server"), "{error}");
}

#[test]
fn one_old_message_pins_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path());
    store.define(queue(1));
    store.define(queue(2));
    let body = vec![b'x'; 1024 * 1024];
    let mut kept = 0;
    for id in 1..=200 {
        let place = store.put(id, &body, &[1, 2]);
        store.commit();
        // One in forty stays, in one of its queues.
        if id % 40 == 1 {
            store.ack(place + 1);
            kept += 1;
        } else {
            store.ack(place);
            store.ack(place + 1);
        }
    }
    store.close();
    let want = BTreeMap::from([(1, vec![1, 41, 81, 121, 161])]);
    // What was being written when it ended is tidied up at a start, a segment each time.
    for _ in 0..4 {
        assert_eq!(contents(folder.path()), want);
    }
    let bytes: u64 =
        segments(folder.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(bytes < (kept + 1) * 1024 * 1024, "{bytes} bytes are left");
    // Without what was written for a short start it is the same, or more comes again, but nothing is lost.
    forget_checkpoint(folder.path());
    let (store, mut recovered) = open(folder.path());
    let found = by_queue(&held(&store, &mut recovered));
    assert!(want[&1].iter().all(|id| found[&1].contains(id)));
    store.close();
}

#[test]
fn what_is_settled_before_it_is_written_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut recovered = Recovered::default();
    let mut writer = writer(folder.path(), &mut recovered);
    let mut filler = Filler::new(writer.log.number(), &Sizes::DEFAULT);
    let body = vec![b'x'; 100_000];
    filler.batch.definitions.extend([queue(1), queue(2)]);
    let publish = |filler: &mut Filler, id, queues: &[u64]| {
        let mut message = message(id, &body);
        filler.publish(&mut message, queues);
        message.stored.unwrap().first
    };
    let settled = [publish(&mut filler, 1, &[1]), publish(&mut filler, 2, &[2])];
    publish(&mut filler, 3, &[1]);
    let half = publish(&mut filler, 4, &[1, 2]);
    let first = filler.take().unwrap();
    settled.into_iter().for_each(|place| filler.ack(place));
    filler.ack(half + 1);
    writer.write(vec![first, filler.take().unwrap()]).unwrap();
    let path = folder.path().join("messages/0000000001.seg");
    let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&path).unwrap());
    assert!(blocks * 512 < 300_000, "{blocks} blocks were written");
    // When nothing is left nobody waits for a sync.
    let gone = publish(&mut filler, 5, &[1]);
    filler.ack(gone);
    let batch = filler.take().unwrap();
    let offset = batch.offset;
    writer.write(vec![batch]).unwrap();
    assert!(
        !writer
            .log
            .synced()
            .covers(u64::from(writer.log.number()) << 32, Spot { offset, bytes: 1 })
    );
    writer.log.close().unwrap();
    drop(writer);
    assert_eq!(contents(folder.path()), BTreeMap::from([(1, vec![3, 4])]));
    forget_checkpoint(folder.path());
    assert_eq!(contents(folder.path()), BTreeMap::from([(1, vec![3, 4])]));
}

fn writer(folder: &Path, recovered: &mut Recovered) -> Writer {
    let definitions = Definitions::open(&folder.join("definitions.sqlite"), recovered).unwrap();
    let streams = folder.join("streams");
    let (streams, _) = stream::Writer::open(&streams, &[], &mut recovered.damage).unwrap();
    fs::create_dir_all(folder.join("messages")).unwrap();
    let disk = Folder::new(&folder.join("messages"), true);
    let keepers = recovered.keepers();
    let (log, _) = recovery::open(disk, &Sizes::DEFAULT, &keepers, &mut recovered.damage).unwrap();
    Writer::new(log, streams, definitions)
}

#[derive(Clone, Debug)]
enum Step {
    Publish(Vec<u64>, usize),
    Ack(usize, usize),
    DropQueue(usize),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let queues = prop::sample::subsequence(vec![1u64, 2, 3], 1..=3);
    prop_oneof![
        6 => (queues, 0..5000usize).prop_map(|(queues, size)| Step::Publish(queues, size)),
        4 => (0..3usize, any::<usize>()).prop_map(|(queue, message)| Step::Ack(queue, message)),
        1 => (0..3usize).prop_map(Step::DropQueue),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_store_holds_what_a_map_holds(steps in prop::collection::vec(step(), 1..60)) {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, _) = open(folder.path());
        let mut ids = [1u64, 2, 3];
        let mut last_queue = 3;
        for id in ids {
            store.define(queue(id));
        }
        // Ids and places.
        let mut model = BTreeMap::<u64, Vec<(u64, u64)>>::new();
        let ids_of = |model: &BTreeMap<u64, Vec<(u64, u64)>>| {
            let queues = model.iter().filter(|(_, messages)| !messages.is_empty());
            queues
                .map(|(queue, messages)| (*queue, messages.iter().map(|(id, _)| *id).collect()))
                .collect::<BTreeMap<u64, Vec<u64>>>()
        };
        let mut last = 0;
        for step in steps {
            match step {
                Step::Publish(chosen, size) => {
                    last += 1;
                    let queues: Vec<u64> = chosen.iter().map(|n| ids[*n as usize - 1]).collect();
                    let first = store.put(last, &vec![b'x'; size], &queues);
                    for (place, queue) in (first..).zip(queues) {
                        model.entry(queue).or_default().push((last, place));
                    }
                }
                Step::Ack(queue, n) => {
                    let queue = ids[queue];
                    if let Some(messages) = model.get_mut(&queue)
                        && !messages.is_empty()
                    {
                        let n = n % messages.len();
                        store.ack(messages.remove(n).1);
                    }
                }
                Step::DropQueue(n) => {
                    store.define(Definition::DeleteQueue(ids[n]));
                    for (_, place) in model.remove(&ids[n]).unwrap_or_default() {
                        store.ack(place);
                    }
                    last_queue += 1;
                    ids[n] = last_queue;
                    store.define(queue(last_queue));
                }
                Step::Reopen => {
                    store.close();
                    let (again, mut recovered) = open(folder.path());
                    store = again;
                    let found = by_queue(&held(&store, &mut recovered));
                    prop_assert_eq!(found, ids_of(&model));
                }
            }
            store.commit();
        }
        store.close();
        prop_assert_eq!(contents(folder.path()), ids_of(&model));
    }

    #[test]
    fn any_bytes_are_decoded_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = record::decode(&bytes);
        let _ = record::decode_payload(&bytes);
        let _ = super::legacy::record::decode(&bytes);
        let _ = super::checkpoint::decode_any(&bytes);
    }

    #[test]
    fn records_come_back_as_they_were(
        ids in any::<(u64, u64, u32)>(),
        queues in prop::collection::vec(any::<u64>(), 0..5),
        texts in ("[a-z.]{0,255}", "\\PC{0,60}"),
        properties in prop::collection::vec(any::<u8>(), 0..50),
        body in prop::collection::vec(any::<u8>(), 0..500),
    ) {
        let records = [
            Record::Publish {
                place: ids.2,
                expires_ms: ids.1,
                published_ms: ids.0 % 2,
                queues,
                exchange: &texts.0,
                routing_key: &texts.1,
                properties: &properties,
                body: &body,
            },
            Record::Ack { first: ids.0, count: ids.2 },
            Record::Delivered { queue: ids.1, place: ids.0 },
            Record::Counted { place: ids.1, count: ids.2, due_ms: ids.0 },
            Record::End { count: ids.2 },
        ];
        let mut bytes = Vec::new();
        for record in &records {
            record::encode(&mut bytes, record, false);
            record::encode(&mut bytes, record, true);
        }
        let at = bytes.len();
        bytes.extend_from_slice(&[7; 100]);
        record::fill(&mut bytes[at..]);
        let mut rest = &bytes[..];
        for record in &records {
            let Decoded::Record(read, size) = record::decode(rest) else { panic!("not a record") };
            prop_assert_eq!(&read, record);
            rest = &rest[size..];
            let Decoded::Grouped(read, size) = record::decode(rest) else { panic!("no group") };
            prop_assert_eq!(&read, record);
            rest = &rest[size..];
        }
        prop_assert_eq!(record::decode(rest), Decoded::Filler(100));
    }
}

#[test]
fn a_file_of_the_first_format_is_brought_up() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path());
    store.define(queue(1));
    store.close();
    let path = folder.path().join("definitions.sqlite");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection
        .execute_batch(
            "DROP TABLE vhosts; DROP TABLE users; DROP TABLE permissions; DROP TABLE topic_permissions;
             DROP TABLE parameters; DROP TABLE global_parameters; DROP TABLE policies; PRAGMA user_version = 1;",
        )
        .unwrap();
    drop(connection);
    let (store, recovered) = open(folder.path());
    assert_eq!(recovered.queues.len(), 1);
    assert!(recovered.tenancy.is_empty());
    store.close();
}

#[test]
fn a_newer_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).0.close();
    let path = folder.path().join("definitions.sqlite");
    rusqlite::Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    let error = Store::open(folder.path(), Box::new(|_| ())).err().unwrap();
    assert!(error.to_string().contains("is of format 99"), "{error}");
}
