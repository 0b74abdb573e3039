//! Where messages of the load may be, and what is promised of each place.

use warren::amqp::FieldTable;
use warren::amqp::client::{Channel, Error, ExchangeOptions, QueueOptions};

/// The virtual hosts, as paths of a URL. In each some queues have the same names.
pub(crate) const VHOSTS: [&str; 2] = ["", "/two"];

/// Queues among which a message may move.
pub(crate) struct Place {
    pub(crate) name: &'static str,
    /// The path of its virtual host.
    pub(crate) vhost: &'static str,
    /// Consumers take from the first.
    pub(crate) queues: &'static [&'static str],
    pub(crate) promise: Promise,
}

/// What holds there besides: what is confirmed is there until it is acknowledged, and nothing else is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// One queue: each message once, in order, and flagged if a client had it.
    Order,
    /// The same, but any may be gone: it is settled by being delivered.
    Loose,
    /// One queue: each message once, in whatever order, and not before its time.
    Time,
    /// A dead letter is a new message: a server that dies between two steps of its way may have it in both queues.
    Letters,
    /// The same, and a letter has come back so often as the queue allows.
    Returns,
    /// Transactions move it from one to the other: it is in one of them, once.
    Moves,
}

use Promise::{Letters, Loose, Moves, Order, Returns, Time};

/// How often a message of a place with [`Promise::Returns`] may come back.
pub(crate) const RETURNS_MAX: u32 = 3;

const fn place(name: &'static str, queues: &'static [&'static str], promise: Promise) -> Place {
    Place { name, vhost: VHOSTS[0], queues, promise }
}

const fn second(name: &'static str, queues: &'static [&'static str], promise: Promise) -> Place {
    Place { name, vhost: VHOSTS[1], queues, promise }
}

pub(crate) const PLACES: &[Place] = &[
    place("plain", &["plain"], Order),
    place("requeued", &["requeued"], Order),
    place("fan.0", &["fan.0"], Order),
    place("fan.1", &["fan.1"], Order),
    place("fan.2", &["fan.2"], Order),
    place("priority", &["priority"], Order),
    place("taken", &["taken"], Loose),
    place("rejected", &["rejected", "rejected.dead"], Letters),
    place("expired", &["expired", "expired.dead"], Letters),
    place("overflown", &["overflown", "overflown.dead"], Letters),
    place("careful", &["careful", "careful.dead"], Letters),
    place("limited", &["limited", "limited.dead"], Returns),
    place("delayed", &["delayed"], Time),
    place("tx.0", &["tx.0"], Order),
    place("tx.1", &["tx.1"], Order),
    place("moved", &["moved.0", "moved.1"], Moves),
    place("sync", &["sync"], Order),
    second("two: plain", &["plain"], Order),
    second("two: priority", &["priority"], Order),
    second("two: limited", &["limited", "limited.dead"], Returns),
    second("two: sync", &["sync"], Order),
];

pub(crate) fn place_of(name: &str) -> &'static Place {
    PLACES.iter().find(|place| place.name == name).expect("places come from the list")
}

/// The place in which confirms of a virtual host are asked for.
pub(crate) fn sync_of(vhost: &str) -> &'static str {
    if vhost == VHOSTS[0] { "sync" } else { "two: sync" }
}

impl Place {
    /// Whether a message there was made by its publisher, and stays the same one.
    pub(crate) fn is_one_queue(&self) -> bool {
        matches!(self.promise, Order | Time | Loose)
    }
}

/// What the stream of the load is called, and the exchange that delays.
pub(crate) const STREAM: &str = "stream";
pub(crate) const LATER: &str = "later";

/// Declares what is not there yet in a virtual host.
pub(crate) fn declare(channel: &Channel, vhost: &str) -> Result<(), Error> {
    let queue = |name: &str, arguments| {
        channel.queue_declare(
            name,
            QueueOptions { durable: true, arguments, ..QueueOptions::default() },
        )
    };
    for place in PLACES.iter().filter(|place| place.vhost == vhost) {
        for name in place.queues {
            queue(name, arguments(name))?;
        }
    }
    if vhost != VHOSTS[0] {
        return Ok(());
    }
    let small = FieldTable::new()
        .with("x-queue-type", "stream")
        .with("x-stream-max-segment-size-bytes", 1_000_000)
        .with("x-max-length-bytes", 200_000_000);
    queue(STREAM, small)?;
    let options = ExchangeOptions { durable: true, ..ExchangeOptions::default() };
    channel.exchange_declare("fan", "fanout", options.clone())?;
    for name in ["fan.0", "fan.1", "fan.2"] {
        channel.queue_bind(name, "fan", "")?;
    }
    let arguments = FieldTable::new().with("x-delayed-type", "direct");
    channel.exchange_declare(
        LATER,
        "x-delayed-message",
        ExchangeOptions { arguments, ..options },
    )?;
    channel.queue_bind("delayed", LATER, "delayed")
}

fn arguments(queue: &str) -> FieldTable {
    let dead = || {
        FieldTable::new()
            .with("x-dead-letter-exchange", "")
            .with("x-dead-letter-routing-key", format!("{queue}.dead").as_str())
    };
    match queue {
        "priority" => FieldTable::new().with("x-max-priority", 5),
        "rejected" => dead(),
        "expired" => dead().with("x-message-ttl", 30),
        "overflown" => dead().with("x-max-length", 5),
        "careful" => dead()
            .with("x-queue-type", "quorum")
            .with("x-dead-letter-strategy", "at-least-once")
            .with("x-overflow", "reject-publish"),
        "limited" => {
            dead().with("x-queue-type", "quorum").with("x-delivery-limit", i64::from(RETURNS_MAX))
        }
        _ => FieldTable::new(),
    }
}
