//! Items as definitions have them. Unknown keys are passed over: newer versions have more.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record {
    Vhost(VhostRecord),
    User(UserRecord),
    Permission(PermissionRecord),
    Topic(TopicRecord),
    Parameter(Parameter),
    Global(GlobalParameter),
    Policy(PolicyRecord),
    OperatorPolicy(PolicyRecord),
}

/// What a record is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RecordKey {
    Vhost(String),
    User(String),
    Permission { user: String, vhost: String },
    Topic { user: String, vhost: String, exchange: String },
    Parameter { vhost: String, component: String, name: String },
    Global(String),
    Policy { vhost: String, name: String },
    OperatorPolicy { vhost: String, name: String },
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct VhostRecord {
    pub(crate) name: String,
    pub(crate) description: String,
    #[serde(deserialize_with = "tags")]
    pub(crate) tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) default_queue_type: Option<String>,
    pub(crate) tracing: bool,
}

impl VhostRecord {
    pub(crate) fn new(name: &str, description: &str) -> Self {
        Self { name: name.into(), description: description.into(), ..Self::default() }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct UserRecord {
    pub(crate) name: String,
    /// Empty: no password.
    pub(crate) password_hash: String,
    pub(crate) hashing_algorithm: String,
    #[serde(deserialize_with = "tags")]
    pub(crate) tags: Vec<String>,
    #[serde(deserialize_with = "object")]
    pub(crate) limits: Map<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PermissionRecord {
    pub(crate) user: String,
    pub(crate) vhost: String,
    pub(crate) configure: String,
    pub(crate) write: String,
    pub(crate) read: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TopicRecord {
    pub(crate) user: String,
    pub(crate) vhost: String,
    pub(crate) exchange: String,
    pub(crate) write: String,
    pub(crate) read: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Parameter {
    pub(crate) value: Value,
    pub(crate) vhost: String,
    pub(crate) component: String,
    pub(crate) name: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct GlobalParameter {
    pub(crate) name: String,
    pub(crate) value: Value,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PolicyRecord {
    pub(crate) vhost: String,
    pub(crate) name: String,
    pub(crate) pattern: String,
    #[serde(rename = "apply-to", default = "all")]
    pub(crate) apply_to: String,
    #[serde(deserialize_with = "object")]
    pub(crate) definition: Map<String, Value>,
    #[serde(default)]
    pub(crate) priority: i64,
}

impl PolicyRecord {
    /// Operator policies are parameters in definitions.
    pub(crate) fn from_parameter(parameter: &Parameter) -> Result<Self, String> {
        let Value::Object(mut value) = parameter.value.clone() else {
            return Err(format!("operator policy '{}' is no dictionary", parameter.name));
        };
        value.insert("vhost".into(), parameter.vhost.clone().into());
        value.insert("name".into(), parameter.name.clone().into());
        serde_json::from_value(Value::Object(value))
            .map_err(|error| format!("operator policy '{}': {error}", parameter.name))
    }

    pub(crate) fn to_parameter(&self) -> Parameter {
        let mut value = Map::new();
        value.insert("apply-to".into(), self.apply_to.clone().into());
        value.insert("definition".into(), self.definition.clone().into());
        value.insert("pattern".into(), self.pattern.clone().into());
        value.insert("priority".into(), self.priority.into());
        Parameter {
            value: value.into(),
            vhost: self.vhost.clone(),
            component: super::OPERATOR_POLICY.into(),
            name: self.name.clone(),
        }
    }
}

fn all() -> String {
    "all".into()
}

/// A list since RabbitMQ 3.9, before that words with commas between them.
fn tags<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Tags {
        List(Vec<String>),
        Words(String),
    }
    Ok(match Tags::deserialize(deserializer)? {
        Tags::List(tags) => tags,
        Tags::Words(words) => {
            let words = words.split(',').map(str::trim).filter(|word| !word.is_empty());
            words.map(str::to_owned).collect()
        }
    })
}

/// A dictionary. RabbitMQ writes some as lists of pairs: an operator policy's definition, `[["max-length", 3]]`.
pub(crate) fn object<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Map<String, Value>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let refused = |value: &Value| {
        Err(serde::de::Error::custom(format!("expected a dictionary, found {value}")))
    };
    match value {
        Value::Object(map) => Ok(map),
        Value::Null => Ok(Map::new()),
        Value::Array(items) => {
            let mut map = Map::new();
            for item in items {
                match item.as_array().map(Vec::as_slice) {
                    Some([Value::String(key), value]) => {
                        map.insert(key.clone(), value.clone());
                    }
                    _ => return refused(&item),
                }
            }
            Ok(map)
        }
        other => refused(&other),
    }
}
