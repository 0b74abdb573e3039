//! What is done, and with which queues.

use std::fmt;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};
use warren_amqp::FieldTable;

pub(super) const QUEUES: [&str; 4] = ["qa", "qb", "qc", "qd"];
/// The default exchange, and one of each type that routes by what a message says. `a` has the alternate `f`; `i`
/// is internal.
pub(super) const EXCHANGES: [(&str, &str); 7] = [
    ("", ""),
    ("d", "direct"),
    ("f", "fanout"),
    ("t", "topic"),
    ("h", "headers"),
    ("a", "direct"),
    ("i", "fanout"),
];
pub(super) const INTERNAL: usize = 6;
pub(super) const ALTERNATE: (usize, usize) = (5, 2);
/// Where the dead letters of each queue go, unless straight to the next one: a fanout that leads there.
pub(super) const LETTERS: [&str; 4] = ["la", "lb", "lc", "ld"];
pub(super) const KEYS: [&str; 8] = ["qa", "qb", "qc", "qd", "a.b", "a.c", "a.*", "#"];

/// On the publisher's connection.
pub(super) const PUBLISHING: u16 = 1;
/// On the consumer's.
pub(super) const CONSUMING: [u16; 3] = [2, 3, TX];
/// The last of these is transactional, and publishes too.
pub(super) const TX: u16 = 4;

/// Where the engine keeps what is to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Memory,
    Disk,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overflow {
    DropHead,
    RejectPublish,
    RejectPublishDlx,
}

/// Where dead letters go: always to the next queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Letters {
    Nowhere,
    /// By the default exchange.
    Straight,
    /// By an exchange, with a key of their own or not.
    Exchange {
        key: bool,
    },
}

/// How much a queue may hold, and what it does with more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) length_max: Option<usize>,
    pub(super) bytes_max: Option<u64>,
    pub(super) overflow: Overflow,
}

impl Limits {
    /// As a policy says it.
    pub(super) fn definition(&self) -> Value {
        let mut definition = json!({});
        if let Some(max) = self.length_max {
            definition["max-length"] = max.into();
        }
        if let Some(max) = self.bytes_max {
            definition["max-length-bytes"] = max.into();
        }
        definition["overflow"] = match self.overflow {
            Overflow::DropHead => "drop-head".into(),
            Overflow::RejectPublish => "reject-publish".into(),
            Overflow::RejectPublishDlx => "reject-publish-dlx".into(),
        };
        definition
    }
}

/// What a queue is declared to be.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) durable: bool,
    pub(super) quorum: bool,
    pub(super) auto_delete: bool,
    pub(super) length_max: Option<usize>,
    pub(super) bytes_max: Option<u64>,
    pub(super) overflow: Overflow,
    pub(super) priority_max: u8,
    pub(super) ttl_ms: Option<u64>,
    pub(super) single_active: bool,
    pub(super) delivery_limit: Option<u32>,
    pub(super) letters: Letters,
}

impl Shape {
    /// What holds with a policy: of numbers the smaller one, of ways the declared one.
    pub(super) fn limits(&self, policy: Option<&Limits>) -> Limits {
        let least = |one: Option<u64>, other: Option<u64>| one.into_iter().chain(other).min();
        let length = |of: Option<usize>| of.map(|max| max as u64);
        let Some(policy) = policy else {
            let (length_max, bytes_max, overflow) =
                (self.length_max, self.bytes_max, self.overflow);
            return Limits { length_max, bytes_max, overflow };
        };
        let length_max = least(length(self.length_max), length(policy.length_max));
        Limits {
            length_max: length_max.map(|max| max as usize),
            bytes_max: least(self.bytes_max, policy.bytes_max),
            overflow: match (self.overflow, policy.overflow) {
                // Such queues know only the two others.
                (Overflow::DropHead, Overflow::RejectPublishDlx) if self.quorum => {
                    Overflow::DropHead
                }
                (Overflow::DropHead, overflow) => overflow,
                (overflow, _) => overflow,
            },
        }
    }

    pub(super) fn arguments(&self, queue: usize) -> FieldTable {
        let next = QUEUES[next(queue)];
        let mut arguments = FieldTable::new();
        let mut add = |key: &str, value: Option<i64>| {
            if let Some(value) = value {
                arguments.push(key, value);
            }
        };
        add("x-max-length", self.length_max.map(|max| max as i64));
        add("x-max-length-bytes", self.bytes_max.map(|max| max as i64));
        add("x-max-priority", (self.priority_max != 0).then_some(self.priority_max.into()));
        add("x-message-ttl", self.ttl_ms.map(|ms| ms as i64));
        add("x-delivery-limit", self.delivery_limit.map(Into::into));
        match self.overflow {
            Overflow::DropHead => {}
            Overflow::RejectPublish => arguments.push("x-overflow", "reject-publish"),
            Overflow::RejectPublishDlx => arguments.push("x-overflow", "reject-publish-dlx"),
        }
        if self.quorum {
            arguments.push("x-queue-type", "quorum");
        }
        if self.single_active {
            arguments.push("x-single-active-consumer", true);
        }
        match self.letters {
            Letters::Nowhere => {}
            Letters::Straight => {
                arguments.push("x-dead-letter-exchange", "");
                arguments.push("x-dead-letter-routing-key", next);
            }
            Letters::Exchange { key } => {
                arguments.push("x-dead-letter-exchange", LETTERS[queue]);
                if key {
                    arguments.push("x-dead-letter-routing-key", "dead");
                }
            }
        }
        arguments
    }
}

