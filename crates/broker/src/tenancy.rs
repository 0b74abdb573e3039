//! Users, permissions, virtual hosts, parameters and policies: what is known of them, apart from what runs.
//!
//! A [`Record`] is one item, as definitions and the store have it. [`Tenancy::put`] checks it and takes it in;
//! a set of changes that must hold together is tried on a clone first.

pub(crate) mod record;

use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::{Map, Value};

use crate::auth::password::PasswordHash;
use crate::auth::{
    Access, Account, Authenticator, Checked, Hashing, Permission, SlowCheck, TopicPermission,
    UserLimits,
};
use crate::policy::{self, Policy};
use record::{
    GlobalParameter, Parameter, PermissionRecord, PolicyRecord, Record, RecordKey, TopicRecord,
    UserRecord, VhostRecord,
};

pub(crate) const DEFAULT_VHOST: &str = "/";
/// The component of operator policies among the parameters.
pub(crate) const OPERATOR_POLICY: &str = "operator_policy";
/// The component of a virtual host's limits.
pub(crate) const VHOST_LIMITS: &str = "vhost-limits";
/// Names and patterns are short strings in RabbitMQ too.
const NAME_BYTES_MAX: usize = 255;

/// Where a policy is: virtual host and name.
type PolicyName = (String, String);

#[derive(Clone)]
pub(crate) struct Tenancy {
    pub(crate) users: BTreeMap<String, Account>,
    pub(crate) vhosts: BTreeMap<String, VhostRecord>,
    pub(crate) policies: BTreeMap<PolicyName, Rc<Policy>>,
    pub(crate) operator_policies: BTreeMap<PolicyName, Rc<Policy>>,
    /// By virtual host, component and name; without operator policies.
    pub(crate) parameters: BTreeMap<(String, String, String), Value>,
    pub(crate) global_parameters: BTreeMap<String, Value>,
    /// How new passwords are kept.
    pub(crate) hashing: Hashing,
    authenticator: Authenticator,
    /// Changes with everything that may change what is permitted: what was checked before is checked again.
    pub(crate) revision: u64,
}

impl Default for Tenancy {
    fn default() -> Self {
        Self::new()
    }
}

impl Tenancy {
    /// With the virtual host `/`, and nobody to use it.
    pub(crate) fn new() -> Self {
        let vhost = VhostRecord::new(DEFAULT_VHOST, "Default virtual host");
        Self {
            users: BTreeMap::new(),
            vhosts: BTreeMap::from([(DEFAULT_VHOST.into(), vhost)]),
            policies: BTreeMap::new(),
            operator_policies: BTreeMap::new(),
            parameters: BTreeMap::new(),
            global_parameters: BTreeMap::new(),
            hashing: Hashing::default(),
            authenticator: Authenticator::new(),
            revision: 1,
        }
    }

    /// Checks a record and takes it in, in place of an older one of the same name.
    ///
    /// # Errors
    /// What is wrong with it, naming it.
    pub(crate) fn put(&mut self, record: &Record) -> Result<(), String> {
        match record {
            Record::Vhost(vhost) => self.put_vhost(vhost),
            Record::User(user) => self.put_user(user),
            Record::Permission(permission) => self.put_permission(permission),
            Record::Topic(topic) => self.put_topic(topic),
            Record::Parameter(parameter) => self.put_parameter(parameter),
            Record::Global(parameter) => {
                check_name("global parameter", &parameter.name)?;
                self.global_parameters.insert(parameter.name.clone(), parameter.value.clone());
                Ok(())
            }
            Record::Policy(policy) => self.put_policy(policy, false),
            Record::OperatorPolicy(policy) => self.put_policy(policy, true),
        }?;
        self.revision += 1;
        Ok(())
    }

