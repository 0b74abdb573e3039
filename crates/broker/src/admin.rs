//! What can be asked of a running broker apart from AMQP: one set of operations for every way in.
//!
//! A [`Request`] is data, so that it can come over a socket as JSON; [`Broker::admin`](crate::Broker::admin) answers it
//! once what it changes is on disk. Listings are arrays of objects whose keys are RabbitMQ's column names.
//!
//! ```
//! use warren_broker::admin::Request;
//! let request: Request = serde_json::from_str(r#"{"op": "add_user", "name": "ann", "password": "x"}"#).unwrap();
//! assert!(matches!(request, Request::AddUser { .. }));
//! ```

mod rows;
pub(crate) mod slow;

pub(crate) use rows::{channel_pid, connection_pid};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use warren_amqp::ReplyCode;

use crate::auth::Hashing;
use crate::definitions::{Definitions, parameter_record};
use crate::engine::events::{CLI, CLI_DELETES};
use crate::engine::{Actor, Engine};
use crate::exception::Exception;
use crate::tenancy::record::{
    GlobalParameter, Parameter, PermissionRecord, PolicyRecord, Record, RecordKey, TopicRecord,
    UserRecord, VhostRecord,
};
use crate::tenancy::{DEFAULT_VHOST, VHOST_LIMITS, no_user, no_vhost, user_record};
use slow::SlowDone;

/// An operation. `vhost` is `/` where it is left out.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are what RabbitMQ's commands call them")]
pub enum Request {
    /// What runs here.
    Status,
    /// Users and their tags.
    ListUsers,
    /// A new user.
    AddUser {
        name: String,
        password: String,
        #[serde(default)]
        tags: Vec<String>,
    },
    /// Takes a user away; its connections are closed.
    DeleteUser { name: String },
    /// Another password.
    ChangePassword { name: String, password: String },
    /// No password: the user cannot log in with one.
    ClearPassword { name: String },
    /// Other tags in place of those it has.
    SetUserTags { name: String, tags: Vec<String> },
    /// Whether this is the user's password.
    AuthenticateUser { name: String, password: String },
    /// Limits of a user: `max-connections`, `max-channels`; -1 is none.
    SetUserLimits { name: String, limits: Map<String, Value> },
    /// Users' limits; of all users where none is named.
    ListUserLimits { name: Option<String> },
    /// Permissions, of one user or in one virtual host or all.
    ListPermissions { user: Option<String>, vhost: Option<String> },
    /// Permissions of a user in a virtual host.
    SetPermissions {
        user: String,
        #[serde(default = "root")]
        vhost: String,
        configure: String,
        write: String,
        read: String,
    },
    /// Takes them away.
    ClearPermissions {
        user: String,
        #[serde(default = "root")]
        vhost: String,
    },
    /// Topic permissions, of one user or in one virtual host or all.
    ListTopicPermissions { user: Option<String>, vhost: Option<String> },
    /// Topic permissions of a user for an exchange.
    SetTopicPermissions {
        user: String,
        #[serde(default = "root")]
        vhost: String,
        exchange: String,
        write: String,
        read: String,
    },
    /// Takes them away, for one exchange or all.
    ClearTopicPermissions {
        user: String,
        #[serde(default = "root")]
        vhost: String,
        exchange: Option<String>,
    },
    /// Virtual hosts.
    ListVhosts,
    /// A new virtual host.
    AddVhost {
        name: String,
        #[serde(default)]
        description: String,
        #[serde(default)]
        tags: Vec<String>,
        /// The type of queues that are declared without one: `classic`, `quorum` or `stream`.
        #[serde(default)]
        default_queue_type: Option<String>,
    },
    /// Takes a virtual host away, with all that is in it.
    DeleteVhost { name: String },
    /// Limits of a virtual host: `max-connections`, `max-queues`; -1 is none.
    SetVhostLimits {
        #[serde(default = "root")]
        vhost: String,
        limits: Map<String, Value>,
    },
    /// Takes all of them away.
    ClearVhostLimits {
        #[serde(default = "root")]
        vhost: String,
    },
    /// Virtual hosts' limits.
    ListVhostLimits { vhost: Option<String> },
    /// Policies, or operator policies.
    ListPolicies {
        vhost: Option<String>,
        #[serde(default)]
        operator: bool,
    },
    /// A policy, in place of an older one of that name.
    SetPolicy {
        #[serde(default = "root")]
        vhost: String,
        name: String,
        pattern: String,
        definition: Map<String, Value>,
        #[serde(default)]
        priority: i64,
        #[serde(default = "all")]
        apply_to: String,
        #[serde(default)]
        operator: bool,
    },
    /// Takes a policy away.
    ClearPolicy {
        #[serde(default = "root")]
        vhost: String,
        name: String,
        #[serde(default)]
        operator: bool,
    },
    /// Runtime parameters.
    ListParameters { vhost: Option<String> },
    /// A runtime parameter.
    SetParameter {
        #[serde(default = "root")]
        vhost: String,
        component: String,
        name: String,
        value: Value,
    },
    /// Takes it away.
    ClearParameter {
        #[serde(default = "root")]
        vhost: String,
        component: String,
        name: String,
    },
    /// Global parameters.
    ListGlobalParameters,
    /// A global parameter.
    SetGlobalParameter { name: String, value: Value },
    /// Takes it away.
    ClearGlobalParameter { name: String },
    /// Everything that is declared, or what is in one virtual host.
    ExportDefinitions { vhost: Option<String> },
    /// Takes definitions in, all or none.
    ImportDefinitions { vhost: Option<String>, definitions: Value },
    /// Queues.
    ListQueues { vhost: Option<String> },
    /// Deletes a queue.
    DeleteQueue {
        #[serde(default = "root")]
        vhost: String,
        name: String,
        #[serde(default)]
        if_empty: bool,
        #[serde(default)]
        if_unused: bool,
    },
    /// Drops the messages that are ready.
    PurgeQueue {
        #[serde(default = "root")]
        vhost: String,
        name: String,
    },
    /// Exchanges.
    ListExchanges { vhost: Option<String> },
    /// Bindings, those of the default exchange among them.
    ListBindings { vhost: Option<String> },
    /// Connections.
    ListConnections,
    /// The memory from which on publishers have to wait: a share like 0.6, or a size like 2GiB. Until the next start.
    SetMemoryLimit { limit: String },
    /// The free space of the disk below which publishers have to wait: a size like 50MB. Until the next start.
    SetDiskFreeLimit { limit: String },
    /// Closes a connection, by its `pid`.
    CloseConnection { pid: String, reason: String },
    /// Copies what passes through a virtual host to its exchange `amq.rabbitmq.trace`.
    TraceOn {
        #[serde(default = "root")]
        vhost: String,
    },
    /// Stops that.
    TraceOff {
        #[serde(default = "root")]
        vhost: String,
    },
    /// Channels.
    ListChannels,
    /// Consumers.
    ListConsumers { vhost: Option<String> },
}

