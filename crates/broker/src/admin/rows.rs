//! What there is, as lists of objects with RabbitMQ's column names.

use serde_json::{Value, json};
use warren_reactor::PeerAddr;

use crate::channel::{Channel, Mode};
use crate::connection::ConnectionKey;
use crate::definitions::{definition, json as table};
use crate::engine::Engine;
use crate::policy::Target;
use crate::tenancy::VHOST_LIMITS;
use crate::tenancy::record::{Record, VhostRecord};

/// A connection's name for people: never used again.
pub(crate) fn connection_pid(key: ConnectionKey) -> String {
    format!("{key:?}").trim_start_matches('#').to_owned()
}

/// A channel's name for people.
pub(crate) fn channel_pid(channel: &Channel) -> String {
    format!("{}.{}", connection_pid(channel.connection), channel.number)
}

impl Engine {
    pub(super) fn status(&self) -> Value {
        let ready: usize = self.queues.iter().map(|(_, queue)| queue.len()).sum();
        json!({
            "product_name": "Warren", "product_version": env!("CARGO_PKG_VERSION"), "pid": std::process::id(),
            "uptime": self.clock, "connections": self.connections.len(), "channels": self.channels.len(),
            "consumers": self.consumers.len(), "queues": self.queues.len(), "exchanges": self.exchanges.len(),
            "messages_ready": ready, "vhosts": self.tenancy.vhosts.len(), "users": self.tenancy.users.len(),
            "alarms": self.alarms.names(), "memory_limit": self.alarms.memory_bytes_max,
            "memory_used": self.budget.measured(), "memory_messages": crate::memory::held(),
            "disk_free_limit": self.alarms.disk_free_bytes_min, "durable": self.has_store(), "durability": self.durability(), "store_failed": self.has_failed(),
        })
    }

    /// One list of the definitions.
    fn records_of(&self, list: &str, keep: impl Fn(&Value) -> bool) -> Value {
        let items = self.tenancy.records().into_iter().map(definition);
        let items = items.filter(|(other, item)| *other == list && keep(item));
        Value::Array(items.map(|(_, item)| item).collect())
    }

    pub(super) fn user_rows(&self) -> Value {
        let users = self.tenancy.users.iter();
        users.map(|(name, account)| json!({"user": name, "tags": account.tags})).collect()
    }

    pub(super) fn user_limit_rows(&self, name: Option<&str>) -> Value {
        let users = self.tenancy.users.iter();
        let users = users.filter(|(user, _)| name.is_none_or(|name| name == *user));
        users
            .map(|(name, account)| {
                json!({"user": name, "limits": crate::tenancy::user_record(name, account).limits})
            })
            .collect()
    }

    pub(super) fn permission_rows(&self, user: Option<&str>, vhost: Option<&str>) -> Value {
        self.records_of("permissions", |item| is(item, "user", user) && is(item, "vhost", vhost))
    }

    pub(super) fn topic_rows(&self, user: Option<&str>, vhost: Option<&str>) -> Value {
        self.records_of("topic_permissions", |item| {
            is(item, "user", user) && is(item, "vhost", vhost)
        })
    }

    pub(super) fn vhost_rows(&self) -> Value {
        let row = |vhost: &VhostRecord| serde_json::to_value(vhost).unwrap_or_default();
        self.tenancy.vhosts.values().map(row).collect()
    }

    pub(super) fn vhost_limit_rows(&self, vhost: Option<&str>) -> Value {
        let limits = self.tenancy.parameters.iter().filter(|((of, component, _), _)| {
            component == VHOST_LIMITS && vhost.is_none_or(|vhost| vhost == of)
        });
        limits.map(|((vhost, ..), limits)| json!({"vhost": vhost, "limits": limits})).collect()
    }

