//! Who is let in, and what they may touch there.
//!
//! Checks read what holds now, so a change of permissions reaches open connections. The publish path remembers its
//! last check per channel: one comparison, until [`Tenancy::revision`](crate::tenancy::Tenancy) has changed.

use warren_amqp::ReplyCode;

use super::{Engine, NODE};
use crate::auth::password::PasswordHash;
use crate::auth::{Access, Hashing};
use crate::channel::ChannelKey;
use crate::connection::{Connection, ConnectionKey};
use crate::exception::{Exception, resource};
use crate::exchange::{ExchangeKey, Kind};
use crate::store::Definition;
use crate::tenancy::DEFAULT_VHOST;
use crate::tenancy::record::{PermissionRecord, Record, RecordKey, UserRecord};
use crate::vhost::VhostRef;

/// What a channel was last found to be allowed to publish to.
#[derive(Clone, Copy)]
pub(crate) struct PublishCheck {
    exchange: Option<ExchangeKey>,
    revision: u64,
    /// Routing keys are to be checked, each of them.
    topics: bool,
}

impl Engine {
    /// Makes the user that a new server has, an administrator who may do everything in `/`.
    ///
    /// # Errors
    /// When the password cannot be hashed, or the name is none.
    pub(crate) fn seed(
        &mut self,
        name: &str,
        password: &str,
        hashing: Hashing,
    ) -> Result<(), String> {
        // What everybody knows needs no slow hash.
        let hashing = if password == "guest" { Hashing::Sha256 } else { hashing };
        let hash = PasswordHash::new(password, hashing)?;
        let all = || String::from(".*");
        let mut records = self.tenancy.records();
        records.push(Record::User(UserRecord {
            name: name.into(),
            password_hash: hash.text().into(),
            hashing_algorithm: hashing.name().into(),
            tags: vec!["administrator".into()],
            ..UserRecord::default()
        }));
        records.push(Record::Permission(PermissionRecord {
            user: name.into(),
            vhost: DEFAULT_VHOST.into(),
            configure: all(),
            write: all(),
            read: all(),
        }));
        self.put_records(records)
    }

    /// Takes records in, all or none.
    ///
    /// # Errors
    /// What is wrong with the first that is wrong; nothing has been changed then.
    pub(crate) fn put_records(&mut self, records: Vec<Record>) -> Result<(), String> {
        let mut tenancy = self.tenancy.clone();
        for record in &records {
            tenancy.put(record)?;
        }
        let before = std::mem::replace(&mut self.tenancy, tenancy);
        self.open_vhosts();
        self.refresh_tracing();
        self.tell_put(&records, &before);
        let policies = records
            .iter()
            .any(|record| matches!(record, Record::Policy(_) | Record::OperatorPolicy(_)));
        self.store_records(records);
        if policies {
            self.apply_policies();
        }
        Ok(())
    }

    pub(crate) fn store_records(&mut self, records: Vec<Record>) {
        for record in records {
            self.define(Definition::Put(record));
        }
    }

    /// Takes a record out. False when it is not there.
    pub(crate) fn delete_record(&mut self, key: RecordKey) -> bool {
        let before = self.is_watched().then(|| self.tenancy.clone());
        let found = self.tenancy.delete(&key);
        if found {
            match &key {
                RecordKey::User(name) => self.close_connections_of(name),
                RecordKey::Vhost(name) => {
                    if let Some(before) = &before {
                        self.tell_vhost_going(name, before);
                    }
                    if let Some(vhost) = self.find_vhost(name) {
                        self.close_vhost(vhost.key);
                    }
                    if let Some(before) = &before {
                        self.tell_vhost_gone(name, before);
                    }
                }
                _ => {}
            }
            if let Some(before) = &before {
                self.tell_deleted(&key, before);
            }
            let policies =
                matches!(key, RecordKey::Policy { .. } | RecordKey::OperatorPolicy { .. });
            self.define(Definition::Delete(key));
            self.refresh_tracing();
            if policies {
                self.apply_policies();
            }
        }
        found
    }

