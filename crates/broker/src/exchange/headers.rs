//! Headers routing: a binding's arguments are compared with the message's headers.
//!
//! `x-match` says how many must agree: `all` (the default) or `any`, which pass over arguments whose names begin
//! with `x-`; `all-with-x` and `any-with-x`, which do not. An argument without a value (void) asks only that the
//! header be there.
//!
//! Many rules are found by an index and not looked at one by one: a rule of `all` stands under one of the headers that
//! it wants, the one that the fewest others want, a rule of `any` under each of them. What a message's headers lead to
//! is then compared in full.

use std::hash::BuildHasher;

use compact_str::CompactString;
use rustc_hash::{FxBuildHasher, FxHashMap};
use slab::Slab;
use warren_amqp::FieldValue;
use warren_amqp::value::{RawTable, RawValue};

use super::{Binding, Destination, Routed, Router};
use crate::erlang;
use crate::exception::Exception;

/// Up to here a look at each rule is as fast as the index.
const SCANNED_MAX: usize = 8;

#[derive(Default)]
pub(super) struct Headers {
    rules: Slab<(Rule, Destination)>,
    /// Rules by what a message must have for them to match.
    index: FxHashMap<Mark, Vec<u32>>,
    /// How many marks ask for a header whatever its value is.
    valueless: usize,
}

impl Router for Headers {
    fn add(&mut self, binding: &Binding, _name: &str) -> Result<u32, Exception> {
        let mut rule = Rule::parse(RawTable::new(&binding.arguments))?;
        let marks = rule.wanted.iter().map(Mark::of_wanted);
        rule.marks = match rule.any {
            true => marks.collect(),
            // One is enough, and the rarest serves best: what all rules ask for tells nothing.
            false => {
                let rules = |mark: &Mark| self.index.get(mark).map_or(0, Vec::len);
                vec![marks.min_by_key(rules).unwrap_or(Mark::NONE)]
            }
        };
        let place = self.rules.vacant_key() as u32;
        for mark in &rule.marks {
            self.index.entry(*mark).or_default().push(place);
            self.valueless += usize::from(mark.is_valueless());
        }
        self.rules.insert((rule, binding.destination));
        Ok(place)
    }

    fn remove(&mut self, _binding: &Binding, place: u32) {
        let Some((rule, _)) = self.rules.try_remove(place as usize) else { return };
        for mark in rule.marks {
            self.valueless -= usize::from(mark.is_valueless());
            let Some(rules) = self.index.get_mut(&mark) else { continue };
            if let Some(at) = rules.iter().position(|other| *other == place) {
                rules.swap_remove(at);
            }
            if rules.is_empty() {
                self.index.remove(&mark);
            }
        }
    }

    fn route(&mut self, message: Routed<'_>, each: &mut impl FnMut(Destination)) {
        if self.rules.is_empty() {
            return;
        }
        let headers = message.headers().unwrap_or(RawTable::new(&[]));
        if self.rules.len() <= SCANNED_MAX {
            for (_, (rule, destination)) in &self.rules {
                if rule.matches(headers) {
                    each(*destination);
                }
            }
            return;
        }
        let mut look = |mark| {
            for place in self.index.get(&mark).into_iter().flatten() {
                if let Some((rule, destination)) = self.rules.get(*place as usize)
                    && rule.matches(headers)
                {
                    each(*destination);
                }
            }
        };
        look(Mark::NONE);
        for (name, value) in headers.iter().map_while(Result::ok) {
            look(Mark::of_found(name, value));
            if 0 < self.valueless {
                look(Mark::of_name(name));
            }
        }
    }
}

/// What is equal in the sense of [`equal`] has the same mark; what has the same mark need not be equal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Mark(u64);

impl Mark {
    /// Of a rule that wants nothing, which all messages have.
    const NONE: Self = Self(0);

    /// Of a header whatever its value is; these are odd.
    fn of_name(name: &str) -> Self {
        Self(FxBuildHasher.hash_one(name) | 1)
    }

    fn is_valueless(self) -> bool {
        self.0 & 1 == 1
    }

    fn of_wanted((name, value): &(CompactString, FieldValue)) -> Self {
        match (value, value.as_bytes()) {
            (FieldValue::Void, _) => Self::of_name(name),
            (_, Some(bytes)) => Self::of_bytes(name, bytes),
            _ => Self::of_number(name, number(value)),
        }
    }

