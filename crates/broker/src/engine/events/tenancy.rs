//! What is configured: users, permissions, virtual hosts, parameters and policies.

use serde_json::{Map, Value};
use warren_amqp::{FieldTable, FieldValue};

use super::super::{Engine, NODE};
use super::objects::named;
use super::{CLI, number, queue_module};
use crate::erlang;
use crate::exchange::PREDECLARED;
use crate::queue::QueueKey;
use crate::tenancy::record::{PolicyRecord, Record, RecordKey, UserRecord, VhostRecord};
use crate::tenancy::{OPERATOR_POLICY, Tenancy, VHOST_LIMITS, user_record};

impl Engine {
    /// Records have been put in place of those that were there `before`.
    pub(crate) fn tell_put(&mut self, records: &[Record], before: &Tenancy) {
        if self.is_watched() {
            records.iter().for_each(|record| self.tell_record(record, before));
        }
    }

    fn tell_record(&mut self, record: &Record, before: &Tenancy) {
        let by = self.done_by_actor();
        match record {
            Record::Vhost(vhost) if before.vhosts.contains_key(&vhost.name) => {}
            Record::Vhost(vhost) => self.tell_vhost_created(vhost),
            Record::User(user) => self.tell_user(&user.name, before),
            Record::Permission(permission) => {
                let headers = by
                    .with("read", permission.read.as_str())
                    .with("write", permission.write.as_str())
                    .with("configure", permission.configure.as_str())
                    .with("vhost", permission.vhost.as_str())
                    .with("user", permission.user.as_str());
                self.tell("permission.created", headers);
            }
            Record::Topic(permission) => {
                let headers = by
                    .with("read", permission.read.as_str())
                    .with("write", permission.write.as_str())
                    .with("exchange", permission.exchange.as_str())
                    .with("vhost", permission.vhost.as_str())
                    .with("user", permission.user.as_str());
                self.tell("topic.permission.created", headers);
            }
            Record::Parameter(set) => {
                let key = (set.vhost.clone(), set.component.clone(), set.name.clone());
                if before.parameters.get(&key) == Some(&set.value) {
                    return;
                }
                let headers = by.with("value", field(&set.value));
                self.tell(
                    "parameter.set",
                    parameter(headers, &set.component, &set.name, &set.vhost),
                );
                if set.component == VHOST_LIMITS {
                    let limits = set.value.as_object().map(fields).unwrap_or_default();
                    let headers = limits.with("user_who_performed_action", self.actor_name());
                    self.tell("vhost.limits.set", headers.with("name", set.name.as_str()));
                }
            }
            Record::Global(set) => {
                let headers = by
                    .with("value", field(&set.value))
                    .with("name", set.name.as_str())
                    .with("component", "global");
                self.tell("parameter.set", headers);
            }
            Record::Policy(policy) | Record::OperatorPolicy(policy) => {
                let operator = matches!(record, Record::OperatorPolicy(_));
                self.tell_policy_set(policy, operator, before);
            }
        }
    }

    /// A user is new, or something of it has changed.
    fn tell_user(&mut self, name: &str, before: &Tenancy) {
        let Some(account) = self.tenancy.users.get(name) else { return };
        let user = user_record(name, account);
        let old = before.users.get(name).map(|account| user_record(name, account));
        if old.is_none() {
            self.tell("user.created", self.done_by_actor().with("name", name));
        }
        let (is_new, old) = match old {
            Some(old) => (false, old),
            None => (true, UserRecord::default()),
        };
        if !is_new && user.password_hash != old.password_hash {
            let event = match user.password_hash.is_empty() {
                true => "user.password.cleared",
                false => "user.password.changed",
            };
            self.tell(event, self.done_by_actor().with("name", name));
        }
        if user.tags != old.tags {
            let tags = user.tags.iter().map(|tag| tag.as_str().into()).collect();
            let headers = self.done_by_actor().with("tags", FieldValue::Array(tags));
            self.tell("user.tags.set", headers.with("name", name));
        }
        let mut set = user.limits.clone();
        set.retain(|limit, value| old.limits.get(limit) != Some(&*value));
        let of_user = |headers: FieldTable, by: &str| {
            let headers = headers.with("username", name).with("user_who_performed_action", by);
            headers.with("name", "limits")
        };
        if !set.is_empty() {
            let headers = of_user(fields(&set), self.actor_name());
            self.tell("user.limits.set", headers);
        }
        if old.limits.keys().any(|limit| !user.limits.contains_key(limit)) {
            let headers = of_user(FieldTable::new(), self.actor_name());
            self.tell("user.limits.cleared", headers);
        }
    }

