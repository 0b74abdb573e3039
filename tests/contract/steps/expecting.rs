//! What a step expects, and waits for.

use std::time::Instant;

use warren::amqp::{FieldValue, ReplyCode};

use super::{Run, Target, is_content, unquoted};
use crate::methods::named;
use crate::values::{Value, glob};
use crate::wire::{Received, property_values};

impl Run<'_> {
    pub(super) fn expect(
        &mut self,
        target: &Target,
        rest: &[String],
        strict: bool,
    ) -> Result<(), String> {
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
    pub(super) fn wait(&mut self, target: &Target, rest: &[String]) -> Result<(), String> {
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

    pub(super) fn channel_dies(
        &mut self,
        target: &Target,
        ids: &str,
        rest: &str,
    ) -> Result<(), String> {
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

    pub(super) fn connection_dies(
        &mut self,
        target: &Target,
        ids: &str,
        rest: &str,
    ) -> Result<(), String> {
        let wire = self.raw(target)?;
        let ids = numbers(ids, wire.last_sent.get(&0).copied().unwrap_or_default())?;
        let got = wire.expect(0, |got| got.method.name == "connection.close");
        let got = got.map_err(|got| format!("expected connection.close, received {got}"))?;
        check_close(&got, rest, ids)?;
        wire.method(0, named("connection.close-ok")?, &[])?;
        wire.wait_end()
    }

    pub(super) fn greeting(&mut self, target: &Target, wanted: &str) -> Result<(), String> {
        let wanted = Value::parse(wanted)?.bytes();
        let wire = self.raw(target)?;
        wire.wait_end()?;
        if wire.greeting == wanted {
            return Ok(());
        }
        Err(format!("received \"{}\"", wire.greeting.escape_ascii()))
    }

    pub(super) fn heartbeat(&mut self, target: &Target) -> Result<(), String> {
        let wire = self.raw(target)?;
        let (start, before) = (Instant::now(), wire.heartbeats);
        while wire.heartbeats == before {
            if !wire.read(start) {
                return Err("no heartbeat came".into());
            }
        }
        Ok(())
    }

    /// Two round trips on the same channel, the second of which is answered after all that the first one's way
    /// could have set off; then nothing may have come beside the answers.
    pub(super) fn nothing(
        &mut self,
        target: &Target,
        queue: Option<&String>,
    ) -> Result<(), String> {
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

    pub(super) fn count(&mut self, target: &Target, words: &[String]) -> Result<(), String> {
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

    /// Takes one message, for which it waits; `empty`: there is none now.
    pub(super) fn get(&mut self, target: &Target, words: &[String]) -> Result<(), String> {
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
    pub(super) fn take(&mut self, target: &Target, words: &[String]) -> Result<(), String> {
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

    pub(super) fn existence(
        &mut self,
        target: &Target,
        there: bool,
        words: &[String],
    ) -> Result<(), String> {
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
    pub(super) fn unroutable(&mut self, target: &Target, words: &[String]) -> Result<(), String> {
        let [exchange, key] = words else { return Err("unroutable EXCHANGE KEY".into()) };
        let words = [exchange.clone(), key.clone(), "mandatory".into()];
        self.until(|run| {
            let outcome = run.publish(target, &words);
            let returned = matches!(&outcome, Err(error) if error.contains("basic.return"));
            Ok(if returned { Ok(()) } else { Err("a queue took it".into()) })
        })
    }
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
