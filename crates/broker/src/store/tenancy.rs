//! Users, permissions, virtual hosts, parameters and policies in SQLite.

use rusqlite::{Connection, Row, Transaction, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::tenancy::record::{
    GlobalParameter, Parameter, PermissionRecord, PolicyRecord, Record, RecordKey, TopicRecord,
    UserRecord, VhostRecord,
};

/// Came with format 2. What is a list or a dictionary is JSON.
pub(super) const SCHEMA: &str = "
    CREATE TABLE vhosts (
        name TEXT PRIMARY KEY, description TEXT NOT NULL, tags TEXT NOT NULL, default_queue_type TEXT,
        tracing INTEGER NOT NULL
    ) WITHOUT ROWID, STRICT;
    CREATE TABLE users (
        name TEXT PRIMARY KEY, password_hash TEXT NOT NULL, hashing_algorithm TEXT NOT NULL, tags TEXT NOT NULL,
        limits TEXT NOT NULL
    ) WITHOUT ROWID, STRICT;
    CREATE TABLE permissions (
        user TEXT NOT NULL, vhost TEXT NOT NULL, configure TEXT NOT NULL, write TEXT NOT NULL, read TEXT NOT NULL,
        PRIMARY KEY (user, vhost)
    ) WITHOUT ROWID, STRICT;
    CREATE TABLE topic_permissions (
        user TEXT NOT NULL, vhost TEXT NOT NULL, exchange TEXT NOT NULL, write TEXT NOT NULL, read TEXT NOT NULL,
        PRIMARY KEY (user, vhost, exchange)
    ) WITHOUT ROWID, STRICT;
    CREATE TABLE parameters (
        vhost TEXT NOT NULL, component TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL,
        PRIMARY KEY (vhost, component, name)
    ) WITHOUT ROWID, STRICT;
    CREATE TABLE global_parameters (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID, STRICT;
    CREATE TABLE policies (
        vhost TEXT NOT NULL, name TEXT NOT NULL, operator INTEGER NOT NULL, pattern TEXT NOT NULL,
        apply_to TEXT NOT NULL, definition TEXT NOT NULL, priority INTEGER NOT NULL,
        PRIMARY KEY (vhost, name, operator)
    ) WITHOUT ROWID, STRICT;
";

/// Everything, each record after what it refers to.
pub(super) fn read(connection: &Connection) -> rusqlite::Result<Vec<Record>> {
    let mut records = Vec::new();
    let mut query = |sql: &str, make: &dyn Fn(&Row<'_>) -> rusqlite::Result<Record>| {
        let mut statement = connection.prepare(sql)?;
        for record in statement.query_map([], make)? {
            records.push(record?);
        }
        Ok::<(), rusqlite::Error>(())
    };
    query("SELECT name, description, tags, default_queue_type, tracing FROM vhosts", &|row| {
        Ok(Record::Vhost(VhostRecord {
            name: row.get(0)?,
            description: row.get(1)?,
            tags: json(row, 2)?,
            default_queue_type: row.get(3)?,
            tracing: row.get(4)?,
        }))
    })?;
    query("SELECT name, password_hash, hashing_algorithm, tags, limits FROM users", &|row| {
        Ok(Record::User(UserRecord {
            name: row.get(0)?,
            password_hash: row.get(1)?,
            hashing_algorithm: row.get(2)?,
            tags: json(row, 3)?,
            limits: json(row, 4)?,
        }))
    })?;
    query("SELECT user, vhost, configure, write, read FROM permissions", &|row| {
        Ok(Record::Permission(PermissionRecord {
            user: row.get(0)?,
            vhost: row.get(1)?,
            configure: row.get(2)?,
            write: row.get(3)?,
            read: row.get(4)?,
        }))
    })?;
    query("SELECT user, vhost, exchange, write, read FROM topic_permissions", &|row| {
        Ok(Record::Topic(TopicRecord {
            user: row.get(0)?,
            vhost: row.get(1)?,
            exchange: row.get(2)?,
            write: row.get(3)?,
            read: row.get(4)?,
        }))
    })?;
    query("SELECT vhost, component, name, value FROM parameters", &|row| {
        Ok(Record::Parameter(Parameter {
            vhost: row.get(0)?,
            component: row.get(1)?,
            name: row.get(2)?,
            value: json(row, 3)?,
        }))
    })?;
    query("SELECT name, value FROM global_parameters", &|row| {
        Ok(Record::Global(GlobalParameter { name: row.get(0)?, value: json(row, 1)? }))
    })?;
    let policies =
        "SELECT vhost, name, pattern, apply_to, definition, priority, operator FROM policies";
    query(policies, &|row| {
        let policy = PolicyRecord {
            vhost: row.get(0)?,
            name: row.get(1)?,
            pattern: row.get(2)?,
            apply_to: row.get(3)?,
            definition: json(row, 4)?,
            priority: row.get(5)?,
        };
        Ok(if row.get(6)? { Record::OperatorPolicy(policy) } else { Record::Policy(policy) })
    })?;
    Ok(records)
}

pub(super) fn put(transaction: &Transaction<'_>, record: &Record) -> rusqlite::Result<usize> {
    match record {
        Record::Vhost(vhost) => transaction.execute(
            "INSERT OR REPLACE INTO vhosts VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                vhost.name,
                vhost.description,
                text(&vhost.tags)?,
                vhost.default_queue_type,
                vhost.tracing
            ],
        ),
        Record::User(user) => transaction.execute(
            "INSERT OR REPLACE INTO users VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                user.name,
                user.password_hash,
                user.hashing_algorithm,
                text(&user.tags)?,
                text(&user.limits)?
            ],
        ),
        Record::Permission(of) => transaction.execute(
            "INSERT OR REPLACE INTO permissions VALUES (?1, ?2, ?3, ?4, ?5)",
            params![of.user, of.vhost, of.configure, of.write, of.read],
        ),
        Record::Topic(of) => transaction.execute(
            "INSERT OR REPLACE INTO topic_permissions VALUES (?1, ?2, ?3, ?4, ?5)",
            params![of.user, of.vhost, of.exchange, of.write, of.read],
        ),
        Record::Parameter(of) => transaction.execute(
            "INSERT OR REPLACE INTO parameters VALUES (?1, ?2, ?3, ?4)",
            params![of.vhost, of.component, of.name, text(&of.value)?],
        ),
        Record::Global(of) => transaction.execute(
            "INSERT OR REPLACE INTO global_parameters VALUES (?1, ?2)",
            params![of.name, text(&of.value)?],
        ),
        Record::Policy(policy) => put_policy(transaction, policy, false),
        Record::OperatorPolicy(policy) => put_policy(transaction, policy, true),
    }
}

