use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::sync::mpsc;

use proptest::prelude::*;

use super::definitions::Definitions;
use super::flusher::{Batch, Writer};
use super::log::Log;
use super::record::{self, Decoded, Record};
use super::{Definition, QueueDefinition, Recovered, RecoveredPlace, Store, StoreError};
use crate::message::{Content, Message};
use crate::stream;

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

fn message(id: u64, body: &[u8]) -> Message {
    Message {
        id,
        exchange: Rc::from("amq.topic"),
        routing_key: "a.b".into(),
        content: Content::new([&[0, 0], body].concat(), 2),
        expires_ms: u64::MAX,
        published_ms: 0,
        stored: true,
        deduplicated: false,
    }
}

/// Queue to the ids in it.
fn contents(recovered: &Recovered) -> BTreeMap<u64, Vec<u64>> {
    let mut queues = BTreeMap::<u64, Vec<u64>>::new();
    for message in &recovered.messages {
        for place in &message.queues {
            queues.entry(place.queue).or_default().push(message.id);
        }
    }
    queues
}

fn only_segment(folder: &Path) -> std::path::PathBuf {
    folder.join("messages/0000000001.seg")
}

/// A place in queue 1.
fn place(redelivered: bool, delivery_count: u32) -> RecoveredPlace {
    RecoveredPlace { queue: 1, redelivered, delivery_count, due_ms: 0 }
}

#[test]
fn counts_of_deliveries_outlive_restarts_and_compaction() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path());
    store.define(queue(1));
    let body = vec![b'x'; 1024 * 1024];
    store.publish(&message(1, &body), &[1]);
    store.publish(&message(2, &body), &[1]);
    store.counted(1, 1, 1, 0);
    store.counted(1, 2, 5, 0);
    store.commit();
    store.counted(1, 1, 2, 0);
    store.ack(1, 2);
    store.close();
    let (mut store, recovered) = open(folder.path());
    assert_eq!(recovered.messages[0].queues, [place(false, 2)]);
    for id in 3..=80 {
        store.publish(&message(id, &body), &[1]);
        store.commit();
        store.ack(1, id);
    }
    store.close();
    assert!(!only_segment(folder.path()).exists(), "nothing was compacted");
    let (store, recovered) = open(folder.path());
    assert_eq!(contents(&recovered), BTreeMap::from([(1, vec![1])]));
    assert_eq!(recovered.messages[0].queues, [place(false, 2)]);
    store.close();
}

#[test]
fn times_outlive_restarts_and_compaction() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path());
    store.define(queue(1));
    let body = vec![b'x'; 1024 * 1024];
    store.publish(&Message { published_ms: 77, ..message(1, b"") }, &[1]);
    store.publish(&message(2, b""), &[1]);
    store.counted(1, 1, 3, 0);
    store.counted(1, 1, 4, 99);
    store.commit();
    for id in 3..=80 {
        store.publish(&message(id, &body), &[1]);
        store.commit();
        store.ack(1, id);
    }
    store.close();
    assert!(!only_segment(folder.path()).exists(), "nothing was compacted");
    let (store, recovered) = open(folder.path());
    let times = |at: usize| {
        let message = &recovered.messages[at];
        (message.published_ms, message.queues[0].delivery_count, message.queues[0].due_ms)
    };
    assert_eq!((times(0), times(1)), ((77, 4, 99), (0, 0, 0)));
    store.close();
}

#[test]
fn a_segment_of_the_first_format_is_read_and_not_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path());
    store.define(queue(1));
    store.publish(&message(1, b"old"), &[1]);
    store.close();
    let path = only_segment(folder.path());
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 1;
    fs::write(&path, &bytes).unwrap();
    let (mut store, recovered) = open(folder.path());
    assert_eq!(contents(&recovered), BTreeMap::from([(1, vec![1])]));
    store.counted(1, 1, 1, 0);
    store.publish(&message(2, b"new"), &[1]);
    store.close();
    assert_eq!(fs::read(&path).unwrap(), bytes);
    let (store, recovered) = open(folder.path());
    assert_eq!(contents(&recovered), BTreeMap::from([(1, vec![1, 2])]));
    assert_eq!(recovered.messages[0].queues, [place(false, 1)]);
    store.close();
}