    pub(super) fn policy_rows(&self, vhost: Option<&str>, operator: bool) -> Value {
        let policies =
            if operator { &self.tenancy.operator_policies } else { &self.tenancy.policies };
        let policies = policies.values().map(|policy| policy.record.clone());
        let rows = policies.map(|policy| definition(Record::Policy(policy)).1);
        rows.filter(|item| is(item, "vhost", vhost)).collect()
    }

    pub(super) fn parameter_rows(&self, vhost: Option<&str>) -> Value {
        // Operator policies have a list of their own.
        self.records_of("parameters", |item| {
            is(item, "vhost", vhost) && item["component"] != crate::tenancy::OPERATOR_POLICY
        })
    }

    pub(super) fn global_parameter_rows(&self) -> Value {
        self.records_of("global_parameters", |_| true)
    }

    pub(crate) fn queue_rows(&self) -> Value {
        let mut unacked = rustc_hash::FxHashMap::<_, usize>::default();
        for (_, channel) in self.channels.iter() {
            for held in channel.unacked() {
                *unacked.entry(held.queue).or_default() += 1;
            }
        }
        let mut rows: Vec<Value> = Vec::with_capacity(self.queues.len());
        for (key, queue) in self.queues.iter() {
            let unacked = unacked.get(&key).copied().unwrap_or(0);
            let kind = queue.arguments.get("x-queue-type").and_then(|value| value.as_str());
            let kind = kind.unwrap_or("classic");
            let (vhost, target) = (&queue.vhost.name, queue.target());
            let policies = self.tenancy.policy_for(vhost, target, &queue.name);
            let mut row = json!({
                "name": queue.name.as_str(), "vhost": &*queue.vhost.name, "type": kind, "durable": queue.durable,
                "auto_delete": queue.auto_delete, "exclusive": queue.owner.is_some(),
                "owner_pid": queue.owner.map(connection_pid), "arguments": table::from_table(&queue.arguments),
                "messages": queue.len() + unacked + queue.staying.0 as usize, "messages_ready": queue.len(),
                "messages_unacknowledged": unacked, "consumers": queue.consumers.len(), "state": "running",
                "policy": policies.policy.as_ref().map(|policy| policy.record.name.as_str()),
                "operator_policy": policies.operator.as_ref().map(|policy| policy.record.name.as_str()),
                "effective_policy_definition": policies.definition(),
            });
            if target == Target::QuorumQueue {
                (row["messages_dlx"], row["message_bytes_dlx"]) =
                    (queue.staying.0.into(), queue.staying.1.into());
            }
            rows.push(row);
        }
        sorted(rows, "name")
    }

    pub(super) fn exchange_rows(&self) -> Value {
        let default = |vhost: &String| {
            json!({
                "name": "", "vhost": vhost, "type": "direct", "durable": true, "auto_delete": false,
                "internal": false, "arguments": {}, "policy": null,
            })
        };
        let mut rows: Vec<Value> = self.tenancy.vhosts.keys().map(default).collect();
        for (_, exchange) in self.exchanges.iter() {
            let policies =
                self.tenancy.policy_for(&exchange.vhost.name, Target::Exchange, &exchange.name);
            rows.push(json!({
                "name": &*exchange.name, "vhost": &*exchange.vhost.name, "type": exchange.kind.name(),
                "durable": exchange.durable, "auto_delete": exchange.auto_delete, "internal": exchange.internal,
                "arguments": table::from_table(&exchange.arguments),
                "policy": policies.policy.as_ref().map(|policy| policy.record.name.as_str()),
            }));
            // RabbitMQ's plugin has this for exchanges of its type alone.
            if let (Some(delays), Some(row)) = (exchange.delays(), rows.last_mut()) {
                row["messages_delayed"] = delays.schedule.len().into();
            }
        }
        sorted(rows, "name")
    }

