//! Definitions: a small SQLite file, changed in transactions.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Params, Transaction, params};

use super::tenancy;
use super::{
    BindingDefinition, Definition, ExchangeDefinition, QueueDefinition, Recovered, StoreError,
};

/// Each leads from one format to the next. The format of a file is how many it has seen, kept in SQLite's
/// `user_version`; 0 is a new file. What has been released is never changed: a change is another migration.
const MIGRATIONS: &[&str] = &[SCHEMA, tenancy::SCHEMA, VHOSTS, SCHEDULES];
const FORMAT: u32 = MIGRATIONS.len() as u32;

const SCHEMA: &str = "
    CREATE TABLE exchanges (
        name TEXT PRIMARY KEY, kind TEXT NOT NULL, auto_delete INTEGER NOT NULL, internal INTEGER NOT NULL,
        arguments BLOB NOT NULL
    ) WITHOUT ROWID, STRICT;
    -- AUTOINCREMENT: the number of a deleted queue never names another one.
    CREATE TABLE queues (
        id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, auto_delete INTEGER NOT NULL,
        arguments BLOB NOT NULL
    ) STRICT;
    CREATE TABLE bindings (
        source TEXT NOT NULL, to_queue INTEGER NOT NULL, destination TEXT NOT NULL, routing_key TEXT NOT NULL,
        arguments BLOB NOT NULL,
        PRIMARY KEY (source, to_queue, destination, routing_key, arguments)
    ) WITHOUT ROWID, STRICT;
    CREATE INDEX bindings_by_destination ON bindings (destination, to_queue);
";

/// Format 3: names are those of a virtual host. Until then there was one.
const VHOSTS: &str = "
    ALTER TABLE exchanges RENAME TO old_exchanges;
    ALTER TABLE queues RENAME TO old_queues;
    ALTER TABLE bindings RENAME TO old_bindings;
    DROP INDEX bindings_by_destination;
    CREATE TABLE exchanges (
        vhost TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL, auto_delete INTEGER NOT NULL,
        internal INTEGER NOT NULL, arguments BLOB NOT NULL,
        PRIMARY KEY (vhost, name)
    ) WITHOUT ROWID, STRICT;
    CREATE TABLE queues (
        id INTEGER PRIMARY KEY AUTOINCREMENT, vhost TEXT NOT NULL, name TEXT NOT NULL, auto_delete INTEGER NOT NULL,
        arguments BLOB NOT NULL,
        UNIQUE (vhost, name)
    ) STRICT;
    CREATE TABLE bindings (
        vhost TEXT NOT NULL, source TEXT NOT NULL, to_queue INTEGER NOT NULL, destination TEXT NOT NULL,
        routing_key TEXT NOT NULL, arguments BLOB NOT NULL,
        PRIMARY KEY (vhost, source, to_queue, destination, routing_key, arguments)
    ) WITHOUT ROWID, STRICT;
    CREATE INDEX bindings_by_destination ON bindings (vhost, destination, to_queue);
    INSERT INTO exchanges SELECT '/', name, kind, auto_delete, internal, arguments FROM old_exchanges;
    INSERT INTO queues SELECT id, '/', name, auto_delete, arguments FROM old_queues;
    INSERT INTO bindings SELECT '/', source, to_queue, destination, routing_key, arguments FROM old_bindings;
    -- Numbers of queues deleted before are not used again.
    INSERT INTO sqlite_sequence (name, seq)
        SELECT 'queues', seq FROM sqlite_sequence WHERE name = 'old_queues'
        AND NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'queues');
    UPDATE sqlite_sequence SET seq = (SELECT max(seq) FROM sqlite_sequence WHERE name IN ('queues', 'old_queues'))
        WHERE name = 'queues';
    DROP TABLE old_exchanges;
    DROP TABLE old_queues;
    DROP TABLE old_bindings;
";

/// Format 4: the log keeps delayed messages under numbers of exchanges.
const SCHEDULES: &str = "ALTER TABLE exchanges ADD COLUMN schedule INTEGER NOT NULL DEFAULT 0;";

pub(super) struct Definitions {
    connection: Connection,
}

impl Definitions {
    pub(super) fn open(path: &Path, recovered: &mut Recovered) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Definitions { path: path.to_owned(), source };
        let connection = Connection::open(path).map_err(failed)?;
        // There are password hashes in it: for its owner only, as what SQLite lays beside it.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
            .map_err(StoreError::io("protect", path))?;
        prepare(&connection, path)?;
        read(&connection, recovered).map_err(failed)?;
        Ok(Self { connection })
    }

    /// What SQLite finds to be wrong with the file.
    pub(super) fn faults(&self) -> Vec<String> {
        let faults = || {
            let mut statement = self.connection.prepare("PRAGMA integrity_check")?;
            statement.query_map([], |row| row.get::<_, String>(0))?.collect()
        };
        let faults: rusqlite::Result<Vec<String>> = faults();
        let mut faults = faults.unwrap_or_else(|error| vec![error.to_string()]);
        faults.retain(|fault| fault != "ok");
        faults
    }

    /// Applies changes, all or none. On disk when this returns.
    pub(super) fn apply(&mut self, changes: &[Definition]) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        for change in changes {
            apply(&transaction, change)?;
        }
        transaction.commit()
    }
}

fn prepare(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let path = || -> PathBuf { path.to_owned() };
    let failed = |source| StoreError::Definitions { path: path(), source };
    let found: u32 =
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
    if FORMAT < found {
        return Err(StoreError::Format { path: path(), found, known: FORMAT });
    }
    connection
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")
        .map_err(failed)?;
    // One by one, so that a server that is stopped between two goes on where it was.
    for (done, migration) in MIGRATIONS.iter().enumerate().skip(found as usize) {
        let migrate = format!("BEGIN; {migration} PRAGMA user_version = {}; COMMIT;", done + 1);
        connection.execute_batch(&migrate).map_err(failed)?;
    }
    Ok(())
}

