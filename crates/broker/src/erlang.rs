//! Values as RabbitMQ prints them in its reply texts: Erlang terms.

use std::fmt::Write;

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
    use super::{binary, frame, octets};

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
}
