//! Ends that were torn, and bits that are wrong.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::super::record::{self, Decoded};
use super::super::{Store, pages};
use super::{by_queue, contents, forget_checkpoint, held, open, queue, segments};

/// A data directory with what a server that was killed has left: definitions, and one segment with these bytes.
pub(super) fn killed(folder: &Path, segment: &[u8]) -> PathBuf {
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
    assert!(recovered.damage[0].to_string().contains("are damaged"), "{:?}", recovered.damage);
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
fn a_file_whose_machine_died_while_it_was_begun_is_begun_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path());
    store.define(queue(1));
    store.put(1, b"x", &[1]);
    store.close();
    let begun = fs::read(&segments(folder.path())[0]).unwrap();
    let next = |folder: &Path| {
        forget_checkpoint(folder);
        let last = segments(folder).pop().unwrap();
        let number = 1 + last.file_stem().unwrap().to_str().unwrap().parse::<u32>().unwrap();
        (last.with_file_name(format!("{number:010}.seg")), number)
    };
    for torn in 0..24 {
        for shorter in [true, false] {
            let (path, number) = next(folder.path());
            let mut header = begun[..24].to_vec();
            header[12..16].copy_from_slice(&number.to_le_bytes());
            header[torn..].fill(0);
            fs::write(path, &header[..if shorter { torn } else { 24 }]).unwrap();
            assert_eq!(contents(folder.path()), BTreeMap::from([(1, vec![1])]), "torn at {torn}");
        }
    }
    fs::write(next(folder.path()).0, b"somebody's letters, kept").unwrap();
    let error = Store::open(folder.path(), Box::new(|_| ())).err().unwrap();
    assert!(error.to_string().contains("is not a file of this server"), "{error}");
}