    fn of_found(name: &str, value: RawValue<'_>) -> Self {
        match value {
            RawValue::LongString(bytes) | RawValue::Bytes(bytes) => Self::of_bytes(name, bytes),
            // Whatever they hold: they are seldom wanted.
            RawValue::Table(_) | RawValue::Array(_) => Self::of_number(name, None),
            value => Self::of_number(name, value.to_value().ok().and_then(|value| number(&value))),
        }
    }

    fn of_bytes(name: &str, bytes: &[u8]) -> Self {
        Self(FxBuildHasher.hash_one((name, bytes)) & !1)
    }

    /// Numbers of any type are compared with one another, some of them as floats. What is none shares a mark.
    fn of_number(name: &str, number: Option<Number>) -> Self {
        // The two zeros are equal.
        let bits = number.map(|number| (number.float() + 0.0).to_bits());
        Self(FxBuildHasher.hash_one((name, bits)) & !1)
    }
}

struct Rule {
    any: bool,
    wanted: Vec<(CompactString, FieldValue)>,
    /// A message that matches has the mark; of several, one of them.
    marks: Vec<Mark>,
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
        Ok(Self { any, wanted, marks: Vec::new() })
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
    use warren_amqp::{BasicProperties, FieldTable, FieldValue};

    use super::{Headers, Rule};
    use crate::exchange::{Binding, Destination, Routed, Router};
    use crate::table::Table;

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

        #[test]
        fn an_index_finds_what_a_look_at_each_rule_finds(
            rules in prop::collection::vec((several(0..4), 0..4usize), 0..40),
            gone in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
            messages in prop::collection::vec(several(0..5), 1..20),
        ) {
            let (mut table, mut exchange) = (Table::default(), Headers::default());
            let mut all = Vec::new();
            for (wanted, mode) in rules {
                let arguments = wanted.with("x-match", MODES[mode]);
                let destination = Destination::Queue(table.insert_for_test());
                let binding =
                    Binding { destination, routing_key: "".into(), arguments: bytes(&arguments).into() };
                let place = exchange.add(&binding, "").unwrap();
                all.push((binding, place, arguments));
            }
            for index in gone {
                if !all.is_empty() {
                    let (binding, place, _) = all.swap_remove(index.index(all.len()));
                    exchange.remove(&binding, place);
                }
            }
            for headers in messages {
                let mut want: Vec<_> = all
                    .iter()
                    .filter(|(_, _, arguments)| matches(arguments, &headers))
                    .map(|(binding, ..)| binding.destination)
                    .collect();
                let properties = BasicProperties { headers: Some(headers), ..BasicProperties::new() };
                let mut raw = Vec::new();
                properties.encode(&mut raw);
                let mut found = Vec::new();
                let message = Routed { routing_key: "", more_keys: &[], properties: &raw };
                exchange.route(message, &mut |destination| found.push(destination));
                let key = |destination: &Destination| match destination {
                    Destination::Queue(key) => *key,
                    Destination::Exchange(_) => unreachable!("all lead to queues"),
                };
                want.sort_by_key(key);
                found.sort_by_key(key);
                found.dedup();
                prop_assert_eq!(found, want);
            }
            for (binding, place, _) in all {
                exchange.remove(&binding, place);
            }
            prop_assert!(exchange.index.is_empty() && exchange.valueless == 0);
        }
    }

    /// Tables of values of which some are equal, in their own type or in another one.
    fn several(count: std::ops::Range<usize>) -> impl Strategy<Value = FieldTable> {
        let value = prop::sample::select(vec![
            FieldValue::Void,
            FieldValue::Bool(true),
            FieldValue::I32(0),
            FieldValue::U8(1),
            FieldValue::I64(1),
            FieldValue::F32(1.0),
            FieldValue::F64(-0.0),
            FieldValue::F64(f64::NAN),
            FieldValue::Timestamp(1),
            FieldValue::Decimal { scale: 0, digits: 1 },
            "1".into(),
            FieldValue::Bytes(b"1".to_vec()),
            FieldValue::Array(vec![FieldValue::I32(1)]),
            FieldTable::new().with("a", 1).into(),
        ]);
        let pair = (prop::sample::select(&NAMES[..]), value);
        prop::collection::vec(pair, count).prop_map(|pairs| pairs.into_iter().collect())
    }
}
