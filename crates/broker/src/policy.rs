//! Policies: settings for the exchanges and queues whose names match, one policy each.
//!
//! Of a virtual host's policies the one with the highest priority wins. An operator's policy is found in the same
//! way and merged in, key by key, the stricter value holding.

use std::rc::Rc;

use serde_json::{Map, Value};

use crate::auth::permission::Pattern;
use crate::tenancy::record::PolicyRecord;

/// What a policy is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Exchange,
    ClassicQueue,
    QuorumQueue,
    Stream,
}

/// A policy that holds.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) record: PolicyRecord,
    pattern: Pattern,
    applies: Applies,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Applies {
    All,
    Exchanges,
    Queues,
    Only(Target),
}

impl Policy {
    /// # Errors
    /// What is wrong with it, in RabbitMQ's words.
    pub(crate) fn new(record: &PolicyRecord, operator: bool) -> Result<Self, String> {
        let invalid = |text: String| format!("Validation failed\n\n{text}");
        let pattern = Pattern::new(&record.pattern).map_err(|error| {
            invalid(format!("pattern should be regular expression but is invalid: {error}"))
        })?;
        let applies = match record.apply_to.as_str() {
            "all" => Applies::All,
            "exchanges" => Applies::Exchanges,
            "queues" => Applies::Queues,
            "classic_queues" => Applies::Only(Target::ClassicQueue),
            "quorum_queues" => Applies::Only(Target::QuorumQueue),
            "streams" => Applies::Only(Target::Stream),
            other => {
                return Err(invalid(format!(
                    "apply-to '{other}' unrecognised; should be 'queues', 'exchanges' or 'all'"
                )));
            }
        };
        if record.definition.is_empty() {
            return Err(invalid("no policy provided".into()));
        }
        for (key, value) in &record.definition {
            check(key, value, operator).map_err(invalid)?;
        }
        Ok(Self { record: record.clone(), pattern, applies })
    }

    pub(crate) fn applies_to(&self, target: Target, name: &str) -> bool {
        let kind = match self.applies {
            Applies::All => true,
            Applies::Exchanges => target == Target::Exchange,
            Applies::Queues => target != Target::Exchange,
            Applies::Only(only) => target == only,
        };
        kind && self.pattern.matches(name)
    }
}

/// The one that holds: the highest priority, and among equals the first by name, as they come in that order.
pub(crate) fn best<'a>(
    policies: impl Iterator<Item = &'a Rc<Policy>>,
    target: Target,
    name: &str,
) -> Option<Rc<Policy>> {
    let mut best: Option<&Rc<Policy>> = None;
    for policy in policies.filter(|policy| policy.applies_to(target, name)) {
        if best.is_none_or(|best| best.record.priority < policy.record.priority) {
            best = Some(policy);
        }
    }
    best.cloned()
}

/// What holds for one exchange or queue.
#[derive(Clone, Debug, Default)]
pub(crate) struct Effective {
    pub(crate) policy: Option<Rc<Policy>>,
    pub(crate) operator: Option<Rc<Policy>>,
}

impl Effective {
    /// Both policies in one.
    pub(crate) fn definition(&self) -> Map<String, Value> {
        let definition = |policy: &Option<Rc<Policy>>| match policy {
            Some(policy) => policy.record.definition.clone(),
            None => Map::new(),
        };
        let mut merged = definition(&self.policy);
        for (key, theirs) in definition(&self.operator) {
            let value = match merged.get(&key) {
                Some(ours) => stricter(&key, ours, &theirs),
                None => theirs,
            };
            merged.insert(key, value);
        }
        merged
    }
}

/// The smaller number; for what has no order, the operator's.
fn stricter(key: &str, ours: &Value, theirs: &Value) -> Value {
    match (ours.as_i64(), theirs.as_i64()) {
        // A limit of -1 is none.
        (Some(-1), Some(_)) if key == "delivery-limit" => theirs.clone(),
        (Some(_), Some(-1)) if key == "delivery-limit" => ours.clone(),
        (Some(one), Some(other)) => one.min(other).into(),
        _ => theirs.clone(),
    }
}

