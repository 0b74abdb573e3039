//! tokio-postgres over a hub's stream, against a real server. No tokio runtime.

use std::rc::Rc;
use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Error, NoTls};
use warren_hub::net::TcpStream;
use warren_hub::{JoinHandle, future, join_all, run, sleep, spawn};

use super::servers;

/// A client, and the fiber that runs its connection.
fn connect(port: u16) -> (Client, JoinHandle<Result<(), Error>>) {
    let stream = TcpStream::connect(("localhost", port)).unwrap();
    let mut config = Config::new();
    config.user("postgres").dbname("postgres");
    let (client, connection) = future::wait(config.connect_raw(stream, NoTls)).unwrap();
    (client, future::spawn(connection))
}

#[test]
fn tokio_postgres_runs_on_fibers() {
    let Some(server) = servers::postgres() else { return };
    let port = server.port;
    run(move || {
        let (mut client, connection) = connect(port);
        let sum = future::wait(client.query_one("SELECT $1::int8 + $2::int8", &[&40i64, &2i64]));
        assert_eq!(sum.unwrap().get::<_, i64>(0), 42);

        // A transaction that is rolled back, and one that is not.
        let create = "CREATE TABLE burrow (id int PRIMARY KEY, name text NOT NULL)";
        future::wait(client.batch_execute(create)).unwrap();
        for (id, kept) in [(1, false), (2, true)] {
            future::wait(async {
                let transaction = client.transaction().await?;
                let insert = "INSERT INTO burrow VALUES ($1, $2)";
                transaction.execute(insert, &[&id, &format!("burrow {id}")]).await?;
                if kept { transaction.commit().await } else { transaction.rollback().await }
            })
            .unwrap();
        }
        let rows = future::wait(client.query("SELECT id, name FROM burrow", &[])).unwrap();
        let rows: Vec<(i32, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!(rows, [(2, "burrow 2".to_owned())]);

        // An error of the server's, after which the connection goes on.
        let twice = future::wait(client.execute("INSERT INTO burrow VALUES (2, 'again')", &[]));
        let code = twice.unwrap_err().code().cloned();
        assert_eq!(code, Some(SqlState::UNIQUE_VIOLATION));

        // Fibers share the client: their queries are pipelined.
        let client = Rc::new(client);
        let fibers = (0..20).map(|number: i32| {
            let client = client.clone();
            spawn(move || {
                let row = future::wait(client.query_one("SELECT $1::int4 * 2", &[&number]));
                assert_eq!(row.unwrap().get::<_, i32>(0), 2 * number);
            })
        });
        for ended in join_all(fibers) {
            ended.unwrap();
        }
        drop(client);
        connection.join().unwrap().unwrap();
    });
}

#[test]
fn connections_of_many_fibers_wait_for_the_server_at_once() {
    const WAITING: i64 = 10;
    let Some(server) = servers::postgres() else { return };
    let port = server.port;
    run(move || {
        let (holder, _connection) = connect(port);
        future::wait(holder.batch_execute("SELECT pg_advisory_lock(1)")).unwrap();
        let fibers: Vec<_> = (0..WAITING)
            .map(|_| {
                spawn(move || {
                    let (client, _connection) = connect(port);
                    let turn = "SELECT pg_advisory_lock(1); SELECT pg_advisory_unlock(1)";
                    future::wait(client.batch_execute(turn)).unwrap();
                })
            })
            .collect();
        let count = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
        let waiting = || -> i64 { future::wait(holder.query_one(count, &[])).unwrap().get(0) };
        while waiting() < WAITING {
            sleep(Duration::from_millis(5));
        }
        assert!(fibers.iter().all(|fiber| !fiber.is_finished()));
        future::wait(holder.batch_execute("SELECT pg_advisory_unlock(1)")).unwrap();
        for ended in join_all(fibers) {
            ended.unwrap();
        }
    });
}