    /// Takes a record out, with what belongs to it. False when it is not there.
    pub(crate) fn delete(&mut self, key: &RecordKey) -> bool {
        self.revision += 1;
        let pair = |vhost: &str, name: &str| (vhost.to_owned(), name.to_owned());
        match key {
            RecordKey::Vhost(name) => {
                for account in self.users.values_mut() {
                    account.permissions.remove(name);
                    account.topics.remove(name);
                }
                self.policies.retain(|(vhost, _), _| vhost != name);
                self.operator_policies.retain(|(vhost, _), _| vhost != name);
                self.parameters.retain(|(vhost, ..), _| vhost != name);
                self.vhosts.remove(name).is_some()
            }
            RecordKey::User(name) => self.users.remove(name).is_some(),
            RecordKey::Permission { user, vhost } => self
                .users
                .get_mut(user)
                .is_some_and(|account| account.permissions.remove(vhost).is_some()),
            RecordKey::Topic { user, vhost, exchange } => {
                let account = self.users.get_mut(user);
                account.is_some_and(|account| match account.topics.get_mut(vhost) {
                    Some(exchanges) => exchanges.remove(exchange).is_some(),
                    None => false,
                })
            }
            RecordKey::Parameter { vhost, component, name } => {
                self.parameters.remove(&(vhost.clone(), component.clone(), name.clone())).is_some()
            }
            RecordKey::Global(name) => self.global_parameters.remove(name).is_some(),
            RecordKey::Policy { vhost, name } => self.policies.remove(&pair(vhost, name)).is_some(),
            RecordKey::OperatorPolicy { vhost, name } => {
                self.operator_policies.remove(&pair(vhost, name)).is_some()
            }
        }
    }

    /// Whether a password is right, as far as that can be told at once.
    pub(crate) fn begin_login(&self, name: &str, password: &str) -> Checked {
        self.authenticator.begin(name, self.users.get(name), password)
    }

    /// What came of a slow check.
    pub(crate) fn end_login(&self, check: &SlowCheck, right: bool) -> Result<(), String> {
        self.authenticator.end(self.users.get(check.name()), check, right)
    }

    /// Whether a user may open a virtual host.
    pub(crate) fn may_open(&self, user: &str, vhost: &str) -> bool {
        self.users.get(user).is_some_and(|account| account.permissions.contains_key(vhost))
    }

    pub(crate) fn allows(&self, user: &str, vhost: &str, access: Access, name: &str) -> bool {
        let permission = self.users.get(user).and_then(|account| account.permissions.get(vhost));
        permission.is_some_and(|permission| permission.allows(access, name))
    }

    /// Without a topic permission for the exchange, every routing key is allowed.
    pub(crate) fn allows_topic(
        &self,
        user: &str,
        vhost: &str,
        exchange: &str,
        access: Access,
        key: &str,
    ) -> bool {
        let permission =
            self.users.get(user).and_then(|account| account.topics.get(vhost)?.get(exchange));
        permission.is_none_or(|permission| permission.allows(access, key, user, vhost))
    }

    /// A limit of a virtual host: `max-connections`, `max-queues`. Negative ones are none.
    pub(crate) fn vhost_limit(&self, vhost: &str, limit: &str) -> Option<u64> {
        let key = (vhost.to_owned(), VHOST_LIMITS.to_owned(), "limits".to_owned());
        self.parameters.get(&key)?.get(limit)?.as_u64()
    }

    /// What policies say of an exchange or a queue.
    pub(crate) fn policy_for(
        &self,
        vhost: &str,
        target: policy::Target,
        name: &str,
    ) -> policy::Effective {
        let best = |policies: &BTreeMap<PolicyName, Rc<Policy>>| {
            let of_vhost = policies.iter().filter(|((other, _), _)| other == vhost);
            policy::best(of_vhost.map(|(_, policy)| policy), target, name)
        };
        policy::Effective { policy: best(&self.policies), operator: best(&self.operator_policies) }
    }

    fn put_vhost(&mut self, vhost: &VhostRecord) -> Result<(), String> {
        check_name("virtual host", &vhost.name)?;
        match vhost.default_queue_type.as_deref() {
            None | Some("classic" | "quorum" | "stream" | "undefined") => {}
            Some(other) => return Err(format!("Unsupported default queue type: {other}")),
        }
        self.vhosts.insert(vhost.name.clone(), vhost.clone());
        Ok(())
    }

    fn put_user(&mut self, user: &UserRecord) -> Result<(), String> {
        check_name("user", &user.name)?;
        let hash = PasswordHash::from_definition(&user.password_hash, &user.hashing_algorithm)
            .map_err(|error| format!("user '{}': {error}", user.name))?;
        let limits =
            user_limits(&user.limits).map_err(|error| format!("user '{}': {error}", user.name))?;
        let mut account = Account::new(hash.map(Rc::new), user.tags.clone(), limits);
        if let Some(old) = self.users.remove(&user.name) {
            account.permissions = old.permissions;
            account.topics = old.topics;
        }
        self.users.insert(user.name.clone(), account);
        Ok(())
    }

