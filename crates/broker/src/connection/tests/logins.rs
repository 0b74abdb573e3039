//! Passwords whose hashes take long: they are checked elsewhere, and nobody else waits.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use warren_amqp::frame::{self, PROTOCOL_HEADER};
use warren_amqp::method::connection;
use warren_reactor::PeerAddr;
use warren_reactor::testing::End;

use super::{Client, FRAME_MAX, Server};
use crate::admin::Request;
use crate::auth::{LoginOptions, Mechanism, SlowCheck};
use crate::connection::ConnectionKey;
use crate::limits::Limits;

const REFUSED: &str = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see \
                       the broker logfile.";

type Jobs = Rc<RefCell<VecDeque<(ConnectionKey, SlowCheck)>>>;

/// A server with a user whose hash is slow, and the hashes that are to be computed: two at once.
fn server() -> (Server, Jobs) {
    let server = Server::new();
    let text = String::from;
    let ann = Request::AddUser { name: text("ann"), password: text("secret"), tags: vec![] };
    server.administer(ann).unwrap();
    let all = || text(".*");
    let (configure, write, read) = (all(), all(), all());
    let (user, vhost) = (text("ann"), text("/"));
    let permissions = Request::SetPermissions { user, vhost, configure, write, read };
    server.administer(permissions).unwrap();
    let jobs = Jobs::default();
    let taken = jobs.clone();
    let hasher = Rc::new(move |key, check| taken.borrow_mut().push_back((key, check)));
    server.engine.borrow_mut().hash_by(hasher, 2);
    (server, jobs)
}

fn log_in(server: &Server, password: &str) -> Client {
    let mut client = server.dial(PeerAddr::Memory);
    client.log_in("PLAIN", format!("\0ann\0{password}").as_bytes());
    client
}

/// The first of the hashes is there.
fn compute(server: &Server, jobs: &Jobs) {
    let (key, check) = jobs.borrow_mut().pop_front().expect("a hash to compute");
    let right = check.run();
    let mut engine = server.engine.borrow_mut();
    engine.login_answered(key, &check, right);
    engine.hash_ended();
}

#[test]
fn a_storm_of_logins_waits_its_turn_and_the_others_go_on() {
    let (server, jobs) = server();
    let mut clients: Vec<Client> = (0..5).map(|_| log_in(&server, "secret")).collect();
    assert_eq!(jobs.borrow().len(), 2);
    let mut other = server.connect();
    other.declare("q");
    clients.iter_mut().for_each(Client::silent);
    for client in &mut clients {
        compute(&server, &jobs);
        client.tune(0);
    }
    assert!(jobs.borrow().is_empty());
    // It is known now, and costs nothing any more.
    log_in(&server, "secret").tune(0);
    assert!(jobs.borrow().is_empty());
}

#[test]
fn what_is_said_too_early_is_heard_later() {
    let (server, jobs) = server();
    let mut client = server.dial(PeerAddr::Memory);
    client.wire.feed(&PROTOCOL_HEADER);
    client.skip::<connection::Start<'_>>();
    let response = b"\0ann\0secret";
    let mut bytes = Vec::new();
    let start_ok = connection::StartOk { mechanism: "PLAIN", response, ..Default::default() };
    frame::write_method(&mut bytes, 0, &start_ok);
    let tune_ok = connection::TuneOk { channel_max: 7, frame_max: FRAME_MAX, heartbeat: 0 };
    frame::write_method(&mut bytes, 0, &tune_ok);
    frame::write_method(&mut bytes, 0, &connection::Open { virtual_host: "/" });
    client.wire.feed(&bytes);
    client.silent();
    compute(&server, &jobs);
    client.skip::<connection::Tune>();
    client.expect(0, &connection::OpenOk {});
}

#[test]
fn a_wrong_password_is_told_when_that_is_known() {
    let (server, jobs) = server();
    let mut wrong = log_in(&server, "Secret");
    let mut nobody = server.dial(PeerAddr::Memory);
    nobody.log_in("PLAIN", b"\0nobody\0secret");
    for client in [&mut wrong, &mut nobody] {
        client.silent();
        compute(&server, &jobs);
        client.expect_close(403, REFUSED, (0, 0));
        client.send(0, &connection::CloseOk {});
        client.silent();
        assert_eq!(client.wire.closed(), Some(End::Graceful));
    }
}

#[test]
fn who_has_gone_needs_no_answer() {
    let (server, jobs) = server();
    let mut clients: Vec<Client> = (0..4).map(|_| log_in(&server, "secret")).collect();
    for client in &mut clients[..3] {
        client.wire.lose();
    }
    // One that waited is skipped.
    compute(&server, &jobs);
    compute(&server, &jobs);
    compute(&server, &jobs);
    clients[3].tune(0);
    assert!(jobs.borrow().is_empty());
    assert_eq!(server.engine.borrow().connections.len(), 1);
}

#[test]
fn what_has_changed_meanwhile_counts() {
    let (server, jobs) = server();
    let mut client = log_in(&server, "secret");
    server.administer(Request::DeleteUser { name: "ann".into() }).unwrap();
    compute(&server, &jobs);
    client.expect_close(403, REFUSED, (0, 0));
}

#[test]
fn the_wait_has_the_end_of_every_handshake() {
    let (mut server, jobs) = server();
    server.engine.borrow_mut().limits = Limits { handshake_s: 3, ..Limits::default() };
    let client = log_in(&server, "secret");
    server.pass(3);
    assert_eq!(client.wire.closed(), Some(End::Abrupt));
    drop(client);
    compute(&server, &jobs);
    assert_eq!(server.engine.borrow().connections.len(), 0);
}

#[test]
fn only_what_is_offered_can_be_used() {
    let server = Server::new();
    let offer = |mechanisms: &[Mechanism]| LoginOptions {
        mechanisms: mechanisms.to_vec(),
        ..LoginOptions::default()
    };
    let mut client = server.dial_with(PeerAddr::Memory, offer(&[Mechanism::AmqPlain]));
    client.log_in("PLAIN", b"\0guest\0guest");
    let text = "COMMAND_INVALID - unknown authentication mechanism 'PLAIN'";
    client.expect_close(503, text, (10, 11));
    // Without TLS there is no certificate.
    let mut client = server.dial_with(PeerAddr::Memory, offer(&[Mechanism::External]));
    client.log_in("EXTERNAL", b"");
    client.expect_close(403, &REFUSED.replace("PLAIN", "EXTERNAL"), (0, 0));
}