/// The queue that takes the dead letters of a queue. As each has one source of them, their order is determined.
pub(super) fn next(queue: usize) -> usize {
    (queue + 1) % QUEUES.len()
}

#[derive(Clone, Debug)]
pub(super) struct Publish {
    pub(super) exchange: usize,
    pub(super) key: usize,
    pub(super) more_key: Option<usize>,
    pub(super) headers: usize,
    pub(super) persistent: bool,
    pub(super) mandatory: bool,
    pub(super) priority: Option<u8>,
    pub(super) expiration: Option<u64>,
    pub(super) body_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Ack,
    Requeue,
    Discard,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// All in one turn.
    Publish(Vec<Publish>),
    /// In the transaction.
    Gather(Publish),
    Commit,
    Rollback,
    Bind {
        exchange: usize,
        queue: usize,
        key: usize,
    },
    Unbind {
        exchange: usize,
        queue: usize,
        key: usize,
    },
    /// From an exchange to another, or to itself.
    Join {
        exchange: usize,
        to: usize,
        key: usize,
    },
    Part {
        exchange: usize,
        to: usize,
        key: usize,
    },
    Prefetch {
        channel: usize,
        count: u16,
        global: bool,
    },
    Consume {
        channel: usize,
        queue: usize,
        no_ack: bool,
        priority: i8,
    },
    Cancel {
        nth: usize,
    },
    Get {
        queue: usize,
        no_ack: bool,
    },
    Settle {
        nth: usize,
        multiple: bool,
        verdict: Verdict,
    },
    Recover {
        channel: usize,
    },
    Reopen {
        channel: usize,
    },
    Purge {
        queue: usize,
    },
    Delete {
        queue: usize,
    },
    Declare {
        queue: usize,
    },
    /// A policy for one queue, or none.
    Limit {
        queue: usize,
        limits: Option<Limits>,
    },
    Pass {
        ms: u64,
    },
    /// The connection of the publisher or of the consumer breaks.
    Lose {
        publisher: bool,
    },
    /// The server ends and begins again.
    Restart,
}

#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) shapes: Vec<Shape>,
    /// Long queues leave memory, as early as at a few messages.
    pub(super) paged: bool,
    pub(super) steps: Vec<Step>,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (queue, shape) in QUEUES.iter().zip(&self.shapes) {
            writeln!(f, "  {queue} {shape:?}")?;
        }
        writeln!(f, "  paged {}", self.paged)?;
        let mut steps = self.steps.iter().enumerate();
        steps.try_for_each(|(number, step)| writeln!(f, "  {number}. {step:?}"))
    }
}

pub(super) fn case(place: Place) -> impl Strategy<Value = Case> {
    let steps = match place {
        Place::Memory => vec(step(place), 1..100),
        Place::Disk => vec(step(place), 1..60),
    };
    (vec(shape(place), QUEUES.len()), any::<bool>(), steps)
        .prop_map(|(shapes, paged, steps)| Case { shapes, paged, steps })
}

fn overflow() -> impl Strategy<Value = Overflow> {
    prop_oneof![
        2 => Just(Overflow::DropHead),
        1 => Just(Overflow::RejectPublish),
        1 => Just(Overflow::RejectPublishDlx),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    (option::weighted(0.6, 0..5usize), option::weighted(0.4, 0..40u64), overflow())
        .prop_map(|(length_max, bytes_max, overflow)| Limits { length_max, bytes_max, overflow })
}

fn shape(place: Place) -> impl Strategy<Value = Shape> {
    let letters = prop_oneof![
        1 => Just(Letters::Nowhere),
        2 => Just(Letters::Straight),
        3 => any::<bool>().prop_map(|key| Letters::Exchange { key }),
    ];
    let flags = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.2));
    let limits = (
        option::weighted(0.4, 0..5usize),
        option::weighted(0.2, 0..40u64),
        overflow(),
        prop_oneof![2 => Just(0), 1 => 1..5u8],
        option::weighted(0.4, prop_oneof![1 => Just(0), 4 => 1..60u64]),
        option::weighted(0.3, 0..4u32),
    );
    (flags, limits, prop::bool::weighted(0.3), letters).prop_map(
        move |(flags, limits, single_active, letters)| {
            let (durable, quorum, auto_delete) = flags;
            let (length_max, bytes_max, overflow, priority_max, ttl_ms, delivery_limit) = limits;
            let durable = durable || place == Place::Disk && quorum;
            let quorum = quorum && durable;
            Shape {
                durable,
                quorum,
                auto_delete: auto_delete && !quorum,
                length_max,
                bytes_max,
                overflow: match overflow {
                    Overflow::RejectPublishDlx if quorum => Overflow::RejectPublish,
                    other => other,
                },
                priority_max: if quorum { 0 } else { priority_max },
                ttl_ms,
                single_active,
                delivery_limit,
                letters,
            }
        },
    )
}

