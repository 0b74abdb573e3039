//! What is in a data directory, a row for each thing.

use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};
use warren_amqp::RawProperties;

use super::Inspection;
use crate::definitions::definition;
use crate::definitions::json::{from_raw, from_table};
use crate::message::Spot;
use crate::store::batch::split_id;
use crate::store::disk::{Disk, read_all};
use crate::store::frozen::Frozen;
use crate::store::log::Synced;
use crate::store::reader::LogReader;
use crate::store::record::Record;
use crate::store::recovery::RecoveredPlace;
use crate::store::segment::{self, Trouble};
use crate::store::{StoreError, legacy};
use crate::tenancy::record::Record as Tenancy;

/// Messages that are read from the log at once.
const RUN: usize = 256;

/// What is to be shown.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only what belongs to this queue.
    pub queue: Option<String>,
    /// Only what belongs to this virtual host.
    pub vhost: Option<String>,
    /// The log's records as they stand, in place of the messages that are in queues.
    pub records: bool,
    /// Bodies, too: as text, or in base64.
    pub bodies: bool,
}

impl Selection {
    fn takes(&self, vhost: &str, queue: &str) -> bool {
        self.takes_vhost(vhost) && self.queue.as_ref().is_none_or(|wanted| wanted == queue)
    }

    fn takes_vhost(&self, vhost: &str) -> bool {
        self.vhost.as_ref().is_none_or(|wanted| wanted == vhost)
    }

    fn takes_all(&self) -> bool {
        self.queue.is_none() && self.vhost.is_none()
    }
}

/// Takes rows, until it says that it wants no more.
pub(super) type Sink<'a> = dyn FnMut(Value) -> bool + 'a;

/// What a message says, wherever it stands.
struct Parts<'a> {
    exchange: &'a str,
    routing_key: &'a str,
    properties: &'a [u8],
    body: &'a [u8],
}

impl Inspection {
    /// Calls `take` for each definition, each message in a queue (or each record of the log), and each message of a
    /// stream. Passwords are not among them.
    ///
    /// # Errors
    /// When a file cannot be read, or is none of ours.
    pub fn dump(&self, selection: &Selection, take: &mut Sink<'_>) -> Result<(), StoreError> {
        // Nothing is asked for any more once it has said so.
        let mut wants = true;
        let mut take = |row: Value| {
            wants = wants && take(row);
            wants
        };
        self.dump_definitions(selection, &mut take);
        if self.messages().exists() {
            match self.old_format()? {
                Some(_) => self.dump_old(selection, &mut take)?,
                None if selection.records => self.dump_records(selection, &mut take)?,
                None => self.dump_messages(selection, &mut take)?,
            }
        }
        self.dump_streams(selection, &mut take)
    }

    fn dump_definitions(&self, selection: &Selection, take: &mut Sink<'_>) {
        let defined = &self.defined;
        if selection.queue.is_none() {
            for record in &defined.tenancy {
                let (list, mut item) = definition(record.clone());
                let vhost = match record {
                    Tenancy::Vhost(vhost) => Some(vhost.name.as_str()),
                    _ => item["vhost"].as_str(),
                };
                let is_wanted = match vhost {
                    Some(vhost) => selection.takes_vhost(vhost),
                    None => selection.vhost.is_none(),
                };
                if !is_wanted {
                    continue;
                }
                if let Some(item) = item.as_object_mut() {
                    item.shift_remove("password_hash");
                }
                take(row(list, item));
            }
            for exchange in defined.exchanges.iter().filter(|one| selection.takes_vhost(&one.vhost))
            {
                take(row(
                    "exchanges",
                    json!({
                        "vhost": exchange.vhost, "name": exchange.name, "type": exchange.kind,
                        "auto_delete": exchange.auto_delete, "internal": exchange.internal,
                        "arguments": from_raw(&exchange.arguments),
                    }),
                ));
            }
        }
        for queue in defined.queues.iter().filter(|one| selection.takes(&one.vhost, &one.name)) {
            take(row(
                "queues",
                json!({
                    "vhost": queue.vhost, "name": queue.name, "id": queue.id, "auto_delete": queue.auto_delete,
                    "arguments": from_raw(&queue.arguments),
                }),
            ));
        }
        for binding in &defined.bindings {
            let is_wanted = selection.takes_vhost(&binding.vhost)
                && selection
                    .queue
                    .as_ref()
                    .is_none_or(|queue| binding.to_queue && *queue == binding.destination);
            if is_wanted {
                let kind = if binding.to_queue { "queue" } else { "exchange" };
                take(row(
                    "bindings",
                    json!({
                        "vhost": binding.vhost, "source": binding.source, "destination": binding.destination,
                        "destination_type": kind, "routing_key": binding.routing_key,
                        "arguments": from_raw(&binding.arguments),
                    }),
                ));
            }
        }
    }

