//! One case done step by step; the language is described in `main.rs`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use warren::amqp::{BasicProperties, FieldTable, FieldValue, ReplyCode};

use crate::language::{Case, Step};
use crate::manage::Broker;
use crate::methods::{Method, named};
use crate::patience;
use crate::values::{Value, Vars, glob, words};
use crate::wire::{LOOK, PUBLISH, Received, Wire, property_values, set_property};

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

    fn send(
        &mut self,
        target: &Target,
        word: &str,
        rest: &[String],
        next: &str,
    ) -> Result<(), String> {
        let method = named(word)?;
        let (properties, body, given) = self.arguments(method, rest)?;
        let wire = self.wire(target)?;
        // Who speaks of channel 0 or opens channels by himself is left alone.
        let by_hand = target.channel == 0 || !wire.open.contains(&0);
        if word == "channel.open" {
            wire.open.insert(target.channel);
        } else if !by_hand {
            wire.open_channel(target.channel)?;
        }
        wire.method(target.channel, method, &given)?;
        if method.has_content() {
            wire.content(target.channel, &properties, &body);
        }
        if matches!(word, "channel.close" | "channel.close-ok") {
            wire.open.remove(&target.channel);
        }
        let silent = given.iter().any(|(name, value)| name == "no_wait" && value.is_true());
        let replies = method.replies();
        let (next_target, next) = self::target(next);
        let names_reply = || next.split(' ').nth(1).is_some_and(|name| replies.contains(&name));
        let explicit = next_target == *target
            && (next.starts_with('!') || (next.starts_with('<') && names_reply()));
        let ends = next_target.wire == target.wire && (next.starts_with("!!") || next == "gone");
        if replies.is_empty() || silent || explicit || ends {
            return Ok(());
        }
        let got = wire.expect(target.channel, |got| replies.contains(&got.method.name));
        got.map(drop).map_err(|got| format!("expected {}, received {got}", replies.join(" or ")))
    }

    /// Properties, body and fields of a method.
    #[allow(clippy::type_complexity, reason = "the three parts of what is sent")]
    fn arguments(
        &mut self,
        method: &Method,
        rest: &[String],
    ) -> Result<(BasicProperties, Vec<u8>, Vec<(String, Value)>), String> {
        let (mut properties, mut body) = (BasicProperties::default(), Vec::new());
        let given = method.arguments(rest, &mut self.vars, |word, _| {
            if !method.has_content() {
                return Ok(false);
            }
            content_word(word, &mut properties, &mut body)
        })?;
        Ok((properties, body, given))
    }

    fn expect(&mut self, target: &Target, rest: &[String], strict: bool) -> Result<(), String> {
        let (name, rest) = rest.split_first().ok_or("which method is expected?")?;
        let method = named(name)?;
        let mut content = Vec::new();
        let wanted = method.arguments(rest, &mut self.vars, |word, _| {
            let is_content = method.has_content() && is_content(word);
            if is_content {
                content.push(word.to_owned());
            }
            Ok(is_content)
        })?;
        let wire = self.wire(target)?;
        let got = if strict {
            wire.next(target.channel)
        } else {
            wire.expect(target.channel, |got| got.method.name == name)
        };
        let got = got.map_err(|got| format!("expected {name}, received {got}"))?;
        if got.method.name != name {
            return Err(format!("expected {name}, received {}", got.show()));
        }
        for (field, value) in &wanted {
            if !value.matches(got.field(field), &mut self.vars) {
                return Err(format!("another {field}: received {}", got.show()));
            }
        }
        self.check_content(&got, &content)?;
        // The other side's wish to end is answered, as every client does.
        let channel = target.channel;
        let wire = self.wire(target)?;
        match name.as_str() {
            "channel.close" => {
                wire.method(channel, named("channel.close-ok")?, &[])?;
                wire.forget(channel);
            }
            "connection.close" => wire.method(0, named("connection.close-ok")?, &[])?,
            _ => {}
        }
        Ok(())
    }

    /// Reads over methods of this name until one is as expected.
    fn wait(&mut self, target: &Target, rest: &[String]) -> Result<(), String> {
        self.until(|run| match run.expect(target, rest, false) {
            Err(error) if error.starts_with("another ") => Ok(Err(error)),
            other => other.map(Ok),
        })
    }

    fn check_content(&mut self, got: &Received, words: &[String]) -> Result<(), String> {
        let properties = got.properties.clone().unwrap_or_default();
        let there = property_values(&properties);
        let mut wanted = Vec::new();
        for word in words {
            if let Some(name) = word.strip_prefix('-') {
                if there.iter().any(|(property, _)| *property == name) {
                    return Err(format!("{name} is there: received {}", got.show()));
                }
                continue;
            }
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            if name == "exactly" {
                continue;
            }
            wanted.push(name);
            let value = Value::parse(value)?;
            let found = there.iter().find(|(property, _)| *property == name);
            let found = found.map_or(FieldValue::Void, |(_, found)| found.clone());
            let found =
                if name == "body" { FieldValue::LongString(got.body.clone()) } else { found };
            if !value.matches(&found, &mut self.vars) {
                return Err(format!("another {name}: received {}", got.show()));
            }
        }
        if words.iter().any(|word| word == "exactly")
            && let Some((name, _)) = there.iter().find(|(name, _)| !wanted.contains(name))
        {
            return Err(format!("{name} was not expected: received {}", got.show()));
        }
        Ok(())
    }

    fn channel_dies(&mut self, target: &Target, ids: &str, rest: &str) -> Result<(), String> {
        let channel = target.channel;
        let wire = self.wire(target)?;
        let ids = numbers(ids, wire.last_sent.get(&channel).copied().unwrap_or_default())?;
        let got = wire.expect(channel, |got| got.method.name == "channel.close");
        let got = got.map_err(|got| format!("expected channel.close, received {got}"))?;
        check_close(&got, rest, ids)?;
        wire.method(channel, named("channel.close-ok")?, &[])?;
        wire.forget(channel);
        Ok(())
    }

    fn connection_dies(&mut self, target: &Target, ids: &str, rest: &str) -> Result<(), String> {
        let wire = self.raw(target)?;
        let ids = numbers(ids, wire.last_sent.get(&0).copied().unwrap_or_default())?;
        let got = wire.expect(0, |got| got.method.name == "connection.close");
        let got = got.map_err(|got| format!("expected connection.close, received {got}"))?;
        check_close(&got, rest, ids)?;
        wire.method(0, named("connection.close-ok")?, &[])?;
        wire.wait_end()
    }

    fn connect(&mut self, words: &[String], next: &str) -> Result<(), String> {
        let (name, options) = words.split_first().ok_or("connect NAME OPTIONS")?;
        let mut values = Vec::new();
        for option in options {
            let (key, value) = option.split_once('=').ok_or(format!("{option} has no value"))?;
            values.push((key.to_owned(), Value::parse(value)?));
        }
        self.wires.insert(name.clone(), Wire::connect(&self.broker.address)?);
        let target = Target { wire: name.clone(), channel: 0 };
        let (next_target, next) = self::target(next);
        let may_fail = next_target.wire == *name && (next.starts_with("!!") || next == "gone");
        let wire = self.raw(&target)?;
        match handshake(wire, &values) {
            Err(_) if may_fail => Ok(()),
            other => other,
        }
    }

    fn frame(&mut self, target: &Target, words: &[String]) -> Result<(), String> {
        let [kind, payload, end @ ..] = words else {
            return Err("frame KIND PAYLOAD [END]".into());
        };
        let octet = |text: &str| text.parse::<u8>().map_err(|_| format!("{text} is no octet"));
        let end = end.first().map_or(Ok(0xCE), |end| octet(end))?;
        let (kind, payload) = (octet(kind)?, Value::parse(payload)?.bytes());
        let channel = target.channel;
        self.channel(target)?.frame(kind, channel, &payload, end);
        Ok(())
    }

    /// A content header alone, with any class and size.
    fn header(&mut self, target: &Target, words: &[String]) -> Result<(), String> {
        let (mut class, mut size) = (60, 0);
        let mut properties = BasicProperties::default();
        for word in words {
            let (name, value) = word.split_once('=').ok_or("header class=60 size=5")?;
            let value = Value::parse(value)?;
            match name {
                "class" => class = value.number().ok_or("a number")? as u16,
                "size" => size = value.number().ok_or("a number")? as u64,
                _ => drop(set_property(&mut properties, name, &value)?),
            }
        }
        let (mut raw, mut out) = (Vec::new(), Vec::new());
        properties.encode(&mut raw);
        warren::amqp::frame::write_content_header(&mut out, target.channel, class, &raw, size);
        self.channel(target)?.bytes(&out);
        Ok(())
    }

    fn greeting(&mut self, target: &Target, wanted: &str) -> Result<(), String> {
        let wanted = Value::parse(wanted)?.bytes();
        let wire = self.raw(target)?;
        wire.wait_end()?;
        if wire.greeting == wanted {
            return Ok(());
        }
        Err(format!("received \"{}\"", wire.greeting.escape_ascii()))
    }

    fn heartbeat(&mut self, target: &Target) -> Result<(), String> {
        let wire = self.raw(target)?;
        let (start, before) = (Instant::now(), wire.heartbeats);
        while wire.heartbeats == before {
            if !wire.read(start) {
                return Err("no heartbeat came".into());
            }
        }
        Ok(())
    }

    fn close(&mut self, target: &Target) -> Result<(), String> {
        let wire = self.raw(target)?;
        wire.call(0, "connection.close", &[("code", "200")])?;
        wire.drop_socket();
        Ok(())
    }

    /// Two round trips on the same channel, the second of which is answered after all that the first one's way
    /// could have set off; then nothing may have come beside the answers.
    fn nothing(&mut self, target: &Target, queue: Option<&String>) -> Result<(), String> {
        let channel = target.channel;
        let queue = queue.map(|queue| unquoted(queue));
        let wire = self.channel(target)?;
        for _ in 0..2 {
            match &queue {
                Some(queue) => {
                    wire.call(channel, "queue.declare", &[("queue", queue), ("passive", "true")])?
                }
                None => wire.call(
                    channel,
                    "exchange.declare",
                    &[("exchange", "amq.direct"), ("type", "direct"), ("passive", "true")],
                )?,
            };
        }
        match wire.waiting_on(channel) {
            waiting if waiting.is_empty() => Ok(()),
            waiting => Err(format!("something came: {}", waiting.join("; "))),
        }
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

    fn count(&mut self, target: &Target, words: &[String]) -> Result<(), String> {
        let [queue, messages, consumers @ ..] = words else {
            return Err("count QUEUE MESSAGES [CONSUMERS]".into());
        };
        let number = |text: &String| text.parse().map_err(|_| format!("{text} is no number"));
        let messages: i64 = number(messages)?;
        let consumers: Option<i64> = consumers.first().map(number).transpose()?;
        let queue = unquoted(queue);
        self.until(|run| {
            let got =
                run.look(target, "queue.declare", &[("queue", &queue), ("passive", "true")])?;
            let right = got.number("messages") == messages
                && consumers.is_none_or(|wanted| got.number("consumers") == wanted);
            Ok(if right { Ok(()) } else { Err(got.show()) })
        })
    }

    /// Publishes, and waits for the confirm: `nacked` and `returned` say what else is expected.
    fn publish(&mut self, target: &Target, words: &[String]) -> Result<(), String> {
        let (flags, words): (Vec<&String>, Vec<&String>) =
            words.iter().partition(|word| matches!(word.as_str(), "nacked" | "returned"));
        let words: Vec<String> = words.into_iter().cloned().collect();
        let flag = |name: &str| flags.iter().any(|flag| flag.as_str() == name);
        let method = named("basic.publish")?;
        let (properties, body, given) = self.arguments(method, &words)?;
        let wire = self.wire(target)?;
        if !wire.open.contains(&PUBLISH) {
            wire.open_channel(PUBLISH)?;
            wire.call(PUBLISH, "confirm.select", &[])?;
            wire.published = 0;
        }
        wire.method(PUBLISH, method, &given)?;
        wire.content(PUBLISH, &properties, &body);
        wire.published += 1;
        let tag = wire.published;
        if flag("returned") {
            wire.expect(PUBLISH, |got| got.method.name == "basic.return")?;
        }
        let answered = |got: &Received| matches!(got.method.name, "basic.ack" | "basic.nack");
        let got = wire.expect(PUBLISH, answered)?;
        let wanted = if flag("nacked") { "basic.nack" } else { "basic.ack" };
        if got.method.name != wanted || got.number("delivery_tag") != tag {
            return Err(format!("expected {wanted} {tag}, received {}", got.show()));
        }
        match wire.waiting_on(PUBLISH) {
            waiting if waiting.is_empty() => Ok(()),
            waiting => Err(format!("something came too: {}", waiting.join("; "))),
        }
    }

    /// Takes one message, for which it waits; `empty`: there is none now.
    fn get(&mut self, target: &Target, words: &[String]) -> Result<(), String> {
        let (queue, rest) = words.split_first().ok_or("get QUEUE FIELDS")?;
        let queue = unquoted(queue);
        if rest.first().is_some_and(|word| word == "empty") {
            let got = self.look(target, "basic.get", &[("queue", &queue), ("no_ack", "true")])?;
            return match got.method.name {
                "basic.get-empty" => Ok(()),
                _ => Err(format!("received {}", got.show())),
            };
        }
        let got = self.get_one(target, &queue)?;
        let method = named("basic.get-ok")?;
        let mut content = Vec::new();
        let fields: Vec<String> = rest
            .iter()
            .filter(|word| {
                let is_content = is_content(word);
                if is_content {
                    content.push((*word).clone());
                }
                !is_content
            })
            .cloned()
            .collect();
        for (field, value) in method.arguments(&fields, &mut self.vars, |_, _| Ok(false))? {
            if !value.matches(got.field(&field), &mut self.vars) {
                return Err(format!("another {field}: received {}", got.show()));
            }
        }
        self.check_content(&got, &content)
    }

    fn get_one(&mut self, target: &Target, queue: &str) -> Result<Received, String> {
        let mut taken = None;
        self.until(|run| {
            let got = run.look(target, "basic.get", &[("queue", queue), ("no_ack", "true")])?;
            if got.method.name == "basic.get-empty" {
                return Ok(Err(format!("'{queue}' is empty")));
            }
            taken = Some(got);
            Ok(Ok(()))
        })?;
        taken.ok_or("nothing was taken".into())
    }

    /// Takes messages with these bodies, in this order, after which the queue is empty.
    fn take(&mut self, target: &Target, words: &[String]) -> Result<(), String> {
        let (queue, bodies) = words.split_first().ok_or("take QUEUE BODIES")?;
        for (at, body) in bodies.iter().enumerate() {
            let got = self.get_one(target, &unquoted(queue))?;
            let wanted = Value::parse(body)?.bytes();
            if got.body != wanted {
                return Err(format!("message {}: received {}", at + 1, got.show()));
            }
        }
        self.get(target, &[queue.clone(), "empty".into()])
    }

    fn existence(&mut self, target: &Target, there: bool, words: &[String]) -> Result<(), String> {
        let [kind, name] = words else { return Err("exists queue NAME".into()) };
        let name = unquoted(name);
        let method = format!("{kind}.declare");
        self.until(|run| {
            let fields = [(kind.as_str(), name.as_str()), ("passive", "true")];
            Ok(match run.look(target, &method, &fields) {
                Ok(_) if there => Ok(()),
                Err(error) if !there && error.contains("(404)") => Ok(()),
                Ok(got) => Err(got.show()),
                Err(error) => Err(error),
            })
        })
    }

    /// Publishes until nobody takes it: asking for a queue would keep it from expiring.
    fn unroutable(&mut self, target: &Target, words: &[String]) -> Result<(), String> {
        let [exchange, key] = words else { return Err("unroutable EXCHANGE KEY".into()) };
        let words = [exchange.clone(), key.clone(), "mandatory".into()];
        self.until(|run| {
            let outcome = run.publish(target, &words);
            let returned = matches!(&outcome, Err(error) if error.contains("basic.return"));
            Ok(if returned { Ok(()) } else { Err("a queue took it".into()) })
        })
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

/// From the protocol header to `connection.open-ok`.
fn handshake(wire: &mut Wire, options: &[(String, Value)]) -> Result<(), String> {
    let option = |name: &str| options.iter().find(|(key, _)| key == name).map(|(_, value)| value);
    let text = |name: &str, default: &str| {
        option(name).map_or(default.to_owned(), |value| {
            String::from_utf8_lossy(&value.bytes()).into_owned()
        })
    };
    wire.bytes(&warren::amqp::constants::PROTOCOL_HEADER);
    wire.expect(0, |got| got.method.name == "connection.start")?;
    let (user, password) = (text("user", "guest"), text("password", "guest"));
    let mechanism = text("mechanism", "PLAIN");
    let response = match mechanism.as_str() {
        "AMQPLAIN" => {
            let table =
                FieldTable::new().with("LOGIN", user.as_str()).with("PASSWORD", password.as_str());
            let mut bytes = Vec::new();
            table.encode(&mut bytes);
            bytes.split_off(4)
        }
        _ => format!("\0{user}\0{password}").into_bytes(),
    };
    let mut capabilities = FieldTable::new();
    for name in [
        "consumer_cancel_notify",
        "authentication_failure_close",
        "connection.blocked",
        "basic.nack",
        "publisher_confirms",
        "exchange_exchange_bindings",
    ] {
        capabilities.push(name, true);
    }
    let capabilities = option("capabilities").map_or(capabilities, Value::to_table);
    let properties =
        FieldTable::new().with("product", "contract").with("capabilities", capabilities);
    let start_ok = [
        ("properties", Value::Exact(FieldValue::Table(properties))),
        ("mechanism", Value::Exact(mechanism.as_str().into())),
        ("response", Value::Exact(FieldValue::LongString(response))),
        ("locale", Value::Exact("en_US".into())),
    ];
    let start_ok = start_ok.map(|(name, value)| (name.to_owned(), value));
    wire.method(0, named("connection.start-ok")?, &tables(start_ok))?;
    let tune = wire.expect(0, |got| got.method.name == "connection.tune")?;
    let mut agreed = Vec::new();
    for name in ["channel_max", "frame_max", "heartbeat"] {
        let default = if name == "heartbeat" { 0 } else { tune.number(name) };
        agreed.push((name.to_owned(), option(name).cloned().unwrap_or(Value::Int(default))));
    }
    wire.frame_max = agreed[1].1.number().unwrap_or_default() as u32;
    wire.method(0, named("connection.tune-ok")?, &agreed)?;
    let vhost = [("virtual_host".to_owned(), Value::Exact(text("vhost", "/").as_str().into()))];
    wire.method(0, named("connection.open")?, &vhost)?;
    wire.expect(0, |got| got.method.name == "connection.open-ok")?;
    wire.open.insert(0);
    Ok(())
}

/// Tables as the language's values have them, so that they are encoded as such.
fn tables(fields: [(String, Value); 4]) -> Vec<(String, Value)> {
    fn value(field: &FieldValue) -> Value {
        match field {
            FieldValue::Table(table) => Value::Table(
                table.iter().map(|(key, it)| (key.to_owned(), value(it))).collect(),
                false,
            ),
            other => Value::Exact(other.clone()),
        }
    }
    fields
        .into_iter()
        .map(|(name, field)| match field {
            Value::Exact(field) => (name, value(&field)),
            other => (name, other),
        })
        .collect()
}

/// Reply code, text and method of a close are as expected.
fn check_close(got: &Received, wanted: &str, ids: (u16, u16)) -> Result<(), String> {
    let (code, text) = wanted.split_once(' ').unwrap_or((wanted, ""));
    let code: u16 = code.parse().map_err(|_| format!("{code} is no reply code"))?;
    let text = if text.is_empty() { "...".into() } else { ReplyCode(code).text(text) };
    let right = got.number("code") == i64::from(code)
        && glob(&text, &got.text("text"))
        && got.number("class") == i64::from(ids.0)
        && got.number("method") == i64::from(ids.1);
    if right {
        return Ok(());
    }
    let name = got.method.name;
    Err(format!(
        "expected {name} code={code} text=\"{text}\" class={} method={}, received {}",
        ids.0,
        ids.1,
        got.show()
    ))
}

/// `(60.40)`, or what is assumed without it.
fn numbers(text: &str, default: (u16, u16)) -> Result<(u16, u16), String> {
    if text.is_empty() {
        return Ok(default);
    }
    let ids = text.trim_matches(['(', ')']).split_once('.');
    let ids = ids.and_then(|(class, id)| Some((class.parse().ok()?, id.parse().ok()?)));
    ids.ok_or(format!("{text} is not (CLASS.METHOD)"))
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

/// Takes a word that is a property or the body.
fn content_word(
    word: &str,
    properties: &mut BasicProperties,
    body: &mut Vec<u8>,
) -> Result<bool, String> {
    if word == "persistent" {
        properties.delivery_mode = Some(2);
        return Ok(true);
    }
    let Some((name, value)) = word.split_once('=') else { return Ok(false) };
    if name == "body" {
        *body = Value::parse(value)?.bytes();
        return Ok(true);
    }
    if !is_content(word) {
        return Ok(false);
    }
    set_property(properties, name, &Value::parse(value)?)
}
