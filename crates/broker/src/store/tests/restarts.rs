//! What is there again after a restart, and who is refused.

use std::collections::BTreeMap;
use std::fs;
use std::sync::mpsc;

use super::super::{Definition, Store, StoreError};
use super::{Held, by_queue, contents, forget_checkpoint, held, message, open, queue};

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

/// Else all messages would be nobody's, and go.
#[test]
fn messages_without_definitions_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path());
    store.define(queue(1));
    store.put(1, b"x", &[1]);
    store.close();
    let path = folder.path().join("definitions.sqlite");
    fs::rename(&path, folder.path().join("aside")).unwrap();
    let error = Store::open(folder.path(), Box::new(|_| ())).err().unwrap();
    assert!(error.to_string().contains("definitions.sqlite is missing"), "{error}");
    fs::rename(folder.path().join("aside"), &path).unwrap();
    assert_eq!(contents(folder.path()), BTreeMap::from([(1, vec![1])]));
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
