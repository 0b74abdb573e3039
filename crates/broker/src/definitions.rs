//! Definitions: everything that is declared, as RabbitMQ's JSON, out and in.
//!
//! Taking them in changes all or nothing. What is there already, of the same name, stays (queues, exchanges) or is
//! replaced (users, permissions, parameters, policies), as in RabbitMQ; so the same file can be taken in twice.
//! Keys that are not known are passed over.

pub(crate) mod json;

use serde::Deserialize;
use serde_json::{Map, Value, json as object};
use warren_amqp::method::{exchange, queue};

use crate::connection::ConnectionKey;
use crate::engine::Engine;
use crate::exchange::{Destination, ExchangeKey};
use crate::queue::QueueKey;
use crate::tenancy::no_vhost;
use crate::tenancy::record::{
    GlobalParameter, Parameter, PermissionRecord, PolicyRecord, Record, TopicRecord, UserRecord,
    VhostRecord,
};
use crate::vhost::{VhostKey, VhostRef};

/// The version of RabbitMQ whose format this is.
const RABBIT_VERSION: &str = "3.10.8";

/// Definitions that have been read, and not yet taken in.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Definitions {
    vhosts: Vec<Map<String, Value>>,
    users: Vec<UserRecord>,
    permissions: Vec<Map<String, Value>>,
    topic_permissions: Vec<Map<String, Value>>,
    parameters: Vec<Map<String, Value>>,
    global_parameters: Vec<GlobalParameter>,
    policies: Vec<Map<String, Value>>,
    queues: Vec<QueueItem>,
    exchanges: Vec<ExchangeItem>,
    bindings: Vec<BindingItem>,
}

#[derive(Debug, Deserialize)]
struct QueueItem {
    name: String,
    vhost: Option<String>,
    #[serde(default = "yes")]
    durable: bool,
    #[serde(default)]
    auto_delete: bool,
    #[serde(default, deserialize_with = "crate::tenancy::record::object")]
    arguments: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
struct ExchangeItem {
    name: String,
    vhost: Option<String>,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default = "yes")]
    durable: bool,
    #[serde(default)]
    auto_delete: bool,
    #[serde(default)]
    internal: bool,
    #[serde(default, deserialize_with = "crate::tenancy::record::object")]
    arguments: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
struct BindingItem {
    source: String,
    vhost: Option<String>,
    destination: String,
    destination_type: String,
    #[serde(default)]
    routing_key: String,
    #[serde(default, deserialize_with = "crate::tenancy::record::object")]
    arguments: Map<String, Value>,
}

fn yes() -> bool {
    true
}

impl Definitions {
    /// Reads definitions from JSON.
    ///
    /// # Errors
    /// Where and why it cannot be read.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(json).map_err(|error| format!("no definitions: {error}"))
    }

    /// Reads definitions and takes them into a broker of nothing but them: whether they hold together.
    ///
    /// # Errors
    /// Which item is wrong, and why.
    pub fn check(json: &[u8]) -> Result<(), String> {
        Engine::new().import(&Self::parse(json)?, None)
    }

    /// Users, policies, ..., in the order in which they refer to each other. Items of one virtual host have no
    /// `vhost` of their own in a file of that virtual host.
    fn records(&self, vhost: Option<&str>) -> Result<Vec<Record>, String> {
        let mut records = Vec::new();
        for item in &self.vhosts {
            records.push(Record::Vhost(vhost_record(item)?));
        }
        records.extend(self.users.iter().cloned().map(|mut user| {
            if user.hashing_algorithm.is_empty() {
                // From RabbitMQ before 3.6, which had one.
                user.hashing_algorithm = "rabbit_password_hashing_md5".into();
            }
            Record::User(user)
        }));
        for item in &self.permissions {
            let permission: PermissionRecord = in_vhost("permission", item, vhost)?;
            records.push(Record::Permission(permission));
        }
        for item in &self.topic_permissions {
            let permission: TopicRecord = in_vhost("topic permission", item, vhost)?;
            records.push(Record::Topic(permission));
        }
        for item in &self.parameters {
            let parameter: Parameter = in_vhost("parameter", item, vhost)?;
            records.push(parameter_record(parameter)?);
        }
        records.extend(self.global_parameters.iter().cloned().map(Record::Global));
        for item in &self.policies {
            let policy: PolicyRecord = in_vhost("policy", item, vhost)?;
            records.push(Record::Policy(policy));
        }
        Ok(records)
    }
}

