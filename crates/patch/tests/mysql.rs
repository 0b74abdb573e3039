//! The blocking `mysql` crate, unmodified, against a real server.

use std::time::Duration;

use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder};
use support::{AT_ONCE, servers};
use warren_hub::{join_all, run, sleep, spawn};
use warren_patch::patch_all;

mod support;

#[test]
fn a_hundred_queries_run_at_once() {
    support::watchdog();
    let Some(server) = servers::mariadb() else { return };
    let socket = server.socket();
    patch_all();
    run(move || {
        let connect = move || {
            let options = OptsBuilder::new().user(Some("root")).prefer_socket(true);
            Conn::new(options.socket(Some(socket.to_str().unwrap()))).unwrap()
        };
        let mut control = connect();
        assert_eq!(control.query_first("SELECT GET_LOCK('go', 0)").unwrap(), Some(1));
        let queries: Vec<_> = (0..AT_ONCE)
            .map(|n| {
                let connect = connect.clone();
                spawn(move || {
                    let mut connection = connect();
                    let sleep = format!("SELECT {n} + SLEEP(0.05)");
                    assert_eq!(connection.query_first(sleep).unwrap(), Some(n));
                    // Waits for the lock that is held, and lets the next one have it.
                    let query = "SELECT GET_LOCK('go', 100) + RELEASE_LOCK('go')";
                    assert_eq!(connection.query_first(query).unwrap(), Some(2));
                })
            })
            .collect();
        // The server counts them: all wait there, and the hub goes on.
        let waiting =
            "SELECT COUNT(*) FROM information_schema.processlist WHERE state = 'User lock'";
        while control.query_first(waiting).unwrap() != Some(AT_ONCE) {
            sleep(Duration::from_millis(5));
        }
        assert_eq!(control.query_first("SELECT RELEASE_LOCK('go')").unwrap(), Some(1));
        assert!(join_all(queries).iter().all(Result::is_ok));
    });
}
