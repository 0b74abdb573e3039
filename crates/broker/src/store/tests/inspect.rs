//! Data directories looked into while no server uses them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::mpsc;

use serde_json::Value;

use super::super::StoreError;
use super::super::inspect::{Checked, Inspection, Selection};
use super::damage::killed;
use super::legacy::old;
use super::{forget_checkpoint, message, open, queue, segments};

/// Everything in a folder, by its path.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.display().to_string(), fs::read(&path).unwrap());
        }
    }
    found
}

/// Looks twice, and sees to it that nothing changes.
fn look<T>(folder: &Path, look: impl Fn(&Inspection) -> T) -> T {
    let before = files(folder);
    let seen = look(&Inspection::open(folder).unwrap());
    assert!(before == files(folder), "something has changed");
    seen
}

fn check(folder: &Path) -> Checked {
    look(folder, |inspection| inspection.check().unwrap())
}

fn dump(folder: &Path, selection: &Selection) -> Vec<Value> {
    look(folder, |inspection| {
        let mut rows = Vec::new();
        inspection
            .dump(selection, &mut |row| {
                rows.push(row);
                true
            })
            .unwrap();
        rows
    })
}

/// Three messages in a queue, the second in another one, too; the first is settled.
fn three(folder: &Path) {
    let (told, outcomes) = mpsc::channel();
    let on_sync = Box::new(move |outcome| drop(told.send(outcome)));
    let (mut store, _) = super::Store::open(folder, on_sync).unwrap();
    store.define(queue(1));
    store.define(queue(2));
    let first = store.put(1, b"a first body", &[1]);
    store.put(2, b"a second body", &[1, 2]);
    store.put(3, b"a third body", &[1]);
    store.commit();
    // Else the first is not written at all.
    outcomes.recv().unwrap().unwrap();
    store.ack(first);
    store.close();
}

#[test]
fn a_whole_directory_is_told_to_be_whole() {
    let folder = tempfile::tempdir().unwrap();
    three(folder.path());
    for _ in 0..2 {
        let checked = check(folder.path());
        assert_eq!(checked.damage, []);
        assert_eq!((checked.queues, checked.messages), (2, 3));
        forget_checkpoint(folder.path());
    }
}

#[test]
fn a_server_and_a_look_keep_each_other_out() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let error = Inspection::open(folder.path()).err().unwrap();
    assert!(matches!(error, StoreError::InUse(_)), "{error}");
    store.close();
    let one = Inspection::open(folder.path()).unwrap();
    // Two that only look are in nobody's way.
    let two = Inspection::open(folder.path()).unwrap();
    let server = super::Store::open(folder.path(), Box::new(|_| ()));
    assert!(matches!(server.err().unwrap(), StoreError::InUse(_)));
    drop((one, two));
    open(folder.path()).0.close();
}

#[test]
fn a_folder_that_is_none_of_ours_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = Inspection::open(folder.path()).err().unwrap();
    assert!(error.to_string().ends_with("neither definitions nor messages in it"), "{error}");
}

#[test]
fn damage_is_told_with_its_place_and_what_it_costs() {
    let folder = tempfile::tempdir().unwrap();
    three(folder.path());
    let path = segments(folder.path())[0].clone();
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(6).position(|bytes| bytes == b"second").unwrap();
    bytes[at] ^= 4;
    fs::write(&path, &bytes).unwrap();
    let checked = check(folder.path());
    assert!(!checked.is_whole());
    let told: Vec<String> = checked.damage.iter().map(ToString::to_string).collect();
    let (from, to) = {
        let words: Vec<&str> = told[0].split(' ').collect();
        (words[2].parse::<usize>().unwrap(), words[4].parse::<usize>().unwrap())
    };
    assert!(told[0].starts_with(&format!("{}: bytes ", path.display())), "{told:?}");
    assert!(from < at && at < to, "{told:?}");
    assert_eq!(
        told[1..],
        [
            "1 messages of 'queue 1' in vhost '/' are lost",
            "1 messages of 'queue 2' in vhost '/' are lost",
        ]
    );
    assert_eq!(checked.messages, 1);
    let rows = dump(folder.path(), &Selection { records: true, ..Selection::default() });
    let damage = rows.iter().find(|row| row["kind"] == "damage").unwrap();
    assert_eq!(damage["position"], from);
}

#[test]
fn an_end_that_was_torn_is_no_damage() {
    let folder = tempfile::tempdir().unwrap();
    three(folder.path());
    let bytes = fs::read(&segments(folder.path())[0]).unwrap();
    killed(folder.path(), &bytes[..bytes.len() - 3]);
    let checked = check(folder.path());
    assert!(checked.is_whole() && checked.damage[0].is_torn(), "{:?}", checked.damage);
    // The acknowledgement was torn.
    assert_eq!(checked.messages, 4);
}

