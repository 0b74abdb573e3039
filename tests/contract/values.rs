//! Values of the language: words, numbers, tables; written to the wire, and compared with what came.

use std::collections::HashMap;
use std::fmt::Write as _;

use warren::amqp::{FieldTable, FieldValue};

/// What names stand for within one case: made up at their first use, or captured from what came.
pub(crate) struct Vars {
    unique: String,
    known: HashMap<String, String>,
}

impl Vars {
    /// Names with this in them, which nobody else uses.
    pub(crate) fn new(unique: String) -> Self {
        Self { unique, known: HashMap::new() }
    }

    /// The text with each `$name` replaced; `$$` is a dollar.
    pub(crate) fn expand(&self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                out.push('$');
                rest = after;
                continue;
            }
            let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let (name, after) = after.split_at(end.unwrap_or(after.len()));
            match self.known.get(name) {
                Some(value) => out.push_str(value),
                None if name.is_empty() => out.push('$'),
                None => write!(out, "{}-{name}", self.unique).expect("strings grow"),
            }
            rest = after;
        }
        out + rest
    }

    pub(crate) fn set(&mut self, name: &str, value: String) {
        self.known.insert(name.to_owned(), value);
    }
}

/// A value as a step writes it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// `?` or `?name`: anything, remembered under the name.
    Any(String),
    /// Digits: a 32-bit number when sent, if it fits; any whole number when compared.
    Int(i64),
    /// Of the type that is written with it, `u8(1)`; texts and the others too.
    Exact(FieldValue),
    /// `{key: value, ...}`; with `...` at its end, it may have more when compared.
    Table(Vec<(String, Value)>, bool),
    /// `[value, ...]`.
    Array(Vec<Value>),
}

impl Value {
    /// One value, all of `text`.
    pub(crate) fn parse(text: &str) -> Result<Value, String> {
        let mut parser = Parser { text, at: 0 };
        let value = parser.value("")?;
        match parser.rest() {
            "" => Ok(value),
            rest => Err(format!("'{rest}' is left over in {text}")),
        }
    }

    pub(crate) fn is_true(&self) -> bool {
        *self == Value::Exact(FieldValue::Bool(true))
    }

    pub(crate) fn number(&self) -> Option<i64> {
        match self {
            Value::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// The octets of a text; the digits of a number.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Value::Exact(FieldValue::LongString(bytes)) => bytes.clone(),
            Value::Exact(FieldValue::Bool(truth)) => truth.to_string().into_bytes(),
            Value::Int(number) => number.to_string().into_bytes(),
            _ => Vec::new(),
        }
    }

    pub(crate) fn to_table(&self) -> FieldTable {
        match self.to_field() {
            FieldValue::Table(table) => table,
            _ => FieldTable::new(),
        }
    }

    fn to_field(&self) -> FieldValue {
        match self {
            Value::Any(_) => FieldValue::Void,
            Value::Int(number) => match i32::try_from(*number) {
                Ok(number) => FieldValue::I32(number),
                Err(_) => FieldValue::I64(*number),
            },
            Value::Exact(value) => value.clone(),
            Value::Table(entries, _) => FieldValue::Table(
                entries.iter().map(|(key, value)| (key, value.to_field())).collect(),
            ),
            Value::Array(values) => FieldValue::Array(values.iter().map(Value::to_field).collect()),
        }
    }

    /// Whether what came is this. A text written as digits is also that number's.
    pub(crate) fn matches(&self, got: &FieldValue, vars: &mut Vars) -> bool {
        match (self, got) {
            (Value::Any(name), got) => {
                if !name.is_empty() {
                    vars.set(name, plain(got));
                }
                true
            }
            (Value::Int(number), FieldValue::LongString(text)) => {
                *text == number.to_string().into_bytes()
            }
            (Value::Int(number), FieldValue::Timestamp(got)) => i64::try_from(*got) == Ok(*number),
            (Value::Int(number), got) => got.as_i64() == Some(*number),
            (Value::Exact(FieldValue::LongString(wanted)), FieldValue::LongString(got)) => {
                glob(&String::from_utf8_lossy(wanted), &String::from_utf8_lossy(got))
            }
            (Value::Exact(wanted), got) => wanted == got,
            (Value::Table(wanted, more), FieldValue::Table(got)) => {
                (*more || wanted.len() == got.len())
                    && wanted.iter().all(|(key, value)| {
                        got.get(key).is_some_and(|got| value.matches(got, vars))
                    })
            }
            (Value::Array(wanted), FieldValue::Array(got)) => {
                wanted.len() == got.len()
                    && wanted.iter().zip(got).all(|(wanted, got)| wanted.matches(got, vars))
            }
            _ => false,
        }
    }
}