    fn account(&mut self, user: &str, vhost: &str) -> Result<&mut Account, String> {
        if !self.vhosts.contains_key(vhost) {
            return Err(no_vhost(vhost));
        }
        self.users.get_mut(user).ok_or_else(|| no_user(user))
    }

    fn put_permission(&mut self, record: &PermissionRecord) -> Result<(), String> {
        let permission = Permission::new(&record.configure, &record.write, &record.read)
            .map_err(|failure| bad_pattern(&record.user, &record.vhost, &failure))?;
        let account = self.account(&record.user, &record.vhost)?;
        account.permissions.insert(record.vhost.clone(), Rc::new(permission));
        Ok(())
    }

    fn put_topic(&mut self, record: &TopicRecord) -> Result<(), String> {
        let permission = TopicPermission::new(&record.write, &record.read)
            .map_err(|failure| bad_pattern(&record.user, &record.vhost, &failure))?;
        let account = self.account(&record.user, &record.vhost)?;
        let exchanges = account.topics.entry(record.vhost.clone()).or_default();
        exchanges.insert(record.exchange.clone(), Rc::new(permission));
        Ok(())
    }

    fn put_parameter(&mut self, parameter: &Parameter) -> Result<(), String> {
        let Parameter { vhost, component, name, value } = parameter;
        check_name("parameter", name)?;
        if component == OPERATOR_POLICY {
            return self.put_policy(&PolicyRecord::from_parameter(parameter)?, true);
        }
        if component == "policy" {
            return Err("policies may not be set using this method".into());
        }
        if !self.vhosts.contains_key(vhost) {
            return Err(no_vhost(vhost));
        }
        if component == VHOST_LIMITS {
            limits(value, &["max-connections", "max-queues"])?;
        }
        self.parameters.insert((vhost.clone(), component.clone(), name.clone()), value.clone());
        Ok(())
    }

    fn put_policy(&mut self, record: &PolicyRecord, operator: bool) -> Result<(), String> {
        check_name("policy", &record.name)?;
        if !self.vhosts.contains_key(&record.vhost) {
            return Err(no_vhost(&record.vhost));
        }
        let policy = Rc::new(Policy::new(record, operator)?);
        let key = (record.vhost.clone(), record.name.clone());
        let policies = if operator { &mut self.operator_policies } else { &mut self.policies };
        policies.insert(key, policy);
        Ok(())
    }

    /// Everything, each after what it refers to.
    pub(crate) fn records(&self) -> Vec<Record> {
        let mut records: Vec<Record> = self.vhosts.values().cloned().map(Record::Vhost).collect();
        records.extend(self.users.iter().map(|(name, user)| Record::User(user_record(name, user))));
        for (user, account) in &self.users {
            for (vhost, permission) in &account.permissions {
                records.push(Record::Permission(PermissionRecord {
                    user: user.clone(),
                    vhost: vhost.clone(),
                    configure: permission.configure.text().into(),
                    write: permission.write.text().into(),
                    read: permission.read.text().into(),
                }));
            }
            for (vhost, exchanges) in &account.topics {
                records.extend(exchanges.iter().map(|(exchange, topic)| {
                    Record::Topic(TopicRecord {
                        user: user.clone(),
                        vhost: vhost.clone(),
                        exchange: exchange.clone(),
                        write: topic.text(Access::Write).into(),
                        read: topic.text(Access::Read).into(),
                    })
                }));
            }
        }
        for ((vhost, component, name), value) in &self.parameters {
            records.push(Record::Parameter(Parameter {
                vhost: vhost.clone(),
                component: component.clone(),
                name: name.clone(),
                value: value.clone(),
            }));
        }
        for (name, value) in &self.global_parameters {
            let parameter = GlobalParameter { name: name.clone(), value: value.clone() };
            records.push(Record::Global(parameter));
        }
        records.extend(self.policies.values().map(|policy| Record::Policy(policy.record.clone())));
        let operator = self.operator_policies.values();
        records.extend(operator.map(|policy| Record::OperatorPolicy(policy.record.clone())));
        records
    }
}

/// A user, as definitions have it.
pub(crate) fn user_record(name: &str, account: &Account) -> UserRecord {
    let (hash, algorithm) = match &account.password {
        Some(hash) => (hash.text(), hash.hashing()),
        None => ("", Hashing::Sha256),
    };
    let mut limits = Map::new();
    for (limit, value) in [
        ("max-connections", account.limits.max_connections),
        ("max-channels", account.limits.max_channels),
    ] {
        if let Some(value) = value {
            limits.insert(limit.into(), value.into());
        }
    }
    UserRecord {
        name: name.into(),
        password_hash: hash.into(),
        hashing_algorithm: algorithm.name().into(),
        tags: account.tags.clone(),
        limits,
    }
}

