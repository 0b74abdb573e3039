//! Queues come and go.

use warren_amqp::method::queue;
use warren_amqp::{FieldTable, ReplyCode};

use super::super::{Actor, Engine};
use super::{bool_text, check_equivalent_argument, refuse_reserved, table_bytes};
use crate::connection::ConnectionKey;
use crate::erlang;
use crate::exception::{Exception, resource};
use crate::queue::settings::{self, Settings};
use crate::queue::{Queue, QueueKey};
use crate::store::{self, Definition};
use crate::stream::Job;
use crate::vhost::VhostRef;

/// What a queue is declared to be.
const QUEUE_TYPE: &str = "x-queue-type";

impl Engine {
    pub(crate) fn find_queue(
        &self,
        vhost: &VhostRef,
        name: &str,
        connection: ConnectionKey,
    ) -> Result<QueueKey, Exception> {
        let key = self.queue_key(vhost.key, name);
        let key = key.ok_or_else(|| Exception::not_found("queue", name, vhost))?;
        self.check_owner(key, connection)?;
        Ok(key)
    }

    /// Refuses a queue that is another connection's own.
    pub(super) fn check_owner(
        &self,
        key: QueueKey,
        connection: ConnectionKey,
    ) -> Result<(), Exception> {
        match self.queues.get(key) {
            Some(Queue { owner: Some(owner), name, vhost, .. }) if *owner != connection => {
                Err(locked(name, vhost))
            }
            _ => Ok(()),
        }
    }

    /// Declares a queue whose name has been made up already if the client gave none. Its key, and whether
    /// `name` is ours (and may begin with `amq.`).
    pub(crate) fn declare_queue(
        &mut self,
        vhost: &VhostRef,
        connection: ConnectionKey,
        name: &str,
        generated: bool,
        declare: &queue::Declare<'_>,
    ) -> Result<QueueKey, Exception> {
        if declare.passive {
            return self.find_queue(vhost, name, connection);
        }
        let typed;
        let declare = match self.default_queue_type(vhost, declare) {
            Some(kind) => {
                let arguments = declare.arguments.clone().with(QUEUE_TYPE, kind);
                typed = queue::Declare { arguments, ..declare.clone() };
                &typed
            }
            None => declare,
        };
        // Before anything else: a queue that we have named cannot be declared by its name again.
        if !generated {
            refuse_reserved("queue", name)?;
        }
        if let Some(key) = self.queue_key(vhost.key, name) {
            self.check_equivalent_queue(key, connection, name, declare)?;
            self.touch(key);
            return Ok(key);
        }
        let what = resource("queue", name, vhost);
        let transient = (!declare.durable, "non-durable");
        let exclusive = (declare.exclusive, "exclusive-owner");
        let auto_delete = (declare.auto_delete, "auto-delete");
        let kind = queue_type(&declare.arguments);
        let refused = match kind {
            Some("quorum") => [transient, exclusive, auto_delete],
            Some("stream") => [auto_delete, exclusive, transient],
            _ => [(false, ""); 3],
        };
        if let Some((_, property)) = refused.iter().find(|(wrong, _)| *wrong) {
            return Err(Exception::precondition(format!(
                "invalid property '{property}' for {what}"
            )));
        }
        check_queue_arguments(&what, &declare.arguments)?;
        if kind == Some("stream") {
            settings::check_stream(&declare.arguments)?;
        }
        self.check_queue_limit(vhost, name)?;
        self.last_queue_id += 1;
        let mut queue = Queue::new(self.last_queue_id, vhost, name);
        queue.durable = declare.durable;
        queue.auto_delete = declare.auto_delete;
        queue.owner = declare.exclusive.then_some(connection);
        queue.arguments = declare.arguments.clone();
        if stored(&queue) {
            self.define(Definition::PutQueue(store::QueueDefinition {
                id: queue.id,
                vhost: vhost.name.as_ref().into(),
                name: name.into(),
                auto_delete: queue.auto_delete,
                arguments: table_bytes(&queue.arguments).to_vec(),
            }));
        }
        let key = self.insert_queue(queue);
        self.refresh_queue(key);
        if declare.exclusive
            && let Some(connection) = self.connections.get_mut(connection)
        {
            connection.exclusive_queues.push(key);
        }
        self.tell_queue_created(key);
        Ok(key)
    }