    fn close_connections_of(&mut self, user: &str) {
        let text = format!("user '{user}' is deleted");
        let exception = Exception::new(ReplyCode::CONNECTION_FORCED, text);
        for key in self.connections.keys() {
            if self.connections.get(key).is_some_and(|connection| connection.user == user) {
                self.force_close(key, &exception);
            }
        }
    }

    /// Whether a user may open a virtual host now.
    pub(crate) fn check_open(&self, user: &str, vhost: &str) -> Result<VhostRef, Exception> {
        let refused = |text: String| Err(Exception::hard(ReplyCode::NOT_ALLOWED, text));
        let Some(found) = self.find_vhost(vhost) else {
            return refused(format!("vhost {vhost} not found"));
        };
        let open = |filter: &dyn Fn(&Connection) -> bool| {
            let connections = self.connections.iter();
            connections.filter(|(_, connection)| connection.is_open() && filter(connection)).count()
                as u64
        };
        if let Some(limit) = self.limits.connection_max
            && limit <= open(&|_| true)
        {
            return refused(format!(
                "connection refused: node connection limit ({limit}) is reached"
            ));
        }
        if let Some(limit) = self.tenancy.vhost_limit(vhost, "max-connections")
            && limit <= open(&|connection| connection.vhost.key == found.key)
        {
            return refused(format!(
                "access to vhost '{vhost}' refused for user '{user}': connection limit ({limit}) is reached"
            ));
        }
        let limits = self.tenancy.users.get(user).map(|account| account.limits);
        if let Some(limit) = limits.and_then(|limits| limits.max_connections)
            && limit <= open(&|connection| connection.user == user)
        {
            return refused(format!(
                "connection refused for user '{user}': user connection limit ({limit}) is reached"
            ));
        }
        if self.tenancy.may_open(user, vhost) {
            return Ok(found);
        }
        refused(format!("access to vhost '{vhost}' refused for user '{user}'"))
    }

    /// Whether the server and the user may have one more channel.
    pub(crate) fn check_channels(&self, connection: ConnectionKey) -> Result<(), Exception> {
        if let Some(limit) = self.limits.channel_max_per_node
            && limit <= self.channels.len() as u64
        {
            let text = format!(
                "number of channels opened on node '{NODE}' has reached the maximum allowed limit of ({limit})"
            );
            return Err(Exception::hard(ReplyCode::NOT_ALLOWED, text).at(0, 0));
        }
        let Some(user) = self.connections.get(connection).map(|connection| &connection.user) else {
            return Ok(());
        };
        let account = self.tenancy.users.get(user);
        let Some(limit) = account.and_then(|account| account.limits.max_channels) else {
            return Ok(());
        };
        let connections = self.connections.iter().filter(|(_, other)| other.user == *user);
        let channels: usize = connections.map(|(_, other)| other.channels.len()).sum();
        if (channels as u64) < limit {
            return Ok(());
        }
        let text = format!(
            "number of channels opened for user '{user}' has reached the maximum allowed user limit of ({limit})"
        );
        Err(Exception::hard(ReplyCode::NOT_ALLOWED, text).at(0, 0))
    }

    /// Whether a connection's user may touch an exchange or a queue in this way.
    pub(crate) fn check_access(
        &self,
        connection: ConnectionKey,
        access: Access,
        kind: &str,
        name: &str,
    ) -> Result<(), Exception> {
        let Some(connection) = self.connections.get(connection) else { return Ok(()) };
        let user = &connection.user;
        if self.tenancy.allows(user, &connection.vhost.name, access, name) {
            return Ok(());
        }
        let name = if name.is_empty() { "amq.default" } else { name };
        let what = resource(kind, name, &connection.vhost);
        Err(Exception::refused(format!("access to {what} refused for user '{user}'")))
    }

