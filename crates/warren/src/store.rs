//! `warren store`: looks into a data directory that no server uses.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Map, Value};
use warren_broker::store::inspect::{Inspection, Selection};

use crate::client::print;
use crate::serve::default_data_dir;

/// Something is lost.
const DAMAGED: u8 = 3;

/// `warren store`.
#[derive(Subcommand)]
pub(crate) enum Store {
    /// Read everything, checksums included, and report each place that is damaged.
    ///
    /// Exit codes: 0, nothing is lost; 1, it cannot be read, or a server is running on it; 2, wrong arguments; 3, something
    /// is damaged.
    Check(Check),
    /// Print what is in it: definitions, messages in queues, messages of streams.
    Dump(Dump),
}

impl Store {
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self {
            Self::Check(check) => check.run(),
            Self::Dump(dump) => dump.run(),
        }
    }
}

/// Where to look.
#[derive(Args)]
struct Place {
    /// The data directory; without, the one that `warren serve` uses
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
}

impl Place {
    fn open(self) -> Result<Inspection> {
        Ok(Inspection::open(&self.folder.unwrap_or_else(default_data_dir))?)
    }
}

#[derive(Args)]
pub(crate) struct Check {
    #[command(flatten)]
    place: Place,
}

impl Check {
    fn run(self) -> Result<ExitCode> {
        let checked = self.place.open()?.check()?;
        for damage in &checked.damage {
            let word = if damage.is_torn() { "torn" } else { "damaged" };
            print(format!("{word}: {damage}").as_bytes())?;
        }
        let places = checked.damage.iter().filter(|damage| !damage.is_torn()).count();
        let verdict = match places {
            0 => "nothing is damaged".into(),
            1 => "1 report of damage".into(),
            more => format!("{more} reports of damage"),
        };
        print(
            format!(
                "{verdict}: {} queues, {} messages in them, {} in streams, {} bytes read",
                checked.queues, checked.messages, checked.stream_messages, checked.bytes
            )
            .as_bytes(),
        )?;
        Ok(if checked.is_whole() { ExitCode::SUCCESS } else { DAMAGED.into() })
    }
}

#[derive(Args)]
pub(crate) struct Dump {
    #[command(flatten)]
    place: Place,
    /// Print an object of JSON a line
    #[arg(long)]
    json: bool,
    /// Only this queue
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// Only this virtual host
    #[arg(long, value_name = "NAME")]
    vhost: Option<String>,
    /// The message log record by record, in place of the messages that are in queues
    #[arg(long)]
    records: bool,
    /// Bodies, too: as text, or in base64 where they are none
    #[arg(long)]
    bodies: bool,
}

impl Dump {
    fn run(self) -> Result<ExitCode> {
        let Self { place, json, queue, vhost, records, bodies } = self;
        let inspection = place.open()?;
        let mut out = io::BufWriter::new(io::stdout().lock());
        let mut outcome = Ok(());
        let selection = Selection { queue, vhost, records, bodies };
        inspection.dump(&selection, &mut |row| {
            outcome = if json { writeln!(out, "{row}") } else { writeln!(out, "{}", line(&row)) };
            outcome.is_ok()
        })?;
        match outcome.and_then(|()| out.flush()) {
            // Who reads has seen enough.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(ExitCode::SUCCESS),
        }
    }
}

/// A row for people: what it is, and then what it has, without what is empty.
fn line(row: &Value) -> String {
    let empty = Map::new();
    let item = row.as_object().unwrap_or(&empty);
    let mut line = item.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    for (key, value) in item.iter().filter(|(key, value)| *key != "kind" && !is_empty(value)) {
        line.push_str(&format!(" {key}={value}"));
    }
    line
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
        Value::String(_) | Value::Number(_) | Value::Bool(true) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::line;

    #[test]
    fn a_row_for_people_leaves_out_what_is_empty() {
        let row = json!({"kind": "messages", "queue": "a b", "position": 24, "properties": {}, "redelivered": false});
        assert_eq!(line(&row), "messages queue=\"a b\" position=24");
    }
}