    /// The type that a virtual host gives to queues declared without one, if this queue can be of it. As in
    /// RabbitMQ, it becomes one of the queue's arguments, and a change of the default leaves the queue alone.
    fn default_queue_type(&self, vhost: &VhostRef, declare: &queue::Declare<'_>) -> Option<&str> {
        if declare.arguments.contains_key(QUEUE_TYPE) {
            return None;
        }
        let record = self.tenancy.vhosts.get(vhost.name.as_ref())?;
        let kind = record.default_queue_type.as_deref().filter(|kind| *kind != "undefined")?;
        let replicable = declare.durable && !declare.exclusive && !declare.auto_delete;
        (kind == "classic" || replicable).then_some(kind)
    }

    fn check_equivalent_queue(
        &self,
        key: QueueKey,
        connection: ConnectionKey,
        name: &str,
        declare: &queue::Declare<'_>,
    ) -> Result<(), Exception> {
        let Some(current) = self.queues.get(key) else { return Ok(()) };
        if current.owner != declare.exclusive.then_some(connection) {
            return Err(locked(name, &current.vhost));
        }
        let what = resource("queue", name, &current.vhost);
        for (argument, received, current) in [
            ("durable", declare.durable, current.durable),
            ("auto_delete", declare.auto_delete, current.auto_delete),
        ] {
            if received != current {
                let text = format!(
                    "received '{}' but current is '{}'",
                    bool_text(received),
                    bool_text(current)
                );
                return Err(Exception::inequivalent(argument, &what, &text));
            }
        }
        // No type is the type `classic`, as in RabbitMQ since 3.12.
        if queue_type(&declare.arguments) == queue_type(&current.arguments) {
            settings::check_equivalent(&what, &declare.arguments, &current.arguments)?;
            check_queue_arguments(&what, &declare.arguments)
        } else {
            check_equivalent_argument(QUEUE_TYPE, &what, &declare.arguments, &current.arguments)
        }
    }

    /// Works out anew what holds for a queue: it is new, or a policy has changed.
    pub(crate) fn refresh_queue(&mut self, key: QueueKey) {
        let Some(queue) = self.queues.get(key) else { return };
        let kind = queue_type(&queue.arguments).unwrap_or("classic").to_owned();
        let (vhost, target) = (&queue.vhost.name, queue.target());
        let policy = self.tenancy.policy_for(vhost, target, &queue.name).definition();
        let Some(queue) = self.queues.get_mut(key) else { return };
        queue.settings = Settings::new(&kind, &queue.arguments, &policy);
        queue.limited = queue.settings.is_limited() || queue.duplicates.is_some();
        self.configure_stream(key, &policy);
        self.refresh_letters(key);
        self.touch(key);
        self.drop_surplus(key);
        self.mark(key);
    }

    /// Policies have changed.
    pub(crate) fn apply_policies(&mut self) {
        for key in self.exchanges.keys() {
            self.refresh_exchange(key);
        }
        for key in self.queues.keys() {
            self.refresh_queue(key);
        }
    }

    /// Deletes a queue; how many messages were ready. A queue that is not there is deleted with success.
    pub(crate) fn delete_queue(
        &mut self,
        vhost: &VhostRef,
        connection: ConnectionKey,
        delete: &queue::Delete<'_>,
        name: &str,
    ) -> Result<u32, Exception> {
        let Some(key) = self.queue_key(vhost.key, name) else { return Ok(0) };
        self.check_owner(key, connection)?;
        let Some(queue) = self.queues.get(key) else { return Ok(0) };
        let refused = |why: &str| {
            let what = resource("queue", name, vhost);
            Err(Exception::precondition(format!("{what} {why}")))
        };
        if queue.stream.is_some() {
            // RabbitMQ looks at neither condition, and does not count.
            self.remove_queue(key);
            return Ok(0);
        }
        if delete.if_unused && !queue.consumers.is_empty() {
            return refused("in use");
        }
        // What waits here to become a dead letter somewhere else would be lost.
        if delete.if_empty && (!queue.is_empty() || queue.staying.0 != 0) {
            return refused("not empty");
        }
        let count = queue.len() as u32;
        self.remove_queue(key);
        Ok(count)
    }