fn root() -> String {
    DEFAULT_VHOST.into()
}

fn all() -> String {
    "all".into()
}

/// Why an operation was refused. The text is for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// What was named is not there.
    #[error("{0}")]
    NotFound(String),
    /// It is there already.
    #[error("{0}")]
    Exists(String),
    /// What was asked for cannot be.
    #[error("{0}")]
    Invalid(String),
    /// The disk refuses.
    #[error("{0}")]
    Failed(String),
}

impl AdminError {
    /// For programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "not_found",
            Self::Exists(_) => "exists",
            Self::Invalid(_) => "invalid",
            Self::Failed(_) => "failed",
        }
    }
}

impl Request {
    /// Reads a request from JSON.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(json: &[u8]) -> Result<Self, AdminError> {
        serde_json::from_slice(json)
            .map_err(|error| AdminError::Invalid(format!("no request: {error}")))
    }
}

type Answer = Result<Value, AdminError>;

/// Nothing to tell.
const DONE: Answer = Ok(Value::Null);

impl Engine {
    /// Does what is asked. What it changes is on disk with the batch that
    /// [`take_defined`](Self::take_defined) names.
    pub(crate) fn administer(&mut self, request: Request, slow: SlowDone) -> Answer {
        let actor = match request {
            Request::ImportDefinitions { .. } => Actor::Internal,
            Request::DeleteQueue { .. } => CLI_DELETES,
            _ => CLI,
        };
        self.acting(actor, |engine| engine.administer_users(request, slow))
    }

