//! The blocking `redis` crate, unmodified, against a real server.

use redis::{Client, Commands, Connection};
use support::{AT_ONCE, servers};
use warren_hub::{join_all, run, sleep, spawn};
use warren_patch::patch_all;

mod support;

#[test]
fn a_hundred_pops_wait_at_once() {
    support::watchdog();
    let Some(server) = servers::redis() else { return };
    let url = format!("redis://127.0.0.1:{}/", server.port);
    patch_all();
    run(move || {
        let connect = move || Client::open(&*url).unwrap().get_connection().unwrap();
        let mut control = connect();
        let pops: Vec<_> = (0..AT_ONCE)
            .map(|n| {
                let connect = connect.clone();
                spawn(move || {
                    let mut connection = connect();
                    let key = format!("list {n}");
                    // Without a time to give up: only a push ends it.
                    let popped: (String, usize) = connection.blpop(&key, 0.0).unwrap();
                    assert_eq!(popped, (key, n));
                })
            })
            .collect();
        // The server counts them: all wait there, and the hub goes on.
        while blocked_clients(&mut control) < AT_ONCE {
            sleep(std::time::Duration::from_millis(1));
        }
        for n in 0..AT_ONCE {
            let _: usize = control.rpush(format!("list {n}"), n).unwrap();
        }
        assert!(join_all(pops).iter().all(Result::is_ok));
        assert_eq!(blocked_clients(&mut control), 0);
    });
}

fn blocked_clients(connection: &mut Connection) -> usize {
    let info: String = redis::cmd("INFO").arg("clients").query(connection).unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("blocked_clients:"));
    line.unwrap().parse().unwrap()
}
