//! Peers that stop in the middle of something.

use std::io::Write;
use std::net::TcpStream;

use warren::amqp::frame;
use warren::amqp::method::{basic, queue};

use super::{dial, is_well, log_in, mute, read_to_end, serve};
use crate::support::resident_kib;

#[test]
fn who_says_nothing_is_sent_away() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, url) = serve(folder.path(), &["--handshake-timeout", "1"]);
    let mut silent: Vec<TcpStream> = (0..50).map(|_| dial(&url)).collect();
    // Half of the header, half of a login, and a login without an end.
    let said = log_in(0);
    for length in [3, 60, said.len() - 40] {
        let mut stream = dial(&url);
        stream.write_all(&said[..length]).unwrap();
        silent.push(stream);
    }
    is_well(&url);
    for stream in &mut silent {
        read_to_end(stream);
    }
    is_well(&url);
}

#[test]
fn who_sends_half_a_frame_and_stops_is_missed_and_harms_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, url) = serve(folder.path(), &[]);
    let mut publish = Vec::new();
    let method = basic::Publish { routing_key: "q", ..Default::default() };
    frame::write_method(&mut publish, 1, &method);
    let within_method = publish.len() / 2;
    frame::write_content(&mut publish, 1, 60, &[0, 0], &[b'x'; 10_000], 131_072);
    let mut halves: Vec<TcpStream> = [1, within_method, within_method * 2 + 10, publish.len() - 1]
        .into_iter()
        .map(|length| mute(&url, 1, &publish[..length]))
        .collect();
    is_well(&url);
    for half in &mut halves {
        // Its heart does not beat: it was not to wait for ever.
        read_to_end(half);
    }
    is_well(&url);
}

#[test]
fn an_announced_body_takes_no_memory_before_it_comes() {
    const PEERS: u64 = 200;
    let folder = tempfile::tempdir().unwrap();
    let (server, url) = serve(folder.path(), &[]);
    let mut promise = Vec::new();
    let declare = queue::Declare { queue: "q", no_wait: true, ..Default::default() };
    frame::write_method(&mut promise, 1, &declare);
    let publish = basic::Publish { routing_key: "q", ..Default::default() };
    frame::write_method(&mut promise, 1, &publish);
    frame::write_content_header(&mut promise, 1, 60, &[0, 0], 128 * 1024 * 1024);
    is_well(&url);
    let before = resident_kib(server.pid());
    let peers: Vec<TcpStream> = (0..PEERS).map(|_| mute(&url, 0, &promise)).collect();
    is_well(&url);
    let each = (resident_kib(server.pid()) - before) / PEERS;
    assert!(each < 64, "{each} KiB for each of those who promise 128 MiB");
    drop(peers);
    is_well(&url);
}