    /// Whether a routing key of a topic exchange may be used in this way. Others' routing keys are free.
    pub(crate) fn check_topic(
        &self,
        connection: ConnectionKey,
        access: Access,
        exchange: ExchangeKey,
        key: &str,
    ) -> Result<(), Exception> {
        let Some(exchange) = self.exchanges.get(exchange) else { return Ok(()) };
        let Some(connection) = self.connections.get(connection) else { return Ok(()) };
        let user = &connection.user;
        if exchange.kind != Kind::Topic
            || self.tenancy.allows_topic(user, &exchange.vhost.name, &exchange.name, access, key)
        {
            return Ok(());
        }
        let what = resource("exchange", &exchange.name, &exchange.vhost);
        Err(Exception::refused(format!(
            "access to topic '{key}' in {what} refused for user '{user}'"
        )))
    }

    /// Whether a channel may publish. The exchange, `None` for the default one.
    pub(crate) fn check_publish(
        &mut self,
        key: ChannelKey,
        name: &str,
        routing_key: &str,
    ) -> Result<Option<ExchangeKey>, Exception> {
        let Some(channel) = self.channels.get(key) else { return Ok(None) };
        let exchange = if name.is_empty() { None } else { self.exchange_key(channel.vhost, name) };
        let missing = exchange.is_none() && !name.is_empty();
        let connection = channel.connection;
        let check = match channel.publish_check {
            Some(check)
                if check.exchange == exchange
                    && check.revision == self.tenancy.revision
                    && !missing =>
            {
                check
            }
            _ => {
                self.check_access(connection, Access::Write, "exchange", name)?;
                if missing {
                    let vhost = self.connections.get(connection).map(|other| other.vhost.clone());
                    let vhost = vhost.unwrap_or_else(VhostRef::nowhere);
                    return Err(Exception::not_found("exchange", name, &vhost));
                }
                let revision = self.tenancy.revision;
                let check =
                    PublishCheck { exchange, revision, topics: self.has_topics(connection) };
                if let Some(channel) = self.channels.get_mut(key) {
                    channel.publish_check = Some(check);
                }
                check
            }
        };
        if let Some(exchange) = exchange
            && check.topics
        {
            self.check_topic(connection, Access::Write, exchange, routing_key)?;
        }
        Ok(exchange)
    }

    /// The exchange of a publish whose content has come: it may have gone since the method came, or there is another.
    #[inline]
    pub(crate) fn find_again(
        &self,
        channel: ChannelKey,
        key: ExchangeKey,
        name: &str,
    ) -> Result<ExchangeKey, Exception> {
        match self.exchanges.get(key) {
            Some(_) => Ok(key),
            None => {
                let connection = self.channels.get(channel).map(|channel| channel.connection);
                let connection = connection.and_then(|key| self.connections.get(key));
                let vhost = connection.map_or_else(VhostRef::nowhere, |found| found.vhost.clone());
                self.find_exchange(&vhost, name)
            }
        }
    }

    /// Whether a user may publish in the name of others.
    pub(super) fn may_impersonate(&self, user: &str) -> bool {
        self.tenancy.users.get(user).is_some_and(|account| account.has_tag("impersonator"))
    }

    fn has_topics(&self, connection: ConnectionKey) -> bool {
        let user = self.connections.get(connection).map(|connection| &connection.user);
        user.and_then(|user| self.tenancy.users.get(user))
            .is_some_and(|account| !account.topics.is_empty())
    }

    /// Whether the virtual host and the server take one more queue.
    pub(super) fn check_queue_limit(&self, vhost: &VhostRef, name: &str) -> Result<(), Exception> {
        let queues = self.vhosts.get(vhost.key).map_or(0, |vhost| vhost.queues.len());
        let vhost = &vhost.name;
        if let Some(limit) = self.tenancy.vhost_limit(vhost, "max-queues")
            && limit <= queues as u64
        {
            return Err(Exception::precondition(format!(
                "cannot declare queue '{name}': queue limit in vhost '{vhost}' ({limit}) is reached"
            )));
        }
        match self.limits.queue_max {
            Some(limit) if limit <= self.queues.len() as u64 => {
                Err(Exception::precondition(format!(
                    "cannot declare queue '{name}': queue limit in cluster ({limit}) is reached"
                )))
            }
            _ => Ok(()),
        }
    }
}