fn publish() -> impl Strategy<Value = Publish> {
    let exchange = prop_oneof![3 => Just(0), 4 => 1..INTERNAL];
    let expiration = option::weighted(0.3, prop_oneof![1 => Just(0), 4 => 1..80u64]);
    let more_key = option::weighted(0.1, 0..KEYS.len());
    let flags = (any::<bool>(), any::<bool>());
    let sizes =
        (option::weighted(0.4, 0..7u8), expiration, prop_oneof![2 => 0..12usize, 1 => 12..40usize]);
    (exchange, 0..KEYS.len(), more_key, 0..HEADERS, flags, sizes).prop_map(
        |(exchange, key, more_key, headers, (persistent, mandatory), sizes)| {
            let (priority, expiration, body_bytes) = sizes;
            Publish {
                exchange,
                key,
                more_key,
                headers,
                persistent,
                mandatory,
                priority,
                expiration,
                body_bytes,
            }
        },
    )
}

fn step(place: Place) -> impl Strategy<Value = Step> {
    let queue = || 0..QUEUES.len();
    let binding = || (1..EXCHANGES.len(), queue(), 0..KEYS.len());
    let joint = || (1..EXCHANGES.len(), 1..EXCHANGES.len(), 0..KEYS.len());
    let channel = || 0..CONSUMING.len();
    let verdict = prop_oneof![Just(Verdict::Ack), Just(Verdict::Requeue), Just(Verdict::Discard)];
    prop_oneof![
        10 => vec(publish(), 1..2).prop_map(Step::Publish),
        3 => vec(publish(), 2..6).prop_map(Step::Publish),
        3 => publish().prop_map(Step::Gather),
        2 => Just(Step::Commit),
        1 => Just(Step::Rollback),
        5 => binding().prop_map(|(exchange, queue, key)| Step::Bind { exchange, queue, key }),
        1 => binding().prop_map(|(exchange, queue, key)| Step::Unbind { exchange, queue, key }),
        2 => joint().prop_map(|(exchange, to, key)| Step::Join { exchange, to, key }),
        1 => joint().prop_map(|(exchange, to, key)| Step::Part { exchange, to, key }),
        2 => (channel(), 0..4u16, prop::bool::weighted(0.3))
            .prop_map(|(channel, count, global)| Step::Prefetch { channel, count, global }),
        4 => (channel(), queue(), prop::bool::weighted(0.2), -1..2i8).prop_map(
            |(channel, queue, no_ack, priority)| Step::Consume { channel, queue, no_ack, priority }
        ),
        2 => (0..100usize).prop_map(|nth| Step::Cancel { nth }),
        3 => (queue(), any::<bool>()).prop_map(|(queue, no_ack)| Step::Get { queue, no_ack }),
        10 => (0..100usize, any::<bool>(), verdict)
            .prop_map(|(nth, multiple, verdict)| Step::Settle { nth, multiple, verdict }),
        1 => channel().prop_map(|channel| Step::Recover { channel }),
        1 => channel().prop_map(|channel| Step::Reopen { channel }),
        1 => queue().prop_map(|queue| Step::Purge { queue }),
        1 => queue().prop_map(|queue| Step::Delete { queue }),
        2 => queue().prop_map(|queue| Step::Declare { queue }),
        2 => (queue(), option::weighted(0.7, limits()))
            .prop_map(|(queue, limits)| Step::Limit { queue, limits }),
        5 => (0..60u64).prop_map(|ms| Step::Pass { ms }),
        1 => any::<bool>().prop_map(|publisher| Step::Lose { publisher }),
        3 => Just(if place == Place::Disk { Step::Restart } else { Step::Pass { ms: 1 } }),
    ]
}

/// How many tables of headers there are.
const HEADERS: usize = 6;

/// What a message says, and what a binding to a headers exchange asks for.
pub(super) fn headers(which: usize) -> FieldTable {
    let table = FieldTable::new();
    match which {
        0 => table,
        1 => table.with("a", 1),
        2 => table.with("b", "two"),
        3 => table.with("a", 1).with("b", "two"),
        4 => table.with("x-c", 3),
        _ => table.with("a", 2),
    }
}

/// Bindings of one key each, so that the key tells them apart: `x-match`, and the headers of [`headers`].
pub(super) fn match_arguments(key: usize) -> (&'static str, FieldTable) {
    match key {
        0 => ("all", headers(0)),
        1 => ("any", headers(0)),
        2 => ("all", headers(1)),
        3 => ("all", headers(3)),
        4 => ("any", headers(3)),
        5 => ("any-with-x", headers(4).with("a", 1)),
        6 => ("all-with-x", headers(4)),
        _ => ("any", headers(4).with("a", 2)),
    }
}