    fn administer_users(&mut self, request: Request, slow: SlowDone) -> Answer {
        use Request as R;
        match request {
            R::Status => Ok(self.status()),
            R::ListUsers => Ok(self.user_rows()),
            R::AddUser { name, tags, .. } => self.add_user(name, slow, tags),
            R::DeleteUser { name } => self.delete(RecordKey::User(name.clone()), || no_user(&name)),
            R::ChangePassword { name, .. } => {
                let hash = slow.hash()?;
                self.change_user(&name, |user| {
                    user.password_hash = hash.text().into();
                    user.hashing_algorithm = hash.hashing().name().into();
                })
            }
            R::ClearPassword { name } => self.change_user(&name, |user| user.password_hash.clear()),
            R::SetUserTags { name, tags } => self.change_user(&name, |user| user.tags = tags),
            R::AuthenticateUser { name, .. } => self.authenticated(&name, slow).and(DONE),
            R::SetUserLimits { name, limits } => self.change_user(&name, |user| {
                for (limit, value) in limits {
                    // None, as RabbitMQ says it.
                    if value.as_i64().is_some_and(|value| value < 0) {
                        user.limits.shift_remove(&limit);
                    } else {
                        user.limits.insert(limit, value);
                    }
                }
            }),
            R::ListUserLimits { name } => Ok(self.user_limit_rows(name.as_deref())),
            R::ListPermissions { user, vhost } => {
                self.known(user.as_deref(), vhost.as_deref())?;
                Ok(self.permission_rows(user.as_deref(), vhost.as_deref()))
            }
            R::SetPermissions { user, vhost, configure, write, read } => {
                self.known(Some(&user), Some(&vhost))?;
                let record = PermissionRecord { user, vhost, configure, write, read };
                self.put(Record::Permission(record))
            }
            R::ClearPermissions { user, vhost } => {
                self.known(Some(&user), Some(&vhost))?;
                self.delete_record(RecordKey::Permission { user, vhost });
                DONE
            }
            R::ListTopicPermissions { user, vhost } => {
                self.known(user.as_deref(), vhost.as_deref())?;
                Ok(self.topic_rows(user.as_deref(), vhost.as_deref()))
            }
            R::SetTopicPermissions { user, vhost, exchange, write, read } => {
                self.known(Some(&user), Some(&vhost))?;
                self.put(Record::Topic(TopicRecord { user, vhost, exchange, write, read }))
            }
            R::ClearTopicPermissions { user, vhost, exchange } => {
                self.known(Some(&user), Some(&vhost))?;
                let account = self.tenancy.users.get(&user);
                let topics = account.and_then(|account| account.topics.get(&vhost));
                let exchanges = match exchange {
                    Some(exchange) => vec![exchange],
                    None => {
                        topics.map(|topics| topics.keys().cloned().collect()).unwrap_or_default()
                    }
                };
                let mut told = self.noted();
                for (done, exchange) in exchanges.into_iter().enumerate() {
                    let (user, vhost) = (user.clone(), vhost.clone());
                    self.delete_record(RecordKey::Topic { user, vhost, exchange });
                    if done == 0 {
                        // One event for all of them.
                        told = self.noted();
                    }
                }
                self.forget_notes(told);
                DONE
            }
            request => self.administer_vhosts(request),
        }
    }

