//! Headers routing: a binding's arguments are compared with the message's headers.
//!
//! `x-match` says how many must agree: `all` (the default) or `any`, which pass over arguments whose names begin
//! with `x-`; `all-with-x` and `any-with-x`, which do not. An argument without a value (void) asks only that the
//! header be there.

use compact_str::CompactString;
use slab::Slab;
use warren_amqp::FieldValue;
use warren_amqp::value::{RawTable, RawValue};

use super::{Binding, Destination, Routed, Router};
use crate::erlang;
use crate::exception::Exception;

#[derive(Default)]
pub(super) struct Headers {
    rules: Slab<(Rule, Destination)>,
}

impl Router for Headers {
    fn add(&mut self, binding: &Binding, _name: &str) -> Result<u32, Exception> {
        let rule = Rule::parse(RawTable::new(&binding.arguments))?;
        Ok(self.rules.insert((rule, binding.destination)) as u32)
    }

    fn remove(&mut self, _binding: &Binding, place: u32) {
        self.rules.try_remove(place as usize);
    }

    fn route(&mut self, message: Routed<'_>, each: &mut impl FnMut(Destination)) {
        if self.rules.is_empty() {
            return;
        }
        let headers = message.headers().unwrap_or(RawTable::new(&[]));
        for (_, (rule, destination)) in &self.rules {
            if rule.matches(headers) {
                each(*destination);
            }
        }
    }
}

/// A binding's arguments, read.
struct Rule {
    any: bool,
    wanted: Vec<(CompactString, FieldValue)>,
}