    pub(super) fn all_binding_rows(&self) -> Value {
        let default = self.queues.iter().map(|(_, queue)| {
            json!({
                "source": "", "vhost": &*queue.vhost.name, "destination": queue.name.as_str(),
                "destination_type": "queue", "routing_key": queue.name.as_str(), "arguments": {},
            })
        });
        let rows = default.chain(self.binding_rows(&|_| true));
        // With rabbitmqctl's names beside those of the definitions.
        let rows = rows.map(|mut row| {
            row["source_name"] = row["source"].clone();
            row["source_kind"] = "exchange".into();
            row["destination_name"] = row["destination"].clone();
            row["destination_kind"] = row["destination_type"].clone();
            row
        });
        sorted(rows.collect(), "destination")
    }

    pub(crate) fn connection_rows(&self) -> Value {
        let address = |end: &PeerAddr| match end {
            PeerAddr::Tcp(addr) => (addr.ip().to_string(), addr.port()),
            other => (other.to_string(), 0),
        };
        self.connections
            .iter()
            .map(|(key, connection)| {
                let (peer_host, peer_port) = address(connection.transport.peer());
                let (host, port) = address(connection.transport.host());
                json!({
                    "peer_host": peer_host, "peer_port": peer_port, "host": host, "port": port,
                    "ssl": connection.transport.tls_info().is_some(), "pid": connection_pid(key), "name": connection.transport.peer().to_string(), "user": connection.user,
                    "user_provided_name": connection.client_name, "auth_mechanism": connection.mechanism,
                    "vhost": &*connection.vhost.name, "channels": connection.channels.len(),
                    "channel_max": connection.channel_max, "frame_max": connection.frame_max,
                    "timeout": connection.heartbeat, "state": connection.state(self.alarms.any()),
                    "protocol": "AMQP 0-9-1",
                })
            })
            .collect()
    }

    pub(super) fn channel_rows(&self) -> Value {
        self.channels
            .iter()
            .map(|(_, channel)| {
                let connection = self.connections.get(channel.connection);
                let user = connection.map(|of| of.user.as_str());
                let vhost = connection.map(|of| &*of.vhost.name);
                json!({
                    "pid": channel_pid(channel),
                    "connection": connection_pid(channel.connection), "number": channel.number, "user": user,
                    "vhost": vhost, "transactional": matches!(channel.mode, Mode::Tx(_)),
                    "confirm": matches!(channel.mode, Mode::Confirm(_)),
                    "consumer_count": channel.consumers.len(),
                    "messages_unacknowledged": channel.unacked().count(),
                    "prefetch_count": channel.prefetch_new, "global_prefetch_count": channel.prefetch_all,
                })
            })
            .collect()
    }

    pub(super) fn consumer_rows(&self) -> Value {
        let rows = self.consumers.iter().map(|(_, consumer)| {
            let queue = self.queues.get(consumer.queue);
            let vhost = queue.map(|queue| &*queue.vhost.name);
            let queue = queue.map(|queue| queue.name.as_str());
            let channel = self.channels.get(consumer.channel);
            let channel = channel.map(channel_pid);
            json!({
                "queue_name": queue, "vhost": vhost, "channel_pid": channel,
                "consumer_tag": consumer.tag.as_str(), "ack_required": !consumer.no_ack,
                "prefetch_count": consumer.prefetch, "exclusive": consumer.exclusive, "active": true,
            })
        });
        sorted(rows.collect(), "queue_name")
    }
}

/// Those of one virtual host, or all.
pub(super) fn of_vhost(rows: Value, vhost: Option<&str>) -> Value {
    match rows {
        Value::Array(rows) => rows.into_iter().filter(|row| is(row, "vhost", vhost)).collect(),
        other => other,
    }
}

fn is(item: &Value, key: &str, wanted: Option<&str>) -> bool {
    wanted.is_none_or(|wanted| item[key] == wanted)
}

/// In an order that people can find things in.
fn sorted(mut rows: Vec<Value>, key: &str) -> Value {
    rows.sort_by(|one, other| one[key].as_str().cmp(&other[key].as_str()));
    Value::Array(rows)
}