    fn administer_vhosts(&mut self, request: Request) -> Answer {
        use Request as R;
        match request {
            R::ListVhosts => Ok(self.vhost_rows()),
            R::AddVhost { name, .. } if self.tenancy.vhosts.contains_key(&name) => {
                Err(AdminError::Exists(format!("Virtual host '{name}' already exists")))
            }
            R::AddVhost { name, description, tags, default_queue_type } => {
                let vhost = VhostRecord {
                    tags,
                    default_queue_type,
                    ..VhostRecord::new(&name, &description)
                };
                self.put(Record::Vhost(vhost))
            }
            R::DeleteVhost { name } => {
                self.delete(RecordKey::Vhost(name.clone()), || no_vhost(&name))
            }
            R::TraceOn { vhost } => self.set_tracing(&vhost, true),
            R::TraceOff { vhost } => self.set_tracing(&vhost, false),
            R::SetVhostLimits { vhost, limits } => {
                self.known(None, Some(&vhost))?;
                let limits = limits
                    .into_iter()
                    .filter(|(_, value)| value.as_i64().is_none_or(|value| 0 <= value));
                self.put(Record::Parameter(Parameter {
                    vhost,
                    component: VHOST_LIMITS.into(),
                    name: "limits".into(),
                    value: Value::Object(limits.collect()),
                }))
            }
            R::ClearVhostLimits { vhost } => {
                self.known(None, Some(&vhost))?;
                let (component, name) = (VHOST_LIMITS.into(), "limits".into());
                self.delete_record(RecordKey::Parameter { vhost, component, name });
                DONE
            }
            R::ListVhostLimits { vhost } => {
                self.known(None, vhost.as_deref())?;
                Ok(self.vhost_limit_rows(vhost.as_deref()))
            }
            R::ListPolicies { vhost, operator } => {
                self.known(None, vhost.as_deref())?;
                Ok(self.policy_rows(vhost.as_deref(), operator))
            }
            R::SetPolicy { vhost, name, pattern, definition, priority, apply_to, operator } => {
                let policy = PolicyRecord { vhost, name, pattern, apply_to, definition, priority };
                self.put(if operator {
                    Record::OperatorPolicy(policy)
                } else {
                    Record::Policy(policy)
                })
            }
            R::ClearPolicy { vhost, name, operator } => {
                let missing = format!("Policy '{name}' does not exist in virtual host '{vhost}'");
                let key = if operator {
                    RecordKey::OperatorPolicy { vhost, name }
                } else {
                    RecordKey::Policy { vhost, name }
                };
                self.delete(key, || missing)
            }
            R::ListParameters { vhost } => {
                self.known(None, vhost.as_deref())?;
                Ok(self.parameter_rows(vhost.as_deref()))
            }
            R::SetParameter { vhost, component, name, value } => {
                let record = parameter_record(Parameter { value, vhost, component, name });
                self.put(record.map_err(AdminError::Invalid)?)
            }
            R::ClearParameter { vhost, component, name } => {
                let key = RecordKey::Parameter { vhost, component, name };
                self.delete(key, || "Parameter does not exist".into())
            }
            R::ListGlobalParameters => Ok(self.global_parameter_rows()),
            R::SetGlobalParameter { name, value } => {
                self.put(Record::Global(GlobalParameter { name, value }))
            }
            R::ClearGlobalParameter { name } => {
                self.delete(RecordKey::Global(name), || "Parameter does not exist".into())
            }
            R::ExportDefinitions { vhost } => {
                self.known(None, vhost.as_deref())?;
                Ok(self.export(vhost.as_deref()))
            }
            R::ImportDefinitions { vhost, definitions } => {
                let definitions: Definitions = serde_json::from_value(definitions)
                    .map_err(|error| AdminError::Invalid(format!("no definitions: {error}")))?;
                self.import(&definitions, vhost.as_deref()).map_err(AdminError::Invalid)?;
                DONE
            }
            request => self.administer_objects(request),
        }
    }