impl Rule {
    fn parse(arguments: RawTable<'_>) -> Result<Self, Exception> {
        let (any, with_x) = match arguments.get("x-match") {
            None => (false, false),
            Some(RawValue::LongString(b"all")) => (false, false),
            Some(RawValue::LongString(b"any")) => (true, false),
            Some(RawValue::LongString(b"all-with-x")) => (false, true),
            Some(RawValue::LongString(b"any-with-x")) => (true, true),
            Some(RawValue::LongString(other)) => {
                return Err(Exception::precondition(format!(
                    "Invalid x-match field value {}; expected all, any, all-with-x, or any-with-x",
                    erlang::binary(other)
                )));
            }
            Some(other) => {
                let value = other.to_value()?;
                return Err(Exception::precondition(format!(
                    "Invalid x-match field type {} (value {}); expected longstr",
                    value.type_name(),
                    erlang::term(&value)
                )));
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

    fn matches(&self, headers: RawTable<'_>) -> bool {
        let agrees = |(name, wanted): &(CompactString, FieldValue)| match headers.get(name) {
            None => false,
            Some(_) if matches!(wanted, FieldValue::Void) => true,
            Some(value) => equal(wanted, value),
        };
        if self.any { self.wanted.iter().any(agrees) } else { self.wanted.iter().all(agrees) }
    }
}

/// Numbers are equal that mean the same, whatever their types: clients choose those on their own. So are texts
/// and bytes. As in RabbitMQ.
fn equal(wanted: &FieldValue, found: RawValue<'_>) -> bool {
    if let (Some(wanted), RawValue::LongString(found) | RawValue::Bytes(found)) =
        (wanted.as_bytes(), found)
    {
        return wanted == found;
    }
    // No text from here on, so this allocates for nested values only.
    let Ok(found) = found.to_value() else { return false };
    match (number(wanted), number(&found)) {
        (Some(Number::Whole(one)), Some(Number::Whole(other))) => one == other,
        (Some(one), Some(other)) => one.float() == other.float(),
        _ => *wanted == found,
    }
}

enum Number {
    Whole(i128),
    Float(f64),
}

impl Number {
    fn float(self) -> f64 {
        match self {
            Number::Whole(number) => number as f64,
            Number::Float(number) => number,
        }
    }
}

fn number(value: &FieldValue) -> Option<Number> {
    match *value {
        FieldValue::F32(number) => Some(Number::Float(number.into())),
        FieldValue::F64(number) => Some(Number::Float(number)),
        FieldValue::Timestamp(seconds) => Some(Number::Whole(seconds.into())),
        ref other => other.as_i64().map(|number| Number::Whole(number.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use warren_amqp::value::RawTable;
    use warren_amqp::{FieldTable, FieldValue};

    use super::Rule;

    fn bytes(table: &FieldTable) -> Vec<u8> {
        let mut bytes = Vec::new();
        table.encode(&mut bytes);
        bytes.split_off(4)
    }

    fn matches(arguments: &FieldTable, headers: &FieldTable) -> bool {
        Rule::parse(RawTable::new(&bytes(arguments)))
            .unwrap()
            .matches(RawTable::new(&bytes(headers)))
    }

    #[track_caller]
    fn check(arguments: FieldTable, headers: &FieldTable, want: bool) {
        assert_eq!(matches(&arguments, headers), want, "{arguments:?}");
    }

    #[test]
    fn all_any_and_their_x_forms() {
        let headers =
            FieldTable::new().with("format", "pdf").with("pages", 10i32).with("x-kind", "a");
        let both = FieldTable::new().with("format", "pdf").with("pages", 10i64);
        check(both.clone(), &headers, true);
        let one_off = FieldTable::new().with("format", "pdf").with("pages", 11);
        check(one_off.clone(), &headers, false);
        check(one_off.with("x-match", "any"), &headers, true);
        let wrong_x = both.clone().with("x-kind", "b");
        check(wrong_x.clone(), &headers, true);
        check(wrong_x.with("x-match", "all-with-x"), &headers, false);
        check(FieldTable::new().with("x-match", "any-with-x").with("x-kind", "a"), &headers, true);
        check(FieldTable::new(), &headers, true);
        check(FieldTable::new().with("x-match", "any"), &headers, false);
        check(FieldTable::new().with("format", FieldValue::Void), &headers, true);
        check(FieldTable::new().with("missing", FieldValue::Void), &headers, false);
    }

    #[test]
    fn types_do_not_matter_where_values_agree() {
        let headers = FieldTable::new()
            .with("n", FieldValue::Timestamp(10))
            .with("s", FieldValue::Bytes(b"ab".to_vec()))
            .with("t", FieldTable::new().with("a", 1));
        check(FieldTable::new().with("n", 10.0f64), &headers, true);
        check(FieldTable::new().with("n", 10.5f64), &headers, false);
        check(FieldTable::new().with("n", "10"), &headers, false);
        check(FieldTable::new().with("s", "ab"), &headers, true);
        check(FieldTable::new().with("t", FieldTable::new().with("a", 1)), &headers, true);
        check(FieldTable::new().with("t", FieldTable::new().with("a", 2)), &headers, false);
    }

    #[test]
    fn an_unknown_x_match_is_refused() {
        let refused = |value: FieldValue| {
            let arguments = bytes(&FieldTable::new().with("x-match", value));
            Rule::parse(RawTable::new(&arguments)).err().unwrap().text
        };
        let invalid = "PRECONDITION_FAILED - Invalid x-match field";
        let expected = "; expected all, any, all-with-x, or any-with-x";
        assert_eq!(refused("most".into()), format!("{invalid} value <<\"most\">>{expected}"));
        assert_eq!(refused("".into()), format!("{invalid} value <<>>{expected}"));
        for (value, shown) in [
            (FieldValue::I32(5), "signedint (value 5)"),
            (FieldValue::Bool(true), "bool (value true)"),
            (FieldValue::Void, "void (value undefined)"),
            (FieldValue::Table(FieldTable::new()), "table (value [])"),
            (FieldValue::Array(vec![FieldValue::I32(1)]), "array (value [{signedint,1}])"),
        ] {
            assert_eq!(refused(value), format!("{invalid} type {shown}; expected longstr"));
        }
    }

    const NAMES: [&str; 4] = ["a", "b", "x-a", "x-b"];
    const MODES: [&str; 4] = ["all", "any", "all-with-x", "any-with-x"];

    /// 0 stands for void.
    fn table(values: &BTreeMap<usize, i32>) -> FieldTable {
        let value = |value: &i32| match value {
            0 => FieldValue::Void,
            number => FieldValue::I32(*number),
        };
        values.iter().map(|(name, number)| (NAMES[*name], value(number))).collect()
    }

    proptest! {
        #[test]
        fn rules_are_what_the_documentation_says(
            wanted in prop::collection::btree_map(0..4usize, 0..3i32, 0..4),
            headers in prop::collection::btree_map(0..4usize, 1..3i32, 0..4),
            mode in 0..4usize,
        ) {
            let counts = wanted.iter().filter(|(name, _)| 2 <= mode || **name < 2);
            let mut agree = counts.map(|(name, value)| {
                headers.get(name).is_some_and(|found| *value == 0 || found == value)
            });
            let want = if mode % 2 == 0 { agree.all(|one| one) } else { agree.any(|one| one) };
            let arguments = table(&wanted).with("x-match", MODES[mode]);
            prop_assert_eq!(matches(&arguments, &table(&headers)), want);
        }
    }
}