    fn dump_messages(&self, selection: &Selection, take: &mut Sink<'_>) -> Result<(), StoreError> {
        let disk = Frozen::new(&self.messages(), true);
        let reader = LogReader::new(disk, Synced::default());
        let mut run: Vec<RecoveredPlace> = Vec::new();
        let mut wants = true;
        self.each_place(true, |place| {
            let name = self.names.get(&place.queue);
            if !wants || !name.is_some_and(|(vhost, name)| selection.takes(vhost, name)) {
                return;
            }
            run.push(place);
            if run.len() == RUN {
                wants = self.dump_run(&reader, &run, selection, take);
                run.clear();
            }
        })?;
        self.dump_run(&reader, &run, selection, take);
        Ok(())
    }

    fn dump_run(
        &self,
        reader: &LogReader,
        run: &[RecoveredPlace],
        selection: &Selection,
        take: &mut Sink<'_>,
    ) -> bool {
        let mut wants = true;
        let wanted: Vec<(u64, Spot)> =
            run.iter().map(|place| (place.message, place.spot)).collect();
        let mut places = run.iter();
        reader.read(&wanted, |record| {
            let Some(place) = places.next() else { return };
            let mut item = Map::new();
            self.name(&mut item, place.queue);
            stand(&mut item, split_id(place.place).0, place.spot.offset, place.spot.bytes as usize);
            item.insert("place".into(), split_id(place.place).1.into());
            match &record {
                Some(Record::Publish { exchange, routing_key, properties, body, .. }) => {
                    let parts = Parts { exchange, routing_key, properties, body };
                    describe(&mut item, &parts, selection);
                }
                _ => drop(item.insert("damaged".into(), true.into())),
            }
            item.insert("redelivered".into(), place.redelivered.into());
            item.insert("delivery_count".into(), place.delivery_count.into());
            if place.expires_ms != u64::MAX {
                item.insert("expires_ms".into(), place.expires_ms.into());
            }
            if place.due_ms != 0 {
                item.insert("due_ms".into(), place.due_ms.into());
            }
            wants = take(row("messages", Value::Object(item)));
        });
        wants
    }

    fn dump_records(&self, selection: &Selection, take: &mut Sink<'_>) -> Result<(), StoreError> {
        let disk = Frozen::new(&self.messages(), false);
        let names = disk.list().map_err(StoreError::io("read", &self.messages()))?;
        let mut numbers: Vec<u32> = names.iter().filter_map(|name| segment::number(name)).collect();
        numbers.sort_unstable();
        for number in numbers {
            let name = segment::name(number);
            let path = disk.path(&name);
            let bytes = read_all(&*disk, &name).map_err(StoreError::io("read", &path))?;
            if bytes.len() < segment::SEGMENT_HEADER_BYTES {
                continue;
            }
            segment::format(&*disk, &name, &bytes)?;
            let mut troubles = Vec::new();
            let mut wants = true;
            segment::scan(
                &bytes,
                None,
                |found| {
                    if wants && let Some(row) = self.record(number, &found, selection) {
                        wants = take(row);
                    }
                },
                |trouble| troubles.push(trouble),
            );
            for trouble in troubles {
                let (Trouble::Damaged(from, _) | Trouble::End(from)) = trouble else { continue };
                let mut item = Map::new();
                stand(&mut item, number, from as u64, 0);
                item.insert("text".into(), trouble.damage(&path, bytes.len()).to_string().into());
                wants = take(row("damage", Value::Object(item)));
            }
            if !wants {
                break;
            }
        }
        Ok(())
    }

    /// A record of the log, if it is wanted. Of what says nothing of queues it is not known whose it is.
    fn record(
        &self,
        number: u32,
        found: &segment::Found<'_>,
        selection: &Selection,
    ) -> Option<Value> {
        let takes = |queue: &u64| {
            let name = self.names.get(queue);
            name.is_some_and(|(vhost, name)| selection.takes(vhost, name))
        };
        let mut item = Map::new();
        stand(&mut item, number, found.offset as u64, found.bytes);
        let kind = match &found.record {
            Record::Publish { place, queues, exchange, routing_key, properties, body, .. } => {
                if !selection.takes_all() && !queues.iter().any(takes) {
                    return None;
                }
                item.insert("place".into(), (*place).into());
                let queues = queues.iter().map(|queue| {
                    let mut item = Map::new();
                    self.name(&mut item, *queue);
                    Value::Object(item)
                });
                item.insert("queues".into(), queues.collect());
                describe(&mut item, &Parts { exchange, routing_key, properties, body }, selection);
                "publish"
            }
            Record::Delivered { queue, place } => {
                if !selection.takes_all() && !takes(queue) {
                    return None;
                }
                self.name(&mut item, *queue);
                item.insert("up_to".into(), of_place(*place));
                "delivered"
            }
            _ if !selection.takes_all() => return None,
            Record::Ack { first, count } => {
                item.insert("first".into(), of_place(*first));
                item.insert("count".into(), (*count).into());
                "ack"
            }
            Record::Counted { place, count, due_ms } => {
                item.insert("of".into(), of_place(*place));
                item.insert("delivery_count".into(), (*count).into());
                item.insert("due_ms".into(), (*due_ms).into());
                "counted"
            }
            Record::End { count } => {
                item.insert("count".into(), (*count).into());
                "end"
            }
        };
        Some(row(kind, Value::Object(item)))
    }

