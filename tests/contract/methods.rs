//! Every method as the language names it: numbers and fields, written and read without the product's own
//! structs, so that a field's wrong place there shows here, and so that a step can send what no client would.

use std::sync::OnceLock;

use warren::amqp::{FieldTable, FieldValue};

use crate::values::{Value, Vars};

/// Letters: `o` octet, `h` 16 bits, `w` 32, `q` 64, `b` one bit, `s` short string, `l` long string, `t` table.
/// A field whose name starts with `_` is reserved: it cannot be given in order, only by its name.
const TABLE: &str = "
connection.start 10.10 major:o minor:o properties:t mechanisms:l locales:l
connection.start-ok 10.11 properties:t mechanism:s response:l locale:s
connection.secure 10.20 challenge:l
connection.secure-ok 10.21 response:l
connection.tune 10.30 channel_max:h frame_max:w heartbeat:h
connection.tune-ok 10.31 channel_max:h frame_max:w heartbeat:h
connection.open 10.40 virtual_host:s _capabilities:s _insist:b
connection.open-ok 10.41 _known_hosts:s
connection.close 10.50 code:h text:s class:h method:h
connection.close-ok 10.51
connection.blocked 10.60 reason:s
connection.unblocked 10.61
connection.update-secret 10.70 secret:l reason:s
connection.update-secret-ok 10.71
channel.open 20.10 _out_of_band:s
channel.open-ok 20.11 _channel_id:l
channel.flow 20.20 active:b
channel.flow-ok 20.21 active:b
channel.close 20.40 code:h text:s class:h method:h
channel.close-ok 20.41
access.request 30.10 realm:s exclusive:b passive:b active:b write:b read:b
access.request-ok 30.11 ticket:h
exchange.declare 40.10 _ticket:h exchange:s type:s passive:b durable:b auto_delete:b internal:b no_wait:b arguments:t
exchange.declare-ok 40.11
exchange.delete 40.20 _ticket:h exchange:s if_unused:b no_wait:b
exchange.delete-ok 40.21
exchange.bind 40.30 _ticket:h destination:s source:s routing_key:s no_wait:b arguments:t
exchange.bind-ok 40.31
exchange.unbind 40.40 _ticket:h destination:s source:s routing_key:s no_wait:b arguments:t
exchange.unbind-ok 40.51
queue.declare 50.10 _ticket:h queue:s passive:b durable:b exclusive:b auto_delete:b no_wait:b arguments:t
queue.declare-ok 50.11 queue:s messages:w consumers:w
queue.bind 50.20 _ticket:h queue:s exchange:s routing_key:s no_wait:b arguments:t
queue.bind-ok 50.21
queue.purge 50.30 _ticket:h queue:s no_wait:b
queue.purge-ok 50.31 messages:w
queue.delete 50.40 _ticket:h queue:s if_unused:b if_empty:b no_wait:b
queue.delete-ok 50.41 messages:w
queue.unbind 50.50 _ticket:h queue:s exchange:s routing_key:s arguments:t
queue.unbind-ok 50.51
basic.qos 60.10 prefetch_size:w prefetch_count:h global:b
basic.qos-ok 60.11
basic.consume 60.20 _ticket:h queue:s tag:s no_local:b no_ack:b exclusive:b no_wait:b arguments:t
basic.consume-ok 60.21 tag:s
basic.cancel 60.30 tag:s no_wait:b
basic.cancel-ok 60.31 tag:s
basic.publish 60.40 _ticket:h exchange:s routing_key:s mandatory:b immediate:b
basic.return 60.50 code:h text:s exchange:s routing_key:s
basic.deliver 60.60 tag:s delivery_tag:q redelivered:b exchange:s routing_key:s
basic.get 60.70 _ticket:h queue:s no_ack:b
basic.get-ok 60.71 delivery_tag:q redelivered:b exchange:s routing_key:s messages:w
basic.get-empty 60.72 _cluster_id:s
basic.ack 60.80 delivery_tag:q multiple:b
basic.reject 60.90 delivery_tag:q requeue:b
basic.recover-async 60.100 requeue:b
basic.recover 60.110 requeue:b
basic.recover-ok 60.111
basic.nack 60.120 delivery_tag:q multiple:b requeue:b
confirm.select 85.10 no_wait:b
confirm.select-ok 85.11
tx.select 90.10
tx.select-ok 90.11
tx.commit 90.20
tx.commit-ok 90.21
tx.rollback 90.30
tx.rollback-ok 90.31
";

