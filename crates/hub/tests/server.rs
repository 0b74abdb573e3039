//! Servers of streams and datagrams.

use std::cell::{Cell, RefCell};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use warren_hub::net::tls::{Acceptor, Connector};
use warren_hub::net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream};
use warren_hub::server::{BaseServer, DatagramServer, Spawn, StreamServer};
use warren_hub::sync::Event;
use warren_hub::{HubGroup, JoinError, Pool, join_all, offload, run, sim, sleep, spawn, yield_now};

const TICK: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(30);

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn echo(stream: TcpStream, _: SocketAddr) {
    let _ = io::copy(&mut &stream, &mut &stream);
}

fn addr(server: &BaseServer) -> SocketAddr {
    server.address().as_ip().unwrap()
}

fn connect(server: &BaseServer) -> TcpStream {
    TcpStream::connect(addr(server)).unwrap()
}

/// Sends a byte and waits for it to come back.
fn ping(mut stream: &TcpStream) {
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

fn until(mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < LONG, "it does not come about");
        sleep(TICK);
    }
}

#[test]
fn connections_are_handled_beside_one_another() {
    run(|| {
        let server = StreamServer::new(listener(), echo);
        assert!(!server.started());
        server.start();
        server.start();
        assert!(server.started());
        let clients: Vec<TcpStream> = (0..20).map(|_| connect(&server)).collect();
        clients.iter().rev().for_each(ping);
        let stats = server.stats();
        assert_eq!((stats.accepted, stats.active, stats.errors), (20, 20, 0));
        drop(clients);
        assert!(server.stop(LONG));
        assert_eq!(server.stats().active, 0);
    });
}

