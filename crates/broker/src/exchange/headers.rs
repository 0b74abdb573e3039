//! Headers routing: a binding's arguments are compared with the message's headers.
//!
//! `x-match` says how many must agree: `all` (the default) or `any`, which pass over arguments whose names begin
//! with `x-`; `all-with-x` and `any-with-x`, which do not. An argument without a value (void) asks only that the
//! header be there.

use compact_str::CompactString;
use warren_amqp::value::{RawTable, RawValue};
use warren_amqp::{FieldValue, ReplyCode};

use crate::erlang;
use crate::exception::Exception;

/// A binding's arguments, read.
pub(super) struct Rule {
    any: bool,
    wanted: Vec<(CompactString, FieldValue)>,
}

impl Rule {
    pub(super) fn parse(arguments: RawTable<'_>) -> Result<Self, Exception> {
        let (any, with_x) = match arguments.get("x-match") {
            None => (false, false),
            Some(RawValue::LongString(b"all")) => (false, false),
            Some(RawValue::LongString(b"any")) => (true, false),
            Some(RawValue::LongString(b"all-with-x")) => (false, true),
            Some(RawValue::LongString(b"any-with-x")) => (true, true),
            Some(RawValue::LongString(other)) => {
                let text = format!(
                    "Invalid x-match field value {}; expected all, any, all-with-x, or any-with-x",
                    erlang::binary(other)
                );
                return Err(Exception::new(ReplyCode::PRECONDITION_FAILED, text));
            }
            Some(other) => {
                let value = other.to_value()?;
                let shown = match (value.as_i64(), value.as_bool()) {
                    (Some(number), _) => number.to_string(),
                    (_, Some(truth)) => truth.to_string(),
                    _ => format!("{value:?}"),
                };
                let text = format!(
                    "Invalid x-match field type {} (value {shown}); expected longstr",
                    value.type_name()
                );
                return Err(Exception::new(ReplyCode::PRECONDITION_FAILED, text));
            }
        };
        let mut wanted = Vec::new();
        for pair in arguments.iter() {
            let (name, value) = pair?;
            if name != "x-match" && (with_x || !name.starts_with("x-")) {
                wanted.push((name.into(), value.to_value()?));
            }
        }
        Ok(Self { any, wanted })
    }

    pub(super) fn matches(&self, headers: RawTable<'_>) -> bool {
        let agrees = |(name, wanted): &(CompactString, FieldValue)| match headers.get(name) {
            None => false,
            Some(_) if matches!(wanted, FieldValue::Void) => true,
            Some(value) => value.to_value().is_ok_and(|value| equal(wanted, &value)),
        };
        if self.any { self.wanted.iter().any(agrees) } else { self.wanted.iter().all(agrees) }
    }
}

/// Numbers of different widths are equal when they mean the same: clients choose the width on their own.
fn equal(one: &FieldValue, other: &FieldValue) -> bool {
    match (one.as_i64(), other.as_i64()) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use warren_amqp::value::RawTable;
    use warren_amqp::{FieldTable, FieldValue};

    use super::Rule;

    fn bytes(table: &FieldTable) -> Vec<u8> {
        let mut bytes = Vec::new();
        table.encode(&mut bytes);
        bytes.split_off(4)
    }

    fn matches(arguments: FieldTable, headers: &FieldTable) -> bool {
        Rule::parse(RawTable::new(&bytes(&arguments)))
            .unwrap()
            .matches(RawTable::new(&bytes(headers)))
    }

    #[test]
    fn all_any_and_their_x_forms() {
        let headers =
            FieldTable::new().with("format", "pdf").with("pages", 10i32).with("x-kind", "a");
        let both = FieldTable::new().with("format", "pdf").with("pages", 10i64);
        assert!(matches(both.clone(), &headers));
        let one_off = FieldTable::new().with("format", "pdf").with("pages", 11);
        assert!(!matches(one_off.clone(), &headers));
        assert!(matches(one_off.with("x-match", "any"), &headers));
        let wrong_x = both.clone().with("x-kind", "b");
        assert!(matches(wrong_x.clone(), &headers));
        assert!(!matches(wrong_x.with("x-match", "all-with-x"), &headers));
        assert!(matches(
            FieldTable::new().with("x-match", "any-with-x").with("x-kind", "a"),
            &headers
        ));
        assert!(matches(FieldTable::new(), &headers));
        assert!(!matches(FieldTable::new().with("x-match", "any"), &headers));
        assert!(matches(FieldTable::new().with("format", FieldValue::Void), &headers));
        assert!(!matches(FieldTable::new().with("missing", FieldValue::Void), &headers));
    }

    #[test]
    fn an_unknown_x_match_is_refused() {
        let arguments = bytes(&FieldTable::new().with("x-match", "most"));
        let error = Rule::parse(RawTable::new(&arguments)).err().unwrap();
        assert!(
            error
                .text
                .starts_with("PRECONDITION_FAILED - Invalid x-match field value <<\"most\">>")
        );
    }
}