/// An operator's policy is one, wherever it comes from.
pub(crate) fn parameter_record(parameter: Parameter) -> Result<Record, String> {
    if parameter.component == crate::tenancy::OPERATOR_POLICY {
        return PolicyRecord::from_parameter(&parameter).map(Record::OperatorPolicy);
    }
    Ok(Record::Parameter(parameter))
}

fn in_vhost<T: serde::de::DeserializeOwned>(
    what: &str,
    item: &Map<String, Value>,
    vhost: Option<&str>,
) -> Result<T, String> {
    let mut item = item.clone();
    if let Some(vhost) = vhost {
        item.insert("vhost".into(), vhost.into());
    }
    let text = |key: &str| item.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let name = if text("name").is_empty() { text("user") } else { text("name") };
    serde_json::from_value(Value::Object(item)).map_err(|error| format!("{what} '{name}': {error}"))
}

/// What describes a virtual host stands in `metadata` since RabbitMQ 3.8.
fn vhost_record(item: &Map<String, Value>) -> Result<VhostRecord, String> {
    let mut item = item.clone();
    if let Some(Value::Object(metadata)) = item.remove("metadata") {
        for (key, value) in metadata {
            item.entry(key).or_insert(value);
        }
    }
    item.retain(|_, value| !value.is_null());
    serde_json::from_value(Value::Object(item)).map_err(|error| format!("vhost: {error}"))
}

/// What an import has made, to be taken away again when it fails.
#[derive(Default)]
struct Made {
    vhosts: Vec<VhostKey>,
    exchanges: Vec<ExchangeKey>,
    queues: Vec<QueueKey>,
    bindings: Vec<(ExchangeKey, Destination, String, warren_amqp::FieldTable)>,
}

impl Engine {
    /// Takes definitions in, all or none; with `vhost`, they are that virtual host's.
    ///
    /// # Errors
    /// Which item is wrong, and why. Nothing has been changed then.
    pub(crate) fn import(
        &mut self,
        definitions: &Definitions,
        vhost: Option<&str>,
    ) -> Result<(), String> {
        if let Some(vhost) = vhost
            && !self.tenancy.vhosts.contains_key(vhost)
        {
            return Err(format!(
                "Please create virtual host \"{vhost}\" prior to importing definitions."
            ));
        }
        let records = definitions.records(vhost)?;
        let mut tenancy = self.tenancy.clone();
        for record in &records {
            tenancy.put(record)?;
        }
        // Their limits hold for what follows.
        let before = std::mem::replace(&mut self.tenancy, tenancy);
        let mut made = Made { vhosts: self.open_vhosts(), ..Made::default() };
        let noted = self.noted();
        self.tell_put(&records, &before);
        for record in &records {
            if let Record::Vhost(vhost) = record
                && before.vhosts.contains_key(&vhost.name)
            {
                self.tell_vhost_updated(vhost);
            }
        }
        if let Err(error) = self.import_topology(definitions, vhost, &mut made) {
            self.unmake(made);
            // Nothing has happened.
            self.forget_notes(noted);
            self.tenancy = before;
            self.tenancy.revision += 2;
            return Err(error);
        }
        self.refresh_tracing();
        // Policies may be among them.
        self.apply_policies();
        self.store_records(records);
        Ok(())
    }