#[test]
fn stopping_waits_and_then_kills() {
    run(|| {
        let server = StreamServer::new(listener(), echo);
        server.start();
        let client = connect(&server);
        ping(&client);
        // The handler ends by itself while the server waits for it.
        spawn(move || {
            sleep(Duration::from_millis(20));
            drop(client);
        });
        assert!(server.stop(LONG));
        let error = TcpStream::connect(addr(&server)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(server.closed() && !server.started());
        assert!(server.stop(LONG), "again, it has nothing to do");

        let server = StreamServer::new(listener(), echo);
        server.start();
        let client = connect(&server);
        ping(&client);
        assert!(!server.stop(Duration::from_millis(5)), "the handler had to be killed");
        assert_eq!((&client).read(&mut [0]).unwrap(), 0, "and its connection is closed");
    });
}

#[test]
fn serving_for_ever_ends_with_a_stop_and_a_kill_takes_all_along() {
    run(|| {
        let server = StreamServer::new(listener(), echo);
        let serving = spawn({
            let server = server.clone();
            move || server.serve_forever()
        });
        until(|| server.started());
        assert!(server.stop(LONG));
        serving.join().unwrap();

        let server = StreamServer::new(listener(), echo);
        let serving = spawn({
            let server = server.clone();
            move || server.serve_forever()
        });
        until(|| server.started());
        let client = connect(&server);
        ping(&client);
        serving.kill();
        assert!(matches!(serving.join(), Err(JoinError::Killed)));
        assert_eq!((&client).read(&mut [0]).unwrap(), 0);
        assert!(server.closed());
    });
}

#[test]
fn a_stop_that_is_killed_has_closed_the_server_all_the_same() {
    run(|| {
        let server = StreamServer::new(listener(), echo);
        let serving = spawn({
            let server = server.clone();
            move || server.serve_forever()
        });
        until(|| server.started());
        let client = connect(&server);
        ping(&client);
        let stopping = spawn({
            let server = server.clone();
            move || server.stop(LONG)
        });
        until(|| server.closed());
        ping(&client);
        stopping.kill();
        assert!(matches!(stopping.join(), Err(JoinError::Killed)));
        serving.join().unwrap();
        ping(&client);
        assert!(!server.stop(TICK), "the handler is still known");
        assert_eq!((&client).read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn a_handler_may_close_the_server_it_serves() {
    run(|| {
        let server = Rc::new(RefCell::new(None::<StreamServer>));
        let made = StreamServer::new(listener(), {
            let server = server.clone();
            move |mut stream: TcpStream, _| {
                server.borrow().as_ref().unwrap().close();
                yield_now();
                stream.write_all(b"bye").unwrap();
            }
        });
        server.replace(Some(made.clone()));
        let serving = spawn({
            let made = made.clone();
            move || made.serve_forever()
        });
        yield_now();
        let client = connect(&made);
        assert_eq!(io::read_to_string(client).unwrap(), "bye");
        serving.join().unwrap();
        until(|| TcpStream::connect(addr(&made)).is_err());
    });
}

/// At most two at once; the third is not even accepted.
fn check_limited_to_two(spawn: Spawn) {
    run(move || {
        let busy = Rc::new(Cell::new(0));
        let server = StreamServer::new(listener(), {
            let busy = busy.clone();
            move |stream, peer| {
                busy.set(busy.get() + 1);
                assert!(busy.get() <= 2);
                echo(stream, peer);
                busy.set(busy.get() - 1);
            }
        })
        .spawn(spawn);
        server.start();
        let clients: Vec<TcpStream> = (0..3).map(|_| connect(&server)).collect();
        ping(&clients[0]);
        ping(&clients[1]);
        (&clients[2]).write_all(b"y").unwrap();
        clients[2].set_read_timeout(Some(Duration::from_millis(20)));
        let error = (&clients[2]).read(&mut [0]).unwrap_err();
        assert_eq!((error.kind(), server.stats().accepted), (io::ErrorKind::TimedOut, 2));
        clients[2].set_read_timeout(None);
        clients[0].shutdown(Shutdown::Write).unwrap();
        (&clients[2]).read_exact(&mut [0]).unwrap();
        drop(clients);
        assert!(server.stop(LONG));
    });
}

#[test]
fn a_limit_pauses_accepting() {
    check_limited_to_two(Spawn::Limited(2));
}

#[test]
fn a_full_pool_pauses_accepting() {
    check_limited_to_two(Spawn::Pool(Pool::new(2)));
}

#[test]
fn handlers_may_run_inline_or_where_they_are_told() {
    run(|| {
        let order = Rc::new(RefCell::new(Vec::new()));
        let server = StreamServer::new(listener(), {
            let order = order.clone();
            move |mut stream: TcpStream, _| {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                order.borrow_mut().push(byte[0]);
                assert!(byte[0] != 2, "a handler that panics does not end the server");
                stream.write_all(&byte).unwrap();
            }
        })
        .spawn(Spawn::Inline);
        server.start();
        let clients: Vec<TcpStream> = (0..4).map(|_| connect(&server)).collect();
        for (n, client) in clients.iter().enumerate().rev() {
            (&*client).write_all(&[n as u8]).unwrap();
        }
        for (n, mut client) in clients.iter().enumerate() {
            assert_eq!(client.read(&mut [0]).unwrap(), usize::from(n != 2));
        }
        assert_eq!(*order.borrow(), [0, 1, 2, 3]);
        assert!(server.stop(LONG));

        // Stopped within a handler, it waits for it, and kills it in the end.
        let server = StreamServer::new(listener(), echo).spawn(Spawn::Inline);
        server.start();
        let client = connect(&server);
        ping(&client);
        assert!(!server.stop(Duration::from_millis(5)));
        assert_eq!((&client).read(&mut [0]).unwrap(), 0);

        let started = Rc::new(Cell::new(0));
        let custom = Spawn::Custom(Rc::new({
            let started = started.clone();
            move |job| {
                started.set(started.get() + 1);
                spawn(job)
            }
        }));
        let server = StreamServer::new(listener(), echo).spawn(custom).max_accept(1);
        server.start();
        let clients: Vec<TcpStream> = (0..3).map(|_| connect(&server)).collect();
        clients.iter().for_each(ping);
        assert_eq!(started.get(), 3);
        assert!(!server.stop(TICK), "they are known, and killed");
    });
}

#[test]
fn a_handler_that_panics_ends_its_connection_only() {
    run(|| {
        let server = StreamServer::new(listener(), |mut stream: TcpStream, _| {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            assert!(byte[0] == b'x', "as this test wants");
            stream.write_all(&byte).unwrap();
        })
        .limit(1);
        server.start();
        for _ in 0..3 {
            let mut client = connect(&server);
            client.write_all(b"!").unwrap();
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
            ping(&connect(&server));
        }
    });
}

#[test]
fn servers_listen_on_paths_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    run(move || {
        let listener = UnixListener::bind(&path).unwrap();
        let server = StreamServer::new(listener, |stream: UnixStream, _| {
            let _ = io::copy(&mut &stream, &mut &stream);
        });
        server.start();
        assert!(server.address().to_string().ends_with("socket"));
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(b"path").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(io::read_to_string(client).unwrap(), "path");
        assert!(server.stop(LONG));
    });
}

#[test]
fn servers_encrypt() {
    run(|| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let acceptor = Acceptor::builder().identity_pem(&chain, &key).build().unwrap();
        let server = StreamServer::tls(listener(), acceptor, |mut stream, _| {
            stream.write_all(b"secret").unwrap();
            stream.close().unwrap();
        });
        server.start();
        // One that does not shake hands holds nobody up.
        let _silent = connect(&server);
        let mut rude = connect(&server);
        rude.write_all(b"hello?\r\n\r\n").unwrap();
        let connector = Connector::builder().roots_pem(&chain).build().unwrap();
        let stream = connector.connect("localhost", connect(&server)).unwrap();
        assert_eq!(io::read_to_string(stream).unwrap(), "secret");
        rude.read_to_end(&mut Vec::new()).unwrap();
        server.stop(TICK);
    });
}

#[test]
fn datagrams_are_handled_and_answered() {
    run(|| {
        let server = DatagramServer::bind("127.0.0.1:0", |datagram| {
            assert!(datagram.data != b"panic", "as this test wants");
            assert!(datagram.socket().local_addr().is_ok());
            datagram.reply(&datagram.data).unwrap();
        })
        .unwrap()
        .limit(10);
        server.start();
        let address = addr(&server);
        let clients = (0..20u8).map(|n| {
            spawn(move || {
                let client = UdpSocket::bind("127.0.0.1:0").unwrap();
                client.send_to(b"panic", address).unwrap();
                let sent = vec![n; 1 + 100 * usize::from(n)];
                client.send_to(&sent, address).unwrap();
                let mut answer = vec![0; 65_536];
                let (count, from) = client.recv_from(&mut answer).unwrap();
                assert_eq!(from, address);
                assert!(answer[..count] == sent);
            })
        });
        for result in join_all(clients) {
            result.unwrap();
        }
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(address).unwrap();
        client.send(&vec![7; 65_507]).unwrap();
        assert_eq!(client.recv(&mut vec![0; 65_536]).unwrap(), 65_507);
        assert_eq!(server.stats().accepted, 41);
        assert!(server.stop(LONG));
        let _ = client.send(b"x");
        assert_eq!(client.recv(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn every_hub_of_a_group_serves_one_address() {
    let group = HubGroup::start(3).unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let servers = StreamServer::on_every_hub(&group, any, || echo).unwrap();
    let address = servers.address();
    run(move || {
        let clients: Vec<TcpStream> =
            (0..120).map(|_| TcpStream::connect(address).unwrap()).collect();
        clients.iter().for_each(ping);
        let accepted: Vec<u64> = servers.stats().iter().map(|stats| stats.accepted).collect();
        assert_eq!(accepted.iter().sum::<u64>(), 120);
        assert!(accepted.iter().all(|count| *count > 0), "each has its share: {accepted:?}");
        drop(clients);
        assert!(servers.stop(LONG));
        assert!(TcpStream::connect(address).is_err());
        assert_eq!(servers.stats().iter().map(|stats| stats.accepted).sum::<u64>(), 0);
    });
    // An address that is taken is an error, and nothing is left of the attempt.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let limited = |listener| StreamServer::new(listener, echo).limit(5);
    assert!(StreamServer::on_every_hub_with(&group, address, limited).is_err());
    drop(taken);
    let servers = StreamServer::on_every_hub_with(&group, address, limited).unwrap();
    assert!(servers.stop(Duration::ZERO));
    group.shutdown();
}

/// Set for the process that has few descriptors.
const CHILD: &str = "WARREN_TEST_FEW_DESCRIPTORS";

#[test]
fn a_server_out_of_descriptors_pauses_and_goes_on() {
    if std::env::var_os(CHILD).is_some() {
        serve_with_few_descriptors();
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_server_out_of_descriptors_pauses_and_goes_on", "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let address = lines.find_map(|line| line.strip_prefix("serving ").map(str::to_owned)).unwrap();
    let log = child.stderr.take().unwrap();
    run(move || {
        // It says so.
        let mut log = BufReader::new(log);
        let paused = spawn(move || {
            offload(move || {
                let mut line = String::new();
                while !line.contains("cannot accept for now") {
                    line.clear();
                    assert!(log.read_line(&mut line).unwrap() > 0, "the log has ended");
                }
                log
            })
        });
        // More than it has descriptors for; the kernel completes the rest.
        let mut served: Vec<TcpStream> = Vec::new();
        let waiting = loop {
            let client = TcpStream::connect(address.as_str()).unwrap();
            client.set_read_timeout(Some(TICK));
            (&client).write_all(b"x").unwrap();
            let mut read = (&client).read(&mut [0]);
            while read.is_err() && !paused.is_finished() {
                read = (&client).read(&mut [0]);
            }
            client.set_read_timeout(Some(LONG));
            match read {
                Ok(count) => assert_eq!(count, 1),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                    break client;
                }
            }
            served.push(client);
            assert!(served.len() < 200, "its descriptors never run out");
        };
        served.iter().for_each(ping);
        let log = paused.join().unwrap();
        // With descriptors free again, whoever waited is served.
        served.truncate(2);
        (&waiting).read_exact(&mut [0]).unwrap();
        ping(&waiting);
        served.iter().for_each(ping);
        child.kill().unwrap();
        child.wait().unwrap();
        // And not without end.
        let rest = offload(move || io::read_to_string(log).unwrap());
        assert!(rest.lines().count() < 50, "pauses grow: {rest}");
    });
}

fn serve_with_few_descriptors() -> ! {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let limits = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(40), ..limits }).unwrap();
    run(|| {
        let server = StreamServer::new(listener(), echo);
        println!("serving {}", addr(&server));
        server.serve_forever();
    });
    std::process::exit(0)
}

#[test]
fn a_server_that_is_forgotten_goes_on() {
    run(|| {
        let ended = Rc::new(Event::new());
        let address = {
            let ended = ended.clone();
            let server = StreamServer::bind("127.0.0.1:0", move |_, _| ended.set()).unwrap();
            server.start();
            addr(&server)
        };
        let _client = TcpStream::connect(address).unwrap();
        ended.wait();
    });
}

#[test]
fn in_any_world_a_limit_holds_and_everyone_is_served() {
    sim::check(0..20, |world| {
        world.net().latency(TICK..=20 * TICK);
        let busy = Rc::new(Cell::new(0));
        let server = world.node("server", {
            let (busy, world) = (busy.clone(), world.clone());
            move || {
                let server = StreamServer::bind("0.0.0.0:80", move |stream, peer| {
                    busy.set(busy.get() + 1);
                    assert!(busy.get() <= 2);
                    sleep(world.random().duration(TICK..=50 * TICK));
                    echo(stream, peer);
                    busy.set(busy.get() - 1);
                });
                let server = server.unwrap().limit(2);
                server.start();
                sleep(Duration::from_secs(20));
                assert_eq!(server.stats().accepted, 15);
                assert!(server.stop(Duration::from_secs(1)));
                // The node goes on for a while, and refuses.
                sleep(Duration::from_secs(20));
            }
        });
        let clients: Vec<_> = (0..5)
            .map(|client| {
                world.node(&format!("client {client}"), || {
                    for _ in 0..3 {
                        let mut stream = TcpStream::connect(("server", 80)).unwrap();
                        stream.write_all(b"hello").unwrap();
                        stream.shutdown(Shutdown::Write).unwrap();
                        assert_eq!(io::read_to_string(stream).unwrap(), "hello");
                    }
                })
            })
            .collect();
        clients.iter().for_each(|client| client.join());
        assert_eq!(busy.get(), 0);
        sleep(Duration::from_secs(25));
        let error = TcpStream::connect(("server", 80)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        server.join();
    });
}
