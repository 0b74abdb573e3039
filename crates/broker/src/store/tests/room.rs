//! What is dead makes room, or is never written.

use std::collections::BTreeMap;
use std::fs;

use super::super::log::Sizes;
use super::super::{Filler, Recovered};
use super::{by_queue, contents, forget_checkpoint, held, message, open, queue, segments, writer};
use crate::message::Spot;

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
    let bytes = || -> u64 {
        segments(folder.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum()
    };
    // What was to be tidied up when it ended is after a start, a segment each time at least.
    for _ in 0..20 {
        assert_eq!(contents(folder.path()), want);
        if bytes() < (kept + 1) * 1024 * 1024 {
            break;
        }
    }
    assert!(bytes() < (kept + 1) * 1024 * 1024, "{} bytes are left", bytes());
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