#[test]
fn what_was_written_is_there_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, recovered) = open(folder.path());
    assert!(recovered.messages.is_empty() && recovered.queues.is_empty());
    store.define(queue(1));
    store.define(queue(2));
    store.publish(&message(1, b"one"), &[1, 2]);
    store.publish(&message(2, b"two"), &[1]);
    store.commit();
    store.delivered(1, 1);
    store.ack(2, 1);
    store.close();
    let (store, recovered) = open(folder.path());
    assert_eq!(contents(&recovered), BTreeMap::from([(1, vec![1, 2])]));
    let first = &recovered.messages[0];
    assert_eq!((first.content.body(), first.routing_key.as_str()), (&b"one"[..], "a.b"));
    assert_eq!(first.queues, [place(true, 0)]);
    assert_eq!(recovered.messages[1].queues, [place(false, 0)]);
    assert_eq!((recovered.last_queue_id, recovered.last_message_id), (2, 2));
    store.close();
}

#[test]
fn a_batch_is_told_when_it_is_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (told, outcomes) = mpsc::channel();
    let (mut store, _) =
        Store::open(folder.path(), Box::new(move |outcome| told.send(outcome).unwrap())).unwrap();
    store.define(queue(1));
    let batch = store.publish(&message(1, b"x"), &[1]);
    store.commit();
    assert_eq!(outcomes.recv().unwrap(), Ok(batch));
    let next = store.publish(&message(2, b"y"), &[1]);
    assert!(batch < next);
    store.commit();
    assert_eq!(outcomes.recv().unwrap(), Ok(next));
}

#[test]
fn a_deleted_queue_leaves_nothing_and_its_number_does_not_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path());
    store.define(queue(1));
    store.publish(&message(1, b"x"), &[1]);
    store.commit();
    store.define(Definition::DeleteQueue(1));
    store.close();
    let (_store, recovered) = open(folder.path());
    assert!(recovered.messages.is_empty() && recovered.queues.is_empty());
    assert_eq!(recovered.last_queue_id, 1);
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

#[test]
fn a_torn_end_is_cut_wherever_it_was_torn() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path());
    store.define(queue(1));
    store.publish(&message(1, b"whole"), &[1]);
    store.commit();
    store.close();
    let path = only_segment(folder.path());
    let whole = fs::read(&path).unwrap();
    let mut torn = Vec::new();
    record::encode_publish(&mut torn, &message(2, b"torn"), &[1], false);
    for cut in 1..torn.len() {
        fs::write(&path, [&whole[..], &torn[..cut]].concat()).unwrap();
        let (mut store, recovered) = open(folder.path());
        assert_eq!(contents(&recovered), BTreeMap::from([(1, vec![1])]), "cut at {cut}");
        assert_eq!(recovered.damage.len(), 1);
        store.publish(&message(3, b"after"), &[1]);
        store.close();
        let (store, recovered) = open(folder.path());
        assert_eq!(contents(&recovered), BTreeMap::from([(1, vec![1, 3])]), "after a cut at {cut}");
        store.close();
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
    store.publish(&message(1, b"before"), &[1, 2]);
    store.commit();
    store.close();
    let path = only_segment(folder.path());
    let before = fs::read(&path).unwrap();
    let (mut store, _) = open(folder.path());
    store.begin_group();
    store.publish(&message(2, b"one"), &[1]);
    store.publish(&message(3, b"two"), &[2, 3]);
    store.begin_group();
    store.ack(1, 1);
    store.end_group();
    store.end_group();
    store.close();
    let whole = fs::read(&path).unwrap();
    let nothing = BTreeMap::from([(1, vec![1]), (2, vec![1])]);
    let all = BTreeMap::from([(1, vec![2]), (2, vec![1, 3]), (3, vec![3])]);
    for cut in before.len()..=whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let (store, recovered) = open(folder.path());
        let want = if cut < whole.len() { &nothing } else { &all };
        assert_eq!(contents(&recovered), *want, "cut at {cut}");
        store.close();
    }
    for at in before.len()..whole.len() {
        let mut torn = whole.clone();
        torn[at] ^= 0x40;
        fs::write(&path, &torn).unwrap();
        let (mut store, recovered) = open(folder.path());
        assert_eq!(contents(&recovered), nothing, "damaged at {at}");
        assert!(!recovered.damage.is_empty());
        // What comes after it is not mistaken for its end.
        store.begin_group();
        store.publish(&message(4, b"four"), &[1]);
        store.publish(&message(5, b"five"), &[1]);
        store.end_group();
        store.close();
        let (store, recovered) = open(folder.path());
        let want = BTreeMap::from([(1, vec![1, 4, 5]), (2, vec![1])]);
        assert_eq!(contents(&recovered), want, "after damage at {at}");
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
    store.publish(&message(1, b"x"), &[1]);
    store.end_group();
    store.close();
    let bytes = fs::read(only_segment(folder.path())).unwrap();
    assert!(
        matches!(record::decode(&bytes[24..]), Decoded::Record(_, size) if 24 + size == bytes.len())
    );
    assert_eq!(contents(&open(folder.path()).1), BTreeMap::from([(1, vec![1])]));
}