    fn tell_vhost_created(&mut self, record: &VhostRecord) {
        let vhost = record.name.as_str();
        self.tell_default_exchange_created(vhost);
        if let Some(found) = self.find_vhost(vhost) {
            for (name, _) in PREDECLARED {
                if let Some(key) = self.exchange_key(found.key, name) {
                    self.tell_exchange_created(key);
                }
            }
        }
        self.tell_vhost("vhost.created", record);
    }

    /// Definitions name a virtual host that is there already.
    pub(crate) fn tell_vhost_updated(&mut self, record: &VhostRecord) {
        if self.is_watched() {
            self.tell_vhost("vhost.updated", record);
        }
    }

    fn tell_vhost(&mut self, event: &'static str, record: &VhostRecord) {
        let words = record.tags.join(",");
        let list: Vec<_> = record.tags.iter().map(|tag| erlang::binary(tag.as_bytes())).collect();
        // To RabbitMQ's command line tags are one text, to its definitions a list.
        let (tags, tags_term): (FieldValue, _) = match self.events.actor == CLI {
            true => (words.as_str().into(), erlang::binary(words.as_bytes())),
            false => (
                FieldValue::Array(record.tags.iter().map(|tag| tag.as_str().into()).collect()),
                format!("[{}]", list.join(",")),
            ),
        };
        let metadata = format!(
            "#{{description => {},tags => {tags_term}}}",
            erlang::binary(record.description.as_bytes())
        );
        let kind = record.default_queue_type.as_deref().unwrap_or("undefined");
        let headers = FieldTable::new()
            .with("tags", tags)
            .with("description", record.description.as_str())
            .with("user_who_performed_action", self.actor_name())
            .with("cluster_state", FieldTable::new().with(NODE, "running"))
            .with("tracing", record.tracing)
            .with("metadata", metadata.as_str())
            .with("default_queue_type", kind)
            .with("name", record.name.as_str());
        self.tell(event, headers);
    }

    fn tell_policy_set(&mut self, policy: &PolicyRecord, operator: bool, before: &Tenancy) {
        let policies = if operator { &before.operator_policies } else { &before.policies };
        let old = policies.get(&(policy.vhost.clone(), policy.name.clone()));
        if old.is_some_and(|old| old.record == *policy) {
            return;
        }
        let definition = FieldTable::new()
            .with("apply-to", policy.apply_to.as_str())
            .with("priority", number(policy.priority))
            .with("definition", FieldValue::Table(fields(&policy.definition)))
            .with("pattern", policy.pattern.as_str());
        if operator {
            let headers = self.done_by_actor().with("value", FieldValue::Table(definition.clone()));
            let headers = parameter(headers, OPERATOR_POLICY, &policy.name, &policy.vhost);
            self.tell("parameter.set", headers);
        }
        let headers = definition.with("user_who_performed_action", self.actor_name());
        for queue in self.queues_of_another_policy(&policy.vhost, before) {
            self.tell_queue_policy("queue.policy.updated", headers.clone(), queue);
        }
        let headers = headers.with("vhost", policy.vhost.as_str());
        self.tell("policy.set", headers.with("name", policy.name.as_str()));
    }

    /// The queues for which another policy holds now than `before`, or what holds says something else.
    fn queues_of_another_policy(&self, vhost: &str, before: &Tenancy) -> Vec<QueueKey> {
        let changed = |key: &QueueKey| {
            let Some(queue) = self.queues.get(*key) else { return false };
            let target = queue.target();
            let old = before.policy_for(vhost, target, &queue.name);
            let new = self.tenancy.policy_for(vhost, target, &queue.name);
            let record = |policy: &Option<std::rc::Rc<crate::policy::Policy>>| {
                policy.as_ref().map(|policy| policy.record.clone())
            };
            record(&old.policy) != record(&new.policy)
                || record(&old.operator) != record(&new.operator)
        };
        let Some(found) = self.find_vhost(vhost) else { return Vec::new() };
        let Some(found) = self.vhosts.get(found.key) else { return Vec::new() };
        found.queues.values().copied().filter(changed).collect()
    }

    fn tell_queue_policy(&mut self, event: &'static str, headers: FieldTable, key: QueueKey) {
        let Some(queue) = self.queues.get(key) else { return };
        let headers = headers.with("type", queue_module(queue));
        let headers = headers.with("vhost", &*queue.vhost.name).with("name", queue.name.as_str());
        self.tell(event, headers);
    }

