//! Exchanges: names that messages are published to, and the bindings that lead on from there.

mod headers;
mod topic;

use std::rc::Rc;

use compact_str::CompactString;
use rustc_hash::{FxHashMap, FxHashSet};
use warren_amqp::FieldTable;
use warren_amqp::value::RawTable;

use crate::exception::Exception;
use crate::queue::QueueKey;
use crate::table::Key;
use crate::vhost::VhostRef;

pub(crate) type ExchangeKey = Key<Exchange>;

/// How an exchange chooses among its bindings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Direct,
    Fanout,
    Topic,
    Headers,
}

impl Kind {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "direct" => Some(Self::Direct),
            "fanout" => Some(Self::Fanout),
            "topic" => Some(Self::Topic),
            "headers" => Some(Self::Headers),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
        }
    }
}

/// Exchanges that exist from the start, as in RabbitMQ. The default exchange is none of them: it is the
/// queues' names.
pub(crate) const PREDECLARED: &[(&str, Kind)] = &[
    ("amq.direct", Kind::Direct),
    ("amq.fanout", Kind::Fanout),
    ("amq.topic", Kind::Topic),
    ("amq.headers", Kind::Headers),
    ("amq.match", Kind::Headers),
    (TRACE, Kind::Topic),
];

/// Of each virtual host, internal: copies of what passes through it, while it is traced.
pub(crate) const TRACE: &str = "amq.rabbitmq.trace";

/// Where a binding leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Destination {
    Queue(QueueKey),
    Exchange(ExchangeKey),
}

/// A rule of an exchange. Two that differ in any field are two bindings.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Binding {
    pub(crate) destination: Destination,
    pub(crate) routing_key: CompactString,
    /// The encoded table, without its length; a headers exchange reads it.
    pub(crate) arguments: Rc<[u8]>,
}

pub(crate) struct Exchange {
    pub(crate) vhost: VhostRef,
    pub(crate) name: Rc<str>,
    pub(crate) kind: Kind,
    pub(crate) durable: bool,
    pub(crate) auto_delete: bool,
    pub(crate) internal: bool,
    pub(crate) arguments: FieldTable,
    /// Where messages go that no binding takes.
    pub(crate) alternate: Option<CompactString>,
    bindings: FxHashSet<Rc<Binding>>,
    router: Router,
    /// The last routing that passed here, to pass once only.
    pub(crate) routed: u64,
    /// Bindings of other exchanges that lead here.
    pub(crate) incoming: Vec<(ExchangeKey, Rc<Binding>)>,
}

enum Router {
    /// Direct: by the whole key. A key rarely has more than one destination.
    Direct(FxHashMap<CompactString, Vec<Destination>>),
    Fanout(Vec<Destination>),
    Topic(topic::Trie),
    Headers(Vec<(headers::Rule, Rc<Binding>)>),
}

impl Exchange {
    pub(crate) fn new(vhost: &VhostRef, name: &str, kind: Kind) -> Self {
        Self {
            vhost: vhost.clone(),
            name: name.into(),
            kind,
            durable: true,
            auto_delete: false,
            internal: false,
            arguments: FieldTable::new(),
            alternate: None,
            bindings: FxHashSet::default(),
            router: match kind {
                Kind::Direct => Router::Direct(FxHashMap::default()),
                Kind::Fanout => Router::Fanout(Vec::new()),
                Kind::Topic => Router::Topic(topic::Trie::default()),
                Kind::Headers => Router::Headers(Vec::new()),
            },
            routed: 0,
            incoming: Vec::new(),
        }
    }

    /// Adds a binding. False when it is there already.
    ///
    /// # Errors
    /// For arguments that a headers exchange cannot read.
    pub(crate) fn bind(&mut self, binding: &Rc<Binding>) -> Result<bool, Exception> {
        if self.bindings.contains(binding) {
            return Ok(false);
        }
        let destination = binding.destination;
        match &mut self.router {
            Router::Direct(keys) => {
                keys.entry(binding.routing_key.clone()).or_default().push(destination);
            }
            Router::Fanout(all) => all.push(destination),
            Router::Topic(trie) => trie.insert(&binding.routing_key, destination),
            Router::Headers(rules) => {
                let rule = headers::Rule::parse(RawTable::new(&binding.arguments))?;
                rules.push((rule, binding.clone()));
            }
        }
        self.bindings.insert(binding.clone());
        Ok(true)
    }

    /// Takes a binding away. False when there was none.
    pub(crate) fn unbind(&mut self, binding: &Binding) -> bool {
        if !self.bindings.remove(binding) {
            return false;
        }
        let destination = binding.destination;
        match &mut self.router {
            Router::Direct(keys) => {
                if let Some(list) = keys.get_mut(&binding.routing_key) {
                    remove_one(list, destination);
                    if list.is_empty() {
                        keys.remove(&binding.routing_key);
                    }
                }
            }
            Router::Fanout(all) => remove_one(all, destination),
            Router::Topic(trie) => trie.remove(&binding.routing_key, destination),
            Router::Headers(rules) => rules.retain(|(_, other)| **other != *binding),
        }
        true
    }

    /// Calls `each` with the destinations of a message; with one of them more than once when several
    /// bindings lead there.
    pub(crate) fn route<'m>(
        &self,
        routing_key: &str,
        headers: impl FnOnce() -> Option<RawTable<'m>>,
        mut each: impl FnMut(Destination),
    ) {
        match &self.router {
            Router::Direct(keys) => {
                keys.get(routing_key).into_iter().flatten().copied().for_each(each);
            }
            Router::Fanout(all) => all.iter().copied().for_each(each),
            Router::Topic(trie) => trie.route(routing_key, &mut each),
            Router::Headers(rules) => {
                if rules.is_empty() {
                    return;
                }
                let headers = headers().unwrap_or(RawTable::new(&[]));
                for (rule, binding) in rules {
                    if rule.matches(headers) {
                        each(binding.destination);
                    }
                }
            }
        }
    }

    pub(crate) fn has_bindings(&self) -> bool {
        !self.bindings.is_empty()
    }

    pub(crate) fn has_binding(&self, binding: &Binding) -> bool {
        self.bindings.contains(binding)
    }

    pub(crate) fn bindings(&self) -> impl Iterator<Item = &Rc<Binding>> {
        self.bindings.iter()
    }
}

fn remove_one(list: &mut Vec<Destination>, destination: Destination) {
    if let Some(index) = list.iter().position(|other| *other == destination) {
        list.remove(index);
    }
}