#[test]
fn damage_in_the_middle_is_reported_and_the_rest_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path());
    store.define(queue(1));
    for id in 1..=3 {
        store.publish(&message(id, b"a body"), &[1]);
    }
    store.close();
    let path = only_segment(folder.path());
    let mut bytes = fs::read(&path).unwrap();
    let middle = 24 + (bytes.len() - 24) / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (_store, recovered) = open(folder.path());
    assert_eq!(contents(&recovered), BTreeMap::from([(1, vec![1, 3])]));
    assert!(recovered.damage[0].contains("are damaged"), "{:?}", recovered.damage);
}

#[test]
fn a_file_of_another_format_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).0.close();
    let path = only_segment(folder.path());
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 9;
    fs::write(&path, &bytes).unwrap();
    let error = Store::open(folder.path(), Box::new(|_| ())).err().unwrap();
    assert!(error.to_string().contains("is of format 9; this server reads format 3"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn dead_segments_go_and_survivors_move_to_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path());
    store.define(queue(1));
    let body = vec![b'x'; 1024 * 1024];
    for id in 1..=100 {
        store.publish(&message(id, &body), &[1]);
        store.commit();
        // All but the first are consumed at once.
        if id > 1 {
            store.ack(1, id);
        }
    }
    store.delivered(1, 1);
    store.close();
    let segments = fs::read_dir(folder.path().join("messages")).unwrap().count();
    assert!(segments <= 2, "{segments} segments are left");
    let (_store, recovered) = open(folder.path());
    assert_eq!(contents(&recovered), BTreeMap::from([(1, vec![1])]));
    assert_eq!(recovered.messages[0].content.body(), body);
    assert_eq!(recovered.last_message_id, 100);
}

/// Wherever the disk is full: what came meanwhile is written when there is room, and nothing stands twice.
#[test]
fn writing_goes_on_when_the_disk_has_room_again() {
    let publish = |number, id| {
        let mut batch = Batch::new(number);
        record::encode_publish(&mut batch.records, &message(id, b"a body"), &[1], false);
        batch.publishes = true;
        batch
    };
    let ack = |number, id| {
        let mut batch = Batch::new(number);
        record::encode(&mut batch.records, &Record::Ack { queue: 1, message: id }, false);
        batch
    };
    for room in 0..publish(1, 1).records.len() * 2 {
        let folder = tempfile::tempdir().unwrap();
        let mut recovered = Recovered::default();
        let definitions =
            Definitions::open(&folder.path().join("definitions.sqlite"), &mut recovered).unwrap();
        let log = Log::open(&folder.path().join("messages"), &mut recovered).unwrap();
        let streams = folder.path().join("streams");
        let (streams, _) = stream::Writer::open(&streams, &[], &mut recovered.damage).unwrap();
        let mut writer = Writer::new(log, streams, definitions);
        let mut first = publish(1, 1);
        first.definitions.push(queue(1));
        writer.write(vec![first, publish(2, 2)]).unwrap();
        writer.write(vec![ack(3, 1)]).unwrap();
        writer.log.room = Some(room);
        assert!(writer.write(vec![publish(4, 3), publish(5, 4)]).is_err(), "room for {room}");
        assert!(writer.write(vec![publish(6, 5)]).is_err());
        writer.log.room = None;
        writer.write(vec![ack(7, 4)]).unwrap();
        drop(writer);
        let (store, recovered) = open(folder.path());
        assert_eq!(contents(&recovered), BTreeMap::from([(1, vec![2, 3, 5])]), "room for {room}");
        assert_eq!(recovered.damage, [""; 0]);
        store.close();
    }
}

