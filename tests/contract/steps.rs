//! One case done step by step; the language is described in `main.rs`.

mod expecting;
mod sending;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use warren::amqp::BasicProperties;

use crate::language::{Case, Step};
use crate::manage::Broker;
use crate::methods::named;
use crate::patience;
use crate::values::{Value, Vars, words};
use crate::wire::{LOOK, Received, Wire, set_property};

/// A case that is being done.
pub(crate) struct Run<'a> {
    broker: &'a Broker,
    vars: Vars,
    wires: BTreeMap<String, Wire>,
}

/// Where a step sends or listens.
#[derive(Clone, PartialEq, Debug)]
struct Target {
    wire: String,
    channel: u16,
}

/// Does all steps of a case; the error tells of each up to the one that failed.
pub(crate) fn run(broker: &Broker, case: &Case, unique: String) -> Result<(), String> {
    let mut run = Run { broker, vars: Vars::new(unique), wires: BTreeMap::new() };
    let steps: Vec<&Step> =
        case.steps.iter().filter(|step| step.only.is_none_or(|side| side == broker.side)).collect();
    let mut done = String::new();
    for (at, step) in steps.iter().enumerate() {
        let next = steps.get(at + 1).map(|step| step.text.as_str()).unwrap_or_default();
        let text = run.vars.expand(&step.text);
        let place = format!("tests/contract/{}:{}", case.file, step.line);
        match run.step(&text, next) {
            Ok(()) => done += &format!("    ok      {text}\n"),
            Err(error) => {
                return Err(format!("{done}    FAILED  {text}\n  {place}: {error}"));
            }
        }
    }
    Ok(())
}

/// `a.2: rest`, `2: rest`, `b: rest`, or no target: connection a, channel 1.
fn target(text: &str) -> (Target, &str) {
    let default = Target { wire: "a".into(), channel: 1 };
    let Some((word, rest)) = text.split_once(": ") else { return (default, text) };
    let (wire, channel) = word.split_once('.').unwrap_or(match word.parse::<u16>() {
        Ok(_) => ("a", word),
        Err(_) => (word, "1"),
    });
    let is_name = wire.chars().all(|c| c.is_ascii_lowercase()) && (1..=6).contains(&wire.len());
    match channel.parse() {
        Ok(channel) if is_name => (Target { wire: wire.into(), channel }, rest),
        _ => (default, text),
    }
}

impl Run<'_> {
    fn step(&mut self, text: &str, next: &str) -> Result<(), String> {
        let (target, text) = target(text);
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        if let Some(ids) = word.strip_prefix("!!") {
            return self.connection_dies(&target, ids, rest);
        }
        if let Some(ids) = word.strip_prefix('!') {
            return self.channel_dies(&target, ids, rest);
        }
        let words = words(text)?;
        let arguments = &words[1..];
        match word {
            "<" => self.expect(&target, arguments, false),
            "<<" => self.expect(&target, arguments, true),
            "repeat" => {
                let (times, step) = rest.split_once(' ').ok_or("repeat TIMES STEP")?;
                let prefix = format!("{}.{}: ", target.wire, target.channel);
                for at in 0..times.parse().map_err(|_| "repeat TIMES STEP")? {
                    let at: u32 = at;
                    self.step(&(prefix.clone() + &step.replace("%n", &at.to_string())), "")?;
                }
                Ok(())
            }
            "connect" => self.connect(arguments, next),
            "socket" => {
                let name = arguments.first().ok_or("socket NAME")?;
                self.wires.insert(name.clone(), Wire::connect(&self.broker.address)?);
                Ok(())
            }
            "bytes" => {
                let bytes = Value::parse(rest)?.bytes();
                self.raw(&target)?.bytes(&bytes);
                Ok(())
            }
            "frame" => self.frame(&target, arguments),
            "header" => self.header(&target, arguments),
            "greeting" => self.greeting(&target, rest),
            "gone" => self.raw(&target)?.wait_end(),
            "drop" => {
                self.raw(&target)?.drop_socket();
                Ok(())
            }
            "close" => self.close(&target),
            "heartbeat" => self.heartbeat(&target),
            "nothing" => self.nothing(&target, arguments.first()),
            "count" => self.count(&target, arguments),
            "publish" => self.publish(&target, arguments),
            "get" => self.get(&target, arguments),
            "take" => self.take(&target, arguments),
            "wait" => self.wait(&target, arguments),
            "unroutable" => self.unroutable(&target, arguments),
            "missing" | "exists" => self.existence(&target, word == "exists", arguments),
            _ => {
                let plain: Vec<String> = words.iter().map(|word| unquoted(word)).collect();
                match self.broker.manage(&plain) {
                    Some(outcome) => outcome,
                    None => self.send(&target, word, arguments, next),
                }
            }
        }
    }

    /// A connection that a step has opened already.
    fn raw(&mut self, target: &Target) -> Result<&mut Wire, String> {
        self.wires.get_mut(&target.wire).ok_or(format!("no connection {}", target.wire))
    }

    /// The connection, opened as guest at its first use.
    fn wire(&mut self, target: &Target) -> Result<&mut Wire, String> {
        if !self.wires.contains_key(&target.wire) {
            self.connect(std::slice::from_ref(&target.wire), "")?;
        }
        self.raw(target)
    }

    /// The same, with the channel open.
    fn channel(&mut self, target: &Target) -> Result<&mut Wire, String> {
        let channel = target.channel;
        let wire = self.wire(target)?;
        if channel != 0 {
            wire.open_channel(channel)?;
        }
        Ok(wire)
    }

    /// A call on the connection's own channel for looking, which is opened anew after errors.
    fn look(
        &mut self,
        target: &Target,
        name: &str,
        fields: &[(&str, &str)],
    ) -> Result<Received, String> {
        let wire = self.wire(target)?;
        wire.open_channel(LOOK)?;
        let answer = wire.call(LOOK, name, fields);
        if answer.is_err() && wire.ended.is_none() {
            wire.method(LOOK, named("channel.close-ok")?, &[])?;
            wire.forget(LOOK);
        }
        answer
    }

    /// Asks until the answer is right, or patience ends.
    fn until(
        &mut self,
        mut ask: impl FnMut(&mut Self) -> Result<Result<(), String>, String>,
    ) -> Result<(), String> {
        let start = Instant::now();
        loop {
            match ask(self)? {
                Ok(()) => return Ok(()),
                Err(error) if patience() < start.elapsed() => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

fn unquoted(word: &str) -> String {
    let quoted = word.strip_prefix('"').and_then(|word| word.strip_suffix('"'));
    quoted.unwrap_or(word).to_owned()
}

/// Whether a word of an expectation is about properties or body.
fn is_content(word: &str) -> bool {
    let name = word.trim_start_matches('-').split('=').next().unwrap_or_default();
    let mut properties = BasicProperties::default();
    let known = set_property(&mut properties, name, &Value::Int(0)).unwrap_or(false);
    word == "exactly"
        || ((word.starts_with('-') || word.contains('=')) && (known || name == "body"))
}