pub(crate) fn no_vhost(vhost: &str) -> String {
    format!("Virtual host '{vhost}' does not exist")
}

pub(crate) fn no_user(user: &str) -> String {
    format!("User '{user}' does not exist")
}

fn bad_pattern(user: &str, vhost: &str, (pattern, error): &(String, String)) -> String {
    format!(
        "Failed to set permissions for '{user}' in virtual host '{vhost}': regular expression '{pattern}' is invalid: {error}"
    )
}

fn check_name(what: &str, name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err(format!("a {what} has no name"));
    }
    if NAME_BYTES_MAX < name.len() {
        return Err(format!(
            "the name of a {what} should be less than 255 bytes, actually has {}",
            name.len()
        ));
    }
    Ok(())
}

/// Limits are integers; others than the known ones are refused.
fn limits(value: &Value, known: &[&str]) -> Result<(), String> {
    let Some(limits) = value.as_object() else {
        return Err(format!("limits should be a dictionary, actually was {value}"));
    };
    for (limit, value) in limits {
        if !known.contains(&limit.as_str()) {
            return Err(format!("Unrecognised terms [{{\"{limit}\",{value}}}] in limits"));
        }
        if value.as_i64().is_none() {
            return Err(format!("{limit} should be a number, actually was {value}"));
        }
    }
    Ok(())
}

fn user_limits(value: &Map<String, Value>) -> Result<UserLimits, String> {
    limits(&Value::Object(value.clone()), &["max-connections", "max-channels"])?;
    let limit = |name: &str| value.get(name).and_then(Value::as_u64);
    Ok(UserLimits {
        max_connections: limit("max-connections"),
        max_channels: limit("max-channels"),
    })
}

#[cfg(test)]
mod tests {
    use super::record::{PermissionRecord, Record, RecordKey, UserRecord};
    use super::{Access, Tenancy};

    fn user(name: &str) -> Record {
        Record::User(UserRecord { name: name.into(), ..UserRecord::default() })
    }

    fn permission(user: &str, vhost: &str, write: &str) -> Record {
        let text = String::from;
        Record::Permission(PermissionRecord {
            user: text(user),
            vhost: text(vhost),
            configure: text(""),
            write: text(write),
            read: text(".*"),
        })
    }

    #[test]
    fn a_permission_needs_its_user_and_its_virtual_host() {
        let mut tenancy = Tenancy::new();
        let error = tenancy.put(&permission("ann", "/", "^a")).unwrap_err();
        assert_eq!(error, "User 'ann' does not exist");
        tenancy.put(&user("ann")).unwrap();
        let error = tenancy.put(&permission("ann", "prod", "^a")).unwrap_err();
        assert_eq!(error, "Virtual host 'prod' does not exist");
        let error = tenancy.put(&permission("ann", "/", "(")).unwrap_err();
        assert!(error.contains("regular expression '(' is invalid"), "{error}");
        tenancy.put(&permission("ann", "/", "^a")).unwrap();
        assert!(tenancy.allows("ann", "/", Access::Write, "a1"));
        assert!(!tenancy.allows("ann", "/", Access::Write, "b1"));
        assert!(!tenancy.allows("ann", "/", Access::Configure, "a1"));
        assert!(tenancy.may_open("ann", "/") && !tenancy.may_open("bob", "/"));
        // Another password leaves the permissions alone; deleting the user does not.
        tenancy.put(&user("ann")).unwrap();
        assert!(tenancy.may_open("ann", "/"));
        assert!(tenancy.delete(&RecordKey::User("ann".into())));
        tenancy.put(&user("ann")).unwrap();
        assert!(!tenancy.may_open("ann", "/"));
    }

    #[test]
    fn records_make_the_same_again() {
        let mut tenancy = Tenancy::new();
        tenancy.put(&user("ann")).unwrap();
        tenancy.put(&permission("ann", "/", "^a")).unwrap();
        let mut again = Tenancy::new();
        for record in tenancy.records() {
            again.put(&record).unwrap();
        }
        assert_eq!(tenancy.records(), again.records());
    }
}