    /// Records have been taken out, of which `before` still tells. Virtual hosts are told of by
    /// [`tell_vhost_going`](Self::tell_vhost_going) and [`tell_vhost_gone`](Self::tell_vhost_gone).
    pub(crate) fn tell_deleted(&mut self, key: &RecordKey, before: &Tenancy) {
        let by = self.done_by_actor();
        match key {
            RecordKey::Vhost(_) => {}
            RecordKey::User(name) => self.tell("user.deleted", by.with("name", name.as_str())),
            RecordKey::Permission { user, vhost } => {
                self.tell("permission.deleted", of_user(by, user, vhost));
            }
            RecordKey::Topic { user, vhost, .. } => {
                self.tell("topic.permission.deleted", of_user(by, user, vhost));
            }
            RecordKey::Parameter { vhost, component, name } => {
                self.tell("parameter.cleared", parameter(by.clone(), component, name, vhost));
                if component == VHOST_LIMITS {
                    self.tell("vhost.limits.cleared", by.with("name", name.as_str()));
                }
            }
            // RabbitMQ has no event of its own for the end of a global parameter.
            RecordKey::Global(name) => {
                let headers = by.with("name", name.as_str()).with("component", "global");
                self.tell("parameter.set", headers);
            }
            RecordKey::Policy { vhost, name } | RecordKey::OperatorPolicy { vhost, name } => {
                for queue in self.queues_of_another_policy(vhost, before) {
                    self.tell_queue_policy("queue.policy.cleared", by.clone(), queue);
                }
                let event = match key {
                    RecordKey::Policy { .. } => "policy.cleared",
                    _ => {
                        let headers = parameter(by.clone(), OPERATOR_POLICY, name, vhost);
                        self.tell("parameter.cleared", headers);
                        "operator.policy.cleared"
                    }
                };
                self.tell(event, by.with("vhost", vhost.as_str()).with("name", name.as_str()));
            }
        }
    }

    /// A virtual host is about to go: what users may do in it has gone already.
    pub(crate) fn tell_vhost_going(&mut self, vhost: &str, before: &Tenancy) {
        for (user, account) in &before.users {
            if account.permissions.contains_key(vhost) {
                let headers = of_user(self.done_by_actor(), user, vhost);
                self.tell("permission.deleted", headers);
            }
        }
        for (user, account) in &before.users {
            if account.topics.get(vhost).is_some_and(|topics| !topics.is_empty()) {
                let headers = of_user(self.done_by_actor(), user, vhost);
                self.tell("topic.permission.deleted", headers);
            }
        }
    }

    /// A virtual host has gone, and then what was configured for it.
    pub(crate) fn tell_vhost_gone(&mut self, name: &str, before: &Tenancy) {
        self.tell("vhost.deleted", self.done_by_actor().with("name", name));
        let of_vhost = |vhost: &String, name: &String| (vhost.clone(), name.clone());
        let mut gone = Vec::new();
        for (vhost, name) in before.operator_policies.keys() {
            let (vhost, name) = of_vhost(vhost, name);
            gone.push(RecordKey::OperatorPolicy { vhost, name });
        }
        for (vhost, component, name) in before.parameters.keys() {
            let (vhost, name) = of_vhost(vhost, name);
            gone.push(RecordKey::Parameter { vhost, component: component.clone(), name });
        }
        for (vhost, name) in before.policies.keys() {
            let (vhost, name) = of_vhost(vhost, name);
            gone.push(RecordKey::Policy { vhost, name });
        }
        gone.retain(|key| match key {
            RecordKey::Policy { vhost, .. }
            | RecordKey::OperatorPolicy { vhost, .. }
            | RecordKey::Parameter { vhost, .. } => vhost == name,
            _ => false,
        });
        gone.iter().for_each(|key| self.tell_deleted(key, before));
        let headers = FieldTable::new().with("user_who_performed_action", "rmq-internal");
        self.tell("vhost.down", headers.with("node", NODE).with("name", name));
    }
}

fn of_user(headers: FieldTable, user: &str, vhost: &str) -> FieldTable {
    headers.with("vhost", vhost).with("user", user)
}

fn parameter(headers: FieldTable, component: &str, name: &str, vhost: &str) -> FieldTable {
    named(headers, name, vhost).with("component", component)
}

/// JSON as RabbitMQ puts it in headers.
fn field(value: &Value) -> FieldValue {
    match value {
        Value::Null => "null".into(),
        Value::Bool(truth) => (*truth).into(),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => FieldValue::I64(whole),
            None => FieldValue::F64(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(values) => FieldValue::Array(values.iter().map(field).collect()),
        Value::Object(map) => FieldValue::Table(fields(map)),
    }
}

fn fields(map: &Map<String, Value>) -> FieldTable {
    map.iter().fold(FieldTable::new(), |table, (key, value)| table.with(key, field(value)))
}
