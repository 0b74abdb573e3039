//! What a step sends.

use warren::amqp::{BasicProperties, FieldTable, FieldValue};

use super::{Run, Target, is_content};
use crate::methods::{Method, named};
use crate::values::Value;
use crate::wire::{PUBLISH, Received, Wire, set_property};

impl Run<'_> {
    pub(super) fn send(
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
        let (next_target, next) = super::target(next);
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
    pub(super) fn arguments(
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

    /// Publishes, and waits for the confirm: `nacked` and `returned` say what else is expected.
    pub(super) fn publish(&mut self, target: &Target, words: &[String]) -> Result<(), String> {
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

    pub(super) fn connect(&mut self, words: &[String], next: &str) -> Result<(), String> {
        let (name, options) = words.split_first().ok_or("connect NAME OPTIONS")?;
        let mut values = Vec::new();
        for option in options {
            let (key, value) = option.split_once('=').ok_or(format!("{option} has no value"))?;
            values.push((key.to_owned(), Value::parse(value)?));
        }
        self.wires.insert(name.clone(), Wire::connect(&self.broker.address)?);
        let target = Target { wire: name.clone(), channel: 0 };
        let (next_target, next) = super::target(next);
        let may_fail = next_target.wire == *name && (next.starts_with("!!") || next == "gone");
        let wire = self.raw(&target)?;
        match handshake(wire, &values) {
            Err(_) if may_fail => Ok(()),
            other => other,
        }
    }

    pub(super) fn frame(&mut self, target: &Target, words: &[String]) -> Result<(), String> {
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
    pub(super) fn header(&mut self, target: &Target, words: &[String]) -> Result<(), String> {
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

    pub(super) fn close(&mut self, target: &Target) -> Result<(), String> {
        let wire = self.raw(target)?;
        wire.call(0, "connection.close", &[("code", "200")])?;
        wire.drop_socket();
        Ok(())
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