/// What has gone on from a queue to another one is on disk before the queue's end is.
#[test]
fn a_queue_ends_after_the_messages_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut recovered = Recovered::default();
    let definitions =
        Definitions::open(&folder.path().join("definitions.sqlite"), &mut recovered).unwrap();
    let log = Log::open(&folder.path().join("messages"), &mut recovered).unwrap();
    let streams = folder.path().join("streams");
    let (streams, _) = stream::Writer::open(&streams, &[], &mut recovered.damage).unwrap();
    let mut writer = Writer::new(log, streams, definitions);
    let mut first = Batch::new(1);
    first.definitions = vec![queue(1), queue(2)];
    record::encode_publish(&mut first.records, &message(1, b"original"), &[1], false);
    first.publishes = true;
    writer.write(vec![first]).unwrap();
    let mut copied = Batch::new(2);
    record::encode_publish(&mut copied.records, &message(2, b"copy"), &[2], false);
    record::encode(&mut copied.records, &Record::Ack { queue: 1, message: 1 }, false);
    let mut ended = Batch::new(3);
    ended.definitions = vec![Definition::DeleteQueue(1), queue(3)];
    record::encode_publish(&mut ended.records, &message(3, b"later"), &[3], false);
    // The disk is full in the middle of the copy: the process dies then.
    writer.log.room = Some(5);
    assert!(writer.write(vec![copied, ended]).is_err());
    let read = |folder: &Path| {
        let mut found = Recovered::default();
        Definitions::open(&folder.join("definitions.sqlite"), &mut found).unwrap();
        found.queues.iter().map(|queue| queue.id).collect::<Vec<_>>()
    };
    assert_eq!(read(folder.path()), [1, 2]);
    // It has room again.
    writer.log.room = None;
    writer.write(Vec::new()).unwrap();
    assert_eq!(read(folder.path()), [2, 3]);
    writer.write(vec![Batch { publishes: true, ..Batch::new(4) }]).unwrap();
    drop(writer);
    let (store, recovered) = open(folder.path());
    assert_eq!(contents(&recovered), BTreeMap::from([(2, vec![2]), (3, vec![3])]));
    store.close();
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
        let mut model = BTreeMap::<u64, Vec<u64>>::new();
        let mut last = 0;
        for step in steps {
            match step {
                Step::Publish(chosen, size) => {
                    last += 1;
                    let queues: Vec<u64> = chosen.iter().map(|n| ids[*n as usize - 1]).collect();
                    store.publish(&message(last, &vec![b'x'; size]), &queues);
                    for queue in queues {
                        model.entry(queue).or_default().push(last);
                    }
                }
                Step::Ack(queue, n) => {
                    let queue = ids[queue];
                    if let Some(messages) = model.get_mut(&queue)
                        && !messages.is_empty()
                    {
                        let n = n % messages.len();
                        store.ack(queue, messages.remove(n));
                    }
                }
                Step::DropQueue(n) => {
                    store.define(Definition::DeleteQueue(ids[n]));
                    model.remove(&ids[n]);
                    last_queue += 1;
                    ids[n] = last_queue;
                    store.define(queue(last_queue));
                }
                Step::Reopen => {
                    store.close();
                    let (again, recovered) = open(folder.path());
                    store = again;
                    model.retain(|_, messages| !messages.is_empty());
                    prop_assert_eq!(contents(&recovered), model.clone());
                }
            }
            store.commit();
        }
        store.close();
        model.retain(|_, messages| !messages.is_empty());
        prop_assert_eq!(contents(&open(folder.path()).1), model);
    }

    #[test]
    fn any_bytes_are_decoded_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = record::decode(&bytes);
        let _ = record::decode_payload(&bytes);
    }

    #[test]
    fn records_come_back_as_they_were(
        ids in any::<(u64, u64, u64)>(),
        published_ms in prop_oneof![Just(0), any::<u64>()],
        queues in prop::collection::vec(any::<u64>(), 0..5),
        texts in ("[a-z.]{0,255}", "\\PC{0,60}"),
        properties in prop::collection::vec(any::<u8>(), 0..50),
        body in prop::collection::vec(any::<u8>(), 0..500),
    ) {
        let records = [
            Record::Publish {
                message: ids.0,
                expires_ms: ids.1,
                published_ms,
                queues,
                exchange: &texts.0,
                routing_key: &texts.1,
                properties: &properties,
                body: &body,
            },
            Record::Ack { queue: ids.0, message: ids.2 },
            Record::Delivered { queue: ids.1, message: ids.2 },
            Record::Counted { queue: ids.1, message: ids.2, count: ids.0 as u32, due_ms: 0 },
            Record::Counted { queue: ids.1, message: ids.2, count: 1, due_ms: ids.0 | 1 },
            Record::End { count: ids.1 as u32 },
        ];
        let mut bytes = Vec::new();
        for record in &records {
            record::encode(&mut bytes, record, false);
            record::encode(&mut bytes, record, true);
        }
        let mut rest = &bytes[..];
        for record in &records {
            let Decoded::Record(read, size) = record::decode(rest) else { panic!("not a record") };
            prop_assert_eq!(&read, record);
            rest = &rest[size..];
            let Decoded::Grouped(read, size) = record::decode(rest) else { panic!("no group") };
            prop_assert_eq!(&read, record);
            rest = &rest[size..];
        }
        prop_assert!(rest.is_empty());
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
