//! Values as RabbitMQ prints them in its reply texts: Erlang terms.

use std::fmt::Write;

use warren_amqp::FieldValue;

/// Of a frame that has no place in the protocol, this many octets are shown.
const SNIPPET_BYTES: usize = 16;

/// Octets in numbers: `<<1,2>>`.
pub(crate) fn octets(bytes: &[u8]) -> String {
    let mut text = String::from("<<");
    for (index, byte) in bytes.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(text, "{comma}{byte}");
    }
    text.push_str(">>");
    text
}

/// Octets as letters if they are printable: `<<"x">>`, otherwise in numbers.
pub(crate) fn binary(bytes: &[u8]) -> String {
    let printable = |byte: &u8| matches!(byte, 8..=13 | 27 | 32..=126);
    match std::str::from_utf8(bytes) {
        Ok(text) if !bytes.is_empty() && bytes.iter().all(printable) => {
            format!("<<{}>>", quoted(text))
        }
        _ => octets(bytes),
    }
}

/// A text in quotes.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A field's value.
pub(crate) fn term(value: &FieldValue) -> String {
    let list = |items: Vec<String>| format!("[{}]", items.join(","));
    match value {
        FieldValue::Bool(truth) => truth.to_string(),
        FieldValue::F32(number) => format!("{number:?}"),
        FieldValue::F64(number) => format!("{number:?}"),
        FieldValue::Decimal { scale, digits } => format!("{{{scale},{digits}}}"),
        FieldValue::LongString(bytes) | FieldValue::Bytes(bytes) => binary(bytes),
        FieldValue::Timestamp(seconds) => seconds.to_string(),
        FieldValue::Void => "undefined".into(),
        FieldValue::Array(values) => {
            let item = |value: &FieldValue| format!("{{{},{}}}", value.type_name(), term(value));
            list(values.iter().map(item).collect())
        }
        FieldValue::Table(table) => {
            list(table.iter().map(|(key, value)| pair(key, value)).collect())
        }
        number => number.as_i64().unwrap_or_default().to_string(),
    }
}

/// A pair of a table: `{<<"x-max-length">>,signedint,3}`.
pub(crate) fn pair(key: &str, value: &FieldValue) -> String {
    format!("{{{},{},{}}}", binary(key.as_bytes()), value.type_name(), term(value))
}

/// What is said of a frame's payload: `type 3, all octets = <<"x">>`.
pub(crate) fn frame(kind: u8, payload: &[u8]) -> String {
    match payload.get(..SNIPPET_BYTES) {
        Some(first) if first.len() < payload.len() => {
            format!("type {kind}, first {SNIPPET_BYTES} octets = {}", binary(first))
        }
        _ => format!("type {kind}, all octets = {}", binary(payload)),
    }
}

#[cfg(test)]
mod tests {
    use warren_amqp::{FieldTable, FieldValue};

    use super::{binary, frame, octets, term};

    #[test]
    fn octets_are_shown_as_erlang_shows_them() {
        assert_eq!(octets(b"a\x00"), "<<97,0>>");
        assert_eq!(binary(b"a\"b"), "<<\"a\\\"b\">>");
        assert_eq!(binary(b"a\x00"), "<<97,0>>");
        assert_eq!(binary(b""), "<<>>");
        assert_eq!(frame(3, b"x"), "type 3, all octets = <<\"x\">>");
        assert_eq!(frame(3, &[b'x'; 16]), "type 3, all octets = <<\"xxxxxxxxxxxxxxxx\">>");
        assert_eq!(frame(3, &[b'x'; 17]), "type 3, first 16 octets = <<\"xxxxxxxxxxxxxxxx\">>");
    }

    #[test]
    fn values_are_shown_as_erlang_shows_them() {
        let table = FieldTable::new().with("a", 1).with("b", FieldValue::Array(vec!["x".into()]));
        let shown = "[{<<\"a\">>,signedint,1},{<<\"b\">>,array,[{longstr,<<\"x\">>}]}]";
        assert_eq!(term(&table.into()), shown);
        assert_eq!(term(&FieldValue::Void), "undefined");
        assert_eq!(term(&1.5f64.into()), "1.5");
        assert_eq!(term(&true.into()), "true");
    }
}
