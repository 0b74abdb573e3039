//! Virtual hosts: names of exchanges and queues, apart from those of the others.

use std::rc::Rc;

use compact_str::CompactString;
use rustc_hash::FxHashMap;

use crate::exchange::ExchangeKey;
use crate::queue::QueueKey;
use crate::table::Key;

pub(crate) type VhostKey = Key<Vhost>;

/// What exchanges, queues and connections know of the virtual host they are in.
#[derive(Clone, Debug)]
pub(crate) struct VhostRef {
    pub(crate) key: VhostKey,
    pub(crate) name: Rc<str>,
}

impl VhostRef {
    /// In none: a connection that has not opened one yet.
    pub(crate) fn nowhere() -> Self {
        Self { key: Key::nothing(), name: Rc::default() }
    }
}

/// A virtual host that is there. What is declared of it is among the
/// [`Tenancy`](crate::tenancy::Tenancy).
#[derive(Default)]
pub(crate) struct Vhost {
    pub(crate) exchanges: FxHashMap<Rc<str>, ExchangeKey>,
    pub(crate) queues: FxHashMap<CompactString, QueueKey>,
}