fn put_policy(
    transaction: &Transaction<'_>,
    policy: &PolicyRecord,
    operator: bool,
) -> rusqlite::Result<usize> {
    transaction.execute(
        "INSERT OR REPLACE INTO policies (vhost, name, operator, pattern, apply_to, definition, priority)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            policy.vhost,
            policy.name,
            operator,
            policy.pattern,
            policy.apply_to,
            text(&policy.definition)?,
            policy.priority
        ],
    )
}

/// Deletes a record with what belongs to it.
pub(super) fn delete(transaction: &Transaction<'_>, key: &RecordKey) -> rusqlite::Result<usize> {
    match key {
        RecordKey::Vhost(name) => {
            for table in ["permissions", "topic_permissions", "parameters", "policies"] {
                transaction.execute(&format!("DELETE FROM {table} WHERE vhost = ?1"), [name])?;
            }
            transaction.execute("DELETE FROM vhosts WHERE name = ?1", [name])
        }
        RecordKey::User(name) => {
            for table in ["permissions", "topic_permissions"] {
                transaction.execute(&format!("DELETE FROM {table} WHERE user = ?1"), [name])?;
            }
            transaction.execute("DELETE FROM users WHERE name = ?1", [name])
        }
        RecordKey::Permission { user, vhost } => transaction
            .execute("DELETE FROM permissions WHERE user = ?1 AND vhost = ?2", [user, vhost]),
        RecordKey::Topic { user, vhost, exchange } => transaction.execute(
            "DELETE FROM topic_permissions WHERE user = ?1 AND vhost = ?2 AND exchange = ?3",
            [user, vhost, exchange],
        ),
        RecordKey::Parameter { vhost, component, name } => transaction.execute(
            "DELETE FROM parameters WHERE vhost = ?1 AND component = ?2 AND name = ?3",
            [vhost, component, name],
        ),
        RecordKey::Global(name) => {
            transaction.execute("DELETE FROM global_parameters WHERE name = ?1", [name])
        }
        RecordKey::Policy { vhost, name } => delete_policy(transaction, vhost, name, false),
        RecordKey::OperatorPolicy { vhost, name } => delete_policy(transaction, vhost, name, true),
    }
}

fn delete_policy(
    transaction: &Transaction<'_>,
    vhost: &str,
    name: &str,
    operator: bool,
) -> rusqlite::Result<usize> {
    transaction.execute(
        "DELETE FROM policies WHERE vhost = ?1 AND name = ?2 AND operator = ?3",
        params![vhost, name, operator],
    )
}

fn text(value: &impl Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

fn json<T: DeserializeOwned>(row: &Row<'_>, index: usize) -> rusqlite::Result<T> {
    let text: String = row.get(index)?;
    serde_json::from_str(&text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(
            index,
            rusqlite::types::Type::Text,
            Box::new(error),
        )
    })
}
