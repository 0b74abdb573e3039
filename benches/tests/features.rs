//! The parts of `cargo xtask bench features` do what they are to do: a thousandth of it, on a broker in this process.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use warren_benches::features::{Bench, PARTS, heading};
use warren_benches::machine::ProcessGroup;
use warren_benches::side::{Effort, Side};
use warren_broker::{Broker, Config};
use warren_reactor::listen_tcp;

#[test]
fn each_part_ends() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_owned();
    let (told, url) = mpsc::channel();
    let serve = move || {
        let config = Config { data_dir: Some(data), ..Config::default() };
        let broker = Broker::open(config).unwrap();
        let port = listen_tcp("127.0.0.1:0".parse().unwrap(), broker.factory()).unwrap();
        told.send(format!("amqp://{}", port.addr())).unwrap();
        loop {
            // Until the process ends.
            warren_hub::sleep(Duration::from_secs(3600));
        }
    };
    thread::spawn(|| warren_hub::run(serve));
    let group = rustix::process::getpgrp().as_raw_nonzero().get();
    let side = Side {
        url: url.recv().unwrap(),
        group: ProcessGroup(group.try_into().unwrap()),
        data: folder.path().to_owned(),
        is_rabbitmq: false,
    };
    let bench = Bench { sides: vec![side], effort: Effort::QUICK };
    assert!(heading(bench.effort).contains("the figures mean nothing"));
    for (name, run) in PARTS {
        run(&bench).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