    fn import_topology(
        &mut self,
        definitions: &Definitions,
        vhost: Option<&str>,
        made: &mut Made,
    ) -> Result<(), String> {
        for item in &definitions.queues {
            let vhost = self.vhost_of(vhost.or(item.vhost.as_deref()))?;
            if item.name.starts_with("amq.") || self.queue_key(vhost.key, &item.name).is_some() {
                continue;
            }
            let arguments = json::to_table(&item.arguments)
                .map_err(|error| format!("queue '{}': {error}", item.name))?;
            let declare = queue::Declare {
                queue: &item.name,
                passive: false,
                durable: item.durable,
                exclusive: false,
                auto_delete: item.auto_delete,
                no_wait: false,
                arguments,
            };
            let key = self
                .declare_queue(&vhost, ConnectionKey::nothing(), &item.name, false, &declare)
                .map_err(|exception| format!("queue '{}': {}", item.name, exception.text))?;
            made.queues.push(key);
        }
        for item in &definitions.exchanges {
            let vhost = self.vhost_of(vhost.or(item.vhost.as_deref()))?;
            let ours = item.name.is_empty() || item.name.starts_with("amq.");
            if ours || self.exchange_key(vhost.key, &item.name).is_some() {
                continue;
            }
            let arguments = json::to_table(&item.arguments)
                .map_err(|error| format!("exchange '{}': {error}", item.name))?;
            let declare = exchange::Declare {
                exchange: &item.name,
                kind: &item.kind,
                passive: false,
                durable: item.durable,
                auto_delete: item.auto_delete,
                internal: item.internal,
                no_wait: false,
                arguments,
            };
            self.declare_exchange(&vhost, &declare)
                .map_err(|exception| format!("exchange '{}': {}", item.name, exception.text))?;
            made.exchanges.extend(self.exchange_key(vhost.key, &item.name));
        }
        for item in &definitions.bindings {
            let vhost = self.vhost_of(vhost.or(item.vhost.as_deref()))?;
            self.import_binding(&vhost, item, made).map_err(|error| {
                format!(
                    "binding from exchange '{}' to {} '{}': {error}",
                    item.source, item.destination_type, item.destination
                )
            })?;
        }
        Ok(())
    }

    fn import_binding(
        &mut self,
        vhost: &VhostRef,
        item: &BindingItem,
        made: &mut Made,
    ) -> Result<(), String> {
        if item.source.is_empty() {
            // Every queue has this one.
            return Ok(());
        }
        let arguments = json::to_table(&item.arguments)?;
        let source = self.find_source(vhost, &item.source).map_err(|exception| exception.text)?;
        let destination = match item.destination_type.as_str() {
            "queue" => {
                let nobody = ConnectionKey::nothing();
                let queue = self.find_queue(vhost, &item.destination, nobody);
                Destination::Queue(queue.map_err(|exception| exception.text)?)
            }
            "exchange" => {
                let exchange = self.find_exchange(vhost, &item.destination);
                Destination::Exchange(exchange.map_err(|exception| exception.text)?)
            }
            other => return Err(format!("'{other}' is no destination_type: queue or exchange")),
        };
        let new = self
            .bind(source, destination, &item.routing_key, &arguments)
            .map_err(|exception| exception.text)?;
        if new {
            made.bindings.push((source, destination, item.routing_key.clone(), arguments));
        }
        Ok(())
    }

    fn unmake(&mut self, made: Made) {
        for (source, destination, routing_key, arguments) in made.bindings {
            let nobody = ConnectionKey::nothing();
            // Nobody owns what was imported.
            let _ = self.unbind(nobody, source, destination, &routing_key, &arguments);
        }
        for key in made.queues {
            self.remove_queue(key);
        }
        for key in made.exchanges {
            self.remove_exchange(key);
        }
        for key in made.vhosts {
            self.close_vhost(key);
        }
    }

    fn vhost_of(&self, vhost: Option<&str>) -> Result<VhostRef, String> {
        let vhost = vhost.ok_or("an item names no virtual host")?;
        self.find_vhost(vhost).ok_or_else(|| no_vhost(vhost))
    }

    /// Everything that is declared; with `vhost`, of that virtual host, without users.
    pub(crate) fn export(&self, vhost: Option<&str>) -> Value {
        let mut lists: Map<String, Value> = Map::new();
        for list in ["users", "vhosts", "permissions", "topic_permissions", "parameters"] {
            lists.insert(list.into(), Value::Array(Vec::new()));
        }
        for list in ["global_parameters", "policies"] {
            lists.insert(list.into(), Value::Array(Vec::new()));
        }
        for record in self.tenancy.records() {
            let (list, item) = definition(record);
            if vhost.is_some_and(|vhost| item.get("vhost").is_none_or(|other| other != vhost)) {
                continue;
            }
            if let Some(Value::Array(list)) = lists.get_mut(list) {
                list.push(item);
            }
        }
        let mut definitions = Map::new();
        definitions.insert("rabbit_version".into(), RABBIT_VERSION.into());
        definitions.insert("rabbitmq_version".into(), RABBIT_VERSION.into());
        definitions.insert("product_name".into(), "Warren".into());
        definitions.insert("product_version".into(), env!("CARGO_PKG_VERSION").into());
        if vhost.is_some() {
            // Who may use it is not a virtual host's own.
            for list in ["users", "vhosts", "permissions", "topic_permissions", "global_parameters"]
            {
                lists.shift_remove(list);
            }
        }
        definitions.extend(lists);
        definitions.extend(self.export_topology(vhost));
        Value::Object(definitions)
    }