    /// Of the formats before.
    fn dump_old(&self, selection: &Selection, take: &mut Sink<'_>) -> Result<(), StoreError> {
        let folder = self.messages();
        let scan = legacy::Scan::of(&folder, &self.keepers(), &mut Vec::new())?;
        let shown = scan.for_each(|id, queues, message| {
            for queue in queues {
                let name = self.names.get(queue);
                if !name.is_some_and(|(vhost, name)| selection.takes(vhost, name)) {
                    continue;
                }
                let mut item = Map::new();
                self.name(&mut item, *queue);
                item.insert("id".into(), id.into());
                let parts = Parts {
                    exchange: &message.exchange,
                    routing_key: &message.routing_key,
                    properties: message.content.properties(),
                    body: message.content.body(),
                };
                describe(&mut item, &parts, selection);
                take(row("messages", Value::Object(item)));
            }
            Ok(())
        });
        shown.map_err(StoreError::io("read", &folder))
    }

    fn dump_streams(&self, selection: &Selection, take: &mut Sink<'_>) -> Result<(), StoreError> {
        for (queue, settings) in self.streams() {
            if !selection.takes(&queue.vhost, &queue.name) {
                continue;
            }
            let mut damage = Vec::new();
            self.each_of_stream(queue, &settings, &mut damage, |path, record, at, bytes| {
                let mut item = Map::new();
                self.name(&mut item, queue.id);
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                item.insert("file".into(), format!("streams/{:010}/{name}", queue.id).into());
                item.insert("position".into(), at.into());
                item.insert("bytes".into(), bytes.into());
                item.insert("offset".into(), record.offset.into());
                item.insert("time_ms".into(), record.time_ms.into());
                let parts = Parts {
                    exchange: record.exchange,
                    routing_key: record.routing_key,
                    properties: record.properties,
                    body: record.body,
                };
                describe(&mut item, &parts, selection);
                take(row("stream_messages", Value::Object(item)));
            })?;
            for damage in damage {
                take(row("damage", json!({ "text": damage.to_string() })));
            }
        }
        Ok(())
    }

    fn name(&self, item: &mut Map<String, Value>, queue: u64) {
        if let Some((vhost, name)) = self.names.get(&queue) {
            item.insert("vhost".into(), vhost.as_str().into());
            item.insert("queue".into(), name.as_str().into());
        }
        item.insert("queue_id".into(), queue.into());
    }
}

fn row(kind: &str, item: Value) -> Value {
    let mut row = Map::new();
    row.insert("kind".into(), kind.into());
    if let Value::Object(item) = item {
        row.extend(item);
    }
    Value::Object(row)
}

/// Where a record is.
fn stand(item: &mut Map<String, Value>, number: u32, position: u64, bytes: usize) {
    let file = Path::new("messages").join(segment::name(number));
    item.insert("file".into(), file.display().to_string().into());
    item.insert("position".into(), position.into());
    item.insert("bytes".into(), bytes.into());
}

fn of_place(id: u64) -> Value {
    let (segment, place) = split_id(id);
    json!({ "segment": segment, "place": place })
}

fn describe(item: &mut Map<String, Value>, parts: &Parts<'_>, selection: &Selection) {
    item.insert("exchange".into(), parts.exchange.into());
    item.insert("routing_key".into(), parts.routing_key.into());
    item.insert("properties".into(), properties(parts.properties));
    item.insert("body_bytes".into(), parts.body.len().into());
    if selection.bodies {
        match std::str::from_utf8(parts.body) {
            Ok(text) => item.insert("body".into(), text.into()),
            Err(_) => item.insert("body_base64".into(), BASE64_STANDARD.encode(parts.body).into()),
        };
    }
}

/// The properties that a message has, by their names in the protocol.
fn properties(bytes: &[u8]) -> Value {
    let Ok(found) = RawProperties::new(bytes).to_properties() else { return Value::Null };
    let mut item = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        item.extend(value.map(|value| (name.to_owned(), value)));
    };
    put("content_type", found.content_type.map(Value::from));
    put("content_encoding", found.content_encoding.map(Value::from));
    put("headers", found.headers.as_ref().map(from_table));
    put("delivery_mode", found.delivery_mode.map(Value::from));
    put("priority", found.priority.map(Value::from));
    put("correlation_id", found.correlation_id.map(Value::from));
    put("reply_to", found.reply_to.map(Value::from));
    put("expiration", found.expiration.map(Value::from));
    put("message_id", found.message_id.map(Value::from));
    put("timestamp", found.timestamp.map(Value::from));
    put("type", found.kind.map(Value::from));
    put("user_id", found.user_id.map(Value::from));
    put("app_id", found.app_id.map(Value::from));
    put("cluster_id", found.cluster_id.map(Value::from));
    Value::Object(item)
}