fn read(connection: &Connection, recovered: &mut Recovered) -> rusqlite::Result<()> {
    let mut exchanges = connection.prepare(
        "SELECT name, kind, auto_delete, internal, arguments, vhost, schedule FROM exchanges
         ORDER BY vhost, name",
    )?;
    recovered.exchanges = exchanges
        .query_map([], |row| {
            Ok(ExchangeDefinition {
                name: row.get(0)?,
                kind: row.get(1)?,
                auto_delete: row.get(2)?,
                internal: row.get(3)?,
                arguments: row.get(4)?,
                vhost: row.get(5)?,
                schedule: row.get::<_, i64>(6)? as u64,
            })
        })?
        .collect::<Result<_, _>>()?;
    let mut queues = connection
        .prepare("SELECT id, name, auto_delete, arguments, vhost FROM queues ORDER BY id")?;
    recovered.queues = queues
        .query_map([], |row| {
            Ok(QueueDefinition {
                id: row.get::<_, i64>(0)? as u64,
                name: row.get(1)?,
                auto_delete: row.get(2)?,
                arguments: row.get(3)?,
                vhost: row.get(4)?,
            })
        })?
        .collect::<Result<_, _>>()?;
    let mut bindings = connection.prepare(
        "SELECT source, destination, to_queue, routing_key, arguments, vhost FROM bindings
         ORDER BY vhost, source, destination, routing_key",
    )?;
    recovered.bindings = bindings
        .query_map([], |row| {
            Ok(BindingDefinition {
                source: row.get(0)?,
                destination: row.get(1)?,
                to_queue: row.get(2)?,
                routing_key: row.get(3)?,
                arguments: row.get(4)?,
                vhost: row.get(5)?,
            })
        })?
        .collect::<Result<_, _>>()?;
    recovered.tenancy = tenancy::read(connection)?;
    let mut last = connection.prepare("SELECT seq FROM sqlite_sequence WHERE name = 'queues'")?;
    let mut rows = last.query([])?;
    recovered.last_queue_id = match rows.next()? {
        Some(row) => row.get::<_, i64>(0)? as u64,
        None => 0,
    };
    Ok(())
}

fn apply(transaction: &Transaction<'_>, change: &Definition) -> rusqlite::Result<()> {
    match change {
        Definition::PutExchange(exchange) => {
            if exchange.schedule != 0 {
                use_number(transaction, exchange.schedule)?;
            }
            run(
            transaction,
                "INSERT OR REPLACE INTO exchanges
                 (vhost, name, kind, auto_delete, internal, arguments, schedule)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    exchange.vhost,
                    exchange.name,
                    exchange.kind,
                    exchange.auto_delete,
                    exchange.internal,
                    exchange.arguments,
                    exchange.schedule as i64
                ],
            )?
        }
        Definition::DeleteExchange { vhost, name, .. } => {
            run(
            transaction,
                "DELETE FROM bindings
                 WHERE vhost = ?1 AND (source = ?2 OR (destination = ?2 AND to_queue = 0))",
                [vhost, name],
            )?;
            run(
            transaction,"DELETE FROM exchanges WHERE vhost = ?1 AND name = ?2", [vhost, name])?
        }
        Definition::PutQueue(queue) => run(
            transaction,
            "INSERT OR REPLACE INTO queues (id, vhost, name, auto_delete, arguments)
             VALUES (?1, ?2, ?3, ?4, ?5)",
            params![queue.id as i64, queue.vhost, queue.name, queue.auto_delete, queue.arguments],
        )?,
        Definition::DeleteQueue(id) => {
            run(
            transaction,
                "DELETE FROM bindings WHERE to_queue = 1
                 AND (vhost, destination) = (SELECT vhost, name FROM queues WHERE id = ?1)",
                [*id as i64],
            )?;
            run(transaction, "DELETE FROM queues WHERE id = ?1", [*id as i64])?
        }
        Definition::Put(record) => tenancy::put(transaction, record)?,
        Definition::Delete(key) => tenancy::delete(transaction, key)?,
        Definition::PutBinding(binding) => run(
            transaction,
            "INSERT OR REPLACE INTO bindings (source, to_queue, destination, routing_key, arguments, vhost)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            binding_params(binding),
        )?,
        Definition::DeleteBinding(binding) => run(
            transaction,
            "DELETE FROM bindings WHERE source = ?1 AND to_queue = ?2 AND destination = ?3
             AND routing_key = ?4 AND arguments = ?5 AND vhost = ?6",
            binding_params(binding),
        )?,
    };
    Ok(())
}

/// Sees to it that no queue gets this number any more.
fn use_number(transaction: &Transaction<'_>, number: u64) -> rusqlite::Result<()> {
    run(
        transaction,
        "INSERT INTO sqlite_sequence (name, seq) SELECT 'queues', 0
         WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'queues')",
        [],
    )?;
    run(
        transaction,
        "UPDATE sqlite_sequence SET seq = max(seq, ?1) WHERE name = 'queues'",
        [number as i64],
    )?;
    Ok(())
}

/// Executes a statement, which is parsed the first time only.
fn run(transaction: &Transaction<'_>, sql: &str, params: impl Params) -> rusqlite::Result<usize> {
    transaction.prepare_cached(sql)?.execute(params)
}

fn binding_params(binding: &BindingDefinition) -> (&str, bool, &str, &str, &[u8], &str) {
    (
        &binding.source,
        binding.to_queue,
        &binding.destination,
        &binding.routing_key,
        &binding.arguments,
        &binding.vhost,
    )
}