/// What a key's value must be, and what RabbitMQ calls it where it is not.
enum Rule {
    Whole(&'static str),
    Positive(&'static str),
    Text(&'static str),
    OneOf(&'static str, &'static [&'static str]),
    Limit(&'static str),
    Age,
    Any,
}

/// Key, rule, and whether operators' policies may have it.
const RULES: &[(&str, Rule, bool)] = &[
    ("alternate-exchange", Rule::Text("alternate exchange name"), false),
    ("dead-letter-exchange", Rule::Text("dead letter exchange name"), false),
    ("dead-letter-routing-key", Rule::Text("dead letter routing key"), false),
    (
        "dead-letter-strategy",
        Rule::OneOf("dead letter strategy", &["at-most-once", "at-least-once"]),
        false,
    ),
    ("message-ttl", Rule::Whole("message TTL"), true),
    ("expires", Rule::Positive("queue expiry"), true),
    ("max-length", Rule::Whole("maximum length"), true),
    ("max-length-bytes", Rule::Whole("maximum length in bytes"), true),
    ("max-in-memory-length", Rule::Whole("maximum memory in bytes"), true),
    ("max-in-memory-bytes", Rule::Whole("maximum memory in bytes"), true),
    (
        "overflow",
        Rule::OneOf("overflow value", &["drop-head", "reject-publish", "reject-publish-dlx"]),
        true,
    ),
    ("delivery-limit", Rule::Limit("delivery limit"), true),
    ("queue-mode", Rule::OneOf("queue-mode value", &["default", "lazy"]), false),
    ("queue-version", Rule::Positive("queue-version value"), false),
    (
        "queue-leader-locator",
        Rule::OneOf(
            "queue leader locator value",
            &["client-local", "balanced", "random", "least-leaders"],
        ),
        false,
    ),
    (
        "queue-master-locator",
        Rule::OneOf("queue-master-locator value", &["min-masters", "client-local", "random"]),
        false,
    ),
    ("initial-cluster-size", Rule::Positive("cluster size"), false),
    ("target-group-size", Rule::Positive("cluster size"), true),
    ("max-age", Rule::Age, false),
    ("stream-max-segment-size-bytes", Rule::Whole("segment size"), false),
    ("consumer-timeout", Rule::Whole("consumer timeout"), false),
    ("delayed-message", Rule::Any, false),
    (
        "delayed-retry-type",
        Rule::OneOf("delayed retry type", &["disabled", "all", "failed", "returned"]),
        false,
    ),
    ("delayed-retry-min", Rule::Whole("delayed retry time"), false),
    ("delayed-retry-max", Rule::Whole("delayed retry time"), false),
    // Of one node there is nothing to mirror, and federation is none of ours: kept, for the way back.
    ("ha-mode", Rule::Any, false),
    ("ha-params", Rule::Any, false),
    ("ha-sync-mode", Rule::Any, false),
    ("ha-sync-batch-size", Rule::Any, false),
    ("ha-promote-on-shutdown", Rule::Any, false),
    ("ha-promote-on-failure", Rule::Any, false),
    ("federation-upstream", Rule::Any, false),
    ("federation-upstream-set", Rule::Any, false),
];

fn check(key: &str, value: &Value, operator: bool) -> Result<(), String> {
    let rule =
        RULES.iter().find(|(name, _, for_operators)| *name == key && (!operator || *for_operators));
    let Some((_, rule, _)) = rule else {
        return Err(format!(
            "[{{<<\"{key}\">>,{}}}] are not recognised policy settings",
            term(value)
        ));
    };
    let (valid, what) = match rule {
        Rule::Whole(what) => (value.as_i64().is_some_and(|value| 0 <= value), *what),
        Rule::Positive(what) => (value.as_i64().is_some_and(|value| 1 <= value), *what),
        Rule::Limit(what) => (value.as_i64().is_some_and(|value| -1 <= value), *what),
        Rule::Text(what) => (value.is_string(), *what),
        Rule::OneOf(what, choices) => {
            (value.as_str().is_some_and(|value| choices.contains(&value)), *what)
        }
        Rule::Age => (value.as_str().is_some_and(is_age), "max age"),
        Rule::Any => return Ok(()),
    };
    if valid { Ok(()) } else { Err(format!("{} is not a valid {what}", term(value))) }
}

/// As Erlang prints a value.
fn term(value: &Value) -> String {
    match value {
        Value::String(text) => format!("<<\"{text}\">>"),
        other => other.to_string(),
    }
}

/// `7D`: a number, and years, months, days, hours, minutes or seconds.
fn is_age(text: &str) -> bool {
    match text.strip_suffix(['Y', 'M', 'D', 'h', 'm', 's']) {
        Some(number) => number.parse::<u32>().is_ok(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use serde_json::{Value, json};

    use super::{Effective, Policy, Target, best};
    use crate::tenancy::record::PolicyRecord;

    fn record(pattern: &str, priority: i64, definition: Value) -> PolicyRecord {
        let Value::Object(definition) = definition else { panic!("no object") };
        PolicyRecord {
            vhost: "/".into(),
            name: format!("{pattern}{priority}"),
            pattern: pattern.into(),
            apply_to: "queues".into(),
            definition,
            priority,
        }
    }

    fn policy(pattern: &str, priority: i64, definition: Value) -> Rc<Policy> {
        Rc::new(Policy::new(&record(pattern, priority, definition), false).unwrap())
    }

    #[test]
    fn the_highest_priority_wins() {
        let policies = [
            policy("^a", 1, json!({"max-length": 1})),
            policy("b$", 2, json!({"max-length": 2})),
            policy(".", 0, json!({"max-length": 3})),
        ];
        let found = |name: &str| {
            let best = best(policies.iter(), Target::ClassicQueue, name);
            best.map(|policy| policy.record.priority)
        };
        assert_eq!(
            (found("a"), found("ab"), found("c"), found("")),
            (Some(1), Some(2), Some(0), None)
        );
        assert!(best(policies.iter(), Target::Exchange, "ab").is_none());
    }

    #[test]
    fn an_operator_only_makes_it_stricter() {
        let effective = Effective {
            policy: Some(policy("", 0, json!({"max-length": 10, "message-ttl": 5}))),
            operator: Some(policy(
                "",
                0,
                json!({"max-length": 20, "message-ttl": 1, "expires": 9}),
            )),
        };
        let merged = Value::Object(effective.definition());
        assert_eq!(merged, json!({"max-length": 10, "message-ttl": 1, "expires": 9}));
    }

    #[track_caller]
    fn refused(definition: Value, operator: bool, why: &str) {
        let error = Policy::new(&record("", 0, definition), operator).unwrap_err();
        assert_eq!(error, format!("Validation failed\n\n{why}"));
    }

    #[test]
    fn definitions_are_checked_key_by_key() {
        refused(json!({}), false, "no policy provided");
        refused(json!({"max-length": -1}), false, "-1 is not a valid maximum length");
        refused(json!({"expires": 0}), false, "0 is not a valid queue expiry");
        refused(json!({"overflow": "x"}), false, "<<\"x\">> is not a valid overflow value");
        refused(json!({"max-age": "7"}), false, "<<\"7\">> is not a valid max age");
        let why = "[{<<\"nonsense\">>,1}] are not recognised policy settings";
        refused(json!({"nonsense": 1}), false, why);
        let why = "[{<<\"alternate-exchange\">>,<<\"x\">>}] are not recognised policy settings";
        refused(json!({"alternate-exchange": "x"}), true, why);
        let unknown =
            PolicyRecord { apply_to: "cats".into(), ..record("", 0, json!({"expires": 1})) };
        assert!(Policy::new(&unknown, false).unwrap_err().contains("'cats' unrecognised"));
    }
}
