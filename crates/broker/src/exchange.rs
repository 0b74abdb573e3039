//! Exchanges: names that messages are published to, and the bindings that lead on from there.
//!
//! Each type is a [`Router`] in a file of its own; [`Exchange`] keeps what all of them share.

pub(crate) mod deduplication;
pub(crate) mod delayed;
mod destinations;
mod direct;
mod fanout;
mod hash;
mod headers;
pub(crate) mod history;
mod modulus;
mod random;
pub(crate) mod schedule;
mod topic;

use std::rc::Rc;

use compact_str::CompactString;
use rustc_hash::{FxHashMap, FxHashSet};
use warren_amqp::value::RawTable;
use warren_amqp::{FieldTable, RawProperties, ReplyCode};

use crate::channel::Publish;
use crate::exception::Exception;
use crate::queue::QueueKey;
use crate::table::Key;
use crate::vhost::VhostRef;
use deduplication::Deduplication;
use delayed::Delays;
use history::History;

pub(crate) type ExchangeKey = Key<Exchange>;

/// How an exchange chooses among its bindings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Direct,
    Fanout,
    Topic,
    Headers,
    ConsistentHash,
    DelayedMessage,
    Random,
    LocalRandom,
    RecentHistory,
    ModulusHash,
}

/// The types and their names. `x-jms-topic` is not among them: it is of use to RabbitMQ's JMS client alone.
const KINDS: &[(&str, Kind)] = &[
    ("direct", Kind::Direct),
    ("fanout", Kind::Fanout),
    ("topic", Kind::Topic),
    ("headers", Kind::Headers),
    ("x-consistent-hash", Kind::ConsistentHash),
    ("x-delayed-message", Kind::DelayedMessage),
    ("x-random", Kind::Random),
    ("x-local-random", Kind::LocalRandom),
    ("x-recent-history", Kind::RecentHistory),
    ("x-modulus-hash", Kind::ModulusHash),
];

impl Kind {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        KINDS.iter().find(|(other, _)| *other == name).map(|(_, kind)| *kind)
    }

    /// # Errors
    /// When there is no such type.
    pub(crate) fn find(name: &str) -> Result<Self, Exception> {
        Self::parse(name).ok_or_else(|| {
            let why = if name.is_empty() { "invalid" } else { "unknown" };
            let text = format!("{why} exchange type '{name}'");
            Exception::new(ReplyCode::COMMAND_INVALID, text)
        })
    }

    pub(crate) fn name(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

/// Of each virtual host, internal: copies of what passes through it, while it is traced.
pub(crate) const TRACE: &str = "amq.rabbitmq.trace";

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

/// Bindings that lead to a queue or an exchange.
pub(crate) type Incoming = FxHashSet<(ExchangeKey, Rc<Binding>)>;

/// What exchanges look at in a message.
#[derive(Clone, Copy)]
pub(crate) struct Routed<'m> {
    pub(crate) routing_key: &'m str,
    /// Those of `CC` and `BCC`.
    pub(crate) more_keys: &'m [CompactString],
    /// Encoded.
    pub(crate) properties: &'m [u8],
}

impl<'m> Routed<'m> {
    fn keys(self) -> impl Iterator<Item = &'m str> {
        std::iter::once(self.routing_key).chain(self.more_keys.iter().map(CompactString::as_str))
    }

    fn properties(self) -> RawProperties<'m> {
        RawProperties::new(self.properties)
    }

    fn headers(self) -> Option<RawTable<'m>> {
        self.properties().headers()
    }
}

/// A type of exchange: what it keeps of its bindings, and how it finds those of a message.
trait Router {
    /// Takes a binding in, which leads to a queue or an exchange called `name`. Its place here: what
    /// [`remove`](Self::remove) is told, so that it need not search.
    ///
    /// # Errors
    /// For a key or arguments that this type cannot read.
    fn add(&mut self, binding: &Binding, name: &str) -> Result<u32, Exception>;

    fn remove(&mut self, binding: &Binding, place: u32);