    fn administer_objects(&mut self, request: Request) -> Answer {
        use Request as R;
        match request {
            R::ListQueues { vhost } => {
                self.known(None, vhost.as_deref())?;
                Ok(rows::of_vhost(self.queue_rows(), vhost.as_deref()))
            }
            R::DeleteQueue { vhost, name, if_empty, if_unused } => {
                let key = self.queue(&vhost, &name)?;
                let queue = self.queues.get(key);
                let refused = queue.and_then(|queue| match () {
                    () if if_empty && !queue.is_empty() => Some("not empty"),
                    () if if_unused && !queue.consumers.is_empty() => Some("in use"),
                    () => None,
                });
                if let Some(why) = refused {
                    let text = format!("queue '{name}' in vhost '{vhost}' {why}");
                    return Err(AdminError::Invalid(text));
                }
                let messages = queue.map_or(0, |queue| queue.len());
                self.remove_queue(key);
                Ok(messages.into())
            }
            R::PurgeQueue { vhost, name } => {
                let key = self.queue(&vhost, &name)?;
                let refused = self.refuse_stream(key, "queue.purge");
                refused.map_err(|exception| AdminError::Invalid(exception.text))?;
                Ok(self.purge_queue(key).into())
            }
            R::ListExchanges { vhost } => {
                self.known(None, vhost.as_deref())?;
                Ok(rows::of_vhost(self.exchange_rows(), vhost.as_deref()))
            }
            R::ListBindings { vhost } => {
                self.known(None, vhost.as_deref())?;
                Ok(rows::of_vhost(self.all_binding_rows(), vhost.as_deref()))
            }
            R::ListConnections => Ok(self.connection_rows()),
            R::SetMemoryLimit { limit } => {
                self.alarms.limit_memory(limit.parse().map_err(AdminError::Invalid)?);
                self.check_alarms();
                DONE
            }
            R::SetDiskFreeLimit { limit } => {
                self.alarms.disk_free_bytes_min =
                    crate::parse_size(&limit).map_err(AdminError::Invalid)?;
                self.check_alarms();
                DONE
            }
            R::CloseConnection { pid, reason } => {
                let key =
                    self.connections.keys().into_iter().find(|key| connection_pid(*key) == pid);
                let Some(key) = key else {
                    return Err(AdminError::NotFound(format!("There is no connection '{pid}'")));
                };
                let exception = Exception::new(ReplyCode::CONNECTION_FORCED, reason);
                self.force_close(key, &exception);
                DONE
            }
            R::ListChannels => Ok(self.channel_rows()),
            R::ListConsumers { vhost } => {
                self.known(None, vhost.as_deref())?;
                Ok(rows::of_vhost(self.consumer_rows(), vhost.as_deref()))
            }
            // The others are answered before.
            other => Err(AdminError::Invalid(format!("{other:?} is not known here"))),
        }
    }

    fn add_user(&mut self, name: String, slow: SlowDone, tags: Vec<String>) -> Answer {
        if self.tenancy.users.contains_key(&name) {
            return Err(AdminError::Exists(format!("User '{name}' already exists")));
        }
        let hash = slow.hash()?;
        self.put(Record::User(UserRecord {
            name,
            password_hash: hash.text().into(),
            hashing_algorithm: hash.hashing().name().into(),
            tags,
            ..UserRecord::default()
        }))
    }

    fn change_user(&mut self, name: &str, change: impl FnOnce(&mut UserRecord)) -> Answer {
        let Some(account) = self.tenancy.users.get(name) else {
            return Err(AdminError::NotFound(no_user(name)));
        };
        let mut user = user_record(name, account);
        change(&mut user);
        self.put(Record::User(user))
    }

    fn set_tracing(&mut self, name: &str, tracing: bool) -> Answer {
        self.known(None, Some(name))?;
        match self.tenancy.vhosts.get(name).cloned() {
            Some(vhost) => self.put(Record::Vhost(VhostRecord { tracing, ..vhost })),
            None => DONE,
        }
    }

    fn put(&mut self, record: Record) -> Answer {
        self.put_records(vec![record]).map_err(AdminError::Invalid)?;
        DONE
    }

    fn delete(&mut self, key: RecordKey, missing: impl FnOnce() -> String) -> Answer {
        if self.delete_record(key) { DONE } else { Err(AdminError::NotFound(missing())) }
    }

    fn known(&self, user: Option<&str>, vhost: Option<&str>) -> Result<(), AdminError> {
        match (user, vhost) {
            (Some(user), _) if !self.tenancy.users.contains_key(user) => {
                Err(AdminError::NotFound(no_user(user)))
            }
            (_, Some(vhost)) if !self.tenancy.vhosts.contains_key(vhost) => {
                Err(AdminError::NotFound(no_vhost(vhost)))
            }
            _ => Ok(()),
        }
    }

    fn queue(&self, vhost: &str, name: &str) -> Result<crate::queue::QueueKey, AdminError> {
        let found = self.find_vhost(vhost).ok_or_else(|| AdminError::NotFound(no_vhost(vhost)))?;
        let missing = || AdminError::NotFound(format!("no queue '{name}' in vhost '{vhost}'"));
        self.queue_key(found.key, name).ok_or_else(missing)
    }
}

/// The users of an export whose passwords RabbitMQ cannot check.
pub fn only_here(definitions: &Value) -> Vec<&str> {
    let users = definitions["users"].as_array().map(Vec::as_slice).unwrap_or_default();
    let slow = users.iter().filter(|user| user["hashing_algorithm"] == Hashing::Argon2id.name());
    slow.filter_map(|user| user["name"].as_str()).collect()
}
