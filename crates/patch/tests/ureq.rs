//! `ureq`, unmodified: a hundred requests in flight on one hub.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Barrier};
use std::thread;

use support::AT_ONCE;
use warren_hub::{join_all, run, spawn};
use warren_patch::patch_all;

mod support;

#[test]
fn a_hundred_requests_are_in_flight_at_once() {
    support::watchdog();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    // No request is answered before all have come.
    let all_there = Arc::new(Barrier::new(AT_ONCE));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, all_there) = (stream.unwrap(), all_there.clone());
            thread::spawn(move || {
                let request = BufReader::new(stream.try_clone().unwrap());
                let lines: Vec<String> = request
                    .lines()
                    .map(Result::unwrap)
                    .take_while(|line| !line.is_empty())
                    .collect();
                all_there.wait();
                let path = lines[0].split(' ').nth(1).unwrap();
                let length = path.len();
                let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length:";
                write!(stream, "{head} {length}\r\n\r\n{path}").unwrap();
            });
        }
    });
    patch_all();
    run(move || {
        let requests = (0..AT_ONCE).map(|n| {
            let url = format!("{url}{n}");
            spawn(move || ureq::get(&url).call().unwrap().body_mut().read_to_string().unwrap())
        });
        for (n, body) in join_all(requests).into_iter().enumerate() {
            assert_eq!(body.unwrap(), format!("/{n}"));
        }
    });
}