    /// Calls `each` with the destinations of a message; with one of them more than once when several bindings
    /// lead there.
    fn route(&mut self, message: Routed<'_>, each: &mut impl FnMut(Destination));
}

/// All types. Not a trait object: which one it is costs a branch, and what is called can be inlined.
enum AnyRouter {
    Direct(direct::Direct),
    Fanout(fanout::Fanout),
    Topic(topic::Trie),
    Headers(headers::Headers),
    Hash(hash::ConsistentHash),
    Modulus(modulus::Modulus),
    Random(random::Random),
}

macro_rules! each_type {
    ($router:expr, $it:ident => $work:expr) => {
        match $router {
            AnyRouter::Direct($it) => $work,
            AnyRouter::Fanout($it) => $work,
            AnyRouter::Topic($it) => $work,
            AnyRouter::Headers($it) => $work,
            AnyRouter::Hash($it) => $work,
            AnyRouter::Modulus($it) => $work,
            AnyRouter::Random($it) => $work,
        }
    };
}

impl AnyRouter {
    /// # Errors
    /// For arguments that the type cannot read.
    fn new(kind: Kind, arguments: &FieldTable) -> Result<Self, Exception> {
        Ok(match kind {
            // A delayed exchange has the router of its other type.
            Kind::Direct | Kind::DelayedMessage => Self::Direct(direct::Direct::default()),
            Kind::Fanout | Kind::RecentHistory => Self::Fanout(fanout::Fanout::default()),
            Kind::Topic => Self::Topic(topic::Trie::default()),
            Kind::Headers => Self::Headers(headers::Headers::default()),
            Kind::ConsistentHash => Self::Hash(hash::ConsistentHash::new(arguments)?),
            Kind::ModulusHash => Self::Modulus(modulus::Modulus::default()),
            Kind::Random | Kind::LocalRandom => Self::Random(random::Random::default()),
        })
    }
}

/// What few exchanges have: the others pay one look for all of it.
#[derive(Default)]
pub(crate) struct Extras {
    deduplication: Option<Deduplication>,
    delays: Option<Delays>,
    history: Option<History>,
}

/// What becomes of a message that has come to an exchange.
pub(crate) enum Passage {
    /// It is routed.
    Goes,
    /// It was here before.
    Duplicate,
    /// For so many milliseconds.
    Waits(u64),
}

impl Extras {
    /// A message has come; again, if it has waited here before.
    pub(crate) fn pass(&mut self, publish: &Publish, again: bool, now_ms: u64) -> Passage {
        let headers = || RawProperties::new(publish.message.content.properties()).headers();
        if let Some(deduplication) = &mut self.deduplication
            && !again
            && deduplication.is_duplicate(headers(), now_ms)
        {
            return Passage::Duplicate;
        }
        if self.delays.is_some()
            && !again
            && let Some(delay_ms) = headers().and_then(delayed::delay_ms)
        {
            return Passage::Waits(delay_ms);
        }
        if let Some(history) = &mut self.history {
            history.keep(publish);
        }
        Passage::Goes
    }
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
    pub(crate) extras: Option<Box<Extras>>,
    /// Each with its place in the router.
    bindings: FxHashMap<Rc<Binding>, u32>,
    router: AnyRouter,
    /// The last routing that passed here, to pass once only.
    pub(crate) routed: u64,
    /// Bindings of other exchanges that lead here.
    pub(crate) incoming: Incoming,
}

impl Exchange {
    /// A durable exchange.
    ///
    /// # Errors
    /// For arguments that its type cannot read.
    pub(crate) fn new(
        vhost: &VhostRef,
        name: &str,
        kind: Kind,
        arguments: FieldTable,
    ) -> Result<Self, Exception> {
        let mut extras = Extras::default();
        let mut inner = kind;
        if kind == Kind::DelayedMessage {
            inner = delayed::inner_kind(&arguments)?;
            extras.delays = Some(Delays::default());
        }
        if inner == Kind::RecentHistory {
            extras.history = Some(History::new(&arguments)?);
        }
        extras.deduplication = Deduplication::new(&arguments)?;
        let has_extras =
            extras.delays.is_some() || extras.history.is_some() || extras.deduplication.is_some();
        Ok(Self {
            vhost: vhost.clone(),
            name: name.into(),
            kind,
            durable: true,
            auto_delete: false,
            internal: false,
            router: AnyRouter::new(inner, &arguments)?,
            arguments,
            alternate: None,
            extras: has_extras.then(|| Box::new(extras)),
            bindings: FxHashMap::default(),
            routed: 0,
            incoming: Incoming::default(),
        })
    }

    /// Adds a binding that leads to a queue or an exchange called `name`. False when it is there already.
    ///
    /// # Errors
    /// For a key or arguments that its type cannot read.
    pub(crate) fn bind(&mut self, binding: &Rc<Binding>, name: &str) -> Result<bool, Exception> {
        if self.bindings.contains_key(binding) {
            return Ok(false);
        }
        let place = each_type!(&mut self.router, router => router.add(binding, name))?;
        self.bindings.insert(binding.clone(), place);
        Ok(true)
    }

    /// Takes a binding away. `None` when there was none.
    pub(crate) fn unbind(&mut self, binding: &Binding) -> Option<Rc<Binding>> {
        let (binding, place) = self.bindings.remove_entry(binding)?;
        each_type!(&mut self.router, router => router.remove(&binding, place));
        Some(binding)
    }

    /// Calls `each` with the destinations of a message; with one of them more than once when several
    /// bindings lead there.
    pub(crate) fn route(&mut self, message: Routed<'_>, mut each: impl FnMut(Destination)) {
        each_type!(&mut self.router, router => router.route(message, &mut each));
    }

    /// Whether the key of a message says where it goes, now and the next time.
    pub(crate) fn routes_by_key(&self) -> bool {
        let by_key = matches!(
            self.router,
            AnyRouter::Direct(_) | AnyRouter::Fanout(_) | AnyRouter::Topic(_)
        );
        by_key && self.extras.is_none()
    }

    pub(crate) fn has_bindings(&self) -> bool {
        !self.bindings.is_empty()
    }

    pub(crate) fn has_binding(&self, binding: &Binding) -> bool {
        self.bindings.contains_key(binding)
    }

    pub(crate) fn bindings(&self) -> impl Iterator<Item = &Rc<Binding>> {
        self.bindings.keys()
    }

    pub(crate) fn delays(&self) -> Option<&Delays> {
        self.extras.as_ref()?.delays.as_ref()
    }

    pub(crate) fn delays_mut(&mut self) -> Option<&mut Delays> {
        self.extras.as_mut()?.delays.as_mut()
    }

    /// The messages that a new binding gets, the oldest first.
    pub(crate) fn history(&self) -> Vec<Publish> {
        let history = self.extras.as_ref().and_then(|extras| extras.history.as_ref());
        history.map(History::messages).unwrap_or_default()
    }
}

/// An argument that is a number above 0.
///
/// # Errors
/// When it is something else.
fn positive(arguments: &FieldTable, name: &str) -> Result<Option<u64>, Exception> {
    let Some(value) = arguments.get(name) else { return Ok(None) };
    match value.as_i64() {
        Some(number) if 0 < number => Ok(Some(number as u64)),
        _ => Err(Exception::precondition(format!(
            "Invalid argument {}, '{name}' must be a positive integer",
            crate::erlang::term(value)
        ))),
    }
}