#[test]
fn a_segment_that_is_missing_is_told() {
    let folder = tempfile::tempdir().unwrap();
    three(folder.path());
    for id in 4..6 {
        let (mut store, _) = open(folder.path());
        store.put(id, b"more", &[1]);
        store.close();
    }
    fs::remove_file(&segments(folder.path())[1]).unwrap();
    let want = "0000000002.seg: the file is missing; 1 messages in queues are lost with it";
    let checked = check(folder.path());
    assert!(checked.damage[0].to_string().ends_with(want), "{:?}", checked.damage);
    let (store, recovered) = open(folder.path());
    assert!(recovered.damage[0].to_string().ends_with(want), "{:?}", recovered.damage);
    store.close();
    assert_eq!(check(folder.path()).damage, []);
}

#[test]
fn a_newer_format_is_refused() {
    for (name, format_at) in [("0000000001.seg", 8), ("checkpoint", 8)] {
        let folder = tempfile::tempdir().unwrap();
        three(folder.path());
        let path = folder.path().join("messages").join(name);
        let mut bytes = fs::read(&path).unwrap();
        bytes[format_at] += 7;
        if name.ends_with("seg") {
            // Else it is not looked at: there is an index.
            forget_checkpoint(folder.path());
        }
        fs::write(&path, bytes).unwrap();
        let want = |error: StoreError| {
            let StoreError::Format { path: of, .. } = &error else { panic!("{error}") };
            assert_eq!(*of, path);
        };
        want(Inspection::open(folder.path()).unwrap().check().unwrap_err());
        want(super::Store::open(folder.path(), Box::new(|_| ())).err().unwrap());
    }
}

#[test]
fn what_is_there_is_shown_and_chosen_from() {
    let folder = tempfile::tempdir().unwrap();
    three(folder.path());
    let kinds = |rows: &[Value]| -> Vec<String> {
        rows.iter().map(|row| row["kind"].as_str().unwrap().to_owned()).collect()
    };
    let all = Selection { bodies: true, ..Selection::default() };
    let rows = dump(folder.path(), &all);
    assert_eq!(kinds(&rows), ["queues", "queues", "messages", "messages", "messages"]);
    assert_eq!((&rows[2]["queue"], &rows[3]["queue"]), (&"queue 1".into(), &"queue 2".into()));
    assert_eq!(rows[2]["body"], "a second body");
    assert_eq!(rows[2]["routing_key"], "2");
    let chosen = Selection { queue: Some("queue 2".into()), ..all.clone() };
    assert_eq!(kinds(&dump(folder.path(), &chosen)), ["queues", "messages"]);
    let other = Selection { vhost: Some("other".into()), ..all.clone() };
    assert!(dump(folder.path(), &other).is_empty());
    let records = Selection { records: true, ..Selection::default() };
    let rows = dump(folder.path(), &records);
    assert_eq!(kinds(&rows), ["queues", "queues", "publish", "publish", "publish", "ack"]);
    assert_eq!((&rows[2]["position"], &rows[2]["body_bytes"]), (&24.into(), &12.into()));
    assert_eq!(rows[5]["first"]["place"], 0);
    let chosen = Selection { queue: Some("queue 2".into()), ..records };
    assert_eq!(kinds(&dump(folder.path(), &chosen)), ["queues", "publish"]);
}

#[test]
fn older_formats_are_read() {
    for format in 1..=3 {
        let folder = tempfile::tempdir().unwrap();
        old(folder.path(), format);
        let checked = check(folder.path());
        assert_eq!((checked.damage.len(), checked.messages), (0, 3));
        let rows = dump(folder.path(), &Selection { bodies: true, ..Selection::default() });
        let messages: Vec<_> = rows.iter().filter(|row| row["kind"] == "messages").collect();
        assert_eq!(messages.len(), 3);
        assert_eq!((&messages[0]["id"], &messages[0]["body"]), (&1.into(), &"old".into()));
    }
}

/// A damaged size hides where the next record begins; it is looked for among bytes that look like records.
#[test]
fn what_follows_a_damaged_size_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path());
    store.define(queue(1));
    let mut word = 1u64;
    let body: Vec<u8> = std::iter::repeat_with(|| {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (word >> 56) as u8
    })
    .take(4 << 20)
    .collect();
    for id in 1..=4 {
        store.put(id, &body, &[1]);
    }
    let mut last = message(5, b"x");
    store.publish(&mut last, &[1]);
    store.close();
    let path = segments(folder.path())[0].clone();
    let mut bytes = fs::read(&path).unwrap();
    bytes[26] ^= 1;
    killed(folder.path(), &bytes);
    let checked = check(folder.path());
    assert_eq!((checked.messages, checked.damage.len()), (4, 1), "{:?}", checked.damage);
}