/// Whether a text is the wanted one, in which `...` stands for anything.
pub(crate) fn glob(wanted: &str, got: &str) -> bool {
    let mut pieces = wanted.split("...");
    let Some(mut rest) = got.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    let mut pieces = pieces.peekable();
    if pieces.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return rest.ends_with(piece);
        }
        match rest.split_once(piece) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    true
}

/// As a value is written in a table.
pub(crate) fn show(value: &FieldValue) -> String {
    match value {
        FieldValue::Bool(truth) => truth.to_string(),
        FieldValue::LongString(bytes) => format!("\"{}\"", bytes.escape_ascii()),
        FieldValue::Table(table) => {
            let entries: Vec<String> =
                table.iter().map(|(key, value)| format!("{key}: {}", show(value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
        FieldValue::Array(values) => {
            format!("[{}]", values.iter().map(show).collect::<Vec<_>>().join(", "))
        }
        FieldValue::Timestamp(seconds) => format!("ts({seconds})"),
        other => match other.as_i64() {
            Some(number) => format!("{}({number})", other.type_name()),
            None => format!("{other:?}"),
        },
    }
}

/// As a captured value stands in later steps.
fn plain(value: &FieldValue) -> String {
    match value {
        FieldValue::LongString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => other.as_i64().map_or_else(|| show(other), |number| number.to_string()),
    }
}

/// The words of a line. Quotes, braces and brackets keep what is within together.
pub(crate) fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut depth, mut quoted, mut escaped) = (0, false, false);
    for c in line.chars() {
        if c == ' ' && depth == 0 && !quoted {
            words.push(std::mem::take(&mut word));
            continue;
        }
        match c {
            _ if escaped => {}
            '"' => quoted = !quoted,
            '{' | '[' | '(' if !quoted => depth += 1,
            '}' | ']' | ')' if !quoted => depth -= 1,
            _ => {}
        }
        escaped = c == '\\' && quoted && !escaped;
        word.push(c);
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    if quoted || depth != 0 {
        Err(format!("something is not closed in: {line}"))
    } else {
        Ok(words)
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text[self.at..].trim_start()
    }

    fn eat(&mut self, token: &str) -> bool {
        let rest = self.rest();
        let found = rest.starts_with(token);
        if found {
            self.at = self.text.len() - rest.len() + token.len();
        }
        found
    }

    /// A value; a bare word ends at one of `ends`.
    fn value(&mut self, ends: &str) -> Result<Value, String> {
        let rest = self.rest();
        Ok(match rest.chars().next() {
            Some('{') => self.table()?,
            Some('[') => self.array()?,
            Some('"') => Value::Exact(FieldValue::LongString(self.quoted()?)),
            _ => {
                let end = rest.find(|c| ends.contains(c)).unwrap_or(rest.len());
                let word = rest[..end].trim_end();
                self.at = self.text.len() - rest.len() + end;
                bare(word)?
            }
        })
    }

    fn table(&mut self) -> Result<Value, String> {
        self.eat("{");
        let (mut entries, mut more) = (Vec::new(), false);
        while !self.eat("}") {
            if self.eat("...") {
                more = true;
            } else {
                let rest = self.rest();
                let key = if rest.starts_with('"') {
                    String::from_utf8_lossy(&self.quoted()?).into_owned()
                } else {
                    let (key, _) = rest.split_once(':').ok_or(format!("no ':' in {rest}"))?;
                    self.at = self.text.len() - rest.len() + key.len();
                    key.trim_end().to_owned()
                };
                if !self.eat(":") {
                    return Err(format!("no ':' after {key}"));
                }
                entries.push((key, self.value(",}")?));
            }
            if !self.eat(",") && !self.rest().starts_with('}') {
                return Err(format!("no ',' or '}}' before {}", self.rest()));
            }
        }
        Ok(Value::Table(entries, more))
    }

    fn array(&mut self) -> Result<Value, String> {
        self.eat("[");
        let mut values = Vec::new();
        while !self.eat("]") {
            values.push(self.value(",]")?);
            if !self.eat(",") && !self.rest().starts_with(']') {
                return Err(format!("no ',' or ']' before {}", self.rest()));
            }
        }
        Ok(Value::Array(values))
    }

    fn quoted(&mut self) -> Result<Vec<u8>, String> {
        let rest = self.rest();
        let mut out = Vec::new();
        let bytes = rest.as_bytes();
        let mut at = 1;
        loop {
            match bytes.get(at) {
                None => return Err(format!("no end of {rest}")),
                Some(b'"') => break,
                Some(b'\\') => {
                    at += 1;
                    match bytes.get(at) {
                        Some(b'n') => out.push(b'\n'),
                        Some(b'0') => out.push(0),
                        Some(b'x') => {
                            let digits = rest.get(at + 1..at + 3).unwrap_or_default();
                            let octet = u8::from_str_radix(digits, 16);
                            out.push(octet.map_err(|_| format!("\\x{digits} is no octet"))?);
                            at += 2;
                        }
                        Some(other) => out.push(*other),
                        None => return Err(format!("no end of {rest}")),
                    }
                }
                Some(other) => out.push(*other),
            }
            at += 1;
        }
        self.at = self.text.len() - rest.len() + at + 1;
        Ok(out)
    }
}

/// A word without quotes: a number, a typed value, `x*1000`, or a text.
fn bare(word: &str) -> Result<Value, String> {
    if let Ok(number) = word.parse() {
        return Ok(Value::Int(number));
    }
    if let Some(name) = word.strip_prefix('?') {
        return Ok(Value::Any(name.to_owned()));
    }
    if let Some((what, times)) = word.split_once('*')
        && let (1, Ok(times)) = (what.len(), times.parse())
    {
        return Ok(Value::Exact(FieldValue::LongString(what.repeat(times).into_bytes())));
    }
    let typed = word.strip_suffix(')').and_then(|word| word.split_once('('));
    let Some((kind, inner)) = typed else {
        return Ok(Value::Exact(match word {
            "true" => FieldValue::Bool(true),
            "false" => FieldValue::Bool(false),
            "void" => FieldValue::Void,
            word => FieldValue::LongString(word.as_bytes().to_vec()),
        }));
    };
    fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
        text.parse().map_err(|_| format!("'{text}' is no such number"))
    }
    Ok(Value::Exact(match kind {
        "i8" => FieldValue::I8(number(inner)?),
        "u8" => FieldValue::U8(number(inner)?),
        "i16" => FieldValue::I16(number(inner)?),
        "u16" => FieldValue::U16(number(inner)?),
        "i32" => FieldValue::I32(number(inner)?),
        "u32" => FieldValue::U32(number(inner)?),
        "i64" => FieldValue::I64(number(inner)?),
        "f32" => FieldValue::F32(number(inner)?),
        "f64" => FieldValue::F64(number(inner)?),
        "ts" => FieldValue::Timestamp(number(inner)?),
        "bytes" => FieldValue::Bytes(inner.as_bytes().to_vec()),
        "text" => FieldValue::LongString(inner.as_bytes().to_vec()),
        "decimal" => {
            let (scale, digits) = inner.split_once(' ').ok_or("decimal(SCALE DIGITS)")?;
            FieldValue::Decimal { scale: number(scale)?, digits: number(digits)? }
        }
        _ => FieldValue::LongString(word.as_bytes().to_vec()),
    }))
}