    fn export_topology(&self, vhost: Option<&str>) -> [(String, Value); 3] {
        let here = |of: &VhostRef| vhost.is_none_or(|vhost| *vhost == *of.name);
        let mut queues: Vec<Value> = self
            .queues
            .iter()
            .filter(|(_, queue)| queue.owner.is_none() && here(&queue.vhost))
            .map(|(_, queue)| {
                object!({
                    "name": queue.name.as_str(), "vhost": &*queue.vhost.name, "durable": queue.durable,
                    "auto_delete": queue.auto_delete, "arguments": json::from_table(&queue.arguments),
                    "type": queue.arguments.get("x-queue-type").and_then(|kind| kind.as_str()).unwrap_or("classic"),
                })
            })
            .collect();
        let mut exchanges: Vec<Value> = self
            .exchanges
            .iter()
            .filter(|(_, exchange)| !exchange.name.starts_with("amq.") && here(&exchange.vhost))
            .map(|(_, exchange)| {
                object!({
                    "name": &*exchange.name, "vhost": &*exchange.vhost.name, "type": exchange.kind.name(),
                    "durable": exchange.durable, "auto_delete": exchange.auto_delete,
                    "internal": exchange.internal, "arguments": json::from_table(&exchange.arguments),
                })
            })
            .collect();
        let mut bindings = self.binding_rows(&|queue| queue.owner.is_none());
        bindings.retain(|row| vhost.is_none_or(|vhost| row["vhost"] == vhost));
        for list in [&mut queues, &mut exchanges, &mut bindings] {
            // The same state gives the same file.
            list.sort_by_key(|item| item.to_string());
        }
        let list = |name: &str, items| (name.to_owned(), Value::Array(items));
        [list("queues", queues), list("exchanges", exchanges), list("bindings", bindings)]
    }

    /// All bindings but those of the default exchange.
    pub(crate) fn binding_rows(&self, queues: &dyn Fn(&crate::queue::Queue) -> bool) -> Vec<Value> {
        let mut rows = Vec::new();
        for (_, exchange) in self.exchanges.iter() {
            for binding in exchange.bindings() {
                let destination = match binding.destination {
                    Destination::Queue(key) => self
                        .queues
                        .get(key)
                        .filter(|queue| queues(queue))
                        .map(|queue| (queue.name.to_string(), "queue")),
                    Destination::Exchange(key) => {
                        self.exchanges.get(key).map(|other| (other.name.to_string(), "exchange"))
                    }
                };
                let Some((destination, kind)) = destination else { continue };
                rows.push(object!({
                    "source": &*exchange.name, "vhost": &*exchange.vhost.name, "destination": destination,
                    "destination_type": kind, "routing_key": binding.routing_key.as_str(),
                    "arguments": json::from_raw(&binding.arguments),
                }));
            }
        }
        rows
    }
}

/// The list that a record stands in, and how.
pub(crate) fn definition(record: Record) -> (&'static str, Value) {
    let (list, item) = match record {
        Record::User(user) => ("users", serde_json::to_value(user)),
        Record::Vhost(vhost) => {
            let metadata = object!({"description": vhost.description, "tags": vhost.tags});
            let item = serde_json::to_value(vhost).map(|mut item| {
                item["limits"] = object!([]);
                item["metadata"] = metadata;
                item
            });
            ("vhosts", item)
        }
        Record::Permission(permission) => ("permissions", serde_json::to_value(permission)),
        Record::Topic(permission) => ("topic_permissions", serde_json::to_value(permission)),
        Record::Parameter(parameter) => ("parameters", serde_json::to_value(parameter)),
        Record::OperatorPolicy(policy) => {
            ("parameters", serde_json::to_value(policy.to_parameter()))
        }
        Record::Global(parameter) => ("global_parameters", serde_json::to_value(parameter)),
        Record::Policy(policy) => ("policies", serde_json::to_value(policy)),
    };
    // Plain data with text for keys always becomes JSON.
    (list, item.unwrap_or_default())
}
