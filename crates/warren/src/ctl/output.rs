//! Answers for people: tables with tabs between the columns, as rabbitmqctl prints them.

use anyhow::Result;
use serde_json::Value;

use crate::client::print;

pub(super) type Columns = &'static [&'static str];

pub(super) const USERS: Columns = &["user", "tags"];
pub(super) const VHOSTS: Columns = &["name", "description", "tags", "default_queue_type"];
pub(super) const PERMISSIONS: Columns = &["vhost", "user", "configure", "write", "read"];
pub(super) const TOPIC_PERMISSIONS: Columns = &["vhost", "user", "exchange", "write", "read"];
pub(super) const POLICIES: Columns =
    &["vhost", "name", "pattern", "apply-to", "definition", "priority"];
pub(super) const PARAMETERS: Columns = &["vhost", "component", "name", "value"];
pub(super) const QUEUES: Columns = &["vhost", "name", "type", "messages", "consumers", "policy"];
pub(super) const EXCHANGES: Columns = &["vhost", "name", "type", "durable", "policy"];
pub(super) const BINDINGS: Columns =
    &["vhost", "source_name", "destination_name", "destination_kind", "routing_key", "arguments"];
pub(super) const CONNECTIONS: Columns = &["pid", "user", "vhost", "name", "channels", "state"];
pub(super) const CHANNELS: Columns =
    &["pid", "user", "vhost", "consumer_count", "messages_unacknowledged", "prefetch_count"];
pub(super) const CONSUMERS: Columns = &[
    "vhost",
    "queue_name",
    "channel_pid",
    "consumer_tag",
    "ack_required",
    "prefetch_count",
    "active",
];

/// Prints an answer: lists as tables with these columns, an object a line per key.
pub(super) fn print_answer(answer: &Value, columns: &[&str], headers: bool) -> Result<()> {
    match answer {
        Value::Null => {}
        Value::Array(rows) => {
            if headers {
                print(columns.join("\t").as_bytes())?;
            }
            for row in rows {
                let cells: Vec<String> = columns.iter().map(|column| cell(&row[*column])).collect();
                if !print(cells.join("\t").as_bytes())? {
                    break;
                }
            }
        }
        Value::Object(map) => {
            for (key, value) in map {
                print(format!("{key}\t{}", cell(value)).as_bytes())?;
            }
        }
        other => {
            print(cell(other).as_bytes())?;
        }
    }
    Ok(())
}

/// Text as it is, but for what would break the table.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n"),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}