/// A row of the table.
pub(crate) struct Method {
    pub(crate) name: &'static str,
    pub(crate) class: u16,
    pub(crate) id: u16,
    pub(crate) fields: Vec<(&'static str, u8)>,
}

impl Method {
    /// Whether a content header and a body follow.
    pub(crate) fn has_content(&self) -> bool {
        self.class == 60 && matches!(self.id, 40 | 50 | 60 | 71)
    }

    /// The answers to it, where there are any.
    pub(crate) fn replies(&self) -> Vec<&'static str> {
        if self.name == "basic.get" {
            return vec!["basic.get-ok", "basic.get-empty"];
        }
        let name = format!("{}-ok", self.name);
        methods().iter().filter(|method| method.name == name).map(|method| method.name).collect()
    }

    /// Class, number and fields; what is not given is zero, empty or false.
    pub(crate) fn encode(&self, given: &[(String, Value)]) -> Result<Vec<u8>, String> {
        let mut out = [self.class.to_be_bytes(), self.id.to_be_bytes()].concat();
        let mut bits = Vec::new();
        for &(name, kind) in &self.fields {
            let value = given.iter().find(|(field, _)| field == name).map(|(_, value)| value);
            if kind == b'b' {
                bits.push(value.is_some_and(Value::is_true));
                continue;
            }
            flush(&mut out, &mut bits);
            let number = || match value {
                Some(value) => value.number().ok_or(format!("{name} is a number")),
                None => Ok(0),
            };
            let text = || value.map(Value::bytes).unwrap_or_default();
            match kind {
                b'o' => out.push(number()? as u8),
                b'h' => out.extend((number()? as u16).to_be_bytes()),
                b'w' => out.extend((number()? as u32).to_be_bytes()),
                b'q' => out.extend((number()? as u64).to_be_bytes()),
                b's' => {
                    let text = text();
                    out.push(u8::try_from(text.len()).map_err(|_| format!("{name} is too long"))?);
                    out.extend(text);
                }
                b'l' => {
                    let text = text();
                    out.extend((text.len() as u32).to_be_bytes());
                    out.extend(text);
                }
                _ => value.map(Value::to_table).unwrap_or_default().encode(&mut out),
            }
        }
        flush(&mut out, &mut bits);
        Ok(out)
    }

    /// The fields of an encoded method of this row.
    pub(crate) fn decode(
        &self,
        mut bytes: &[u8],
    ) -> Result<Vec<(&'static str, FieldValue)>, String> {
        let mut bits = (0, 0);
        let mut fields = Vec::new();
        for &(name, kind) in &self.fields {
            if kind != b'b' {
                bits = (0, 0);
            }
            let value = match kind {
                b'b' => {
                    if bits.1 == 0 {
                        bits = (take(&mut bytes, 1)?[0], 8);
                    }
                    let bit = bits.0 & 1 == 1;
                    bits = (bits.0 >> 1, bits.1 - 1);
                    FieldValue::Bool(bit)
                }
                b'o' => FieldValue::I64(number(take(&mut bytes, 1)?)),
                b'h' => FieldValue::I64(number(take(&mut bytes, 2)?)),
                b'w' => FieldValue::I64(number(take(&mut bytes, 4)?)),
                b'q' => FieldValue::I64(number(take(&mut bytes, 8)?)),
                b's' => {
                    let length = number(take(&mut bytes, 1)?) as usize;
                    FieldValue::LongString(take(&mut bytes, length)?.to_vec())
                }
                _ => {
                    let length = number(take(&mut bytes, 4)?) as usize;
                    let inner = take(&mut bytes, length)?;
                    match kind {
                        b'l' => FieldValue::LongString(inner.to_vec()),
                        _ => FieldValue::Table(
                            FieldTable::decode(inner).map_err(|error| error.to_string())?,
                        ),
                    }
                }
            };
            fields.push((name, value));
        }
        match bytes {
            [] => Ok(fields),
            rest => Err(format!("{} octets too many in {}", rest.len(), self.name)),
        }
    }

