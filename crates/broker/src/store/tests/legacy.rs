//! Logs that older servers have left.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::super::legacy::record::{Record, encode};
use super::{by_queue, contents, held, open, queue};

/// A segment of an old format.
fn write(folder: &Path, number: u64, format: u32, records: &[Record<'_>]) {
    let mut bytes = b"WRNMSGS\0".to_vec();
    bytes.extend_from_slice(&format.to_le_bytes());
    bytes.extend_from_slice(&[0; 12]);
    records.iter().for_each(|record| encode(&mut bytes, record, false));
    fs::write(folder.join(format!("messages/{number:010}.seg")), bytes).unwrap();
}

fn publish(message: u64, queues: &[u64]) -> Record<'_> {
    const KEYS: [&str; 6] = ["0", "1", "2", "3", "4", "5"];
    Record::Publish {
        message,
        expires_ms: 99 + message,
        published_ms: 7,
        queues: queues.to_vec(),
        exchange: "x",
        routing_key: KEYS[message as usize],
        properties: &[0, 0],
        body: b"old",
    }
}

/// A data directory with two queues, and a log of an old format.
pub(super) fn old(folder: &Path, format: u32) {
    let (mut store, _) = open(folder);
    store.define(queue(1));
    store.define(queue(2));
    store.close();
    fs::remove_dir_all(folder.join("messages")).unwrap();
    fs::create_dir(folder.join("messages")).unwrap();
    let first = [publish(1, &[1, 2]), publish(2, &[1, 9]), Record::Ack { queue: 2, message: 1 }];
    write(folder, 1, format, &first);
    let second = [
        publish(3, &[2]),
        Record::Delivered { queue: 1, message: 1 },
        Record::Counted { queue: 2, message: 3, count: 4, due_ms: 0 },
        publish(4, &[9]),
    ];
    write(folder, 2, format, &second);
}

#[test]
fn logs_of_all_older_formats_are_brought_up() {
    for format in 1..=3 {
        let folder = tempfile::tempdir().unwrap();
        old(folder.path(), format);
        let (mut store, mut recovered) = open(folder.path());
        let found = held(&store, &mut recovered);
        assert_eq!(by_queue(&found), BTreeMap::from([(1, vec![1, 2]), (2, vec![3])]));
        let marks: Vec<_> = found
            .iter()
            .map(|(place, _)| (place.redelivered, place.delivery_count, place.expires_ms))
            .collect();
        assert_eq!(marks, [(true, 0, 100), (false, 0, 101), (false, 4, 102)]);
        assert_eq!((found[0].1.content.body(), found[0].1.published_ms), (&b"old"[..], 7));
        store.put(5, b"new", &[1]);
        store.close();
        let want = BTreeMap::from([(1, vec![1, 2, 5]), (2, vec![3])]);
        assert_eq!(contents(folder.path()), want);
        assert!(!folder.path().join("messages.old").exists());
        assert!(!folder.path().join("messages.new").exists());
    }
}

/// Wherever the server dies while it brings a log up, the next one has it whole.
#[test]
fn a_log_that_was_half_brought_up_is_whole() {
    let want = BTreeMap::from([(1, vec![1, 2]), (2, vec![3])]);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    // While it writes.
    old(folder.path(), 3);
    fs::create_dir(path("messages.new")).unwrap();
    fs::write(path("messages.new/0000000001.seg"), "half").unwrap();
    assert_eq!(contents(folder.path()), want);
    // Between the renames.
    fs::rename(path("messages"), path("messages.new")).unwrap();
    fs::create_dir(path("messages.old")).unwrap();
    assert_eq!(contents(folder.path()), want);
    // Before the old one is gone.
    fs::create_dir(path("messages.old")).unwrap();
    assert_eq!(contents(folder.path()), want);
    assert!(!path("messages.old").exists());
}

/// Of any size: `WARREN_STORE_OLD_MIB` says how many mebibytes, for who wants to see what memory it takes.
#[test]
fn a_long_old_log_is_brought_up() {
    let folder = tempfile::tempdir().unwrap();
    old(folder.path(), 3);
    let mebibytes = std::env::var("WARREN_STORE_OLD_MIB").ok().and_then(|text| text.parse().ok());
    let (segments, body) = (mebibytes.unwrap_or(4u64), vec![b'x'; 8 * 1024]);
    let per_segment = 128;
    let count = segments * per_segment;
    for segment in 0..segments {
        let mut records = Vec::new();
        for nth in 0..per_segment {
            let message = 10 + segment * per_segment + nth;
            let Record::Publish { exchange, routing_key, properties, .. } = publish(1, &[]) else {
                unreachable!("it is one")
            };
            let queues = vec![1];
            records.push(Record::Publish {
                message,
                expires_ms: u64::MAX,
                published_ms: 0,
                queues,
                exchange,
                routing_key,
                properties,
                body: &body,
            });
            // Every fourth stays.
            if !nth.is_multiple_of(4) {
                records.push(Record::Ack { queue: 1, message });
            }
        }
        write(folder.path(), 3 + segment, 3, &records);
    }
    let (store, recovered) = open(folder.path());
    let mut found = 0;
    recovered.messages.for_each(|place| found += u64::from(place.body_bytes == 8 * 1024));
    assert_eq!(found, count / 4);
    store.close();
}
