//! The store from outside, and over a simulated disk.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::definitions::Definitions;
use super::disk::Folder;
use super::flusher::Writer;
use super::log::Sizes;
use super::{Definition, QueueDefinition, Recovered, RecoveredPlace, Store, pages, recovery};
use crate::message::{Content, Message};
use crate::stream;

mod damage;
mod inspect;
mod legacy;
mod model;
mod records;
mod refusing;
mod restarts;
mod room;
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
    assert_eq!(recovered.damage, []);
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