    /// Sorts the words of a step into fields: `name=value`, a bit's bare name, a table in braces, and the rest
    /// in order. What is no field goes to `other`.
    pub(crate) fn arguments(
        &self,
        words: &[String],
        vars: &mut Vars,
        mut other: impl FnMut(&str, &mut Vars) -> Result<bool, String>,
    ) -> Result<Vec<(String, Value)>, String> {
        let mut given: Vec<(String, Value)> = Vec::new();
        for word in words {
            if other(word, vars)? {
                continue;
            }
            let named = word.split_once('=').filter(|(name, _)| self.kind(name).is_some());
            let (name, value) = if let Some((name, value)) = named {
                (name.to_owned(), Value::parse(value)?)
            } else if self.kind(word) == Some(b'b') {
                (word.clone(), Value::parse("true")?)
            } else if word.starts_with('{') && self.kind("arguments").is_some() {
                ("arguments".to_owned(), Value::parse(word)?)
            } else {
                let next = self.fields.iter().find(|(name, kind)| {
                    !matches!(kind, b'b' | b't')
                        && !name.starts_with('_')
                        && given.iter().all(|(taken, _)| taken != name)
                });
                let Some((name, _)) = next else {
                    return Err(format!("{} has no place for '{word}'", self.name));
                };
                ((*name).to_owned(), Value::parse(word)?)
            };
            given.push((name, value));
        }
        Ok(given)
    }

    fn kind(&self, name: &str) -> Option<u8> {
        self.fields.iter().find(|(field, _)| *field == name).map(|(_, kind)| *kind)
    }
}

/// All of them.
pub(crate) fn methods() -> &'static [Method] {
    static METHODS: OnceLock<Vec<Method>> = OnceLock::new();
    METHODS.get_or_init(|| TABLE.lines().filter(|line| !line.is_empty()).map(row).collect())
}

/// The method of this name.
pub(crate) fn named(name: &str) -> Result<&'static Method, String> {
    methods()
        .iter()
        .find(|method| method.name == name)
        .ok_or_else(|| format!("no step and no method is called '{name}'"))
}

/// The method with these numbers.
pub(crate) fn numbered(class: u16, id: u16) -> Option<&'static Method> {
    methods().iter().find(|method| (method.class, method.id) == (class, id))
}

fn row(line: &'static str) -> Method {
    let mut words = line.split(' ');
    let name = words.next().unwrap();
    let (class, id) = words.next().unwrap().split_once('.').unwrap();
    let fields = words.map(|word| {
        let (name, kind) = word.split_once(':').unwrap();
        (name, kind.as_bytes()[0])
    });
    Method {
        name,
        class: class.parse().unwrap(),
        id: id.parse().unwrap(),
        fields: fields.collect(),
    }
}

fn flush(out: &mut Vec<u8>, bits: &mut Vec<bool>) {
    for octet in bits.chunks(8) {
        out.push(octet.iter().enumerate().fold(0, |sum, (at, bit)| sum | u8::from(*bit) << at));
    }
    bits.clear();
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8], String> {
    let (taken, rest) = bytes.split_at_checked(count).ok_or("a method ends too early")?;
    *bytes = rest;
    Ok(taken)
}

fn number(bytes: &[u8]) -> i64 {
    bytes.iter().fold(0, |sum, octet| sum << 8 | i64::from(*octet))
}