    /// Removes a queue with its messages and bindings; its consumers are told.
    pub(crate) fn remove_queue(&mut self, key: QueueKey) {
        let Some(mut queue) = self.queues.remove(key) else { return };
        let staying = self.staying.remove(&key);
        if let Some(vhost) = self.vhosts.get_mut(queue.vhost.key) {
            vhost.queues.remove(&queue.name);
        }
        if let Some(owner) = queue.owner
            && let Some(connection) = self.connections.get_mut(owner)
        {
            connection.exclusive_queues.retain(|other| *other != key);
        }
        if stored(&queue) {
            // The copies of its dead letters go to disk before its end does.
            while self.letters.iter().any(|letter| letter.is_of(key)) && self.send_letters() {}
            self.define(Definition::DeleteQueue(queue.id));
            self.forget_all(queue.clear());
            self.forget_all(staying.into_iter().flat_map(|mut staying| staying.clear()));
        }
        if queue.stream.is_some()
            && let Some(store) = &mut self.store
        {
            store.stream(Job::Delete { stream: queue.id });
        }
        self.tell_consumers_deleted(&queue);
        self.acting(Actor::Internal, |engine| {
            for (source, binding) in &queue.bindings {
                let unused = engine.unbind_source(*source, binding);
                engine.tell_unbound(*source, binding, &queue.name, unused.is_some());
                unused.into_iter().for_each(|unused| engine.remove_exchange(unused));
            }
        });
        self.tell_queue_deleted(&queue);
        for consumer in queue.consumers {
            self.cancel_by_server(consumer);
        }
    }

    /// Purges a queue; how many messages were ready. Its dead letters stay, as in RabbitMQ.
    pub(crate) fn purge_queue(&mut self, key: QueueKey) -> u32 {
        let Some(queue) = self.queues.get_mut(key) else { return 0 };
        let count = queue.len() as u32;
        if queue.duplicates.is_some() {
            for entry in queue.drain() {
                self.forget(key, entry);
            }
        } else {
            // Dropped unread.
            let places = queue.clear();
            self.forget_all(places);
        }
        count
    }
}

/// Whether a queue and its messages outlive the process. An exclusive one does not outlive its connection.
pub(in crate::engine) fn stored(queue: &Queue) -> bool {
    queue.durable && queue.owner.is_none()
}

fn locked(name: &str, vhost: &VhostRef) -> Exception {
    let text = format!(
        "cannot obtain exclusive access to locked {}. It could be originally declared on another connection or the \
         exclusive property value does not match that of the original declaration.",
        resource("queue", name, vhost)
    );
    Exception::new(ReplyCode::RESOURCE_LOCKED, text)
}

fn queue_type(arguments: &FieldTable) -> Option<&str> {
    match arguments.get(QUEUE_TYPE) {
        None => Some("classic"),
        Some(value) => value.as_str(),
    }
}

/// Checks the type that is asked for, and the arguments that it takes.
fn check_queue_arguments(what: &str, arguments: &FieldTable) -> Result<(), Exception> {
    if let Some(value) = arguments.get(QUEUE_TYPE) {
        match value.as_str() {
            Some("classic" | "quorum" | "stream") => {}
            other => {
                let why = match other {
                    Some(other) => erlang::quoted(&format!("unsupported queue type '{other}'")),
                    None => format!("{{unacceptable_type,{}}}", value.type_name()),
                };
                return Err(Exception::precondition(format!(
                    "invalid arg '{QUEUE_TYPE}' for {what}: {why}"
                )));
            }
        }
    }
    let kind = queue_type(arguments).unwrap_or("classic");
    settings::check(what, kind, arguments)
}
